from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, SECOND_NS, Message, effective_ns
from pipelines.exchange.fakepaca import TestStream

START = 28_000_000 * MINUTE_NS


def _stream(interval_s: float = 1.0) -> TestStream:
    return TestStream(seed=7, interval_s=interval_s, now_ns=START)


def _messages(stream: TestStream, *moments: int) -> list[Message]:
    batches = [stream.due(START + ns) for ns in moments]
    return [orjson.loads(text) for batch in batches if batch for text in batch.json()]


def test_test_stream_of_two_minutes_has_quotes_trades_and_bars_of_its_trades() -> None:
    got = _messages(_stream(), 2 * MINUTE_NS)
    assert len([m for m in got if m["T"] == "q"]) == 120
    trades = [m for m in got if m["T"] == "t"]
    assert len(trades) == 60
    second = [m for m in got if m["T"] == "b"][-1]
    inside = [m for m in trades if str(m["t"])[:16] == str(second["t"])[:16]]
    prices = [m["p"] for m in inside]
    assert (second["o"], second["c"]) == (prices[0], prices[-1])
    assert (second["h"], second["l"], second["n"]) == (max(prices), min(prices), len(prices))
    assert second["v"] == sum(m["s"] for m in inside)


@given(st.lists(st.integers(0, 300 * SECOND_NS), min_size=1, max_size=8))
def test_test_stream_is_the_same_however_often_it_is_asked(moments: list[int]) -> None:
    end = max(moments)
    pieces = _messages(_stream(), *sorted(moments))
    assert pieces == _messages(_stream(), end)
    times = [effective_ns(m) for m in pieces]
    assert times == sorted(times)


def test_test_stream_after_a_long_pause_makes_up_for_a_bounded_part() -> None:
    assert len(_messages(_stream(), 10_000 * MINUTE_NS)) < 1000
