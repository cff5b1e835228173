"""What else follows from the closed bars and trades of one symbol. Pure.

Indicators, roll-ups, statistics, anomalies: nothing decides on them, and all of it is a function of
the stream. It travels with the bar that it was computed at, and is published as it was computed.
Most of it changes with a bar alone, and stays the bytes that it is until one closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from pipelines.events import SECOND_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow, Floats
from pipelines.features.indicators import Indicators
from pipelines.features.rollup import NEVER, RollUp
from pipelines.streaming.anomalies import AnomalyConfig, Watch
from pipelines.streaming.stats import PriceStats, SlidingAverages

LATENESS_NS: Final = 30 * SECOND_NS
"""Default of the market time after the end of a window at which it closes without its last bar."""

TOLERANCE: Final = 1e-6
"""Relative difference up to which our own bar agrees with the vendor's."""

_COMPARED: Final = ("open", "high", "low", "close", "volume")


class _OfBars:
    """What changes with a bar alone.

    Args:
        anomalies: What is unusual.
        seed: Seed of the model.
    """

    __slots__ = ("averages", "indicators", "rollup", "watch")

    def __init__(self, anomalies: AnomalyConfig, seed: int) -> None:
        self.indicators = Indicators()
        self.rollup = RollUp()
        self.averages = SlidingAverages()
        self.watch = Watch(anomalies, seed=seed)

    def push(self, bar: ClosedBar) -> None:
        """Take a bar of the past in, for warming up."""
        for part in (self.indicators, self.rollup, self.averages, self.watch):
            part.push(bar)

    def state(self) -> list[Any]:
        """Everything it knows, JSON types."""
        return [
            self.indicators.state(), self.rollup.state(), self.averages.state(),
            self.watch.state(),
        ]  # fmt: skip

    def restore(self, indicators: Any, rollup: Any, averages: Any, watch: Any = None) -> None:
        """Go on from what :meth:`state` gave."""
        self.indicators.restore(indicators)
        self.rollup.restore(rollup)
        self.averages.restore(averages)
        if watch is not None:  # an older version wrote none
            self.watch.restore(watch)


class Derived:
    """Of one symbol.

    Args:
        lateness_ns: Market time that a window waits for its last bar.
        anomalies: What is unusual; without, the rules alone and no model.
        seed: Seed of the model.
    """

    __slots__ = (
        "_anomalies", "_kept", "_kept_due_ns", "_late", "_lateness_ns", "_made", "_prices", "_seed",
    )  # fmt: skip

    def __init__(
        self,
        *,
        lateness_ns: int = LATENESS_NS,
        anomalies: AnomalyConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._lateness_ns = lateness_ns
        self._anomalies = anomalies or AnomalyConfig(model="off")
        self._seed = seed
        self._prices = PriceStats()
        self._late = (0, 0.0)  # messages since the last bar, and how long they took
        self._kept, self._kept_due_ns = b"", NEVER
        self._made: _OfBars | None = None

    @property
    def _bars(self) -> _OfBars:
        made = self._made
        if made is None:
            made = self._made = _OfBars(self._anomalies, self._seed)
            if self._kept:
                made.restore(*orjson.loads(self._kept))
        return made

    @property
    def _due_ns(self) -> int:
        """End of the roll-up that closes first of those that are open."""
        return self._kept_due_ns if self._made is None else self._made.rollup.due_ns

    def trade(self, ns: int, price: float) -> None:
        """Take a trade in that makes a price."""
        self._prices.trade(ns, price)

    def latency(self, count: int, total_ms: float) -> None:
        """Take in how long some messages took to arrive."""
        self._late = (self._late[0] + count, self._late[1] + total_ms)

    def push(self, bar: ClosedBar) -> None:
        """Take a bar of the past in, for warming up; the prices begin with the stream."""
        self._bars.push(bar)

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
        bars = self._bars
        bars.averages.push(bar)
        self._hand_on()
        return {
            "indicators": bars.indicators.update(bar, closes=closes, row=row),
            "rollups": [rolled.data() for rolled in bars.rollup.push(bar)],
            "stats": {
                **self._prices.data(),
                "sliding": bars.averages.data(),
                "own_bar": {
                    "differences": differences,
                    "agrees": None if differences is None else agree(differences),
                    "tolerance": TOLERANCE,
                },
            },
            "anomalies": bars.watch.update(bar, closes=closes, row=row),
        }

    def idle(self, market_ns: int, *, pending: Iterable[int]) -> list[dict[str, Any]]:
        """The roll-ups that close because their time is over.

        Args:
            market_ns: Market time of the stream.
            pending: Starts of minutes that have trades and no bar yet: a window that holds one
                of them is not over.
        """
        until = market_ns - self._lateness_ns
        if until < self._due_ns:
            return []
        until = min([until, *pending])
        return [rolled.data() for rolled in self._bars.rollup.idle(until)]

    def state(self) -> list[Any]:
        """Everything it knows, JSON types: where a warmed up one begins."""
        self._hand_on()
        indicators, rollup, averages, watch = self._bars.state()
        return [indicators, rollup, self._prices.state(), averages, watch]

    def _hand_on(self) -> None:
        self._bars.watch.latency(*self._late)
        self._late = (0, 0.0)

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what :meth:`state` gave; nothing: begin."""
        if not state:
            return
        indicators, rollup, prices, averages, *watch = state
        self._prices.restore(prices)
        self._bars.restore(indicators, rollup, averages, *watch)

    def to_bytes(self) -> bytes:
        """Everything it knows; what no bar has touched as it was."""
        head = orjson.dumps([self._prices.state(), self._due_ns, self._late])
        kept = self._kept if self._made is None else orjson.dumps(self._made.state())
        return head + b"\n" + kept

    def from_bytes(self, data: bytes) -> None:
        """Go on from what :meth:`to_bytes` gave."""
        head, _, self._kept = data.partition(b"\n")
        prices, self._kept_due_ns, (count, total_ms) = orjson.loads(head)
        self._prices.restore(prices)
        self._late = (count, total_ms)


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
