"""Running statistics: against numpy and pandas, over sessions and over any cut."""

from __future__ import annotations

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import DAY_NS, MINUTE_NS, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.streaming.stats import MAX_BUCKET, PriceStats, SlidingAverages

T0 = parse_time_ns("2024-07-01T13:30:00Z")
PRICES = st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=60)


def _through(stats: PriceStats | SlidingAverages) -> PriceStats | SlidingAverages:
    again = type(stats)()
    again.restore(orjson.loads(orjson.dumps(stats.state())))
    return again


@settings(max_examples=60, deadline=None)
@given(PRICES, st.integers(0, 60))
def test_price_stats_cut_anywhere_equal_numpy(prices, cut):
    stats = PriceStats()
    for i, price in enumerate(prices):
        stats = _through(stats) if i == cut else stats
        stats.trade(T0 + i, price)
    seen = stats.data()
    assert (seen["count"], seen["min"], seen["max"]) == (len(prices), min(prices), max(prices))
    assert seen["mean"] == pytest.approx(np.mean(prices))
    assert seen["variance"] == pytest.approx(np.var(prices), abs=1e-9)
    assert seen["std"] == pytest.approx(np.std(prices), abs=1e-4)
    assert sum(seen["buckets"]["counts"].values()) == len(prices)


def test_price_stats_of_the_next_session_begin_anew_and_never_go_back():
    stats = PriceStats()
    stats.trade(T0, 10.0)
    stats.trade(T0 + DAY_NS, 20.0)
    stats.trade(T0, 30.0)
    seen = stats.data()
    assert (seen["count"], seen["mean"], seen["session"]) == (1, 20.0, "2024-07-02T04:00:00Z")
    assert seen["buckets"]["base"] == 20.0


def test_price_stats_far_away_stay_in_the_last_ranges():
    stats = PriceStats()
    for i in range(1, 2000):
        stats.trade(T0, float(i))
    counts = stats.data()["buckets"]["counts"]
    assert list(counts) == ["0", str(MAX_BUCKET)]  # the first price was 1, then 2 and more
    assert len(orjson.dumps(_through(stats).state())) < 500


def test_price_stats_of_nothing_are_none():
    seen = _through(PriceStats()).data()
    assert seen["count"] == 0
    assert {seen[k] for k in ("min", "max", "mean", "variance", "std", "session")} == {None}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 40))
def test_sliding_averages_cut_anywhere_equal_pandas(steps, cut):
    minutes = np.cumsum(steps)
    close, volume = 10.0 + minutes % 7, (minutes % 5).astype(float)
    averages = SlidingAverages()
    got = []
    for i, minute in enumerate(minutes.tolist()):
        averages = _through(averages) if i == cut else averages
        c = float(close[i])
        averages.push(ClosedBar(minute * MINUTE_NS, c, c, c, c, float(volume[i])))
        got.append(averages.data())
    table = pd.DataFrame({"close": close, "volume": volume, "paid": close * volume})
    table.index = pd.to_datetime(minutes * 60, unit="s")
    for name, span in (("5m", 5), ("15m", 15), ("1h", 60)):
        over = table.rolling(f"{span}min")
        np.testing.assert_allclose([row[name]["mean"] for row in got], over["close"].mean())
        np.testing.assert_allclose([row[name]["volume"] for row in got], over["volume"].sum())
        assert [row[name]["bars"] for row in got] == over["close"].count().tolist()
        vwap = (over["paid"].sum() / over["volume"].sum().replace(0, np.nan)).tolist()
        ours = [np.nan if row[name]["vwap"] is None else row[name]["vwap"] for row in got]
        np.testing.assert_allclose(ours, vwap, rtol=1e-9)
