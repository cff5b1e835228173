"""Closed bars in, the features of :mod:`pipelines.features.spec` out; bar by bar, or all at once.

Both forms run the same function over arrays, :func:`batch`: :class:`FeatureBuilder` over its last
512 bars. Bad numbers (a price that is not positive, a negative volume, NaN) raise ``ValueError``:
better no features than wrong ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from talib import _ta_lib as ta

from pipelines.features.bar import ClosedBar
from pipelines.features.spec import FEATURE_SPEC, WINDOW, FeatureSpec

Floats = NDArray[np.float64]

ASSUMED_SPREAD_BPS: Final = 2.0
"""Default spread of a bar without quotes, basis points."""

_COLUMN: Final = {name: i for i, name in enumerate(FEATURE_SPEC.names)}
_STILL: Final = int(FEATURE_SPEC.parameters["rsi_14"]["still_bars"])
_TAIL: Final = FEATURE_SPEC.warm_bars
_NOTHING: Final = np.array([np.nan])


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The features of one closed bar.

    Args:
        values: The features in the order of the spec; ``None`` where too few bars came yet.
        spread_assumed: Whether ``spread_bps`` is the assumed one, for want of quotes.
    """

    values: tuple[float | None, ...]
    spread_assumed: bool

    @property
    def warm(self) -> bool:
        """Whether every feature has a value."""
        return None not in self.values

    def named(self) -> dict[str, float | None]:
        """The values by name."""
        return dict(zip(FEATURE_SPEC.names, self.values, strict=True))


class FeatureBuilder:
    """The features of one symbol, bar by bar, over a bounded window.

    Args:
        spec: What to build; there is one so far.
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
        if spec != FEATURE_SPEC:
            raise ValueError(f"cannot build features {spec.fingerprint}")
        self.spec = spec
        self._assumed = assumed_spread_bps
        self._bars = np.empty((2, 2 * WINDOW))  # rows: close, volume
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
        _check(bar.close, bar.volume)
        if self._end == self._bars.shape[1]:
            self._bars[:, : WINDOW - 1] = self._bars[:, self._end - WINDOW + 1 :]
            self._end = WINDOW - 1
        self._bars[0, self._end] = bar.close
        self._bars[1, self._end] = bar.volume
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

    def _row(self, window: Floats, bar: ClosedBar) -> FeatureRow:
        last = _last(np.ascontiguousarray(window[0]), np.ascontiguousarray(window[1]))
        values = [None if math.isnan(x) else x for x in last]
        values[-1] = self._assumed if bar.spread_bps is None else bar.spread_bps
        return FeatureRow(values=tuple(values), spread_assumed=bar.spread_bps is None)

    def preview(self, bar: ClosedBar) -> FeatureRow:
        """The features as if a bar closed now; nothing is taken in.

        Raises:
            ValueError: Its numbers are no bar.
        """
        _check(bar.close, bar.volume)
        before = self._bars[:, max(0, self._end - WINDOW + 1) : self._end]
        return self._row(np.append(before, [[bar.close], [bar.volume]], axis=1), bar)

    def state(self) -> bytes:
        """Its window as bytes: closes, then volumes, float64."""
        return self._bars[:, max(0, self._end - WINDOW) : self._end].tobytes()

    def restore(self, state: bytes) -> None:
        """Go on from what :meth:`state` gave."""
        window = np.frombuffer(state, dtype=np.float64).reshape(2, -1)
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
) -> Floats:
    """The features of every bar of one symbol at once.

    Args:
        close: Closes, USD, oldest first, shape ``(n,)``.
        volume: Volumes, shares, shape ``(n,)``.
        spread_bps: Spread of each bar, shape ``(n,)``, or one number for all; NaN, unknown, is
            taken as :data:`ASSUMED_SPREAD_BPS`.
        open: Not used by this spec, but part of a bar; checked for its shape.
        high: Likewise.
        low: Likewise.

    Returns:
        Shape ``(n, 11)``, in the order of the spec; NaN where too few bars came yet.

    Raises:
        ValueError: Lengths differ, or a number is no price or no volume.
    """
    closes = np.ascontiguousarray(close, dtype=np.float64)
    volumes = np.ascontiguousarray(volume, dtype=np.float64)
    n = len(closes)
    if any(np.shape(x) != (n,) for x in (volumes, open, high, low) if x is not None):
        raise ValueError("the columns of the bars differ in length")
    if not (np.isfinite(closes).all() and np.isfinite(volumes).all()):
        raise ValueError("a close or a volume is not finite")
    if (closes <= 0).any() or (volumes < 0).any():
        raise ValueError("a close is not positive, or a volume is negative")
    out = np.full((n, len(FEATURE_SPEC.names)), np.nan)
    spread = np.broadcast_to(np.asarray(spread_bps, dtype=np.float64), closes.shape)
    out[:, _COLUMN["spread_bps"]] = np.where(np.isnan(spread), ASSUMED_SPREAD_BPS, spread)
    if n > 1:
        for name, column in (_windowed(closes, volumes) | _recursive(closes)).items():
            out[:, _COLUMN[name]] = column
    return out


def _last(close: Floats, volume: Floats) -> list[float]:
    """The last row of :func:`batch`, but for the spread; for a window that was checked."""
    out = [math.nan] * len(FEATURE_SPEC.names)
    if len(close) > 1:
        columns = _windowed(close[-_TAIL:], volume[-_TAIL:]) | _recursive(close)
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


def _standing_still(close: Floats) -> NDArray[np.bool_]:
    """Where the last 256 closes, or all if there are fewer, are the same."""
    moved = np.zeros(len(close), dtype=np.int64)
    moves = np.flatnonzero(np.diff(close)) + 1
    moved[moves] = moves
    last = np.maximum.accumulate(moved)  # index of the last bar that moved; 0: none did
    return np.asarray((last == 0) | (np.arange(len(close)) - last >= _STILL - 1))


def _check(close: float, volume: float) -> None:
    if not (0 < close < math.inf and 0 <= volume < math.inf):
        raise ValueError(f"no bar: close {close}, volume {volume}")
