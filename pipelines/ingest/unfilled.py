"""The gaps whose messages are still to be fetched, and how far each has come. Pure.

Everything here follows from what the stream holds for certain: a gap begins to count when its row
is stored, goes forward with each backfilled message that is stored, and ends with its second row.
So whoever restarts knows, to the message, what is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.events import Message, effective_ns
from pipelines.ingest.edges import identity

log = logging.getLogger(__name__)

MAX_GAPS = 5000
"""Most gaps that are remembered; the oldest are given up first."""

Key = tuple[str, int, int]
"""Symbol, ``from_ns`` and ``to_ns`` of a gap."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one record adds to the filling of a symbol's gap, for one message type.

    Args:
        ns: Effective time of its last message.
        at_ns: How many of its messages have that time.
        count: Its messages.
    """

    ns: int
    at_ns: int
    count: int

    def then(self, ns: int) -> Step:
        """The step with one more message.

        >>> Step(5, 1, 1).then(5).then(7)
        Step(ns=7, at_ns=1, count=3)
        """
        return Step(ns, self.at_ns + 1 if ns == self.ns else 1, self.count + 1)

    def and_then(self, other: Step) -> Step:
        """Both steps as one.

        >>> Step(5, 2, 2).and_then(Step(5, 1, 1)), Step(5, 2, 2).and_then(Step(7, 1, 4))
        (Step(ns=5, at_ns=3, count=3), Step(ns=7, at_ns=1, count=6))
        """
        more = self.at_ns if other.ns == self.ns and other.at_ns == other.count else 0
        return Step(other.ns, more + other.at_ns, self.count + other.count)


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap to fill.

    Args:
        symbol: Whose.
        from_ns: What came at or before it is stored.
        to_ns: What came at or after it is stored.
        reason: Why it is there.
        done: Per message type, how far it is filled.
        seen: Identities of messages inside that are stored all the same.
    """

    symbol: str
    from_ns: int
    to_ns: int
    reason: str = ""
    done: Mapping[str, Step] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.symbol, self.from_ns, self.to_ns

    def begins_ns(self, kind: str) -> int:
        """Effective time from which on messages of a type are missing."""
        return self.done[kind].ns if kind in self.done else self.from_ns + 1

    def missing(self, kind: str) -> Callable[[Message], bool]:
        """A filter for the messages of its symbol and a type, all of them, in order of time.

        Whether the next one lies inside and is not stored yet.
        """
        begins_ns, skip = self.begins_ns(kind), self.done[kind].at_ns if kind in self.done else 0

        def is_missing(message: Message) -> bool:
            nonlocal skip
            ns = effective_ns(message)
            if self.seen and identity(message) in self.seen:
                return False
            if ns == begins_ns and skip:
                skip -= 1
                return False
            return begins_ns <= ns < self.to_ns

        return is_missing


@dataclass(frozen=True, slots=True)
class Filling:
    """What one record says about gaps.

    Args:
        declared: Gaps with both bounds.
        steps: Per symbol and message type, what was backfilled.
        completed: Gaps that are filled.
        late: Per symbol, identities of messages that came live though they lie in its last gap.
    """

    declared: tuple[Gap, ...] = ()
    steps: Mapping[tuple[str, str], Step] = field(default_factory=dict)
    completed: tuple[Key, ...] = ()
    late: Mapping[str, frozenset[int]] = field(default_factory=dict)


NOTHING = Filling()


class Unfilled:
    """The gaps that are still to be filled, oldest first.

    Args:
        saved: What :meth:`to_json` gave.

    >>> gaps = Unfilled()
    >>> gaps.stored(Filling(declared=(Gap("SPY", 10, 20),)))
    >>> gaps.stored(Filling(steps={("SPY", "t"): Step(12, 1, 3)}))
    >>> Unfilled(gaps.to_json()).gaps()[0].done
    {'t': Step(ns=12, at_ns=1, count=3)}
    >>> gaps.stored(Filling(completed=(("SPY", 10, 20),)))
    >>> len(gaps)
    0
    """

    def __init__(self, saved: Sequence[Sequence[Any]] = ()) -> None:
        self._gaps: dict[Key, Gap] = {}
        for symbol, from_ns, to_ns, reason, done, *seen in saved:
            steps = {kind: Step(*step) for kind, step in done.items()}
            gap = Gap(symbol, from_ns, to_ns, reason, steps, frozenset(*seen))
            self._gaps[gap.key] = gap
        self._over: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._gaps)

    def get(self, key: Key) -> Gap | None:
        """A gap as of now, if it still waits."""
        return self._gaps.get(key)

    def gaps(self) -> list[Gap]:
        """All of them, as of now."""
        return list(self._gaps.values())

    def stored(self, said: Filling) -> None:
        """The stream holds a record that said this."""
        for gap in said.declared:
            if gap.key not in self._gaps and gap.key not in self._over:
                self._gaps[gap.key] = gap
        for key, gap in self._gaps.items() if said.late else ():
            if gap.symbol in said.late:
                self._gaps[key] = replace(gap, seen=gap.seen | said.late[gap.symbol])
        for (symbol, kind), step in said.steps.items():
            self._advance(symbol, kind, step)
        for key in said.completed:
            self.drop(key)
        while len(self._gaps) > MAX_GAPS:
            oldest = next(iter(self._gaps))
            log.warning("more than %d gaps wait to be filled: giving up %s", MAX_GAPS, oldest)
            self.drop(oldest)

    def drop(self, key: Key) -> None:
        """This gap is over: filled, or given up."""
        self._gaps.pop(key, None)
        self._over[key] = None
        if len(self._over) > MAX_GAPS:
            del self._over[next(iter(self._over))]

    def forget(self, symbols: Iterable[str]) -> None:
        """The market of these symbols began again: their gaps are of another one."""
        gone = set(symbols)
        self._gaps = {key: gap for key, gap in self._gaps.items() if key[0] not in gone}
        self._over = {key: None for key in self._over if key[0] not in gone}

    def to_json(self) -> list[list[Any]]:
        """JSON types."""
        return [
            [
                *gap.key,
                gap.reason,
                {k: [s.ns, s.at_ns, s.count] for k, s in gap.done.items()},
                sorted(gap.seen),
            ]
            for gap in self._gaps.values()
        ]

    def _advance(self, symbol: str, kind: str, step: Step) -> None:
        for key, gap in self._gaps.items():
            if gap.symbol == symbol and gap.from_ns < step.ns < gap.to_ns:
                before = gap.done.get(kind)
                done = {**gap.done, kind: before.and_then(step) if before else step}
                self._gaps[key] = replace(gap, done=done)
                return
