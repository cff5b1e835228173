"""Trades that the feed sent twice: recognised by exchange, id and time in a short window. Pure."""

from __future__ import annotations

from typing import Any

GENERATION = 100_000
"""Trades after which the older half of what is remembered is forgotten."""


class RecentTrades:
    """Remembers the last one to two hundred thousand trades of all symbols.

    A trade id is unique per symbol, exchange and day, so a trade with the same id and time is the
    same trade. What has no id is never a repeat.

    >>> recent = RecentTrades()
    >>> trade = {"T": "t", "S": "SPY", "i": 7, "x": "V", "t": "2024-01-02T15:00:00Z"}
    >>> recent.repeats("SPY", trade), recent.repeats("SPY", trade)
    (False, True)
    """

    def __init__(self) -> None:
        self._now: set[int] = set()
        self._before: set[int] = set()

    def repeats(self, symbol: str, trade: dict[str, Any]) -> bool:
        """Whether this trade came before; remembers it."""
        number = trade.get("i")
        if number is None:
            return False
        try:
            # 64 bits for a tuple: one in 10^14 trades is taken for another, and then quarantined.
            key = hash((symbol, number, trade.get("x"), trade.get("t")))
        except TypeError:
            return False  # no such value is a trade's; the reader of the stream says so
        if key in self._now or key in self._before:
            return True
        if len(self._now) >= GENERATION:
            self._before, self._now = self._now, set()
        self._now.add(key)
        return False

    def clear(self) -> None:
        """Forget all: the market began again, with the same ids."""
        self._now.clear()
        self._before.clear()
