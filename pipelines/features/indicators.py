"""Indicators for the screen and the API, bar by bar or all at once. No model sees them.

``c h l v w`` are close, high, low, volume and volume-weighted price of a closed minute bar (where
``w`` is not known: ``(h + l + c) / 3``). A *session* is a day in New York.

==============================  ==============================================  =========  ====
name                            what (TA-Lib, where it has it)                  unit       bars
==============================  ==============================================  =========  ====
``sma_5 15 20 50 60 200``       mean of the last closes (SMA)                   USD        n
``ema_12 ema_26``               exponential mean, seeded by the SMA (EMA)       USD        12 26
``rsi_14``                      Wilder's RSI (RSI); no move in 256 bars: 50     0 to 100   15
``macd macd_signal macd_hist``  MACD 12-26-9 (MACD)                             USD        34
``bollinger_upper middle        20-bar mean, and two population deviations      USD        20
lower``                         around it (BBANDS)
``atr_14``                      Wilder's average true range (ATR)               USD        15
``stochastic_k stochastic_d``   slow stochastic 14-3-3 (STOCH); flat: 0         0 to 100   18
``obv``                         on-balance volume of the session (OBV)          shares     1
``vwap``                        ``sum(w v) / sum(v)`` of the session            USD        1
``volatility_20``               as the feature of that name                     log ratio  21
``volume_ratio_20``             as the feature of that name                     ratio      20
==============================  ==============================================  =========  ====

``bars`` is how many bars an indicator needs, this one included; before, it is ``None``. What never
forgets sees the last 512 bars. ``vwap`` is ``None`` while nothing was traded. On a start in the
midst of a session ``obv`` and ``vwap`` begin with the first bar that history has of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from talib import _ta_lib as ta

from pipelines.features import builder
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow
from pipelines.features.rollup import window_start_ns
from pipelines.features.spec import FEATURE_SPEC

Floats = NDArray[np.float64]

SMA: Final = (5, 15, 20, 50, 60, 200)
_TAKEN: Final = ("rsi_14", "volatility_20", "volume_ratio_20")
"""Features that are indicators as they are."""

_AT: Final = {name: FEATURE_SPEC.names.index(name) for name in _TAKEN}
_ATR: Final = 14
_STOCHASTIC: Final = 18
_BANDS: Final = FEATURE_SPEC.warm_bars

NAMES: Final = (
    *(f"sma_{n}" for n in SMA), "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_hist",
    "bollinger_upper", "bollinger_middle", "bollinger_lower", "atr_14", "stochastic_k",
    "stochastic_d", "obv", "vwap", "volatility_20", "volume_ratio_20",
)  # fmt: skip
"""The indicators, in order."""


class Indicators:
    """The indicators of one symbol, bar by bar, beside its :class:`builder.FeatureBuilder`."""

    __slots__ = ("_atr", "_close", "_highs", "_lows", "_obv", "_paid", "_ranges", "_session", "_v")

    def __init__(self) -> None:
        self._highs: list[float] = []  # of the last 18 bars
        self._lows: list[float] = []
        self._close: float | None = None
        self._ranges = 0  # true ranges so far, up to 14
        self._atr = 0.0  # their sum up to the 14th, then Wilder's mean
        self._session = -1
        self._obv = self._paid = self._v = 0.0

    def push(self, bar: ClosedBar) -> None:
        """Take a bar in without computing anything that can wait: for warming up."""
        before, self._close = self._close, bar.close
        self._highs = [*self._highs, bar.high][-_STOCHASTIC:]
        self._lows = [*self._lows, bar.low][-_STOCHASTIC:]
        if before is not None:
            self._range(max(bar.high, before) - min(bar.low, before))
        session = window_start_ns(bar.start_ns, "1d")
        if session != self._session or before is None:
            self._session = session
            self._obv, self._paid, self._v = bar.volume, 0.0, 0.0
        elif bar.close != before:
            self._obv += bar.volume if bar.close > before else -bar.volume
        self._paid += bar.paid * bar.volume
        self._v += bar.volume

    def update(self, bar: ClosedBar, *, closes: Floats, row: FeatureRow) -> dict[str, float | None]:
        """Take the next bar in and give the indicators at it.

        Args:
            bar: The bar that follows those before it.
            closes: The last closes up to this one, at most 512, shape ``(n,)``.
            row: The features of this bar.
        """
        self.push(bar)
        n = len(closes)
        sums = np.cumsum(closes[: -1 - max(SMA) : -1]).tolist()
        found: dict[str, float | None] = {
            f"sma_{k}": sums[k - 1] / k if n >= k else None for k in SMA
        }
        found["ema_12"], found["ema_26"] = _last(ta.EMA(closes, 12)), _last(ta.EMA(closes, 26))
        macd = ta.MACD(closes, 12, 26, 9)
        found["macd"], found["macd_signal"], found["macd_hist"] = map(_last, macd)
        bands = ta.BBANDS(closes[-_BANDS:], 20, 2.0, 2.0, ta.MA_Type.SMA)
        for name, band in zip(("upper", "middle", "lower"), bands, strict=True):
            found[f"bollinger_{name}"] = _last(band)
        found["atr_14"] = self._atr if self._ranges >= _ATR else None
        slow = self._stochastic(closes) if n >= _STOCHASTIC else (None, None)
        found["stochastic_k"], found["stochastic_d"] = slow
        found["obv"], found["vwap"] = self._obv, self._paid / self._v if self._v else None
        for name, at in _AT.items():
            found[name] = row.values[at]
        return {name: found[name] for name in NAMES}

    def state(self) -> list[Any]:
        """Everything it knows, JSON types."""
        return [
            self._highs, self._lows, self._close, self._ranges, self._atr, self._session,
            self._obv, self._paid, self._v,
        ]  # fmt: skip

    def restore(self, state: list[Any]) -> None:
        """Go on from what :meth:`state` gave."""
        (
            self._highs, self._lows, self._close, self._ranges, self._atr, self._session,
            self._obv, self._paid, self._v,
        ) = state  # fmt: skip

    def _range(self, true_range: float) -> None:
        if self._ranges < _ATR:
            self._ranges += 1
            self._atr += true_range
            if self._ranges == _ATR:
                self._atr /= _ATR
        else:
            self._atr = (self._atr * (_ATR - 1) + true_range) / _ATR

    def _stochastic(self, closes: Floats) -> tuple[float | None, float | None]:
        if len(self._highs) < _STOCHASTIC:
            return None, None
        k, d = _slow(np.array(self._highs), np.array(self._lows), closes[-_STOCHASTIC:])
        return _last(k), _last(d)


def batch(
    *,
    start_ns: ArrayLike,
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    volume: ArrayLike,
    vwap: ArrayLike | None = None,
) -> dict[str, Floats]:
    """The indicators of every bar of one symbol at once.

    Args:
        start_ns: Starts of the bars, ascending, shape ``(n,)``.
        high: Highs, USD; likewise the others.
        low: Lows.
        close: Closes.
        volume: Volumes, shares.
        vwap: Volume-weighted prices; NaN, 0 or ``None`` where not known.

    Returns:
        Shape ``(n,)`` for each of :data:`NAMES`; NaN where ``None`` is meant.

    Raises:
        ValueError: A close or a volume is no number that a bar has, or lengths differ.
    """
    h, l, c, v = (np.ascontiguousarray(x, dtype=np.float64) for x in (high, low, close, volume))  # noqa: E741
    features = builder.batch(close=c, volume=v, high=h, low=l)
    if not len(c):
        return {name: np.empty(0) for name in NAMES}
    out = {f"sma_{n}": ta.SMA(c, n) for n in SMA}
    out["ema_12"], out["ema_26"] = ta.EMA(c, 12), ta.EMA(c, 26)
    out["macd"], out["macd_signal"], out["macd_hist"] = ta.MACD(c, 12, 26, 9)
    bands = ta.BBANDS(c, 20, 2.0, 2.0, ta.MA_Type.SMA)
    out["bollinger_upper"], out["bollinger_middle"], out["bollinger_lower"] = bands
    out["atr_14"] = ta.ATR(h, l, c, _ATR)
    out["stochastic_k"], out["stochastic_d"] = _slow(h, l, c)
    w = np.zeros(len(c)) if vwap is None else np.asarray(vwap, dtype=np.float64)
    w = np.where(np.isnan(w) | (w == 0), (h + l + c) / 3, w)  # as ClosedBar.paid
    days = np.array([window_start_ns(int(ns), "1d") for ns in np.asarray(start_ns)])
    edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    out["obv"], out["vwap"] = np.empty(len(c)), np.empty(len(c))
    for begin, end in pairwise(edges):
        of = slice(begin, end)
        out["obv"][of] = ta.OBV(c[of], v[of])
        traded = np.cumsum(v[of])
        with np.errstate(invalid="ignore"):
            out["vwap"][of] = np.cumsum(w[of] * v[of]) / traded
    for name, at in _AT.items():
        out[name] = features[:, at]
    return {name: out[name] for name in NAMES}


def row_at(columns: Mapping[str, Floats], at: int) -> dict[str, float | None]:
    """The indicators of one bar of :func:`batch`, by its index; ``None`` for NaN."""
    return {name: _number(column[at]) for name, column in columns.items()}


def _slow(high: Floats, low: Floats, close: Floats) -> tuple[Floats, Floats]:
    k, d = ta.STOCH(high, low, close, 14, 3, ta.MA_Type.SMA, 3, ta.MA_Type.SMA)
    return k, d


def _last(column: Floats) -> float | None:
    return _number(column[-1])


def _number(value: np.float64) -> float | None:
    return None if math.isnan(value) else float(value)
