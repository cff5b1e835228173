"""From bars to markets: order, splits, and no look-ahead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, format_time_ns
from pipelines.features.spec import SPECS, FeatureSpec
from pipelines.lake.query import LakeQuery
from rl.episodes import Bars, Market, NotEnoughData, features_of, from_bars, from_lake, market_of

T0 = 1_700_000_040_000_000_000


def random_bars(n: int, *, seed: int = 0, symbol: str = "AAPL") -> Bars:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    opens = close * np.exp(rng.normal(0, 1e-4, n))
    return Bars(
        symbol=symbol,
        time_ns=T0 + np.arange(n, dtype=np.int64) * MINUTE_NS,
        open=opens,
        high=np.maximum(opens, close) * 1.0005,
        low=np.minimum(opens, close) * 0.9995,
        close=close,
        volume=rng.integers(100, 10_000, n).astype(float),
        spread_bps=rng.uniform(0.5, 3, n),
    )


def as_alpaca(bars: Bars) -> list[dict]:
    return [
        {"t": format_time_ns(int(t)), "o": o, "h": h, "l": low, "c": c, "v": v}
        for t, o, h, low, c, v in zip(
            bars.time_ns, bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True
        )
    ]


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
@settings(max_examples=25, deadline=None)
@given(row=st.integers(61, 139), seed=st.integers(0, 1_000))
def test_features_with_a_changed_future_are_the_same_up_to_now(
    spec: FeatureSpec, row: int, seed: int
) -> None:
    bars = random_bars(140)
    factor = np.where(np.arange(140) > row, np.random.default_rng(seed).uniform(0.5, 2.0, 140), 1.0)
    changed = replace(
        bars,
        **{k: getattr(bars, k) * factor for k in ("open", "high", "low", "close", "volume")},
    )
    now = slice(0, row + 1)
    before, after = (features_of(b, spec=spec)[now] for b in (bars, changed))
    np.testing.assert_array_equal(before, after)


def test_from_bars_in_any_order_and_twice_gives_the_same_market() -> None:
    rows = as_alpaca(random_bars(100))
    market = from_bars({"AAPL": rows})
    shuffled = from_bars({"AAPL": [*rows[50:], *rows]})
    np.testing.assert_array_equal(market.features, shuffled.features)
    assert len(market) == 100
    assert market.segments() == [("AAPL", 59, 100)]


def test_from_bars_takes_the_assumed_spread() -> None:
    market = from_bars({"AAPL": as_alpaca(random_bars(70))}, assumed_spread_bps=4.0)
    assert set(market.spread_bps) == {4.0}
    assert market.features[-1, 10] == 4.0


def test_from_bars_without_bars_is_refused() -> None:
    with pytest.raises(NotEnoughData):
        from_bars({"AAPL": []})


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan")])
def test_bars_with_an_impossible_price_are_refused(price: float) -> None:
    rows = as_alpaca(random_bars(70))
    rows[5]["c"] = price
    with pytest.raises(ValueError, match="AAPL"):
        from_bars({"AAPL": rows})


def test_from_lake_without_tables_has_not_enough_data(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData):
        from_lake(LakeQuery(str(tmp_path)), ["AAPL"], limit=100)


@given(st.integers(1, 60))
def test_starts_leave_room_for_the_whole_episode(length: int) -> None:
    market = market_of([random_bars(130), random_bars(125, symbol="SPY")])
    warm = market.warm
    for start in market.starts(length):
        assert warm[start : start + length + 1].all()
        assert len(warm[start : start + length + 1]) == length + 1
        assert not start < 130 <= start + length  # never from one symbol into the next


def test_split_keeps_validation_later_than_training_by_the_purge() -> None:
    market = market_of([random_bars(700), random_bars(600, symbol="SPY")])
    train, validation = market.split(validation_fraction=0.25, purge_bars=60)
    assert validation.time_ns.min() - train.time_ns.max() == 61 * MINUTE_NS
    assert {len(m.symbols) for m in (train, validation)} == {2}
    np.testing.assert_array_equal(train.bounds, [0, 525, 1050])


def test_split_of_too_few_bars_is_refused() -> None:
    with pytest.raises(NotEnoughData):
        market_of([random_bars(100)]).split(validation_fraction=0.2, purge_bars=60)


def test_where_keeps_each_symbols_rows_together(market: Market) -> None:
    later = market.where(market.time_ns >= market.time_ns[300])
    assert list(np.diff(later.bounds)) == [100, 100, 100]
    np.testing.assert_array_equal(later.close[:100], market.close[300:400])


def test_from_bars_of_real_minutes_is_warm_after_sixty(shared_data: Path) -> None:
    rows = pq.read_table(shared_data / "bars_1min_spy_2011_01.parquet").to_pylist()[:500]
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    time_key = next(k for k in rows[0] if "time" in k)
    history = [
        {"t": int(r[time_key].timestamp()) * 10**9, **{v: r[k] for k, v in names.items()}}
        for r in rows
    ]
    market = from_bars({"SPY": history})
    assert market.segments() == [("SPY", 59, len(market))]
