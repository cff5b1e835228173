"""Time-weighted quoted spread of each minute, from quotes as they come. Pure.

A quote is in force from its time until the next one, at most :data:`MAX_IN_FORCE_NS`; one that is
in force when a minute begins counts from its beginning. A quote with an empty side, or with the
ask below the bid, ends the one before and is none itself. A quote dated before one that came
earlier takes effect where that one did.
"""

from __future__ import annotations

from typing import Any, Final

from pipelines.events import MINUTE_NS

MAX_IN_FORCE_NS: Final = 60 * MINUTE_NS
"""Longest life of a quote: yesterday's last one says nothing about this morning."""

_MAX_MINUTES: Final = 64


class SpreadMeter:
    """Spread of the minutes of one symbol, in basis points of the mid price.

    >>> meter = SpreadMeter()
    >>> meter.quote(0, bid=99.0, ask=101.0)                 # 200 bps for 15 s
    >>> meter.quote(15_000_000_000, bid=100.0, ask=100.0)   # then none
    >>> meter.close(0)
    50.0
    >>> meter.close(MINUTE_NS)                              # still in force
    0.0
    """

    __slots__ = ("_at_ns", "_expires_ns", "_minutes", "_spread")

    def __init__(self) -> None:
        self._at_ns = 0
        self._expires_ns = 0
        self._spread: float | None = None
        self._minutes: dict[int, list[float]] = {}  # start: [sum of bps times ns, ns]

    def quote(self, ns: int, *, bid: float, ask: float) -> None:
        """Take the next quote in."""
        self._advance(ns)
        self._at_ns = max(ns, self._at_ns)
        self._expires_ns = self._at_ns + MAX_IN_FORCE_NS
        valid = bid > 0 and ask > 0 and ask >= bid
        self._spread = (ask - bid) / ((ask + bid) / 2) * 10_000 if valid else None

    def close(self, start_ns: int) -> float | None:
        """The spread of the minute that began then; it and those before it are forgotten.

        Returns:
            Basis points, weighted by the time for which there was a quote; ``None`` if never.
        """
        self._advance(start_ns + MINUTE_NS)
        total = self._minutes.get(start_ns)
        self._minutes = {k: v for k, v in self._minutes.items() if k > start_ns}
        return total[0] / total[1] if total else None

    def state(self) -> list[Any]:
        """What it knows, as JSON types."""
        minutes = [[start, *total] for start, total in self._minutes.items()]
        return [self._at_ns, self._expires_ns, self._spread, minutes]

    def restore(self, state: list[Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._at_ns, self._expires_ns, self._spread, minutes = state
        self._minutes = {start: [weighted, ns] for start, weighted, ns in minutes}

    def _advance(self, to_ns: int) -> None:
        end_ns = min(to_ns, self._expires_ns)
        if self._spread is not None:
            while self._at_ns < end_ns:
                start = self._at_ns - self._at_ns % MINUTE_NS
                until = min(end_ns, start + MINUTE_NS)
                total = self._minutes.setdefault(start, [0.0, 0.0])
                total[0] += self._spread * (until - self._at_ns)
                total[1] += until - self._at_ns
                self._at_ns = until
            while len(self._minutes) > _MAX_MINUTES:
                del self._minutes[min(self._minutes)]
        self._at_ns = max(self._at_ns, to_ns)
