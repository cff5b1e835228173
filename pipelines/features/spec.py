"""FeatureSpec 1: which features there are, in which order, with which parameters.

Eleven numbers of each closed minute bar, all without dimension. ``c`` is the close, ``v`` the
volume, ``t`` this bar, ``r[t] = ln(c[t] / c[t-1])``. The window counts *bars that exist*, in
order of time: it spans session boundaries and minutes without trades, so the first bar of a day
sees the bars of the day before.

==========================  =======================================================  ==========  ====  =====================
name                        formula                                                  unit        bars  where undefined
==========================  =======================================================  ==========  ====  =====================
``log_return_1``            ``r[t]``                                                 log ratio   2
``momentum_10``             ``c[t] / c[t-10] - 1`` (TA-Lib ROCP)                     ratio       11
``volatility_20``           standard deviation of ``r[t-19..t]``, population         log ratio   21    flat window: 0
                            (``ddof=0``), not annualised (TA-Lib STDDEV)             per minute
``volume_ratio_20``         ``v[t] / mean(v[t-19..t])`` (TA-Lib SMA)                 ratio       20    no volume at all: 1
``rsi_14``                  Wilder's RSI (TA-Lib RSI)                                0 to 100    15    no move in the last
                                                                                                       256 bars: 50
``macd_hist_12_26_9``       MACD histogram (TA-Lib MACD) divided by ``c[t]``         ratio       34
``bollinger_position_20_2`` ``(c - lower) / (upper - lower)``, bands two population  band width  20    flat window: 0.5
                            standard deviations (``ddof=0``) around the 20-bar
                            mean (TA-Lib BBANDS): 0 lower band, 1 upper band
``sma_ratio_5``             ``c[t] / mean(c[t-4..t]) - 1`` (TA-Lib SMA)              ratio       5
``sma_ratio_15``            ``c[t] / mean(c[t-14..t]) - 1``                          ratio       15
``sma_ratio_60``            ``c[t] / mean(c[t-59..t]) - 1``                          ratio       60
``spread_bps``              time-weighted mean over the minute of                    basis       1     no quote: the assumed
                            ``(ask - bid) / ((ask + bid) / 2) * 10 000``             points            spread of the settings
==========================  =======================================================  ==========  ====  =====================

``bars`` is how many bars, this one included, a feature needs; before, it is ``None``. The row is
*warm* when none is ``None``: from the 60th bar. RSI and MACD never forget: the streaming form
sees the last 512 bars, in which what came before has faded to less than 1e-15 of its weight.
"""  # noqa: E501 - a table

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

WINDOW: Final = 512
"""Closed bars that the streaming form keeps for each symbol."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Names, order and parameters of the features; what a model is trained on, and refuses else.

    Args:
        version: Number of the specification.
        names: The features in order.
        parameters: Everything that changes a value: windows, degrees of freedom, substitutes.

    >>> FEATURE_SPEC.names.index("spread_bps"), len(FEATURE_SPEC.names)
    (10, 11)
    >>> len(FEATURE_SPEC.fingerprint)
    16
    """

    version: int
    names: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, int | float | str]]

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of version, names and parameters."""
        text = json.dumps(
            [self.version, self.names, {k: dict(v) for k, v in self.parameters.items()}],
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def warm_bars(self) -> int:
        """Bars after which no feature is ``None`` any more."""
        return max(int(p["bars"]) for p in self.parameters.values())


_PARAMETERS: Final[dict[str, dict[str, int | float | str]]] = {
    "log_return_1": {"bars": 2},
    "momentum_10": {"bars": 11, "period": 10},
    "volatility_20": {"bars": 21, "period": 20, "ddof": 0},
    "volume_ratio_20": {"bars": 20, "period": 20, "undefined": 1.0},
    "rsi_14": {"bars": 15, "period": 14, "undefined": 50.0, "still_bars": 256},
    "macd_hist_12_26_9": {"bars": 34, "fast": 12, "slow": 26, "signal": 9, "divided_by": "close"},
    "bollinger_position_20_2": {
        "bars": 20, "period": 20, "deviations": 2, "ddof": 0, "undefined": 0.5,
    },
    "sma_ratio_5": {"bars": 5, "period": 5},
    "sma_ratio_15": {"bars": 15, "period": 15},
    "sma_ratio_60": {"bars": 60, "period": 60},
    "spread_bps": {"bars": 1, "weighting": "time"},
}  # fmt: skip

FEATURE_SPEC: Final = FeatureSpec(
    version=1,
    names=tuple(_PARAMETERS),
    parameters=MappingProxyType(_PARAMETERS),
)
"""The specification that training, Spark and serving share."""
