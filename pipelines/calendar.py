"""The trading calendar of the NYSE: which days have a session, and when it opens and closes."""

from __future__ import annotations

from datetime import date
from functools import cache

import exchange_calendars

EXCHANGE = "XNYS"


@cache
def _calendar(start: date, end: date) -> exchange_calendars.ExchangeCalendar:
    return exchange_calendars.get_calendar(EXCHANGE, start=start, end=end)


def sessions(start: date, end: date) -> tuple[tuple[int, int], ...]:
    """Regular sessions of the days ``start`` to ``end``, both included.

    Args:
        start: First day.
        end: Last day.

    Returns:
        ``(open_ns, close_ns)`` per session, ascending; half days and holidays as they were.

    >>> [(c - o) // 60_000_000_000 for o, c in sessions(date(2024, 7, 2), date(2024, 7, 5))]
    [390, 210, 390]
    """
    calendar = _calendar(date(start.year, 1, 1), date(end.year, 12, 31))
    schedule = calendar.schedule.loc[str(start) : str(end)]
    return tuple(
        (int(row.open.value), int(row.close.value)) for row in schedule.itertuples(index=False)
    )
