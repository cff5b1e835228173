"""What was missed: which gap rows to write, before which message, with which bounds. Pure.

The law: of every symbol, each message that was published while it was subscribed is stored, or its
effective time lies strictly inside a gap row; both (in order) only at a gap's first and last
instant. A feed publishes in the order of effective time, but many messages may share an instant,
and an interruption may come between two of them. So both ends of a gap include their instant:

* ``from_ns``: one less than the effective time of the last message of the symbol that is stored;
  or the last instant of its last gap row, or the moment of its subscription, if that is later.
* ``to_ns``: E + 1, with E the effective time of the first message of *any* symbol after the
  interruption. A message that is dated before the subscription was asked, by more than the
  tolerance, is no evidence: then market time at its receipt is taken for E.
* ``seen``: :func:`~pipelines.ingest.edges.identity` of messages inside that are stored all the
  same, so that they are not fetched again.

A gap row without ``from_ns`` is put into the queue of its bucket; ``from_ns`` is filled in when its
record is made, because only then it is certain what stands before it.

What was backfilled (``bf``), and the second row of a gap that was filled, say nothing about how far
a symbol came: they move no mark. What they say about the gaps that are still to be filled goes to
:class:`~pipelines.ingest.unfilled.Unfilled`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.events import (
    GAP,
    HEARTBEAT,
    MALFORMED,
    NEWS,
    SECOND_NS,
    Message,
    effective_ns,
    reject_reason,
)
from pipelines.ingest import edges
from pipelines.ingest.edges import NO_EDGE, Edge
from pipelines.ingest.unfilled import NOTHING, Filling, Gap, Key, Step, Unfilled

RETROSPECTIVE = frozenset("ducx")
"""Types that speak of something earlier (daily and updated bars, corrections, cancels): their time
bounds no gap, and none of them is fetched later."""

MAX_CLOCK_ERROR_NS = SECOND_NS
"""Clocks that differ by less are right."""

_NO_BOUND = RETROSPECTIVE | {GAP, HEARTBEAT, MALFORMED}


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one record says about the messages in it.

    Args:
        n_messages: Market messages (heartbeats and gap rows not counted).
        n_gaps: Gaps declared.
        marks: Per symbol, the market time up to which it is accounted for, ns.
        filling: What it says about gaps to be filled.
        edges: Per symbol, its last instant and which of its messages are stored.
    """

    n_messages: int
    n_gaps: int
    marks: Mapping[str, int]
    filling: Filling = NOTHING
    edges: Mapping[str, Edge] = field(default_factory=dict)


class GapTracker:
    """Follows interruptions, and how far each symbol is accounted for.

    Args:
        marks: Per symbol, the market time up to which earlier runs accounted for it, ns.
        unfilled: Gaps that earlier runs left to be filled.
        edges: Per symbol, its last instant and which of its messages are stored.

    Attributes:
        acked: Per symbol, the market time up to which the stream accounts for it, ns.
        acked_edges: Per symbol, its last instant and which of its messages the stream holds.

    >>> tracker = GapTracker({"SPY": 100})
    >>> tracker.interrupted(["SPY"], reason="restart")
    >>> rows = tracker.resume("SPY", 150)
    >>> tracker.seal(rows, 160)[0]
    [{'T': 'gap', 'S': 'SPY', 'to_ns': 151, 'reason': 'restart', 'from_ns': 100}]
    """

    def __init__(
        self,
        marks: Mapping[str, int] | None = None,
        *,
        unfilled: Unfilled | None = None,
        edges: Mapping[str, Edge] | None = None,
    ) -> None:
        self._marks = dict(marks or {})
        self._edges = dict(edges or {})
        self.unfilled = unfilled if unfilled is not None else Unfilled()
        self.acked: dict[str, int] = dict(self._marks)
        self.acked_edges: dict[str, Edge] = dict(self._edges)
        self._begun: dict[str, tuple[int, int]] = {}
        self._open: dict[str, str] = {}
        self._first_ns: int | None = None
        self._least_ns = self._asked_ns = 0

    @property
    def open(self) -> bool:
        """Whether a gap row is still to be written."""
        return bool(self._open)

    @property
    def waiting(self) -> frozenset[str]:
        """Symbols whose gap row is still to be written."""
        return frozenset(self._open)

    @property
    def marks(self) -> Mapping[str, int]:
        """Per symbol, the market time up to which the records that were made account for it."""
        return self._marks

    @property
    def known(self) -> frozenset[str]:
        """Symbols that were ever accounted for."""
        return frozenset(self._marks)

    def begin(
        self, symbol: str, since_ns: int, *, waiting: Sequence[Message] = (), market_ns: int = 0
    ) -> None:
        """A symbol was subscribed anew: what was before counts as accounted for.

        What is saved never passes messages of it that the stream does not hold yet: they are of an
        earlier subscription, and whoever is killed now must declare them. It counts from the new
        one when the last of them is stored; until then a gap would begin too early, not too late.

        Args:
            symbol: Which.
            since_ns: Market time of the subscription.
            waiting: Messages of its bucket that are in no record yet.
            market_ns: Market time, now.
        """
        last_ns = _stored_until(waiting, symbol, market_ns)
        made_ns, (_, since) = self._marks.get(symbol), self._begun.get(symbol, (0, None))
        if made_ns is not None and made_ns != since:
            last_ns = max(made_ns, last_ns or 0)
        if symbol in self._begun:
            last_ns = max(self._begun[symbol][0], last_ns or 0)
        _advance(self._marks, {symbol: since_ns})
        if last_ns is None or last_ns <= self.acked.get(symbol, -1):
            self._begun.pop(symbol, None)
            _advance(self.acked, {symbol: since_ns})
        else:
            self.acked.setdefault(symbol, 0)
            self._begun[symbol] = (last_ns, since_ns)

    def rewind(self, market_ns: int) -> list[str]:
        """Forget symbols whose mark lies ahead of the market: it has begun again, so do they."""
        ahead = [symbol for symbol, until in self._marks.items() if until > market_ns]
        for symbol in ahead:
            self._marks.pop(symbol, None)
            for of in (self.acked, self.acked_edges, self._edges, self._begun, self._open):
                of.pop(symbol, None)
        self.unfilled.forget(ahead)
        self._least_ns = min(self._least_ns, market_ns)
        return ahead

    def interrupted(self, symbols: Iterable[str], *, reason: str) -> None:
        """The feed broke: from now on messages of these symbols may be missed."""
        self._first_ns = None
        self._least_ns = max(self._marks.values(), default=0)
        self._asked_ns = 0
        for symbol in symbols:
            self._open.setdefault(symbol, reason)

    def asked(self, market_ns: int) -> None:
        """We asked to be subscribed again; nothing from before this moment comes any more."""
        self._asked_ns = market_ns

    def resume(
        self,
        symbol: str | None,
        at_ns: int,
        *,
        message: Message | None = None,
        now_ns: int | None = None,
    ) -> list[Message]:
        """The gap rows to write before a message that came after an interruption.

        Args:
            symbol: Its symbol, if it has one.
            at_ns: Its effective time.
            message: It.
            now_ns: Market time of its receipt; without it the message is believed.
        """
        if at_ns < self._least_ns:
            return []  # older than what came before the interruption: late, and no bound of it
        if self._first_ns is None:
            if now_ns is not None and at_ns < self._asked_ns:
                return self._rows(self._open, now_ns + 1, own=symbol, message=message)
            self._first_ns = at_ns
        if at_ns > self._first_ns:
            return self.close(self._first_ns + 1)
        if symbol is not None and symbol in self._open:
            return self._rows([symbol], at_ns + 1, own=symbol, message=message)
        return []

    def close(self, to_ns: int, *, only: Iterable[str] | None = None) -> list[Message]:
        """Gap rows for what is open (or ``only`` some of it), up to a market time.

        Where a message has come since the interruption, its time bounds the rows instead.
        """
        if self._first_ns is not None:
            to_ns = self._first_ns + 1
        return self._rows(self._open if only is None else only, to_ns)

    def seal(self, messages: Sequence[Message], market_ns: int) -> tuple[Sequence[Message], Sealed]:
        """Fill in the gap rows of a record and note what it says; changes nothing here."""
        last: dict[str, Message] = {}
        count, gaps = len(messages), 0
        out: Sequence[Message] = messages
        marks: dict[str, int] = {}
        declared: dict[int, Gap] = {}
        ends: dict[str, Edge] = {}
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
                if "from_ns" not in message:  # else it was read back, or is of something earlier
                    last.pop(symbol, None)
                    if out is messages:
                        out = list(messages)
                    message = self._begins(message, messages[:position], marks, ends, market_ns)  # noqa: PLW2901
                    out[position] = message  # type: ignore[index]
                start, to_ns = message["from_ns"], message["to_ns"]
                marks[symbol] = max(to_ns - 1, start or 0, marks.get(symbol, 0))
                ends[symbol] = (marks[symbol], frozenset())
                if start is not None and symbol != NEWS:
                    seen = frozenset(message.get("seen", ()))
                    declared[position] = Gap(
                        symbol, start, to_ns, message.get("reason", ""), seen=seen
                    )
            elif "bf" in message:
                if reject_reason(message, market_ns=market_ns) is None:
                    ns, of = effective_ns(message), (message["S"], kind)
                    steps[of] = steps[of].then(ns) if of in steps else Step(ns, 1, 1)
            elif kind not in RETROSPECTIVE:
                last[message.get("S") or (NEWS if kind == "n" else "")] = message
        instants: dict[str, int] = {}
        for symbol, message in last.items():
            if not symbol:
                continue
            if reject_reason(message, market_ns=market_ns) is None:
                until: int | None = _known_ns(message, market_ns)
            else:
                until = _stored_until(messages, symbol, market_ns)
            if until is not None and until >= marks.get(symbol, until):
                if symbol not in marks or until > marks[symbol]:
                    instants[symbol] = until
                marks[symbol] = until
        stored = edges.ends(messages, instants, skip=_NO_BOUND, market_ns=market_ns)
        ends.update((symbol, (instants[symbol], ids)) for symbol, ids in stored.items() if ids)
        late = {
            symbol: ids
            for symbol in last
            if (ids := self._inside_last_gap(symbol, messages, market_ns))
        }
        if not declared and not steps and not completed and not late:
            return out, Sealed(count, gaps, marks, edges=ends)
        gaps_declared = tuple(
            replace(
                gap,
                seen=gap.seen
                | edges.before(
                    gap.to_ns, gap.symbol, messages[position:], skip=_NO_BOUND, market_ns=market_ns
                ),
            )
            for position, gap in declared.items()
        )
        filling = Filling(gaps_declared, steps, tuple(completed), late)
        return out, Sealed(count, gaps, marks, filling, ends)

    def _inside_last_gap(
        self, symbol: str, messages: Sequence[Message], market_ns: int
    ) -> frozenset[int]:
        """What a record has of the instants before the end of its symbol's last gap."""
        ended_ns, ids = self._edges.get(symbol, NO_EDGE)
        if ids or ended_ns < 0:
            return frozenset()  # something newer than the gap is stored already
        return edges.before(ended_ns + 1, symbol, messages, skip=_NO_BOUND, market_ns=market_ns)

    def _begins(
        self,
        row: Message,
        before: Sequence[Message],
        marks: Mapping[str, int],
        ends: Mapping[str, Edge],
        market_ns: int,
    ) -> Message:
        """A gap row with its beginning: all that stands before it is known now."""
        symbol = row["S"]
        known: dict[str, Edge] = {}
        for of in (self._edges, ends):
            if symbol in of:
                edges.advance(known, {symbol: of[symbol]})
        bounds = [marks.get(symbol), self._marks.get(symbol)]
        last_ns = _stored_until(before, symbol, market_ns)
        if last_ns is not None:
            found = edges.ends(before, {symbol: last_ns}, skip=_NO_BOUND, market_ns=market_ns)
            if found[symbol]:
                edges.advance(known, {symbol: (last_ns, found[symbol])})
            bounds.append(last_ns)
        start = max((ns for ns in bounds if ns is not None), default=None)
        instant_ns, ids = known.get(symbol, NO_EDGE)
        if start is None or instant_ns != start or not ids:
            return {**row, "from_ns": start}
        seen = sorted({*row.get("seen", ()), *ids})
        return {**row, "from_ns": start - 1, "seen": seen}

    def commit(self, note: Sealed) -> None:
        """The record of this note will be written."""
        _advance(self._marks, note.marks)
        edges.advance(self._edges, note.edges)

    def stored(self, note: Sealed) -> None:
        """The stream holds the record of this note."""
        _advance(self.acked, note.marks)
        edges.advance(self.acked_edges, note.edges)
        for symbol in self._begun.keys() & note.marks.keys():
            last_ns, since_ns = self._begun[symbol]
            if self.acked[symbol] >= last_ns:
                del self._begun[symbol]
                _advance(self.acked, {symbol: since_ns})
        if note.filling is not NOTHING:
            self.unfilled.stored(note.filling)

    def _rows(
        self,
        symbols: Iterable[str],
        to_ns: int,
        *,
        own: str | None = None,
        message: Message | None = None,
    ) -> list[Message]:
        """Gap rows for those that are open; ``own``: whose message follows, and is stored."""
        rows: list[Message] = []
        for symbol in [s for s in symbols if s in self._open]:
            rows.append({"T": GAP, "S": symbol, "to_ns": to_ns, "reason": self._open.pop(symbol)})
            if symbol == own and message is not None:
                rows[-1]["seen"] = [edges.identity(message)]
        return rows


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
