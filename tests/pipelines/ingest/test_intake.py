"""What a feed can send that is no good message ends in the quarantine, and nothing else breaks."""

from __future__ import annotations

import base64
import random

import msgpack
import pytest

from pipelines import codec
from pipelines.events import bucket_of
from pipelines.ingest import meter
from pipelines.ingest.alpaca_protocol import AlpacaProtocol, Credentials, Malformed
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.kinesis.batching import Batcher

NOW_NS = 1_704_207_600_000_000_000
TRADE = {"T": "t", "S": "SPY", "i": 1, "x": "V", "t": "2024-01-02T15:00:00Z", "p": 1.0, "s": 1}


def _taken(*frames):
    tracker = GapTracker()
    batcher = Batcher(
        epoch="e", sealer=tracker, linger_s=0.04, max_messages=10, max_bytes=900_000,
        rng=random.Random(1),
    )  # fmt: skip
    intake = Intake(batcher, tracker)
    for frame in frames:
        intake.take(frame, received_ns=NOW_NS)
    puts = batcher.next_puts(0.0, wall_ns=NOW_NS, market_ns=NOW_NS, flush=True)
    stored = [m for put in puts for m in codec.decode_record(put.data).messages]
    return intake, stored


def test_symbol_that_utf_8_cannot_carry_is_quarantined_alone():
    frame = codec.encode_json_frame([{**TRADE, "S": "half"}, TRADE]).replace(b"half", b"\\ud800")
    _, stored = _taken(codec.decode_json_frame(frame))
    assert sorted(m.get("reason", m["T"]) for m in stored) == ["bad_symbol", "t"]


@pytest.mark.parametrize("odd", [b"\xff", "\ud83d", 1 << 70])
def test_repeat_with_a_value_that_json_cannot_hold_is_quarantined(odd):
    intake, stored = _taken([{**TRADE, "odd": odd}], [{**TRADE, "odd": odd}])
    assert intake.duplicates == 1
    (repeat,) = (m for m in stored if m.get("reason") == "duplicate_trade")
    assert b"odd" in base64.b64decode(repeat["raw"])


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    "odd", [{**TRADE, "T": "s"}, TRADE, {"T": "n", "symbols": ["SPY"], "t": TRADE["t"]}]
)
def test_message_with_a_key_of_bytes_is_quarantined_and_the_rest_kept(odd, interrupted):
    frame = codec.decode_msgpack_frame(msgpack.packb([{**odd, b"k": "v"}, TRADE]))
    intake, _ = _taken()
    if interrupted:
        intake._tracker.interrupted(["SPY"], reason="lost")
    intake.take(frame, received_ns=NOW_NS)
    puts = intake._batcher.next_puts(9.0, wall_ns=NOW_NS, market_ns=NOW_NS, flush=True)
    stored = [m for put in puts for m in codec.decode_record(put.data).messages]
    assert sorted(m["T"] for m in stored if m["T"] != "gap") == ["bad", "t"]
    (bad,) = (m for m in stored if m["T"] == "bad")
    assert bad["reason"].startswith("bad_key")
    assert b"b'k'" in base64.b64decode(bad["raw"])


def test_good_trade_after_one_with_its_id_and_no_number_is_stored():
    intake, stored = _taken([{**TRADE, "p": float("nan")}], [dict(TRADE)])
    assert (intake.malformed, intake.duplicates) == (1, 0)
    assert [m["p"] for m in stored if m["T"] == "t"] == [1.0]


def test_foreign_mark_of_a_backfilled_message_is_dropped():
    """``bf`` is ours; a feed that invents it must break nothing, and hide nothing."""
    news = {"T": "n", "id": 1, "symbols": ["SPY"], "updated_at": "2024-01-02T15:00:00Z"}
    intake, stored = _taken([{**TRADE, "bf": True}, {**news, "bf": 1}])
    intake._tracker.interrupted(["SPY"], reason="lost")
    intake.take([{**TRADE, "i": 2, "bf": True}], received_ns=NOW_NS)
    stored += intake._batcher.queue(bucket_of("SPY"))
    assert sorted(m["T"] for m in stored) == ["gap", "n", "t", "t"]
    assert not any("bf" in m for m in stored)


@pytest.mark.parametrize("depth", [300, 980, 1500, 100_000])
@pytest.mark.parametrize("where", ["frame", "trade", "status", "news"])
def test_json_nested_deep_is_quarantined_and_the_rest_kept(depth, where):
    deep = "[" * depth + "]" * depth
    odd = {
        "frame": deep,
        "trade": f'{{"T":"t","S":"SPY","t":"2024-01-02T15:00:00Z","p":1,"s":1,"x":{deep}}}',
        "status": f'{{"T":"s","S":"SPY","t":"2024-01-02T15:00:00Z","sc":{deep}}}',
        "news": f'{{"T":"n","symbols":["SPY"],"updated_at":"2024-01-02T15:00:00Z","x":{deep}}}',
    }[where]
    good = codec.encode_json(TRADE).decode()
    _nested(f"[{odd},{odd},{good}]".encode(), text=True)


@pytest.mark.parametrize("depth", [300, 980, 1500, 100_000])
def test_msgpack_nested_deep_is_quarantined_and_the_rest_kept(depth):
    deep = b"\x91" * depth + b"\x01"
    odd = b"\x83\xa1T\xa1s\xa1S\xa3SPY\xa1x" + deep
    _nested(b"\x93" + odd + odd + msgpack.packb(TRADE), text=False)


def _nested(frame, *, text):
    session = AlpacaProtocol(Credentials("k", "s"), {}, binary=not text)
    (event,) = session.receive(frame, text=text)
    if isinstance(event, Malformed):
        assert event.raw == frame
        return
    _, stored = _taken(event.messages)
    assert [m["T"] for m in stored if m["T"] != "bad"][-1:] == ["t"]
    assert len(stored) == 3
    meter.count(event.messages)


def test_heartbeats_of_a_stream_that_takes_nothing_are_one_message_a_bucket():
    intake, _ = _taken()
    intake.use(["SPY", "AAPL"])
    for n in range(1000):
        intake.heartbeat(wall_ns=NOW_NS + n)
    intake.take([dict(TRADE)], received_ns=NOW_NS)
    intake.heartbeat(wall_ns=NOW_NS + 1000)
    queue = intake._batcher.queue
    assert [m["T"] for m in queue(bucket_of("SPY"))] == ["hb", "t", "hb"]
    assert [m["market_ns"] for m in queue(bucket_of("AAPL"))] == [NOW_NS + 1000]
