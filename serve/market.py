"""How old a thing is on the market clock. Pure.

The producer's clock is exact and knows the sessions; before it is known, the headers of the
records give market time at a moment, and the rate does the rest. Ages count only market time in
which the market was open: the first bar after a night is not seventeen hours late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.clock import MarketClock

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class MarketTime:
    """Maps wall time to market time for those who only read the streams.

    Args:
        rate: Market seconds per wall second.
        clock: The announced clock, once known.
        anchor_wall_ns: Wall time of the newest record's sending; 0 before the first.
        anchor_market_ns: Market time at that moment.

    >>> time = MarketTime(rate=10, anchor_wall_ns=1_000_000_000, anchor_market_ns=50_000_000_000)
    >>> time.now_ns(3_000_000_000) // 1_000_000_000    # 2 s of wall time later
    70
    >>> time.age_ms(60_000_000_000, wall=3_000_000_000)
    10000.0
    >>> MarketTime(rate=10).now_ns(5) is None
    True
    """

    rate: float = 1.0
    clock: MarketClock | None = None
    anchor_wall_ns: int = 0
    anchor_market_ns: int = 0

    def now_ns(self, wall: int) -> int | None:
        """Market time at a wall time, or ``None`` when nothing is known yet."""
        if self.clock is not None:
            return self.clock.market_ns(wall)
        if not self.anchor_wall_ns:
            return None
        return self.anchor_market_ns + int((wall - self.anchor_wall_ns) * self.rate)

    def age_ms(self, market_ns: int, *, wall: int) -> float | None:
        """Open market milliseconds since a market time; never negative; ``None`` if unknown."""
        if self.clock is not None and self.clock.simulated:
            elapsed = (wall - self.clock.wall_at(market_ns)) * self.clock.rate
            return max(0.0, elapsed / NS_PER_MS)
        now = self.now_ns(wall)
        return None if now is None else max(0.0, (now - market_ns) / NS_PER_MS)

    def is_open(self, wall: int) -> bool | None:
        """Whether a session is running; ``None`` if unknown."""
        if self.clock is not None and self.clock.simulated:
            return self.clock.is_open(wall)
        return None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "rate": self.rate,
            "clock": self.clock.to_dict() if self.clock else None,
            "anchor_wall_ns": self.anchor_wall_ns,
            "anchor_market_ns": self.anchor_market_ns,
        }

    @classmethod
    def from_dict(cls, doc: Mapping[str, Any]) -> MarketTime:
        """The mapping that :meth:`to_dict` wrote."""
        clock = doc.get("clock")
        return cls(
            rate=float(doc["rate"]),
            clock=MarketClock.from_dict(clock) if clock else None,
            anchor_wall_ns=int(doc["anchor_wall_ns"]),
            anchor_market_ns=int(doc["anchor_market_ns"]),
        )


@dataclass(frozen=True, slots=True)
class Staleness:
    """When an input is too old to decide on.

    Args:
        after_ms: Open market milliseconds since the bar closed.
        after_wall_ms: The same in wall milliseconds; both must be exceeded.

    >>> rule = Staleness(after_ms=180_000, after_wall_ms=15_000)
    >>> rule.stale(200_000, rate=1), rule.stale(200_000, rate=600), rule.stale(None, rate=1)
    (True, False, False)
    """

    after_ms: float = 180_000
    after_wall_ms: float = 15_000

    def stale(self, age_ms: float | None, *, rate: float) -> bool:
        """Whether an age is too great; an unknown age is not."""
        return age_ms is not None and age_ms > max(self.after_ms, self.after_wall_ms * rate)
