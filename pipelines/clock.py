"""The market clock: which moment of the market a moment of the wall clock is.

In live mode both are the same. A simulated market runs at a rate, and skips the hours in which
it is closed; its exchange announces origin, rate and sessions, and everyone who has the
announcement computes the same market time. Times are integers, nanoseconds since the epoch, UTC.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def wall_ns() -> int:
    """Now on the wall clock, nanoseconds since the epoch."""
    return time.time_ns()


@dataclass(frozen=True, slots=True)
class MarketClock:
    """Maps wall time to market time and back.

    Args:
        rate: Market seconds that pass in one wall second while the market is open.
        wall_origin_ns: Wall time at which the first session opens.
        sessions: ``(open_ns, close_ns)`` of each session in market time, ascending and disjoint.
            Empty in live mode, where market time is wall time.

    >>> s = 1_000_000_000
    >>> days = ((100 * s, 200 * s), (500 * s, 600 * s))
    >>> clock = MarketClock(rate=10, wall_origin_ns=0, sessions=days)
    >>> clock.market_ns(5 * s) // s     # 5 s of wall time are 50 s into the first session
    150
    >>> clock.market_ns(12 * s) // s    # the closed hours are skipped
    520
    >>> clock.wall_at(520 * s) // s
    12
    >>> LIVE.market_ns(7)
    7
    """

    rate: float = 1.0
    wall_origin_ns: int = 0
    sessions: tuple[tuple[int, int], ...] = ()
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")
        starts, elapsed = [], 0
        for opens, closes in self.sessions:
            starts.append(elapsed)
            elapsed += closes - opens
        object.__setattr__(self, "_starts", tuple(starts))

    @property
    def simulated(self) -> bool:
        """Whether this is a simulated market."""
        return bool(self.sessions)

    def market_ns(self, wall: int) -> int:
        """Market time at a wall time. After the last session it stands still at its close."""
        if not self.sessions:
            return wall
        elapsed = max(0, int((wall - self.wall_origin_ns) * self.rate))
        i = max(0, bisect_right(self._starts, elapsed) - 1)
        opens, closes = self.sessions[i]
        return min(opens + elapsed - self._starts[i], closes)

    def wall_at(self, market: int) -> int:
        """First wall time of a market time; closed hours map to the next opening."""
        if not self.sessions:
            return market
        i = max(0, bisect_right([opens for opens, _ in self.sessions], market) - 1)
        opens, closes = self.sessions[i]
        elapsed = self._starts[i] + max(0, min(market, closes) - opens)
        return self.wall_origin_ns + int(elapsed / self.rate)

    def is_open(self, wall: int) -> bool:
        """Whether a session is running at a wall time; always true in live mode."""
        if not self.sessions:
            return True
        elapsed = (wall - self.wall_origin_ns) * self.rate
        opens, closes = self.sessions[-1]
        return 0 <= elapsed < self._starts[-1] + closes - opens

    def to_dict(self) -> dict[str, Any]:
        """The announcement, as JSON types."""
        return {
            "rate": self.rate,
            "wall_origin_ns": self.wall_origin_ns,
            "sessions": [list(s) for s in self.sessions],
        }

    @classmethod
    def from_dict(cls, announced: Mapping[str, Any]) -> MarketClock:
        """The clock of an announcement made by :meth:`to_dict`."""
        return cls(
            rate=float(announced["rate"]),
            wall_origin_ns=int(announced["wall_origin_ns"]),
            sessions=tuple((int(a), int(b)) for a, b in announced["sessions"]),
        )


LIVE = MarketClock()
"""The clock of live mode: market time is wall time."""
