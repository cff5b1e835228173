"""What was missed: which gap rows to write, before which message, with which bounds. Pure.

The law: of every symbol, messages stored + messages whose effective time lies strictly inside a
gap row = messages published while it was subscribed. A feed publishes in the order of effective
time; only minute bars share one (the end of their minute), so the bounds depend on who was first:

* ``from_ns``: effective time of the last message of the symbol that is stored (or of its last gap
  row's end, or of its first subscription, whichever is later).
* ``to_ns``: with E the effective time of the first message of *any* symbol after the interruption:
  E if the symbol's own first message is at E (it is stored), else E + 1 (it may have had a bar at E
  that was published just before we were back).

A gap row without ``from_ns`` is put into the queue of its bucket; ``from_ns`` is filled in when its
record is made, because only then it is certain what stands before it.

What was backfilled (``bf``), and the second row of a gap that was filled, say nothing about how far
a symbol came: they move no mark. What they say about the gaps that are still to be filled goes to
:class:`~pipelines.ingest.unfilled.Unfilled`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.events import GAP, HEARTBEAT, NEWS, SECOND_NS, Message, effective_ns, reject_reason
from pipelines.ingest.unfilled import NOTHING, Filling, Gap, Key, Step, Unfilled

RETROSPECTIVE = frozenset("ducx")
"""Types that speak of something earlier (daily and updated bars, corrections, cancels): their time
bounds no gap, and none of them is fetched later."""

MAX_CLOCK_ERROR_NS = SECOND_NS
"""Clocks that differ by less are right."""

_NO_BOUND = RETROSPECTIVE | {GAP, HEARTBEAT}


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one record says about the messages in it.

    Args:
        n_messages: Market messages (heartbeats and gap rows not counted).
        n_gaps: Gaps declared.
        marks: Per symbol, the market time up to which it is accounted for, ns.
        filling: What it says about gaps to be filled.
    """

    n_messages: int
    n_gaps: int
    marks: Mapping[str, int]
    filling: Filling = NOTHING


class GapTracker:
    """Follows interruptions, and how far each symbol is accounted for.

    Args:
        marks: Per symbol, the market time up to which earlier runs accounted for it, ns.
        unfilled: Gaps that earlier runs left to be filled.

    >>> tracker = GapTracker({"SPY": 100})
    >>> tracker.interrupted(["SPY"], reason="restart")
    >>> rows = tracker.resume("SPY", 150)
    >>> tracker.seal(rows, 160)[0]
    [{'T': 'gap', 'S': 'SPY', 'to_ns': 150, 'reason': 'restart', 'from_ns': 100}]
    """

    def __init__(
        self, marks: Mapping[str, int] | None = None, *, unfilled: Unfilled | None = None
    ) -> None:
        self._marks = dict(marks or {})
        self.unfilled = unfilled if unfilled is not None else Unfilled()
        self.acked: dict[str, int] = dict(self._marks)
        self._open: dict[str, str] = {}
        self._first_ns: int | None = None
        self._least_ns = 0

    @property
    def open(self) -> bool:
        """Whether a gap row is still to be written."""
        return bool(self._open)

    @property
    def waiting(self) -> frozenset[str]:
        """Symbols whose gap row is still to be written."""
        return frozenset(self._open)

    @property
    def known(self) -> frozenset[str]:
        """Symbols that were ever accounted for."""
        return frozenset(self._marks)

    def begin(self, symbol: str, since_ns: int) -> None:
        """A symbol was subscribed anew: what was before counts as accounted for."""
        _advance(self._marks, {symbol: since_ns})
        _advance(self.acked, {symbol: since_ns})

    def rewind(self, market_ns: int) -> list[str]:
        """Forget symbols whose mark lies ahead of the market: it has begun again, so do they."""
        ahead = [symbol for symbol, until in self._marks.items() if until > market_ns]
        for symbol in ahead:
            self._marks.pop(symbol, None)
            self.acked.pop(symbol, None)
            self._open.pop(symbol, None)
        self.unfilled.forget(ahead)
        self._least_ns = min(self._least_ns, market_ns)
        return ahead

    def interrupted(self, symbols: Iterable[str], *, reason: str) -> None:
        """The feed broke: from now on messages of these symbols may be missed."""
        self._first_ns = None
        self._least_ns = max(self._marks.values(), default=0)
        for symbol in symbols:
            self._open.setdefault(symbol, reason)

    def resume(self, symbol: str | None, at_ns: int) -> list[Message]:
        """The gap rows to write before a message that came after an interruption.

        Args:
            symbol: Its symbol, if it has one.
            at_ns: Its effective time.
        """
        if at_ns < self._least_ns:
            return []  # older than what came before the interruption: late, and no bound of it
        if self._first_ns is None:
            self._first_ns = at_ns
        if at_ns > self._first_ns:
            return self.close(self._first_ns + 1)
        if symbol is not None and symbol in self._open:
            return [self._row(symbol, at_ns)]
        return []

    def close(self, to_ns: int, *, only: Iterable[str] | None = None) -> list[Message]:
        """Gap rows for what is open (or ``only`` some of it), up to a market time.

        Where a message has come since the interruption, its time bounds the rows instead.
        """
        if self._first_ns is not None:
            to_ns = self._first_ns + 1
        chosen = list(self._open) if only is None else [s for s in only if s in self._open]
        return [self._row(symbol, to_ns) for symbol in chosen]

    def seal(self, messages: Sequence[Message], market_ns: int) -> tuple[Sequence[Message], Sealed]:
        """Fill in the gap rows of a record and note what it says; changes nothing here."""
        last: dict[str, Message] = {}
        count, gaps = len(messages), 0
        out: Sequence[Message] = messages
        marks: dict[str, int] = {}
        declared: list[Gap] = []
        completed: list[Key] = []
        steps: dict[tuple[str, str], Step] = {}
        for position, message in enumerate(messages):
            kind = message["T"]
            if kind == HEARTBEAT:
                count -= 1
            elif kind == GAP and message.get("backfilled"):
                count -= 1
                completed.append((message["S"], message["from_ns"], message["to_ns"]))
            elif kind == GAP:
                count -= 1
                gaps += 1
                symbol = message["S"]
                last.pop(symbol, None)
                before = _stored_until(messages[:position], symbol, market_ns)
                own = message.get("from_ns")  # a record that is read back has it already
                bounds = (before, marks.get(symbol), self._marks.get(symbol), own)
                start = max((ns for ns in bounds if ns is not None), default=None)
                if out is messages:
                    out = list(messages)
                out[position] = {**message, "from_ns": start}  # type: ignore[index]
                marks[symbol] = max(message["to_ns"] - 1, start or 0)
                if start is not None and symbol != NEWS:
                    reason = message.get("reason", "")
                    declared.append(Gap(symbol, start, message["to_ns"], reason))
            elif "bf" in message:
                if reject_reason(message, market_ns=market_ns) is None:
                    ns, of = effective_ns(message), (message["S"], kind)
                    steps[of] = steps[of].then(ns) if of in steps else Step(ns, 1, 1)
            elif kind not in RETROSPECTIVE:
                last[message.get("S") or (NEWS if kind == "n" else "")] = message
        for symbol, message in last.items():
            if not symbol:
                continue
            if reject_reason(message, market_ns=market_ns) is None:
                until: int | None = _known_ns(message, market_ns)
            else:
                until = _stored_until(messages, symbol, market_ns)
            if until is not None:
                marks[symbol] = max(until, marks.get(symbol, until))
        if not declared and not steps and not completed:
            return out, Sealed(count, gaps, marks)
        filling = Filling(tuple(declared), steps, tuple(completed))
        return out, Sealed(count, gaps, marks, filling)

    def commit(self, note: Sealed) -> None:
        """The record of this note will be written."""
        _advance(self._marks, note.marks)

    def stored(self, note: Sealed) -> None:
        """The stream holds the record of this note."""
        _advance(self.acked, note.marks)
        if note.filling is not NOTHING:
            self.unfilled.stored(note.filling)

    def _row(self, symbol: str, to_ns: int) -> Message:
        return {"T": GAP, "S": symbol, "to_ns": to_ns, "reason": self._open.pop(symbol)}


def account(messages: Sequence[Message], market_ns: int) -> Sealed:
    """What a record that was read back says; gap rows carry their bounds."""
    return GapTracker().seal(messages, market_ns)[1]


def _advance(marks: dict[str, int], new: Mapping[str, int]) -> None:
    for symbol, until in new.items():
        if until > marks.get(symbol, -1):
            marks[symbol] = until


def _stored_until(messages: Sequence[Message], symbol: str, market_ns: int) -> int | None:
    """Effective time of the last message of a symbol that will be stored, not quarantined."""
    for message in reversed(messages):
        kind = message["T"]
        whose = message.get("S") or (NEWS if kind == "n" else None)
        own = whose == symbol and kind not in _NO_BOUND
        if own and "bf" not in message and reject_reason(message, market_ns=market_ns) is None:
            return _known_ns(message, market_ns)
    return None


def _known_ns(message: Message, market_ns: int) -> int:
    """Up to when a message accounts for its symbol.

    One that is dated ahead (a clock that is wrong, at the feed or here) must not hide what is
    missed until then.
    """
    return min(effective_ns(message), market_ns + MAX_CLOCK_ERROR_NS)
