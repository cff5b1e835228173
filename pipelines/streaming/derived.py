"""What else follows from the closed bars and trades of one symbol. Pure.

Indicators, roll-ups, statistics, anomalies: nothing decides on them, and all of it is a function of
the stream. It travels with the bar that it was computed at, and is published as it was computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipelines.events import SECOND_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow, Floats
from pipelines.features.indicators import Indicators
from pipelines.features.rollup import RollUp
from pipelines.streaming.anomalies import AnomalyConfig, Watch
from pipelines.streaming.stats import PriceStats, SlidingAverages

LATENESS_NS: Final = 30 * SECOND_NS
"""Default of the market time after the end of a window at which it closes without its last bar."""

TOLERANCE: Final = 1e-6
"""Relative difference up to which our own bar agrees with the vendor's."""

_COMPARED: Final = ("open", "high", "low", "close", "volume")


class Derived:
    """Of one symbol.

    Args:
        lateness_ns: Market time that a window waits for its last bar.
        anomalies: What is unusual; without, the rules alone and no model.
        seed: Seed of the model.
    """

    __slots__ = ("_averages", "_indicators", "_lateness_ns", "_prices", "_rollup", "_watch")

    def __init__(
        self,
        *,
        lateness_ns: int = LATENESS_NS,
        anomalies: AnomalyConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._lateness_ns = lateness_ns
        self._watch = Watch(anomalies or AnomalyConfig(model="off"), seed=seed)
        self._indicators = Indicators()
        self._rollup = RollUp()
        self._prices = PriceStats()
        self._averages = SlidingAverages()

    def trade(self, ns: int, price: float) -> None:
        """Take a trade in that makes a price."""
        self._prices.trade(ns, price)

    def latency(self, count: int, total_ms: float) -> None:
        """Take in how long some messages took to arrive."""
        self._watch.latency(count, total_ms)

    def push(self, bar: ClosedBar) -> None:
        """Take a bar of the past in, for warming up; the prices begin with the stream."""
        self._indicators.push(bar)
        self._rollup.push(bar)
        self._averages.push(bar)
        self._watch.push(bar)

    def update(
        self,
        bar: ClosedBar,
        *,
        closes: Floats,
        row: FeatureRow,
        differences: Mapping[str, float] | None,
    ) -> dict[str, Any]:
        """Take the next closed bar in; what follows from it, JSON types.

        Args:
            bar: The bar.
            closes: The last closes up to it.
            row: Its features.
            differences: Of our own bar from the vendor's, if there are both.

        Returns:
            ``indicators``, ``rollups`` (those that closed), ``stats`` and ``anomalies``.
        """
        self._averages.push(bar)
        return {
            "indicators": self._indicators.update(bar, closes=closes, row=row),
            "rollups": [rolled.data() for rolled in self._rollup.push(bar)],
            "stats": {
                **self._prices.data(),
                "sliding": self._averages.data(),
                "own_bar": {
                    "differences": differences,
                    "agrees": None if differences is None else agree(differences),
                    "tolerance": TOLERANCE,
                },
            },
            "anomalies": self._watch.update(bar, closes=closes, row=row),
        }

    def idle(self, market_ns: int, *, pending: Iterable[int]) -> list[dict[str, Any]]:
        """The roll-ups that close because their time is over.

        Args:
            market_ns: Market time of the stream.
            pending: Starts of minutes that have trades and no bar yet: a window that holds one
                of them is not over.
        """
        until = market_ns - self._lateness_ns
        if until < self._rollup.due_ns:
            return []
        until = min([until, *pending])
        return [rolled.data() for rolled in self._rollup.idle(until)]

    def state(self) -> list[Any]:
        """Everything it knows, JSON types."""
        return [
            self._indicators.state(), self._rollup.state(), self._prices.state(),
            self._averages.state(), self._watch.state(),
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what :meth:`state` gave; nothing: begin."""
        if state:
            self._indicators.restore(state[0])
            self._rollup.restore(state[1])
            self._prices.restore(state[2])
            self._averages.restore(state[3])
        if len(state) > 4:  # an older version wrote none
            self._watch.restore(state[4])


def differences(own: Sequence[float], vendor: Sequence[float]) -> dict[str, float]:
    """How far our own open, high, low, close and volume lie from the vendor's, relative.

    >>> differences([1, 2, 1, 2, 110], [1, 2, 1, 2, 100])["volume"]
    0.1
    """
    return {
        name: (a - b) / abs(b) if b else a
        for name, a, b in zip(_COMPARED, own, vendor, strict=True)
    }


def agree(found: Mapping[str, float]) -> bool:
    """Whether none of the differences is beyond :data:`TOLERANCE`."""
    return all(abs(difference) <= TOLERANCE for difference in found.values())
