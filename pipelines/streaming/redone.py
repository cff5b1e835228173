"""Roll-ups that hold a revised minute: made anew, and published as a revision of their own.

The stream publishes a longer window once, of the minutes as they were; it never hears of a
revision. So each window that a revised minute lies in is made anew from ``bars_current`` when it is
over: when a bar of its last minute or of a later one is in ``features``. Its revision is
:data:`REDONE` plus the revisions of its minutes: the same as long as nothing else changes, and
above what the stream counts.

What is due is found again from the lake after a restart, and published again; ids are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from pipelines.events import DAY_NS, MINUTE_NS, market_day
from pipelines.features.rollup import WINDOWS, Rolled, RollUp, window_end_ns, window_start_ns
from pipelines.lake.query import LakeQuery
from pipelines.streaming.rebuild import Row
from pipelines.streaming.remade import bar_of_row

REDONE: Final = 1_000_000
"""Revisions of roll-ups that were made anew begin above it."""

SYMBOLS: Final = 50
"""Symbols that are made anew together: of each up to a session of bars is held in memory."""

_REVISED: Final = """
    SELECT symbol, event_time_ns // $minute AS minute FROM features f
    WHERE revision > 0 AND event_time_ns > (
        SELECT max(event_time_ns) - $day FROM features WHERE symbol = f.symbol)
    GROUP BY ALL
"""
_BARS: Final = """
    SELECT * FROM bars_current WHERE symbol IN $symbols
        AND date >= make_timestamp_ns($from_ns)::DATE AND date <= make_timestamp_ns($to_ns)::DATE
        AND event_time_ns >= $from_ns AND event_time_ns < $to_ns
    ORDER BY symbol, event_time_ns
"""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One window of one symbol."""

    symbol: str
    start_ns: int
    window: str

    @property
    def end_ns(self) -> int:
        """Where it ends."""
        return window_end_ns(self.start_ns, self.window)

    def over(self, newest_minute: int) -> bool:
        """Whether a bar of its last minute, or of a later one, is there."""
        return (newest_minute + 1) * MINUTE_NS >= self.end_ns


class Redone:
    """What is to be made anew. One thread uses it.

    Args:
        lake: The lake.
    """

    def __init__(self, lake: LakeQuery) -> None:
        self._lake = lake
        self._touched: set[Span] = set()
        self._ready: set[Span] = set()

    @property
    def waiting(self) -> bool:
        """Whether windows are not over yet, as far as is known."""
        return bool(self._touched)

    @property
    def settled(self) -> bool:
        """Whether nothing is ready to be published."""
        return not self._ready

    def since(self) -> dict[str, int]:
        """The first minute of each symbol that a window waits in."""
        firsts: dict[str, int] = {}
        for span in self._touched:
            start = span.start_ns // MINUTE_NS
            firsts[span.symbol] = min(start, firsts.get(span.symbol, start))
        return firsts

    def find(self) -> None:
        """Find what may not have been published: the windows of the last day's revisions.

        Raises:
            LakeError: The lake cannot be read.
        """
        rows = self._lake.sql(_REVISED, {"minute": MINUTE_NS, "day": DAY_NS}).to_pylist()
        for row in rows:
            self.touch(row["symbol"], [row["minute"]])

    def touch(self, symbol: str, minutes: Iterable[int]) -> None:
        """Note that minutes (since the epoch) were revised."""
        for minute in minutes:
            ns = minute * MINUTE_NS
            self._touched |= {Span(symbol, window_start_ns(ns, w), w) for w in WINDOWS}

    def due(self) -> set[Span]:
        """Some of what is ready: of one trading day and a bounded number of symbols."""
        day = max((market_day(span.start_ns) for span in self._ready), default=None)
        spans = {span for span in self._ready if market_day(span.start_ns) == day}
        symbols = set(sorted({span.symbol for span in spans})[:SYMBOLS])
        return {span for span in spans if span.symbol in symbols}

    def payloads(self, spans: Set[Span]) -> list[dict[str, Any]]:
        """Windows of one trading day, made anew: what ``rows.derived_items`` takes, by symbol.

        Args:
            spans: At least one.

        Raises:
            LakeError: The lake cannot be read.
        """
        of = {
            "symbols": sorted({span.symbol for span in spans}),
            "from_ns": min(span.start_ns for span in spans),
            "to_ns": max(span.end_ns for span in spans),
        }
        rows: dict[str, list[Row]] = {}
        for row in self._lake.sql(_BARS, of).to_pylist():
            rows.setdefault(row["symbol"], []).append(row)
        return [
            {"symbol": symbol, "rollups": [made.data() for made in _make(rows[symbol], own)]}
            for symbol, own in _by_symbol(spans).items()
            if symbol in rows
        ]

    def published(self, spans: Set[Span]) -> None:
        """Forget what was ready."""
        self._ready -= spans

    def look(self, newest: Mapping[str, int]) -> None:
        """Make ready what is over. It waits for the next pass, so that the stream speaks first.

        Args:
            newest: The newest minute with features of each symbol.
        """
        over = {span for span in self._touched if span.over(newest.get(span.symbol, -1))}
        self._touched -= over
        self._ready |= over


def _make(rows: Sequence[Row], spans: Iterable[Span]) -> Iterator[Rolled]:
    for span in spans:
        inside = [row for row in rows if span.start_ns <= row["event_time_ns"] < span.end_ns]
        if inside:
            yield redo(inside, span)


def redo(rows: Sequence[Row], span: Span) -> Rolled:
    """A window from its minutes as they stand, oldest first; at least one."""
    roll = RollUp()
    closed = [rolled for row in rows for rolled in roll.push(bar_of_row(row))]
    closed += roll.idle(span.end_ns)
    made = next(r for r in closed if (r.window, r.bar.start_ns) == (span.window, span.start_ns))
    revision = REDONE + sum(row["revision"] for row in rows)
    return Rolled(span.window, replace(made.bar, source="revised"), revision)


def _by_symbol(spans: Iterable[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in sorted(spans):
        found.setdefault(span.symbol, []).append(span)
    return found
