"""What of the bars must be looked at again. Pure.

A correction, a cancel, an updated bar, a late or a backfilled trade says that a bar which is over
may be another one by now. Which bars these are stands in the archive's state, from the commit that
stores such a message until somebody has looked: :mod:`pipelines.streaming.revisions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.events import MINUTE_NS, market_day

MAX_ENTRIES = 50_000
"""Minutes and days that are kept; what is too much is left out, the oldest of a symbol first."""
_NAMES = ("minutes", "days", "after")


@dataclass(slots=True)
class Dirty:
    """Minutes, and days in which a trade was corrected, by symbol.

    Args:
        minutes: Minutes since the epoch.
        days: Trading days (:func:`~pipelines.events.market_day`): which minute a corrected trade
            lies in, the lake knows.
        after: Minutes in which a gap ended that was filled: the next rows of ``features`` after
            them, whenever they come.

    >>> dirty = Dirty()
    >>> dirty.minute("SPY", 61 * 1_000_000_000)
    >>> dirty.day("SPY", 86_400 * 1_000_000_000)
    >>> dirty.to_dict()
    {'minutes': {'SPY': [1]}, 'days': {'SPY': [0]}, 'after': {}}
    """

    minutes: dict[str, set[int]] = field(default_factory=dict)
    days: dict[str, set[int]] = field(default_factory=dict)
    after: dict[str, set[int]] = field(default_factory=dict)

    def minute(self, symbol: str, ns: int) -> None:
        """The minute of a moment."""
        self.minutes.setdefault(symbol, set()).add(ns // MINUTE_NS)

    def day(self, symbol: str, ns: int) -> None:
        """The trading day of a moment, in which a trade was corrected."""
        self.days.setdefault(symbol, set()).add(market_day(ns))

    @property
    def _maps(self) -> tuple[dict[str, set[int]], ...]:
        return self.minutes, self.days, self.after  # in the order of _NAMES

    def __len__(self) -> int:
        return sum(len(found) for by_symbol in self._maps for found in by_symbol.values())

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Each as (kind, symbol, number), days and ends of gaps first, then the newest minutes."""
        for kind, found in (("day", self.days), ("after", self.after)):
            for symbol, numbers in found.items():
                yield from ((kind, symbol, number) for number in sorted(numbers))
        flat = [(minute, symbol) for symbol, found in self.minutes.items() for minute in found]
        yield from (("minute", symbol, minute) for minute, symbol in sorted(flat, reverse=True))

    def of(self, symbol: str) -> Dirty:
        """What of it is of one symbol."""
        return Dirty(*({symbol: set(found.get(symbol, ()))} for found in self._maps))

    def plus(self, other: Dirty) -> Dirty:
        """Both together."""
        return Dirty(*map(_union, self._maps, other._maps))

    def minus(self, other: Dirty) -> Dirty:
        """What of this is not in the other."""
        return Dirty(*map(_without, self._maps, other._maps))

    def bounded(self, limit: int = MAX_ENTRIES) -> tuple[Dirty, int]:
        """At most so many of it, and how many were left out: the oldest minutes.

        >>> dirty = Dirty({"SPY": {1, 2, 3}})
        >>> dirty.bounded(2)
        (Dirty(minutes={'SPY': {2, 3}}, days={}, after={}), 1)
        """
        excess = len(self) - limit
        if excess <= 0:
            return self, 0
        flat = sorted((m, symbol) for symbol, found in self.minutes.items() for m in found)
        out: dict[str, set[int]] = {}
        for minute, symbol in flat[:excess]:
            out.setdefault(symbol, set()).add(minute)
        return self.minus(Dirty(out)), min(excess, len(flat))

    def to_dict(self) -> dict[str, Any]:
        """JSON types; :meth:`from_dict` reads them."""
        return {name: _sorted(found) for name, found in zip(_NAMES, self._maps, strict=True)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Mapping[str, Iterable[int]]]) -> Dirty:
        """What :meth:`to_dict` gave; nothing in a state that knows of none."""
        maps = (fields.get(name, {}) for name in _NAMES)
        return cls(*({symbol: set(found) for symbol, found in of.items()} for of in maps))


def _union(a: Mapping[str, set[int]], b: Mapping[str, set[int]]) -> dict[str, set[int]]:
    return {symbol: a.get(symbol, set()) | b.get(symbol, set()) for symbol in {**a, **b}}


def _without(a: Mapping[str, set[int]], b: Mapping[str, set[int]]) -> dict[str, set[int]]:
    left = {symbol: found - b.get(symbol, set()) for symbol, found in a.items()}
    return {symbol: found for symbol, found in left.items() if found}


def _sorted(found: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {symbol: sorted(numbers) for symbol, numbers in found.items() if numbers}
