"""Which features there are, in which order, with which parameters: ``intraday`` and a longer one.

``intraday`` (FeatureSpec 1) has eleven numbers of each closed minute bar, all without dimension.
``c h l`` are close, high and low, ``v`` the volume, ``t`` this bar, ``r[t] = ln(c[t] / c[t-1])``.
The window counts *bars that exist*, in order of time: it spans session boundaries and minutes
without trades, so the first bar of a day sees the bars of the day before.

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

``intraday-extended`` (FeatureSpec 2) has these eleven in the same places, and eleven more:

==========================  =======================================================  ==========  ====  =====================
name                        formula                                                  unit        bars  where undefined
==========================  =======================================================  ==========  ====  =====================
``log_return_lag_1 2 3 5``  ``r[t-n]``: the returns of bars before this one          log ratio   n + 2
``sma_ratio_10``            ``c[t] / mean(c[t-9..t]) - 1`` (TA-Lib SMA); with        ratio       10
                            ``sma_ratio_5`` above the short averages 5, 10, 20
``sma_ratio_20``            ``c[t] / mean(c[t-19..t]) - 1``                          ratio       20
``atr_ratio_14``            Wilder's average true range (TA-Lib ATR) over ``c[t]``   ratio       15
``stochastic_k_14_3``       slow %K: mean over 3 bars of where ``c`` lies between    0 to 100    16    flat 14 bars: 50
                            the lowest ``l`` and the highest ``h`` of 14 bars                          (of that bar)
                            (TA-Lib STOCH, which says 0 where flat)
``stochastic_d_14_3_3``     mean of three slow %K                                    0 to 100    18
``time_sin time_cos``       sine and cosine of ``2 pi m / 1440``; ``m`` is the       -1 to 1     1
                            minute of the day in New York at which the bar begins
==========================  =======================================================  ==========  ====  =====================

``bars`` is how many bars, this one included, a feature needs; before, it is ``None``. The row is
*warm* when none is ``None``: from the 60th bar. RSI, MACD and ATR never forget: the streaming form
sees the last 512 bars, in which what came before has faded to less than 1e-15 of its weight.

Every specification begins with the eleven of ``intraday``: the rules, the spread of a fill and the
anomalies find them in their places whatever is computed besides.
"""  # noqa: E501 - a table

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pipelines.errors import ConfigError

WINDOW: Final = 512
"""Closed bars that the streaming form keeps for each symbol."""

LAGS: Final = (1, 2, 3, 5)
"""Bars by which the returns of ``intraday-extended`` lie back."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Names, order and parameters of the features; what a model is trained on, and refuses else.

    Args:
        name: What settings call it; changes no value and no fingerprint.
        version: Number of the specification.
        names: The features in order.
        parameters: Everything that changes a value: windows, degrees of freedom, substitutes.
        fingerprint: First 16 hexadecimal digits of the SHA-256 of version, names and parameters.

    >>> FEATURE_SPEC.names.index("spread_bps"), len(FEATURE_SPEC.names), len(EXTENDED_SPEC.names)
    (10, 11, 22)
    >>> len(FEATURE_SPEC.fingerprint)
    16
    """

    name: str
    version: int
    names: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, int | float | str]]
    fingerprint: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", self._fingerprint())  # asked for by each state

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: a mapping that cannot be changed cannot be pickled either."""
        return FeatureSpec, (self.name, self.version, self.names, dict(self.parameters))

    def _fingerprint(self) -> str:
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

_MORE: Final[dict[str, dict[str, int | float | str]]] = {
    **{f"log_return_lag_{n}": {"bars": n + 2, "lag": n} for n in LAGS},
    "sma_ratio_10": {"bars": 10, "period": 10},
    "sma_ratio_20": {"bars": 20, "period": 20},
    "atr_ratio_14": {"bars": 15, "period": 14, "divided_by": "close"},
    "stochastic_k_14_3": {"bars": 16, "fast": 14, "slow": 3, "undefined": 50.0},
    "stochastic_d_14_3_3": {"bars": 18, "fast": 14, "slow": 3, "signal": 3, "undefined": 50.0},
    "time_sin": {"bars": 1, "zone": "America/New_York"},
    "time_cos": {"bars": 1, "zone": "America/New_York"},
}

FEATURE_SPEC: Final = FeatureSpec(
    name="intraday",
    version=1,
    names=tuple(_PARAMETERS),
    parameters=MappingProxyType(_PARAMETERS),
)
"""The specification that is used unless another is asked for."""

EXTENDED_SPEC: Final = FeatureSpec(
    name="intraday-extended",
    version=2,
    names=(*_PARAMETERS, *_MORE),
    parameters=MappingProxyType(_PARAMETERS | _MORE),
)
"""The same with lags, short averages, range, oscillator and time of day."""

SPECS: Final[Mapping[str, FeatureSpec]] = MappingProxyType(
    {spec.name: spec for spec in (FEATURE_SPEC, EXTENDED_SPEC)}
)
"""Every specification, by the name that the settings give."""


def spec_named(name: str) -> FeatureSpec:
    """The specification of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in SPECS:
        raise ConfigError(f"no features are named {name!r}; there are {', '.join(SPECS)}")
    return SPECS[name]


def spec_of(fingerprint: str) -> FeatureSpec | None:
    """The specification with a fingerprint; ``None`` for one of another version of this code.

    >>> spec_of(EXTENDED_SPEC.fingerprint).name, spec_of("0" * 16)
    ('intraday-extended', None)
    """
    return _BY_FINGERPRINT.get(fingerprint)


_BY_FINGERPRINT: Final = {spec.fingerprint: spec for spec in SPECS.values()}
