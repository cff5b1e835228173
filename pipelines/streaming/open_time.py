"""How long the market was open between two moments, or may have been. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from pipelines import calendar
from pipelines.events import DAY_NS, MINUTE_NS

JUMP_NS: Final = 5 * MINUTE_NS
"""Open time without a bar after which a new producer begins from history again."""

_OTHER_MARKET_NS: Final = 10 * DAY_NS
"""No market is closed for so long: no need to ask the calendar."""


def open_ns(from_ns: int, to_ns: int) -> int:
    """How much of a time the market was open, or may have been if it is long.

    >>> friday, monday = 1_294_434_000_000_000_000, 1_294_669_800_000_000_000  # close, open
    >>> open_ns(friday - MINUTE_NS, monday + MINUTE_NS) // MINUTE_NS
    2
    """
    if not JUMP_NS < to_ns - from_ns <= _OTHER_MARKET_NS:
        return max(0, to_ns - from_ns)
    first, last = (datetime.fromtimestamp(ns / 1e9, UTC).date() for ns in (from_ns, to_ns))
    sessions = calendar.sessions(first - timedelta(1), last)  # more than one day, by its contract
    return sum(max(0, min(to_ns, end) - max(from_ns, begin)) for begin, end in sessions)
