from __future__ import annotations

from datetime import date
from pathlib import Path

import msgpack
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.codec import decode_json_frame, decode_msgpack_frame
from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, Message, effective_ns, reject_reason
from pipelines.exchange.frames import Batch, json_frame, packed_frame
from pipelines.exchange.latest import Latest
from pipelines.exchange.market import remaining
from pipelines.exchange.playback import Playback
from pipelines.exchange.state import PlayedMinutes
from pipelines.exchange.synthetic import SyntheticMarket

MARKET = SyntheticMarket(
    ("AAPL", "MSFT", "SPY"), seed=7, start_date=date(2024, 7, 2), trades_per_minute=10
)
FIRST = MARKET.playable()[0]


def _playback(sessions: tuple[tuple[int, int], ...], **more: object) -> Playback:
    return Playback(MARKET, sessions, seed=7, messages_per_minute=30, **more)  # type: ignore[arg-type]


def _all(playback: Playback, now_ns: int = 2**62, limit: int = 2000) -> list[Message]:
    out: list[Message] = []
    while (batch := playback.due(now_ns, limit=limit)) is not None:
        out += [orjson.loads(text) for text in batch.json()]
    return out


def _minutes(n: int) -> tuple[tuple[int, int], ...]:
    return remaining(MARKET.playable(), after_ns=None, max_minutes=n)


def test_playback_order_is_ticks_in_time_then_the_bars_of_the_minute() -> None:
    messages = _all(_playback(_minutes(3)))
    times = [effective_ns(m) for m in messages]
    assert times == sorted(times)
    ticks = [m["t"] for m in messages if m["T"] != "b"]
    assert len(set(ticks)) == len(ticks)
    bars = [m["S"] for m in messages if m["T"] == "b"]
    assert bars == ["AAPL", "MSFT", "SPY"] * 3
    assert messages[-1]["T"] == "b"


def test_playback_bars_agree_with_their_trades() -> None:
    for bar in (messages := _all(_playback(_minutes(3)))):
        if bar["T"] != "b":
            continue
        start = effective_ns(bar) - MINUTE_NS
        trades = [
            m for m in messages
            if m["T"] == "t" and m["S"] == bar["S"] and 0 < effective_ns(m) - start < MINUTE_NS
        ]  # fmt: skip
        prices = [t["p"] for t in trades if "I" not in t["c"]]  # odd lots make no price
        assert [prices[0], max(prices), min(prices), prices[-1]] == [bar[k] for k in "ohlc"]
        assert sum(t["s"] for t in trades) == bar["v"]
        assert len(trades) == bar["n"]
        assert sum(t["s"] * t["p"] for t in trades) / bar["v"] == pytest.approx(bar["vw"], abs=1e-6)
        assert len({t["i"] for t in trades}) == len(trades)


def test_playback_marks_small_trades_alone_as_odd_lots() -> None:
    market = SyntheticMarket(("COST", "NFLX"), seed=7, start_date=date(2024, 7, 2))
    minutes = remaining(market.playable(), after_ns=None, max_minutes=10)
    playback = Playback(market, minutes, seed=7, messages_per_minute=120)
    trades = [m for m in _all(playback) if m["T"] == "t"]
    odd = [t for t in trades if "I" in t["c"]]
    assert odd
    assert all(t["s"] < 100 for t in odd)


def test_playback_messages_are_never_quarantined() -> None:
    for m in _all(_playback(_minutes(2))):
        assert reject_reason(m, market_ns=FIRST[0] + 2 * MINUTE_NS) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * MINUTE_NS), max_size=30), st.integers(1, 50))
def test_playback_however_it_is_asked_hands_out_the_same(turns: list[int], limit: int) -> None:
    playback, out = _playback(_minutes(2)), []
    for turn in sorted(turns):
        now = FIRST[0] + turn
        part = _all(playback, now, limit)
        assert all(effective_ns(m) <= now for m in part)
        out += part
    out += _all(playback, limit=limit)
    assert playback.finished
    assert out == _all(_playback(_minutes(2)))


def test_playback_nothing_due_before_its_time() -> None:
    assert _playback(_minutes(1)).due(FIRST[0] - 1) is None


def test_playback_minute_is_written_down_before_its_first_message(tmp_path: Path) -> None:
    played = PlayedMinutes(tmp_path / "state.json")
    playback = _playback(_minutes(2), before_minute=lambda ns: played.begin("m", ns))
    playback.due(FIRST[0] + MINUTE_NS // 2)
    assert PlayedMinutes(tmp_path / "state.json").last("m") == FIRST[0]


def test_playback_restart_goes_on_at_the_next_minute(tmp_path: Path) -> None:
    played = PlayedMinutes(tmp_path / "state.json")
    first = _playback(_minutes(4), before_minute=lambda ns: played.begin("m", ns))
    before = _all(first, FIRST[0] + MINUTE_NS + MINUTE_NS // 2)
    after_ns = PlayedMinutes(tmp_path / "state.json").last("m")
    after = _all(_playback(remaining(_minutes(4), after_ns=after_ns)))
    seen = [(m["T"], m["S"], m["t"]) for m in before + after]
    assert len(set(seen)) == len(seen)
    assert min(effective_ns(m) for m in after) > FIRST[0] + 2 * MINUTE_NS
    whole = _all(_playback(_minutes(4)))
    assert after == [m for m in whole if effective_ns(m) > FIRST[0] + 2 * MINUTE_NS]


def test_state_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[1]")
    with pytest.raises(ConfigError, match="state_path"):
        PlayedMinutes(tmp_path / "state.json")


def test_batch_both_codecs_carry_the_same() -> None:
    playback = _playback(_minutes(1))
    batch = playback.due(2**62)
    assert batch is not None
    packed = packed_frame(batch.packed())
    text = json_frame(batch.json())
    assert decode_msgpack_frame(packed) == decode_json_frame(text)
    assert batch.json()[0].startswith(b'{"T":')
    assert batch.packed()[0][1:3] == b"\xa1T"


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_packed_frame_of_any_size_is_an_array(count: int) -> None:
    assert msgpack.unpackb(packed_frame([b"\x07"] * count)) == [7] * count


def test_latest_message_is_dated_whatever_it_was_encoded_as() -> None:
    playback, latest = _playback(_minutes(1)), Latest()
    batch = playback.due(2**62)
    assert batch is not None
    batch.packed()
    latest.update(batch)
    expected = {key: orjson.loads(text) for key, text in zip(batch.keys, batch.json(), strict=True)}
    batch.packed()
    assert dict(latest.items()) == expected
    assert latest.get(("quotes", "NOPE")) is None


def test_batch_injected_keeps_what_it_is_given() -> None:
    odd = [
        {"T": "zz", "t": "not a time"},
        {"T": "t", "S": "A", "p": -1.0, "t": "2024-07-02T14:00:00Z"},
    ]
    batch = Batch.injected(odd)
    assert decode_msgpack_frame(packed_frame(batch.packed())) == odd
    assert decode_json_frame(json_frame(batch.json())) == odd
    assert batch.keys == [("", ""), ("trades", "A")]


def test_batch_frames_are_shared_split_and_filtered() -> None:
    batch = Batch.injected([{"T": "t", "S": s} for s in "ABABA"])
    everything = batch.frames("json", batch.audience, size=2)
    assert [f.count for f in everything] == [2, 2, 1]
    assert batch.frames("json", batch.audience, size=2) is everything
    only = batch.frames("json", frozenset({("trades", "B")}), size=10)
    assert [decode_json_frame(f.payload) for f in only] == [[{"T": "t", "S": "B"}] * 2]
