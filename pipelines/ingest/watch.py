"""Whether a silent feed is a broken feed. Pure.

Silence means nothing while the market is closed, or where a symbol trades once in a while. So the
limit grows with the usual distance of messages, and with each reconnect that brought nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime

from pipelines import calendar
from pipelines.clock import MarketClock
from pipelines.events import SECOND_NS

USUAL_INTERVALS = 50
SMOOTHING = 0.05
MAX_DOUBLINGS = 6


class StalenessWatch:
    """Judges the silence of a feed.

    Args:
        stale_s: Least silence, in an open market, that means a broken feed.

    >>> watch = StalenessWatch(stale_s=30)
    >>> watch.connected(0.0)
    >>> watch.stale(29.0), watch.stale(31.0)
    (False, True)
    >>> watch.gave_up(); watch.connected(31.0)  # the next connection is silent as well
    >>> watch.stale(90.0), watch.stale(92.0)
    (False, True)
    """

    def __init__(self, *, stale_s: float) -> None:
        self._stale_s = stale_s
        self._last_s: float | None = None
        self._interval_s = 0.0
        self._fruitless = 0

    def connected(self, now_s: float) -> None:
        """Data may come from now on."""
        self._last_s = now_s

    def heard(self, now_s: float) -> None:
        """Data came."""
        if self._last_s is not None:
            self._interval_s += SMOOTHING * (now_s - self._last_s - self._interval_s)
        self._last_s = now_s
        self._fruitless = 0

    def gave_up(self) -> None:
        """The connection was ended for its silence."""
        self._fruitless += 1
        self._last_s = None

    def stale(self, now_s: float) -> bool:
        """Whether the silence is too long for an open market."""
        if self._last_s is None:
            return False
        limit_s = max(self._stale_s, USUAL_INTERVALS * self._interval_s)
        return now_s - self._last_s > limit_s * float(2 ** min(self._fruitless, MAX_DOUBLINGS))


def market_open(clock: MarketClock, wall_ns: int) -> bool:
    """Whether the regular session runs.

    >>> from pipelines.clock import LIVE
    >>> from pipelines.events import parse_time_ns
    >>> days = "2024-07-03", "2024-07-04"
    >>> [market_open(LIVE, parse_time_ns(f"{day}T15:00:00Z")) for day in days]
    [True, False]
    """
    if clock.simulated:
        return clock.is_open(wall_ns)
    year = datetime.fromtimestamp(wall_ns / SECOND_NS, UTC).year
    sessions = calendar.sessions(date(year, 1, 1), date(year, 12, 31))
    i = bisect_right(sessions, (wall_ns, 2**63)) - 1
    return i >= 0 and wall_ns < sessions[i][1]
