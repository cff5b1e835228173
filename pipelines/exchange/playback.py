"""The market in motion: which messages are due at a market time, in order. Pure but for a callback.

Per minute: the ticks of all symbols in time order, between them what else the exchange says
(:mod:`.notices`, :mod:`.news`, :mod:`.amendments`); then, right after the minute, the bar of each
symbol that traded, consistent with its ticks, and its day so far. Minutes are made one at a time,
when they begin.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from pipelines.events import MINUTE_NS, Message
from pipelines.exchange import noise, notices, ticks
from pipelines.exchange.amendments import Amended, Names, Rates, amend, first_number
from pipelines.exchange.dailies import DayBars
from pipelines.exchange.frames import Batch, Key
from pipelines.exchange.market import BarSource, Block, Session
from pipelines.exchange.moments import Event, when

_SIP_EXCHANGES = "VQPZKNDJ"
_ODD_LOT, _REGULAR, _QUOTE_CONDITIONS = ["@", "I"], ["@"], ["R"]
_OPENING, _CLOSING = ["@", "O", "X"], ["@", "6", "X"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What is published beside trades, quotes and minute bars; nothing by default.

    Args:
        notices: Statuses, price bands, imbalances.
        news: News.
        daily_bars: The day so far, after each minute.
        rates: Trades that come late, are corrected or cancelled.
    """

    notices: bool = False
    news: bool = False
    daily_bars: bool = False
    rates: Rates = field(default_factory=Rates)


def walk_width(messages_per_minute: int) -> int:
    """Columns that hold the trades of every bar at a message rate (one trade to two quotes).

    >>> walk_width(120), walk_width(3)
    (49, 4)
    """
    return max(4, math.ceil(messages_per_minute / 3 * 1.2) + 1)


class Playback:
    """Plays sessions of a market once, from the first to the last.

    Args:
        source: The market.
        sessions: What to play, as :func:`~pipelines.exchange.market.remaining` gives it.
        seed: Seed of the ticks.
        messages_per_minute: Mean ticks per symbol and minute.
        feed: ``iex`` prints come from one exchange, others from several.
        before_minute: Called with the start of a minute before any of its messages is handed out.
        extras: What is published beside ticks and bars.
    """

    def __init__(
        self,
        source: BarSource,
        sessions: Sequence[Session],
        *,
        seed: int,
        messages_per_minute: int,
        feed: str = "iex",
        before_minute: Callable[[int], None] = lambda _: None,
        extras: Extras | None = None,
    ) -> None:
        self._source = source
        self._keys = noise.keys(seed, *(f"ticks:{s}" for s in source.symbols))
        self._width = walk_width(messages_per_minute)
        self._before_minute = before_minute
        self._extras = extras or Extras()
        tapes = tuple(p.tape for p in source.profiles)
        self._names = Names(source.symbols, tapes, "V" if feed == "iex" else _SIP_EXCHANGES)
        self._trade_keys: list[Key] = [("trades", s) for s in source.symbols]
        self._quote_keys: list[Key] = [("quotes", s) for s in source.symbols]
        self.reached_ns = 0
        """Market time of what was handed out last."""
        self._minutes = self._walk(sessions)
        self._minute: _Minute | None = next(self._minutes, None)

    @property
    def finished(self) -> bool:
        """Whether everything was handed out."""
        return self._minute is None

    def due(self, now_ns: int, *, limit: int = 2000) -> Batch | None:
        """The next messages whose time has come, at most about ``limit``, of one minute.

        Args:
            now_ns: Market time.
            limit: Most ticks of the batch; the bars of a minute always come together.

        Returns:
            ``None`` when nothing (more) is due.
        """
        while self._minute is not None:
            minute = self._minute
            if minute.start_ns > now_ns:
                return None
            if not minute.begun:
                self._before_minute(minute.start_ns)
                minute.begun = True
            batch = minute.ticks_until(now_ns, limit)
            if batch is not None:
                self.reached_ns = minute.reached_ns
                return batch
            if minute.start_ns + MINUTE_NS > now_ns:
                return None
            self.reached_ns = minute.start_ns + MINUTE_NS
            if minute.closing:
                return minute.closing.pop(0)
            self._minute = next(self._minutes, None)
        return None

    def raw(self, _: int) -> None:
        """No raw frame is ever due: what is made up is well-formed."""

    def _walk(self, sessions: Sequence[Session]) -> Iterator[_Minute]:
        # A session may be cut at both ends (a restart, a limit); its block is the whole session's.
        for opens, closes in sessions:
            for whole in self._source.sessions(opens, closes - 1):
                yield from self._session(self._source.block(whole), opens, closes)

    def _session(self, block: Block, opens: int, closes: int) -> Iterator[_Minute]:
        starts = block.starts_ns.tolist()
        first, last = bisect_left(starts, opens), bisect_left(starts, closes)
        if first == last:
            return
        day = None
        if self._extras.daily_bars:
            day = DayBars(block, symbols=self._source.symbols)
            day.catch_up(block, keys=self._keys, minutes=first, width=self._width)
        waiting = self._announced(block)
        if first and self._extras.rates.any:
            waiting = [*waiting, *self._told(self._make(block, first - 1), block, first - 1).events]
        for i in range(first, last):
            whole = self._make(block, i)
            made = self._told(whole, block, i)
            ends = starts[i] + MINUTE_NS
            waiting = sorted([*waiting, *made.events], key=when)
            cut = bisect_left(waiting, ends, key=lambda event: event.due_ns)
            events = [event for event in waiting[:cut] if event.due_ns >= starts[i]]
            waiting = waiting[cut:]
            closing = [self._bars(made, starts[i])]
            if day is not None:
                # Late trades count at once: so a restart has nothing to remember.
                day.add(whole.bars, whole.trades.vwap)
                closing.append(day.batch(whole.bars))
            yield _Minute(self, made, starts[i], events, [b for b in closing if len(b)])

    def _announced(self, block: Block) -> list[Event]:
        """What is known of a session without its ticks."""
        names, events = self._names, list[Event]()
        if self._extras.notices:
            events += notices.of_session(block, symbols=names.symbols, tapes=names.tapes)
        if self._extras.news:
            for item in self._source.news(block.session):
                events.append(Event(item.at_ns, item.at_ns, ("news", item.symbol), item.message()))
        return events

    def _make(self, block: Block, column: int) -> Amended:
        bars = ticks.bars_of(block, self._keys, slice(column, column + 1))
        trades = ticks.walk(bars, width=self._width)
        return Amended(ticks.minute_ticks(bars, trades), bars, trades, [])

    def _told(self, whole: Amended, block: Block, column: int) -> Amended:
        """A minute as it is published, and what becomes of it later."""
        if not self._extras.rates.any:
            return whole
        return amend(
            whole,
            rates=self._extras.rates,
            names=self._names,
            start_ns=int(block.starts_ns[column]),
            last=column == len(block.starts_ns) - 1,
        )

    def _bars(self, made: Amended, start_ns: int) -> Batch:
        bars, symbols = made.bars, self._names.symbols
        columns = (bars.symbol, bars.open, bars.high, bars.low, bars.close, bars.volume,
                   bars.trades, made.trades.vwap)  # fmt: skip
        messages: list[Message] = [
            {"T": "b", "S": symbols[i], "o": o, "h": h, "l": low, "c": c, "v": v, "n": n,
             "vw": vwap, "t": None}
            for i, o, h, low, c, v, n, vwap in zip(*(c.tolist() for c in columns), strict=True)
        ]  # fmt: skip
        keys = [("bars", m["S"]) for m in messages]
        return Batch(messages, times_ns=list(repeat(start_ns, len(messages))), keys=keys)

    def messages(
        self, columns: Sequence[list[Any]], first: int, last: int, special: dict[int, list[str]]
    ) -> tuple[list[Message], list[Key]]:
        """Ticks ``first`` to ``last`` of a minute's columns as messages, and their keys."""
        symbols, tapes, exchanges = self._names.symbols, self._names.tapes, self._names.exchanges
        trade_keys, quote_keys, places = self._trade_keys, self._quote_keys, len(exchanges)
        messages: list[Message] = []
        keys: list[Key] = []
        parts = (column[first:last] for column in columns)
        for i, trade, odd, price, size, ask, ask_size, number in zip(*parts, strict=True):
            exchange = exchanges[number % places]
            if trade:
                keys.append(trade_keys[i])
                conditions = _ODD_LOT if odd else _REGULAR
                messages.append(
                    {"T": "t", "S": symbols[i], "i": number, "x": exchange, "p": price,
                     "s": size, "c": conditions, "t": None, "z": tapes[i]}
                )  # fmt: skip
            else:
                keys.append(quote_keys[i])
                messages.append(
                    {"T": "q", "S": symbols[i], "bx": exchange, "bp": price, "bs": size,
                     "ax": exchange, "ap": ask, "as": ask_size, "c": _QUOTE_CONDITIONS,
                     "t": None, "z": tapes[i]}
                )  # fmt: skip
        for at, conditions in special.items():
            if first <= at < last:
                messages[at - first]["c"] = conditions
        return messages, keys


class _Minute:
    """One minute of the market, handed out in pieces."""

    __slots__ = ("_columns", "_event", "_events", "_next", "_player", "_special", "_times", "begun",
                 "closing", "reached_ns", "start_ns")  # fmt: skip

    def __init__(
        self,
        player: Playback,
        made: Amended,
        start_ns: int,
        events: Sequence[Event],
        closing: list[Batch],
    ) -> None:
        self.start_ns = self.reached_ns = start_ns
        self.begun = False
        self.closing = closing
        self._player = player
        self._next = self._event = 0
        walked = made.walked
        # Trade ids ascend through the day: the minute, then the trade's number in it.
        number = walked.number + first_number(start_ns)
        self._times: list[int] = walked.time_ns.tolist()
        self._columns: tuple[list[Any], ...] = tuple(
            c.tolist()
            for c in (walked.symbol, walked.is_trade, walked.odd_lot, walked.price, walked.size,
                      walked.ask, walked.ask_size, number)
        )  # fmt: skip
        self._special = ticks.auctions(made.bars, walked, opening=_OPENING, closing=_CLOSING)
        self._events = [(bisect_left(self._times, event.due_ns), event) for event in events]

    def ticks_until(self, now_ns: int, limit: int) -> Batch | None:
        """The next ticks and events that are due."""
        first = self._next
        last = min(bisect_right(self._times, now_ns, lo=first), first + limit)
        events = self._due(last, now_ns)
        if first == last and not events:
            return None
        self._next = last
        self.reached_ns = self._times[last - 1] if last else self.start_ns
        if not events:
            messages, keys = self._player.messages(self._columns, first, last, self._special)
            return Batch(messages, times_ns=self._times[first:last], keys=keys)
        messages, keys, times = [], list[Key](), list[int]()
        for at, event in [*events, (last, None)]:
            more, more_keys = self._player.messages(self._columns, first, at, self._special)
            messages += more
            keys += more_keys
            times += self._times[first:at]
            first = at
            if event is not None:
                messages.append(dict(event.message))
                keys.append(event.key)
                times.append(event.time_ns)
        return Batch(messages, times_ns=times, keys=keys)

    def _due(self, last: int, now_ns: int) -> list[tuple[int, Event]]:
        """The events that come before tick ``last`` and are due."""
        begin = self._event
        while self._event < len(self._events):
            at, event = self._events[self._event]
            if at > last or event.due_ns > now_ns:
                break
            self._event += 1
        return self._events[begin : self._event]
