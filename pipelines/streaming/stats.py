"""Running statistics of one symbol: of its session's prices, and averages of its last minutes.

Pure, incremental and bounded. In: trades that make a price, and closed minute bars. Out: JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from pipelines.events import MINUTE_NS, SECOND_NS, format_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.rollup import window_start_ns

BUCKET_BPS: Final = 10.0
"""Width of a price range, basis points of the session's first price."""

MAX_BUCKET: Final = 50
"""Ranges to either side; what lies beyond is counted in the last."""

SLIDING: Final = {"5m": 5, "15m": 15, "1h": 60}
"""Sliding windows, minutes."""

_LONGEST: Final = max(SLIDING.values())
_HOUR_NS: Final = 3600 * SECOND_NS


class PriceStats:
    """Count, extremes, mean, variance (Welford) and price ranges since the session began.

    A session is a day in New York. Range ``k`` holds prices from ``base (1 + k w)`` to
    ``base (1 + (k + 1) w)``; ``base`` is the first price and ``w`` :data:`BUCKET_BPS`.

    >>> stats = PriceStats()
    >>> for price in (100.0, 101.0, 99.99):
    ...     stats.trade(1, price)
    >>> seen = stats.data()
    >>> seen["count"], round(seen["mean"], 2), round(seen["std"], 3), seen["buckets"]["counts"]
    (3, 100.33, 0.474, {'-1': 1, '0': 1, '10': 1})
    """

    __slots__ = ("_base", "_count", "_counts", "_high", "_hour", "_low", "_m2", "_mean", "_session")

    def __init__(self) -> None:
        self._session = self._hour = -(2**62)
        self._base = 0.0
        self._count, self._mean, self._m2 = 0, 0.0, 0.0
        self._low, self._high = math.inf, -math.inf
        self._counts: dict[str, int] = {}

    def trade(self, ns: int, price: float) -> None:
        """Take a price in; one of an earlier session than the last is left out.

        Args:
            ns: Event time.
            price: USD, positive.
        """
        hour = ns // _HOUR_NS
        if hour != self._hour:
            session = window_start_ns(ns, "1d")
            if session < self._session:
                return
            self._hour = hour
            if session > self._session:
                self._session = session
                self._begin(price)
        self._count += 1
        delta = price - self._mean
        self._mean += delta / self._count
        self._m2 += delta * (price - self._mean)
        self._low = min(self._low, price)
        self._high = max(self._high, price)
        at = math.floor((price / self._base - 1.0) * 1e4 / BUCKET_BPS + 1e-9)
        key = str(max(-MAX_BUCKET, min(MAX_BUCKET, at)))
        self._counts[key] = self._counts.get(key, 0) + 1

    def data(self) -> dict[str, Any]:
        """What is published; ``None`` for what no price was seen for. Population variance."""
        some = self._count > 0
        variance = self._m2 / self._count if some else None
        return {
            "session": format_time_ns(self._session) if some else None,
            "count": self._count,
            "min": self._low if some else None,
            "max": self._high if some else None,
            "mean": self._mean if some else None,
            "variance": variance,
            "std": None if variance is None else math.sqrt(variance),
            "buckets": {
                "base": self._base if some else None,
                "width_bps": BUCKET_BPS,
                "counts": {k: self._counts[k] for k in sorted(self._counts, key=int)},
            },
        }

    def state(self) -> list[Any]:
        """Everything it knows, JSON types."""
        return [
            self._session, self._hour, self._count, self._mean, self._m2, self._base,
            [self._low, self._high] if self._count else None, self._counts,
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._begin(state[5])
        self._session, self._hour, self._count, self._mean, self._m2 = state[:5]
        if state[6] is not None:
            self._low, self._high = state[6]
        self._counts = dict(state[7])

    def _begin(self, base: float) -> None:
        self._base = base
        self._count, self._mean, self._m2 = 0, 0.0, 0.0
        self._low, self._high = math.inf, -math.inf
        self._counts = {}


class SlidingAverages:
    """Averages over the last 5, 15 and 60 minutes of the clock, as far as there are bars.

    >>> averages = SlidingAverages()
    >>> for minute, close in ((0, 1.0), (3, 2.0), (7, 4.0)):
    ...     averages.push(ClosedBar(minute * MINUTE_NS, close, close, close, close, 10.0))
    >>> found = averages.data()
    >>> found["5m"], found["1h"]["bars"]
    ({'mean': 3.0, 'vwap': 3.0, 'volume': 20.0, 'bars': 2}, 3)
    """

    __slots__ = ("_bars",)

    def __init__(self) -> None:
        self._bars: list[list[float]] = []  # minute, close, volume, paid

    def push(self, bar: ClosedBar) -> None:
        """Take the next bar in."""
        minute = bar.start_ns // MINUTE_NS
        paid = bar.paid * bar.volume
        self._bars.append([minute, bar.close, bar.volume, paid])
        while self._bars[0][0] <= minute - _LONGEST:
            del self._bars[0]

    def data(self) -> dict[str, dict[str, Any]]:
        """The averages at the end of the last bar.

        Returns:
            Per window ``mean`` (of closes), ``vwap`` (``None`` without volume), ``volume`` and
            ``bars``.
        """
        last = self._bars[-1][0]
        return {name: self._over(last - span) for name, span in SLIDING.items()}

    def state(self) -> list[list[float]]:
        """Everything it knows, JSON types."""
        return self._bars

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Go on from what :meth:`state` gave."""
        self._bars = [list(there) for there in state]

    def _over(self, after: float) -> dict[str, Any]:
        there = [bar for bar in self._bars if bar[0] > after]
        volume = sum(bar[2] for bar in there)
        return {
            "mean": sum(bar[1] for bar in there) / len(there),
            "vwap": sum(bar[3] for bar in there) / volume if volume else None,
            "volume": volume,
            "bars": len(there),
        }
