"""Roll-ups: against pandas' resample, over any cut, and each rule by example."""

from __future__ import annotations

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.rollup import WINDOWS, Rolled, RollUp, window_end_ns

T0 = parse_time_ns("2024-07-05T13:30:00Z")


def _bar(minute: int, price: float = 10.0, volume: float = 5.0, **more) -> ClosedBar:
    at = T0 + minute * MINUTE_NS
    return ClosedBar(at, price, price + 1, price - 1, price + 0.5, volume, 2, price, **more)


@st.composite
def _minutes(draw) -> list[ClosedBar]:
    """Minutes of up to some days, with holes."""
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 7, 50, 400]), min_size=1, max_size=60))
    prices = draw(st.lists(st.integers(5, 20), min_size=len(steps), max_size=len(steps)))
    at, bars = 0, []
    for step, price in zip(steps, prices, strict=True):
        at += step
        bars.append(_bar(at, float(price), volume=float(price % 7)))
    return bars


def _resampled(bars: list[ClosedBar], window: str) -> dict[int, tuple[float, ...]]:
    table = pd.DataFrame([bar.data() for bar in bars])
    table.index = pd.to_datetime([bar.start_ns for bar in bars], utc=True)
    table["paid"] = table["vwap"] * table["volume"]
    if window == "1d":
        table.index = table.index.tz_convert("America/New_York")
    how = {
        "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
        "trade_count": "sum", "paid": "sum",
    }  # fmt: skip
    rule = {"5m": "5min", "15m": "15min", "1h": "1h", "1d": "1D"}[window]
    found = table.resample(rule).agg(how).dropna(subset=["open"])
    return {int(at.value): tuple(row) for at, row in zip(found.index, found.values, strict=True)}


def _numbers(rolled: Rolled) -> tuple[float, ...]:
    bar = rolled.bar
    paid = 0.0 if bar.vwap is None else bar.vwap * bar.volume
    return (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trade_count, paid)


@settings(max_examples=60, deadline=None)
@given(_minutes(), st.integers(0, 60))
def test_rolled_bars_cut_anywhere_equal_pandas_resample(bars, cut):
    roll, got = RollUp(), []
    for i, bar in enumerate(bars):
        if i == cut:
            state, roll = orjson.loads(orjson.dumps(roll.state())), RollUp()
            roll.restore(state)
        got += roll.push(bar)
    got += roll.idle(window_end_ns(bars[-1].start_ns, "1d") + 3600 * MINUTE_NS)
    for window in WINDOWS:
        rolled = {r.bar.start_ns: r for r in got if r.window == window}
        expected = _resampled(bars, window)
        assert {at: _numbers(r) for at, r in rolled.items()} == {
            at: pytest.approx(row) for at, row in expected.items()
        }
        assert len(rolled) == sum(r.window == window for r in got)  # each once
        assert all(r.revision == 0 for r in rolled.values())


def test_window_closes_with_its_last_minute():
    roll = RollUp()
    closed = [(m, r.window) for m in range(30) for r in roll.push(_bar(m))]
    assert [m for m, window in closed if window == "15m"] == [14, 29]
    assert [m for m, window in closed if window == "1h"] == [29]  # 14:00


def test_window_without_its_last_minutes_closes_with_the_next_or_with_time():
    roll = RollUp()
    assert roll.push(_bar(0)) == []
    assert roll.due_ns == T0 + 5 * MINUTE_NS
    (five,) = roll.push(_bar(7))
    assert (five.window, five.bar.start_ns) == ("5m", T0)
    assert roll.idle(T0 + 10 * MINUTE_NS - 1) == []
    (idle,) = roll.idle(T0 + 10 * MINUTE_NS)
    assert (idle.window, idle.bar.start_ns) == ("5m", T0 + 5 * MINUTE_NS)
    assert roll.idle(T0 + 10 * MINUTE_NS) == []


def test_minute_after_its_window_closed_makes_the_next_revision():
    roll = RollUp()
    roll.push(_bar(0))
    (first,) = roll.idle(T0 + 5 * MINUTE_NS)
    (second,) = roll.push(_bar(4, 20.0))
    assert (first.revision, second.revision) == (0, 1)
    assert (second.bar.close, second.bar.volume) == (20.5, 10.0)
    assert second.data()["bar"]["window"] == "5m"


def test_window_with_one_minute_from_trades_says_so():
    roll = RollUp()
    minutes = [_bar(m, source="trades" if m == 2 else "vendor") for m in range(15)]
    closed = [r for bar in minutes for r in roll.push(bar) if r.window == "5m"]
    assert [r.bar.source for r in closed] == ["trades", "vendor", "vendor"]


def test_window_without_volume_has_no_average_price():
    roll = RollUp()
    (closed,) = [r for m in range(5) for r in roll.push(_bar(m, volume=0.0))]
    assert closed.bar.vwap is None
