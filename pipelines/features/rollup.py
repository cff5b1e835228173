"""Bars of 5 and 15 minutes, an hour and a day from closed minute bars, one after the other. Pure.

In: closed minute bars of one symbol, going forward, and the market time. Out: the bars of longer
windows as they close. A window closes with its last minute, with the first minute of a later one,
or when the market has been past its end for long enough. What comes for it afterwards makes its
next revision. Days begin at midnight in New York, so that a day holds its extended hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from pipelines.events import MINUTE_NS, SECOND_NS
from pipelines.features.bar import ClosedBar

NEW_YORK: Final = ZoneInfo("America/New_York")
WINDOWS: Final = {"5m": 5, "15m": 15, "1h": 60, "1d": 960}
"""Windows that are rolled up, with the minutes that each may hold; a day's hours are 16."""

_SPAN_NS: Final = {"1m": MINUTE_NS} | {name: n * MINUTE_NS for name, n in WINDOWS.items()}
_HOUR_NS: Final = 3600 * SECOND_NS
NEVER: Final = 2**62
"""When a window ends that there is none of."""


@lru_cache(maxsize=4096)
def _day_start_ns(hour: int) -> int:
    local = datetime.fromtimestamp(hour * 3600, UTC).astimezone(NEW_YORK)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return int(midnight.timestamp()) * SECOND_NS


def window_start_ns(ns: int, window: str) -> int:
    """Start of the window that a moment lies in; days begin at midnight in New York.

    >>> from pipelines.events import format_time_ns, parse_time_ns
    >>> format_time_ns(window_start_ns(parse_time_ns("2024-07-05T13:37:00Z"), "15m"))
    '2024-07-05T13:30:00Z'
    >>> format_time_ns(window_start_ns(parse_time_ns("2024-07-05T13:37:00Z"), "1d"))
    '2024-07-05T04:00:00Z'
    """
    if window == "1d":
        return _day_start_ns(ns // _HOUR_NS)
    span = _SPAN_NS[window]
    return ns // span * span


def window_end_ns(ns: int, window: str) -> int:
    """End of the window that a moment lies in, which is the start of the next.

    >>> from pipelines.events import format_time_ns, parse_time_ns
    >>> format_time_ns(window_end_ns(parse_time_ns("2024-11-03T12:00:00Z"), "1d"))  # of 25 hours
    '2024-11-04T05:00:00Z'
    """
    start = window_start_ns(ns, window)
    if window == "1d":
        return _day_start_ns((start + 36 * _HOUR_NS) // _HOUR_NS)
    return start + _SPAN_NS[window]


@dataclass(frozen=True, slots=True)
class Rolled:
    """A bar of a longer window.

    Args:
        window: One of :data:`WINDOWS`.
        bar: The bar; its start is the window's. ``vwap`` is weighted by volume, of what
            a share cost in each minute; ``source`` is ``vendor`` if every minute's is.
        revision: 0, and one more each time that the window got another minute after it closed.
    """

    window: str
    bar: ClosedBar
    revision: int = 0

    def data(self) -> dict[str, Any]:
        """Its item on ``market-signals``, JSON types."""
        return {
            "event_time": self.bar.event_time,
            "revision": self.revision,
            "bar": {**self.bar.data(), "window": self.window},
        }


class RollUp:
    """The windows of one symbol.

    >>> roll = RollUp()
    >>> closed = []
    >>> for minute in range(5):
    ...     bar = ClosedBar(minute * MINUTE_NS, 1 + minute, 2 + minute, minute, 1, volume=10)
    ...     closed += roll.push(bar)
    >>> [(r.window, r.bar.open, r.bar.high, r.bar.low, r.bar.volume) for r in closed]
    [('5m', 1, 6, 0, 50.0)]
    """

    __slots__ = ("_due_ns", "_open")

    def __init__(self) -> None:
        # Window: [start, end, open, high, low, close, volume, trades, paid, source, revision,
        # whether it closed]
        self._open: dict[str, list[Any]] = {}
        self._due_ns = NEVER

    @property
    def due_ns(self) -> int:
        """End of the window that ends first of those that have not closed, market time."""
        return self._due_ns

    def push(self, bar: ClosedBar) -> list[Rolled]:
        """Take the next minute in; the windows that it closed, the shortest first.

        Args:
            bar: A minute after those before it.
        """
        closed: list[Rolled] = []
        for window in WINDOWS:
            there = self._open.get(window)
            if there is not None and bar.start_ns >= there[1]:
                if not there[11]:
                    closed.append(_close(window, there))
                there = None
            if there is None:
                self._open[window] = there = [
                    window_start_ns(bar.start_ns, window), window_end_ns(bar.start_ns, window),
                    bar.open, bar.high, bar.low, bar.close, 0.0, None, 0.0, bar.source, 0, False,
                ]  # fmt: skip
            elif there[11]:
                there[10], there[11] = there[10] + 1, False
            _add(there, bar)
            if bar.start_ns + MINUTE_NS >= there[1]:
                closed.append(_close(window, there))
        self._find_due()
        return closed

    def idle(self, market_ns: int) -> list[Rolled]:
        """Close the windows that ended at or before a market time, the shortest first."""
        if market_ns < self._due_ns:
            return []
        closed = [
            _close(window, there)
            for window, there in self._open.items()
            if not there[11] and there[1] <= market_ns
        ]
        self._find_due()
        return closed

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON types."""
        return {window: list(there) for window, there in self._open.items()}

    def restore(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Go on from what :meth:`state` gave."""
        self._open = {window: list(there) for window, there in state.items()}
        self._find_due()

    def _find_due(self) -> None:
        self._due_ns = min((t[1] for t in self._open.values() if not t[11]), default=NEVER)


def _add(there: list[Any], bar: ClosedBar) -> None:
    there[3] = max(there[3], bar.high)
    there[4] = min(there[4], bar.low)
    there[5] = bar.close
    there[6] += bar.volume
    if bar.trade_count is not None:
        there[7] = (there[7] or 0) + bar.trade_count
    there[8] += bar.paid * bar.volume
    if bar.source != there[9]:
        there[9] = "trades"


def _close(window: str, there: list[Any]) -> Rolled:
    start, _, open_, high, low, close, volume, trades, paid, source, revision, _ = there
    there[11] = True
    vwap = paid / volume if volume else None
    bar = ClosedBar(start, open_, high, low, close, volume, trades, vwap, None, source)
    return Rolled(window, bar, revision)
