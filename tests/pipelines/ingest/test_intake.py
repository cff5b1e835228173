"""What a feed can send that is no good message ends in the quarantine, and nothing else breaks."""

from __future__ import annotations

import base64
import random

import pytest

from pipelines import codec
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


def test_good_trade_after_one_with_its_id_and_no_number_is_stored():
    intake, stored = _taken([{**TRADE, "p": float("nan")}], [dict(TRADE)])
    assert (intake.malformed, intake.duplicates) == (1, 0)
    assert [m["p"] for m in stored if m["T"] == "t"] == [1.0]
