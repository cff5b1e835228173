"""The features: by bar and at once, against TA-Lib, on real minutes and on nasty ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import ASSUMED_SPREAD_BPS, FeatureBuilder, FeatureRow, batch
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, SPECS, WINDOW
from tests import talib_oracle

NAMES = FEATURE_SPEC.names


def _bars(close, volume, spread=None):
    spread = [None] * len(close) if spread is None else spread
    return [
        ClosedBar(i * MINUTE_NS, c, c, c, c, v, spread_bps=s)
        for i, (c, v, s) in enumerate(zip(close, volume, spread, strict=True))
    ]


def _matrix(rows: list[FeatureRow]) -> np.ndarray:
    return np.array([[np.nan if x is None else x for x in row.values] for row in rows])


@pytest.fixture
def spy(shared_data: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(shared_data / "bars_1min_spy_2011_01.parquet").slice(0, 4000)
    return {name: table[name].to_numpy().astype(float) for name in ("close", "volume")}


def test_streaming_on_real_minutes_equals_batch(spy):
    rng = np.random.default_rng(1)
    spread = np.where(rng.random(len(spy["close"])) < 0.2, np.nan, rng.random(len(spy["close"])))
    bars = _bars(spy["close"], spy["volume"], [None if np.isnan(s) else float(s) for s in spread])
    builder = FeatureBuilder()
    rows = [builder.update(bar) for bar in bars]
    expected = batch(**spy, spread_bps=spread)
    np.testing.assert_allclose(_matrix(rows), expected, rtol=0, atol=1e-9, equal_nan=True)
    assert [row.spread_assumed for row in rows] == list(np.isnan(spread))
    assert [row.warm for row in rows].index(True) == FEATURE_SPEC.warm_bars - 1 == 59


def test_batch_on_real_minutes_equals_plain_talib(spy):
    expected = talib_oracle.features(spy["close"], spy["volume"])
    expected["spread_bps"] = np.full(len(spy["close"]), ASSUMED_SPREAD_BPS)
    got = batch(**spy)
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(got[:, i], expected[name], rtol=0, atol=1e-9, err_msg=name)


def test_volatility_uses_population_deviation(spy):
    window = np.diff(np.log(spy["close"][:21]))
    got = batch(**spy)[20, NAMES.index("volatility_20")]
    assert got == pytest.approx(window.std(ddof=0), abs=1e-12)


def test_window_after_many_bars_stays_bounded_and_exact():
    rng = np.random.default_rng(3)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 1e-3, 5 * WINDOW)))
    volume = rng.integers(0, 1000, len(close)).astype(float)
    builder = FeatureBuilder()
    rows = [builder.update(bar) for bar in _bars(close, volume)]
    assert len(builder) == WINDOW
    assert len(builder.state()) == 2 * 8 * WINDOW
    np.testing.assert_allclose(
        _matrix(rows), batch(close=close, volume=volume), rtol=0, atol=1e-9, equal_nan=True
    )


def test_preview_is_what_the_bar_would_give_and_changes_nothing():
    rng = np.random.default_rng(4)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 1e-3, 3 * WINDOW)))
    builder = FeatureBuilder()
    for bar in _bars(close, np.full(len(close), 7.0)):
        before = builder.state()
        seen = builder.preview(bar)
        assert builder.state() == before
        assert builder.update(bar) == seen


@settings(max_examples=60, deadline=None)
@given(
    ticks=st.lists(st.integers(-30, 30), min_size=1, max_size=150),
    volumes=st.lists(st.integers(0, 3), min_size=1, max_size=150),
    cut=st.integers(0, 150),
)
def test_streaming_restored_anywhere_equals_batch(ticks, volumes, cut):
    n = min(len(ticks), len(volumes))
    close = np.round(100 + 0.01 * np.cumsum(ticks[:n]), 2)
    volume = np.asarray(volumes[:n], dtype=float)
    builder, rows = FeatureBuilder(), []
    for i, bar in enumerate(_bars(close, volume)):
        if i == cut:
            state, builder = builder.state(), FeatureBuilder()
            builder.restore(state)
        rows.append(builder.update(bar))
    np.testing.assert_allclose(
        _matrix(rows), batch(close=close, volume=volume), rtol=0, atol=1e-9, equal_nan=True
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 99), st.integers(0, 2**32 - 1))
def test_batch_with_changed_future_keeps_the_past(at, seed):
    rng = np.random.default_rng(seed)
    close, volume = 100 + rng.random(100), rng.random(100)
    before = batch(close=close, volume=volume)
    close[at:], volume[at:] = 7 * close[at:], 3 * volume[at:]
    after = batch(close=close, volume=volume)
    np.testing.assert_array_equal(before[:at], after[:at])


def test_flat_market_without_volume_gives_the_values_of_the_table():
    row = dict(zip(NAMES, batch(close=np.full(300, 125.37), volume=np.zeros(300))[-1], strict=True))
    assert row == {
        **dict.fromkeys(NAMES, 0.0),
        "volume_ratio_20": 1.0,
        "rsi_14": 50.0,
        "bollinger_position_20_2": 0.5,
        "sma_ratio_5": pytest.approx(0, abs=1e-12),
        "sma_ratio_15": pytest.approx(0, abs=1e-12),
        "sma_ratio_60": pytest.approx(0, abs=1e-12),
        "macd_hist_12_26_9": pytest.approx(0, abs=1e-12),
        "spread_bps": ASSUMED_SPREAD_BPS,
    }


def test_features_scaled_prices_are_unchanged(spy):
    scaled = batch(close=spy["close"] * 8, volume=spy["volume"] * 16)
    np.testing.assert_allclose(scaled, batch(**spy), rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    ("close", "volume"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, -1.0)]
)
def test_bad_number_raises_in_both_forms(close, volume):
    with pytest.raises(ValueError, match="no bar"):
        FeatureBuilder().update(_bars([close], [volume])[0])
    with pytest.raises(ValueError, match=r"is not|negative"):
        batch(close=[1.0, close], volume=[1.0, volume])


def test_batch_of_nothing_is_empty():
    assert batch(close=[], volume=[]).shape == (0, 11)


def _whole(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = {n: bars[n].to_numpy(dtype=float) for n in ("high", "low", "close", "volume")}
    return columns | {"start_ns": bars["at"].astype("int64").to_numpy()}


def _walk(bars: pd.DataFrame) -> list[ClosedBar]:
    return [
        ClosedBar(int(ns), c, h, low, c, v)
        for ns, h, low, c, v in zip(
            bars["at"].astype("int64"), *(bars[n] for n in ("high", "low", "close", "volume")),
            strict=True,
        )
    ]  # fmt: skip


@pytest.fixture
def real(shared_data: Path) -> pd.DataFrame:
    frame = pq.read_table(shared_data / "bars_1min_spy_2011_01.parquet").slice(0, 3000).to_pandas()
    return frame.assign(at=frame["timestamp"].astype("datetime64[ns, UTC]"))


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_both_specs_on_real_minutes_are_the_same_by_bar_and_at_once(real, spec):
    builder, rows = FeatureBuilder(spec), []
    for i, bar in enumerate(_walk(real)):
        if i % 700 == 699:  # over a restart
            state, builder = builder.state(), FeatureBuilder(spec)
            builder.restore(state)
        seen = builder.preview(bar)
        rows.append(builder.update(bar))
        assert seen == rows[-1]
    expected = batch(**_whole(real), spec=spec)
    np.testing.assert_allclose(_matrix(rows), expected, rtol=0, atol=1e-9, equal_nan=True)
    assert [row.warm for row in rows].index(True) == spec.warm_bars - 1
    assert list(rows[-1].named()) == list(spec.names)


def test_extended_on_real_minutes_equals_plain_talib_and_holds_the_shorter_one(real):
    got = batch(**_whole(real), spec=EXTENDED_SPEC)
    expected = talib_oracle.extended(real)
    assert [*NAMES, *expected] == list(EXTENDED_SPEC.names)
    for i, name in enumerate(expected, len(NAMES)):
        np.testing.assert_allclose(got[:, i], expected[name], rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(got[:, : len(NAMES)], batch(**_whole(real)))


def test_bars_that_a_feature_needs_are_those_of_the_spec(real):
    got = batch(**_whole(real), spec=EXTENDED_SPEC)
    for i, (name, parameters) in enumerate(EXTENDED_SPEC.parameters.items()):
        assert np.isfinite(got[:, i]).argmax() == parameters["bars"] - 1, name


def test_oscillator_of_a_flat_market_is_in_the_middle():
    at = np.arange(40) * MINUTE_NS
    flat = np.full(40, 125.37)
    row = batch(
        close=flat, high=flat, low=flat, volume=flat, start_ns=at, spec=EXTENDED_SPEC
    )[-1]  # fmt: skip
    named = dict(zip(EXTENDED_SPEC.names, row, strict=True))
    assert named["stochastic_k_14_3"] == named["stochastic_d_14_3_3"] == pytest.approx(50.0)
    assert named["atr_ratio_14"] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(-30, 30), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)),
        min_size=1, max_size=120,
    ),
    cut=st.integers(0, 120),
)  # fmt: skip
def test_extended_streaming_restored_anywhere_equals_batch(steps, cut):
    walk = np.array(steps, dtype=float)
    close = np.round(100 + 0.01 * np.cumsum(walk[:, 0]), 2)
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(np.arange(len(close)) * MINUTE_NS, utc=True),
            "high": close + 0.01 * walk[:, 1], "low": close - 0.01 * walk[:, 2],
            "close": close, "volume": walk[:, 3],
        }
    )  # fmt: skip
    frame["at"] = frame["at"].astype("datetime64[ns, UTC]")
    builder, rows = FeatureBuilder(EXTENDED_SPEC), []
    for i, bar in enumerate(_walk(frame)):
        if i == cut:
            state, builder = builder.state(), FeatureBuilder(EXTENDED_SPEC)
            builder.restore(state)
        rows.append(builder.update(bar))
    expected = batch(**_whole(frame), spec=EXTENDED_SPEC)
    np.testing.assert_allclose(_matrix(rows), expected, rtol=0, atol=1e-9, equal_nan=True)


def test_extended_without_ranges_or_times_is_refused():
    with pytest.raises(ValueError, match="intraday-extended needs high, low and start_ns"):
        batch(close=[1.0], volume=[1.0], spec=EXTENDED_SPEC)
    with pytest.raises(ValueError, match="no bar"):
        FeatureBuilder(EXTENDED_SPEC).update(ClosedBar(0, 1.0, float("nan"), 1.0, 1.0, 1.0))
