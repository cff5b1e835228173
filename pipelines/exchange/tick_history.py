"""Trades and quotes of the past: the very messages that the live stream published.

Pure but for a cache. They are fetched in pieces of a few minutes, which are kept for the next page:
of a tape by reading it where they are, of every other market by playing them again
(:mod:`.played_ticks`). Nothing later than now is ever shown.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal, NamedTuple

from pipelines.events import MINUTE_NS, Message, format_time_ns
from pipelines.exchange.market import BarSource, Session
from pipelines.exchange.paging import Place

Channel = Literal["trades", "quotes"]

PIECE_NS = 5 * MINUTE_NS
"""What is played at once."""

PAGE_PIECES = 400
"""Most pieces that one page plays anew; a longer range takes more pages."""

_CACHED_MESSAGES = 400_000
_EMPTY = 4
_TOGETHER = 4
"""A range of so few pieces is played for all asked symbols at once."""

_LOOKBACK_NS = 12 * 1440 * MINUTE_NS
"""How far back the latest message of a symbol is looked for."""


class Tick(NamedTuple):
    """A trade or a quote of the past."""

    channel: str
    symbol: str
    ns: int
    message: Message


Ticks = Callable[[Session, Sequence[str]], Iterable[Tick]]
"""Gives the ticks of some symbols in a piece of time; those of a symbol by time, or nearly."""


@dataclass(frozen=True, slots=True)
class TickQuery:
    """One request.

    Args:
        channel: ``trades`` or ``quotes``.
        symbols: Whose.
        start_ns: First time, inclusive.
        end_ns: Last time, inclusive.
        limit: Most messages of the page, over all symbols.
        descending: Newest first, inside each symbol.
        token: Where the page begins, from the page before.
    """

    channel: Channel
    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    limit: int = 1000
    descending: bool = False
    token: str | None = None


class _Column:
    """Messages of one symbol, channel and piece: their times, ascending, and what is answered."""

    __slots__ = ("messages", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.messages: list[Message] = []

    def add(self, ns: int, message: Message) -> None:
        at = len(self.times) if not self.times or self.times[-1] <= ns else bisect_right(
            self.times, ns
        )  # fmt: skip
        self.times.insert(at, ns)
        self.messages.insert(at, message)


_Piece = dict[str, _Column]
"""Per channel."""


class TickHistory:
    """Answers queries about the trades and quotes of a market.

    Args:
        source: The market.
        ticks: Gives its ticks, a piece at a time.
        together: Whether those of all asked symbols are best fetched at once, as of a tape.
    """

    def __init__(self, source: BarSource, *, ticks: Ticks, together: bool = False) -> None:
        self._source = source
        self._ticks = ticks
        self._together = together
        self._pieces: OrderedDict[tuple[str, int], _Piece] = OrderedDict()
        self._cached = 0

    def page(self, query: TickQuery, *, now_ns: int) -> tuple[dict[str, list[Message]], str | None]:
        """One page of messages per symbol, and the token of the next page.

        Args:
            query: What is asked.
            now_ns: Market time.

        Raises:
            Refused: The token is none of ours.
        """
        query = replace(query, end_ns=min(query.end_ns, now_ns))
        given = Place.of(query.token)
        symbols = sorted(set(query.symbols) & set(self._source.symbols))
        if given is not None:
            symbols = [s for s in symbols if s >= given.symbol]
        found: dict[str, list[Message]] = {}
        last: Place | None = given
        left, budget = query.limit, PAGE_PIECES
        for i, symbol in enumerate(symbols):
            place = given if given is not None and given.symbol == symbol else None
            pieces = self._slices(query, place)
            few = list(islice(pieces, _TOGETHER + 1))
            whole = self._together or len(few) <= _TOGETHER
            together = symbols[i:] if whole else [symbol]
            for piece in chain(few, pieces):
                if (symbol, piece[0]) in self._pieces:
                    self._pieces.move_to_end((symbol, piece[0]))
                else:
                    if not budget:
                        return found, _beginning(symbol, piece, query).token()
                    budget -= 1
                    self._load(piece, [s for s in together if (s, piece[0]) not in self._pieces])
                begun = place if place and piece[0] <= place.ns < piece[1] else None
                column = self._pieces[symbol, piece[0]][query.channel]
                for ns, message in _within(column, query, begun):
                    if not left and last is not None:
                        return found, last.token()
                    found.setdefault(symbol, []).append(message)
                    again = last is not None and (last.symbol, last.ns) == (symbol, ns)
                    last = Place(symbol, ns, last.count + 1 if last and again else 1)
                    left -= 1
        return found, None

    def latest(
        self, channel: Channel, symbols: Sequence[str], *, now_ns: int
    ) -> dict[str, Message]:
        """The last message of each symbol that has any up to now, not too long ago."""
        query = TickQuery(channel, (), now_ns - _LOOKBACK_NS, now_ns, descending=True)
        left = set(symbols) & set(self._source.symbols)
        found: dict[str, Message] = {}
        for piece in islice(self._slices(query, None), PAGE_PIECES):
            if not left:
                break
            columns = {s: self._pieces[s, piece[0]] for s in left if (s, piece[0]) in self._pieces}
            missing = [s for s in left if s not in columns]
            if missing:
                columns |= self._load(piece, missing)  # which may forget some of the others
            for symbol in tuple(left):
                for _, message in _within(columns[symbol][channel], query, None):
                    found[symbol] = message
                    left.discard(symbol)
                    break
        return found

    def _slices(self, query: TickQuery, place: Place | None) -> Iterator[Session]:
        """The pieces of a range, in its order, each aligned to the opening of its session."""
        start, end = query.start_ns, query.end_ns
        if place is not None and query.descending:
            end = min(end, place.ns)
        elif place is not None:
            start = max(start, place.ns)
        sessions = self._source.sessions(start, end) if start <= end else ()
        for opens, closes in reversed(sessions) if query.descending else sessions:
            first = max(0, start - opens) // PIECE_NS
            last = max(0, min(end, closes - 1) - opens) // PIECE_NS
            order = range(last, first - 1, -1) if query.descending else range(first, last + 1)
            for i in order:
                begins = opens + i * PIECE_NS
                yield begins, min(begins + PIECE_NS, closes)

    def _load(self, piece: Session, symbols: Sequence[str]) -> dict[str, _Piece]:
        """Fetch a piece for some symbols that have none of it yet, and keep it."""
        made: dict[str, _Piece] = {s: {"trades": _Column(), "quotes": _Column()} for s in symbols}
        for channel, symbol, ns, message in self._ticks(piece, symbols):
            fields = {k: v for k, v in message.items() if k not in ("T", "S")}
            fields["t"] = format_time_ns(ns)
            made[symbol][channel].add(ns, fields)
        for symbol, columns in made.items():
            self._pieces[symbol, piece[0]] = columns
            self._cached += _size(columns)
        while self._cached > _CACHED_MESSAGES and len(self._pieces) > len(made):
            _, dropped = self._pieces.popitem(last=False)
            self._cached -= _size(dropped)
        return made


def _size(piece: _Piece) -> int:
    """What it takes, in messages; a piece without any takes something too."""
    return _EMPTY + sum(len(column.times) for column in piece.values())


def _beginning(symbol: str, piece: Session, query: TickQuery) -> Place:
    """The place from which a piece is still to be given whole."""
    return Place(symbol, piece[1] - 1 if query.descending else piece[0], 0)


def _within(
    column: _Column, query: TickQuery, place: Place | None
) -> Iterator[tuple[int, Message]]:
    """The messages of a column inside the range and beyond a place, in the query's order."""
    first = bisect_left(column.times, query.start_ns)
    last = bisect_right(column.times, query.end_ns)
    if place is not None and query.descending:
        last = min(last, bisect_right(column.times, place.ns) - place.count)
    elif place is not None:
        first = max(first, bisect_left(column.times, place.ns) + place.count)
    order = range(last - 1, first - 1, -1) if query.descending else range(first, last)
    for i in order:
        yield column.times[i], column.messages[i]
