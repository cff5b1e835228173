"""Ticks that the feed sent twice, recognised in a short window. Pure."""

from __future__ import annotations

from typing import Any

from pipelines.events import BAR, QUOTE, TRADE

_DATED = frozenset("cxsli")
"""Rarer types whose time is that of the event: the same text is the same event. (A daily bar of a
quiet minute says the same as the one before, and is none.)"""

GENERATION = 200_000
"""Ticks after which the older half of what is remembered is forgotten."""


class RecentTicks:
    """Remembers the last two to four hundred thousand ticks and events of all symbols.

    A trade id is unique per symbol, exchange and day, so a trade with the same id and time is the
    same trade; at another price one of the two is a mistake, and not ours to choose. Quotes and
    bars have no id: one that says the same of the same nanosecond (or minute) says nothing new. A
    trade without an id is never a repeat.

    >>> recent = RecentTicks()
    >>> trade = {"T": "t", "S": "SPY", "i": 7, "x": "V", "t": "2024-01-02T15:00:00Z"}
    >>> recent.repeats("SPY", trade), recent.repeats("SPY", trade)
    (False, True)
    """

    def __init__(self) -> None:
        self._now: set[int] = set()
        self._before: set[int] = set()

    def repeats(self, symbol: str, tick: dict[str, Any]) -> bool:
        """Whether this tick came before; remembers it. Daily and updated bars never repeat."""
        kind, get = tick["T"], tick.get
        try:
            # 64 bits for a tuple: one in 10^14 ticks is taken for another, and then quarantined.
            if kind == QUOTE:
                key = hash((symbol, get("t"), get("bp"), get("ap"), get("bs"), get("as"),
                            get("bx"), get("ax")))  # fmt: skip
            elif kind == TRADE:
                if get("i") is None:
                    return False
                key = hash((symbol, get("i"), get("x"), get("t"), get("p"), get("s")))
            elif kind == BAR:
                key = hash((symbol, get("t"), *map(get, "ohlcv")))
            elif kind in _DATED:
                key = hash(repr(tick))
            else:
                return False
        except (TypeError, RecursionError):
            return False  # no such value is a tick's; the reader of the stream says so
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
