"""The indicators: bar by bar and at once, at every bar as TA-Lib (or pandas) over all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.features.indicators import NAMES, Indicators, batch, row_at
from tests import talib_oracle

BARS = 2500
SESSION = 390


def _walk(n: int = BARS) -> pd.DataFrame:
    """Minutes of regular sessions, with quiet ones among them."""
    rng = np.random.default_rng(5)
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 1e-3, n) * (rng.random(n) < 0.8))), 2)
    spread = np.round(rng.random((2, n)) / 10, 2)
    minute = np.arange(n)
    at = pd.Timestamp("2024-07-01T13:30:00Z") + pd.to_timedelta(
        minute // SESSION * 1440 + minute % SESSION, unit="min"
    )
    return pd.DataFrame(
        {
            "at": at,
            "open": close,
            "high": close + spread[0],
            "low": close - spread[1],
            "close": close,
            "volume": rng.integers(1, 1000, n).astype(float),
        }
    )


def _bars(table: pd.DataFrame) -> list[ClosedBar]:
    starts = table["at"].dt.as_unit("ns").astype("int64")
    columns = (table[name] for name in ("open", "high", "low", "close", "volume"))
    return [ClosedBar(*row) for row in zip(starts, *columns, strict=True)]


def _stream(bars: list[ClosedBar], *, cut: int = -1) -> dict[str, np.ndarray]:
    builder, one = FeatureBuilder(), Indicators()
    rows = []
    for i, bar in enumerate(bars):
        if i == cut:
            state, one = orjson.loads(orjson.dumps(one.state())), Indicators()
            one.restore(state)
        row = builder.update(bar)
        rows.append(one.update(bar, closes=builder.closes, row=row))
    assert all(tuple(row) == NAMES for row in rows)
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows])
        for name in NAMES
    }


def _batch(table: pd.DataFrame) -> dict[str, np.ndarray]:
    starts = table["at"].dt.as_unit("ns").astype("int64")
    return batch(start_ns=starts, **{k: table[k] for k in ("high", "low", "close", "volume")})


def _equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in NAMES:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=1e-9, atol=1e-9, equal_nan=True, err_msg=name
        )


@pytest.fixture
def spy(shared_data: Path) -> pd.DataFrame:
    table = pq.read_table(shared_data / "bars_1min_spy_2011_01.parquet").slice(0, BARS)
    return table.to_pandas().rename(columns={"timestamp": "at"})


def test_streaming_on_real_minutes_equals_talib_at_every_bar(spy):
    _equal(_stream(_bars(spy)), talib_oracle.indicators(spy))


def test_batch_on_real_minutes_equals_talib_at_every_bar(spy):
    _equal(_batch(spy), talib_oracle.indicators(spy))


def test_streaming_on_a_walk_with_quiet_minutes_equals_talib_and_batch():
    table = _walk()
    got = _stream(_bars(table), cut=700)
    _equal(got, talib_oracle.indicators(table))
    _equal(got, _batch(table))


def test_vwap_and_obv_restart_with_the_session():
    table = _walk(SESSION + 1)
    got = _stream(_bars(table))
    last = table.iloc[-1]
    assert got["obv"][-1] == last["volume"]
    assert got["vwap"][-1] == pytest.approx((last["high"] + last["low"] + last["close"]) / 3)


def test_vwap_takes_the_bars_own_price_and_is_none_without_volume():
    builder, one = FeatureBuilder(), Indicators()
    found = []
    for minute, (volume, vwap) in enumerate([(0.0, None), (10.0, 7.5)]):
        bar = ClosedBar(minute * MINUTE_NS, 8, 9, 7, 8, volume, vwap=vwap)
        row = builder.update(bar)
        found.append(one.update(bar, closes=builder.closes, row=row)["vwap"])
    assert found == [None, 7.5]


def test_batch_with_changed_future_keeps_the_past():
    table = _walk(300)
    before = _batch(table)
    table.loc[200:, ["high", "low", "close", "volume"]] *= 3
    after = _batch(table)
    for name in NAMES:
        np.testing.assert_array_equal(before[name][:200], after[name][:200])


def test_row_at_gives_none_where_too_few_bars_came():
    columns = _batch(_walk(30))
    row = row_at(columns, 19)
    assert row["sma_50"] is None
    assert row["sma_20"] == pytest.approx(float(columns["sma_20"][19]))
    assert batch(start_ns=[], high=[], low=[], close=[], volume=[])["vwap"].shape == (0,)
