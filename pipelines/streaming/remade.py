"""Features and indicators of bars of the past, over the bars before them as they stand now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder, FeatureRow
from pipelines.features.indicators import Indicators
from pipelines.features.rollup import WINDOWS
from pipelines.features.spec import WINDOW, FeatureSpec
from pipelines.streaming.known import Minutes
from pipelines.streaming.rebuild import Row
from pipelines.streaming.warmup import MAX_HOLE_NS, StartLoader

DEEP: Final = max(WINDOW, WINDOWS["1d"])
"""Bars before a minute that are looked at: the features' window, and the whole session."""


@dataclass(frozen=True, slots=True)
class RemadeBar:
    """A bar with what follows from it.

    Args:
        bar: The bar.
        row: Its features.
        indicators: Its indicators.
    """

    bar: ClosedBar
    row: FeatureRow
    indicators: Mapping[str, float | None]


class Remake:
    """Walks over the bars of one symbol.

    Args:
        spec: The features.
        history: Bars from before the lake began.
        assumed_spread_bps: ``spread_bps`` of a bar without quotes.
    """

    def __init__(
        self, spec: FeatureSpec, history: StartLoader, *, assumed_spread_bps: float
    ) -> None:
        self._spec = spec
        self._history = history
        self._assumed = assumed_spread_bps

    def walk(
        self, symbol: str, found: Minutes, wanted: Mapping[int, ClosedBar]
    ) -> Iterator[RemadeBar]:
        """What follows from some bars, oldest first.

        Args:
            symbol: Their symbol.
            found: What the lake knows of their minutes.
            wanted: They, by minute since the epoch, with their spreads.
        """
        begun = self._begin(symbol, found, min(wanted) * MINUTE_NS)
        builder, indicators, last_ns = begun
        known = {row["event_time_ns"] // MINUTE_NS: bar_of_row(row) for row in found.between}
        for minute, bar in sorted((known | dict(wanted)).items()):
            if bar.start_ns - last_ns > MAX_HOLE_NS:
                builder, indicators = self._nothing()
            last_ns = bar.start_ns
            if minute in wanted:
                row = builder.update(bar)
                seen = indicators.update(bar, closes=builder.closes, row=row)
                yield RemadeBar(bar, row, seen)
            else:
                builder.push(bar)
                indicators.push(bar)

    def _begin(
        self, symbol: str, found: Minutes, first_ns: int
    ) -> tuple[FeatureBuilder, Indicators, int]:
        """Where the walk begins, and the start of the last bar before it."""
        builder, indicators = self._nothing()
        last_ns = 0
        before = found.before
        if len(before) < DEEP:
            for row in (*before, *found.between)[:1]:
                first_ns = min(first_ns, row["event_time_ns"])
            start = self._history.start(symbol, first_ns)
            builder.restore(start.window)
            if start.derived:
                indicators.restore(start.derived[0])
            last_ns = start.starts[-1] if start.starts else first_ns
        for row in before:
            if row["event_time_ns"] - last_ns > MAX_HOLE_NS:
                builder, indicators = self._nothing()
            last_ns = row["event_time_ns"]
            bar = bar_of_row(row)
            builder.push(bar)
            indicators.push(bar)
        return builder, indicators, last_ns

    def _nothing(self) -> tuple[FeatureBuilder, Indicators]:
        return FeatureBuilder(self._spec, assumed_spread_bps=self._assumed), Indicators()


def bar_of_row(row: Row) -> ClosedBar:
    """The bar of a row of ``features`` or ``bars_current``; without its spread."""
    return ClosedBar(
        row["event_time_ns"], row["open"], row["high"], row["low"], row["close"], row["volume"],
        row["trade_count"], row["vwap"], source=row["source"],
    )  # fmt: skip
