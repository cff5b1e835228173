"""Closed bars in, the features of :mod:`pipelines.features.spec` out; bar by bar, or all at once.

Both forms run the same functions over arrays: :func:`batch` over a whole history,
:class:`FeatureBuilder` over its last 512 bars. The specification says what is computed. Bad
numbers (a price that is not positive, a negative volume, NaN) raise ``ValueError``: better no
features than wrong ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from talib import _ta_lib as ta

from pipelines.events import DAY_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.rollup import window_start_ns
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, LAGS, SPECS, WINDOW, FeatureSpec

Floats = NDArray[np.float64]

ASSUMED_SPREAD_BPS: Final = 2.0
"""Default spread of a bar without quotes, basis points."""

_COLUMN: Final = {name: i for i, name in enumerate(EXTENDED_SPEC.names)}  # the other's begin it
_SPREAD: Final = _COLUMN["spread_bps"]
_STILL: Final = int(FEATURE_SPEC.parameters["rsi_14"]["still_bars"])
_TAIL: Final = EXTENDED_SPEC.warm_bars
_NOTHING: Final = np.array([np.nan])


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The features of one closed bar.

    Args:
        values: The features in the order of the spec; ``None`` where too few bars came yet.
        spread_assumed: Whether ``spread_bps`` is the assumed one, for want of quotes.
        spec: The specification that they follow.
    """

    values: tuple[float | None, ...]
    spread_assumed: bool
    spec: FeatureSpec = FEATURE_SPEC

    @property
    def warm(self) -> bool:
        """Whether every feature has a value."""
        return None not in self.values

    def named(self) -> dict[str, float | None]:
        """The values by name."""
        return dict(zip(self.spec.names, self.values, strict=True))


class FeatureBuilder:
    """The features of one symbol, bar by bar, over a bounded window.

    Args:
        spec: What to build, one of :data:`~pipelines.features.spec.SPECS`.
        assumed_spread_bps: ``spread_bps`` of a bar without quotes, basis points.

    >>> builder = FeatureBuilder()
    >>> def bar(minute, close):
    ...     return ClosedBar(minute * 60_000_000_000, close, close, close, close, volume=100)
    >>> builder.update(bar(0, 100.0)).values[0] is None
    True
    >>> row = builder.update(bar(1, 101.0))
    >>> round(row.values[0], 6), row.values[1], row.warm, row.spread_assumed
    (0.00995, None, False, True)
    """

    __slots__ = ("_assumed", "_bars", "_end", "spec")

    def __init__(
        self,
        spec: FeatureSpec = FEATURE_SPEC,
        *,
        assumed_spread_bps: float = ASSUMED_SPREAD_BPS,
    ) -> None:
        if spec not in SPECS.values():
            raise ValueError(f"cannot build features {spec.fingerprint}")
        self.spec = spec
        self._assumed = assumed_spread_bps
        # Rows: close, volume; and high, low where they are needed.
        self._bars = np.empty((_rows(spec), 2 * WINDOW))
        self._end = 0

    def __len__(self) -> int:
        return min(self._end, WINDOW)

    @property
    def closes(self) -> Floats:
        """The closes in its window, oldest first: a view that the next bar may change."""
        return self._bars[0, max(0, self._end - WINDOW) : self._end]

    def push(self, bar: ClosedBar) -> None:
        """Take a bar in without computing anything: for warming up.

        Raises:
            ValueError: Its numbers are no bar.
        """
        column = self._column(bar)
        if self._end == self._bars.shape[1]:
            self._bars[:, : WINDOW - 1] = self._bars[:, self._end - WINDOW + 1 :]
            self._end = WINDOW - 1
        self._bars[:, self._end] = column
        self._end += 1

    def update(self, bar: ClosedBar) -> FeatureRow:
        """Take the next bar in and give its features.

        Args:
            bar: The bar that follows those before it; not older, not the same again.

        Raises:
            ValueError: Its numbers are no bar.
        """
        self.push(bar)
        return self._row(self._bars[:, max(0, self._end - WINDOW) : self._end], bar)

    def _column(self, bar: ClosedBar) -> tuple[float, ...]:
        column = (bar.close, bar.volume, bar.high, bar.low)[: len(self._bars)]
        prices = (column[0], *column[2:])
        if not (all(0 < price < math.inf for price in prices) and 0 <= bar.volume < math.inf):
            raise ValueError(f"no bar: {bar}")
        return column

    def _row(self, window: Floats, bar: ClosedBar) -> FeatureRow:
        last = _last(np.ascontiguousarray(window), len(self.spec.names))
        values = [None if math.isnan(x) else x for x in last]
        values[_SPREAD] = self._assumed if bar.spread_bps is None else bar.spread_bps
        if len(self._bars) > 2:
            for name, column in _time_of_day(np.array([bar.start_ns])).items():
                values[_COLUMN[name]] = float(column[0])
        return FeatureRow(tuple(values), bar.spread_bps is None, self.spec)

    def preview(self, bar: ClosedBar) -> FeatureRow:
        """The features as if a bar closed now; nothing is taken in.

        Raises:
            ValueError: Its numbers are no bar.
        """
        column = np.array(self._column(bar)).reshape(-1, 1)
        before = self._bars[:, max(0, self._end - WINDOW + 1) : self._end]
        return self._row(np.append(before, column, axis=1), bar)

    def state(self) -> bytes:
        """Its window as bytes: closes, then volumes (then highs, then lows), float64."""
        return self._bars[:, max(0, self._end - WINDOW) : self._end].tobytes()

    def restore(self, state: bytes) -> None:
        """Go on from what :meth:`state` of a builder of the same features gave."""
        window = np.frombuffer(state, dtype=np.float64).reshape(len(self._bars), -1)
        self._end = window.shape[1]
        self._bars[:, : self._end] = window


def batch(
    *,
    close: ArrayLike,
    volume: ArrayLike,
    spread_bps: ArrayLike = ASSUMED_SPREAD_BPS,
    open: ArrayLike | None = None,  # noqa: A002 - the field's word
    high: ArrayLike | None = None,
    low: ArrayLike | None = None,
    start_ns: ArrayLike | None = None,
    spec: FeatureSpec = FEATURE_SPEC,
) -> Floats:
    """The features of every bar of one symbol at once.

    Args:
        close: Closes, USD, oldest first, shape ``(n,)``.
        volume: Volumes, shares, shape ``(n,)``.
        spread_bps: Spread of each bar, shape ``(n,)``, or one number for all; NaN, unknown, is
            taken as :data:`ASSUMED_SPREAD_BPS`.
        open: Not used, but part of a bar; checked for its shape.
        high: Highs, USD; ``intraday`` does without.
        low: Lows, USD; likewise.
        start_ns: Starts of the minutes, market time, nanoseconds since the epoch; likewise.
        spec: What to build.

    Returns:
        Shape ``(n, len(spec.names))``, in the order of the spec; NaN where too few bars came yet.

    Raises:
        ValueError: Lengths differ, a number is no price or no volume, or a column is missing.
    """
    closes = np.ascontiguousarray(close, dtype=np.float64)
    volumes = np.ascontiguousarray(volume, dtype=np.float64)
    n = len(closes)
    if any(np.shape(x) != (n,) for x in (volumes, open, high, low, start_ns) if x is not None):
        raise ValueError("the columns of the bars differ in length")
    if not (np.isfinite(closes).all() and np.isfinite(volumes).all()):
        raise ValueError("a close or a volume is not finite")
    if (closes <= 0).any() or (volumes < 0).any():
        raise ValueError("a close is not positive, or a volume is negative")
    out = np.full((n, len(spec.names)), np.nan)
    spread = np.broadcast_to(np.asarray(spread_bps, dtype=np.float64), closes.shape)
    out[:, _SPREAD] = np.where(np.isnan(spread), ASSUMED_SPREAD_BPS, spread)
    columns = _windowed(closes, volumes) | _recursive(closes) if n > 1 else {}
    if spec == EXTENDED_SPEC:
        if high is None or low is None or start_ns is None:
            raise ValueError(f"{spec.name} needs high, low and start_ns")
        highs, lows = (np.ascontiguousarray(x, dtype=np.float64) for x in (high, low))
        if not (np.isfinite(highs).all() and np.isfinite(lows).all() and (lows > 0).all()):
            raise ValueError("a high or a low is not finite, or not positive")
        columns |= _time_of_day(np.asarray(start_ns))
        if n > 1:
            columns |= _oscillating(closes, highs, lows) | _ranging(closes, highs, lows)
    for name, column in columns.items():
        out[:, _COLUMN[name]] = column
    return out


def _rows(spec: FeatureSpec) -> int:
    return 2 if spec == FEATURE_SPEC else 4


def _last(window: Floats, n_features: int) -> list[float]:
    """The last row of :func:`batch` but for spread and time, of a window that was checked.

    Args:
        window: Close, volume and, for the longer specification, high and low; shape ``(2|4, n)``.
        n_features: Length of the row.
    """
    out = [math.nan] * n_features
    close, volume = window[:2]
    if len(close) > 1:
        columns = _windowed(close[-_TAIL:], volume[-_TAIL:]) | _recursive(close)
        if len(window) > 2:
            high, low = window[2:]
            columns |= _oscillating(close[-_TAIL:], high[-_TAIL:], low[-_TAIL:])
            columns |= _ranging(close, high, low)
        for name, column in columns.items():
            out[_COLUMN[name]] = float(column[-1])
    return out


def _windowed(close: Floats, volume: Floats) -> dict[str, Floats]:
    """Features of at most the last 60 bars, of ``n >= 2`` bars; NaN at the start."""
    returns = np.diff(np.log(close))
    upper, _, lower = ta.BBANDS(close, 20, 2.0, 2.0, ta.MA_Type.SMA)
    width = upper - lower
    # By the prices themselves: running sums leave dust where a flat window should give zero.
    flat = (ta.MAX(close, 20) == ta.MIN(close, 20)) | (width <= 0)
    idle = ta.MAX(volume, 20) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        position = np.where(flat, 0.5, (close - lower) / width)
        volume_ratio = np.where(idle, 1.0, volume / ta.SMA(volume, 20))
    return {
        "log_return_1": np.concatenate((_NOTHING, returns)),
        "momentum_10": ta.ROCP(close, 10),
        "volatility_20": np.concatenate((_NOTHING, ta.STDDEV(returns, 20))),
        "volume_ratio_20": volume_ratio,
        "bollinger_position_20_2": position,
        "sma_ratio_5": close / ta.SMA(close, 5) - 1.0,
        "sma_ratio_15": close / ta.SMA(close, 15) - 1.0,
        "sma_ratio_60": close / ta.SMA(close, 60) - 1.0,
    }


def _recursive(close: Floats) -> dict[str, Floats]:
    """Features with a memory that fades, of ``n >= 2`` bars; NaN at the start."""
    rsi = ta.RSI(close, 14)
    rsi[_standing_still(close) & ~np.isnan(rsi)] = 50.0
    return {"rsi_14": rsi, "macd_hist_12_26_9": ta.MACD(close, 12, 26, 9)[2] / close}


def _oscillating(close: Floats, high: Floats, low: Floats) -> dict[str, Floats]:
    """What the longer specification sees of the last 20 bars, of ``n >= 2`` bars."""
    returns = np.concatenate((_NOTHING, np.diff(np.log(close))))
    highest, lowest = ta.MAX(high, 14), ta.MIN(low, 14)
    width = highest - lowest
    with np.errstate(divide="ignore", invalid="ignore"):
        fast = np.where(width == 0, 50.0, (close - lowest) / width * 100.0)
    slow = ta.SMA(fast, 3)
    lagged = {f"log_return_lag_{n}": _shifted(returns, n) for n in LAGS}
    return lagged | {
        "sma_ratio_10": close / ta.SMA(close, 10) - 1.0,
        "sma_ratio_20": close / ta.SMA(close, 20) - 1.0,
        "stochastic_k_14_3": slow,
        "stochastic_d_14_3_3": ta.SMA(slow, 3),
    }


def _ranging(close: Floats, high: Floats, low: Floats) -> dict[str, Floats]:
    """What it sees of all bars, fading, of ``n >= 2`` bars."""
    return {"atr_ratio_14": ta.ATR(high, low, close, 14) / close}


def _shifted(column: Floats, by: int) -> Floats:
    return np.concatenate((np.full(min(by, len(column)), np.nan), column[:-by]))


def _time_of_day(start_ns: NDArray[np.int64]) -> dict[str, Floats]:
    midnight = np.array([window_start_ns(int(ns), "1d") for ns in start_ns], dtype=np.int64)
    angle = (start_ns - midnight) * (2 * math.pi / DAY_NS)
    return {"time_sin": np.sin(angle), "time_cos": np.cos(angle)}


def _standing_still(close: Floats) -> NDArray[np.bool_]:
    """Where the last 256 closes, or all if there are fewer, are the same."""
    moved = np.zeros(len(close), dtype=np.int64)
    moves = np.flatnonzero(np.diff(close)) + 1
    moved[moves] = moves
    last = np.maximum.accumulate(moved)  # index of the last bar that moved; 0: none did
    return np.asarray((last == 0) | (np.arange(len(close)) - last >= _STILL - 1))
