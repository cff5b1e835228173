"""The market in motion: which messages are due at a market time, in order. Pure but for a callback.

Per minute: the ticks of all symbols in time order, then, right after the minute, the bar of each
symbol that traded, consistent with its ticks. Minutes are made one at a time, when they begin.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

from pipelines.events import MINUTE_NS, Message
from pipelines.exchange import noise, ticks
from pipelines.exchange.frames import Batch, Key
from pipelines.exchange.market import BarSource, Session

_SIP_EXCHANGES = "VQPZKNDJ"
_ODD_LOT, _REGULAR, _QUOTE_CONDITIONS = ["@", "I"], ["@"], ["R"]


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
    ) -> None:
        self._source = source
        self._keys = noise.keys(seed, *(f"ticks:{s}" for s in source.symbols))
        self._width = walk_width(messages_per_minute)
        self._feed = feed
        self._before_minute = before_minute
        self._tapes = [p.tape for p in source.profiles]
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
                return batch
            if minute.start_ns + MINUTE_NS > now_ns:
                return None
            self._minute = next(self._minutes, None)
            return minute.bars()
        return None

    def _walk(self, sessions: Sequence[Session]) -> Iterator[_Minute]:
        # A session may be cut at both ends (a restart, a limit); its block is the whole session's.
        for opens, closes in sessions:
            for whole in self._source.sessions(opens, closes - 1):
                block = self._source.block(whole)
                for i, start in enumerate(block.starts_ns.tolist()):
                    if opens <= start < closes:
                        bars = ticks.bars_of(block, self._keys, slice(i, i + 1))
                        yield self._make(bars, start)

    def _make(self, bars: ticks.Bars, start_ns: int) -> _Minute:
        trades = ticks.walk(bars, width=self._width)
        return _Minute(
            bars,
            trades,
            ticks.minute_ticks(bars, trades),
            start_ns=start_ns,
            symbols=self._source.symbols,
            tapes=self._tapes,
            exchanges="V" if self._feed == "iex" else _SIP_EXCHANGES,
        )


class _Minute:
    """One minute of the market, handed out in pieces."""

    __slots__ = (
        "_bar_columns", "_columns", "_exchanges", "_next", "_quote_keys", "_symbols", "_tapes",
        "_trade_keys", "begun", "start_ns",
    )  # fmt: skip

    def __init__(
        self,
        bars: ticks.Bars,
        trades: ticks.Trades,
        walked: ticks.Ticks,
        *,
        start_ns: int,
        symbols: Sequence[str],
        tapes: Sequence[str],
        exchanges: str,
    ) -> None:
        self.start_ns = start_ns
        self.begun = False
        self._symbols, self._tapes, self._exchanges = symbols, tapes, exchanges
        self._trade_keys: list[Key] = [("trades", s) for s in symbols]
        self._quote_keys: list[Key] = [("quotes", s) for s in symbols]
        self._next = 0
        # Trade ids ascend through the day: the minute, then the trade's number in it.
        number = walked.number + (start_ns // MINUTE_NS % 1440) * 100_000 + 1
        self._columns = tuple(
            c.tolist()
            for c in (walked.time_ns, walked.symbol, walked.is_trade, walked.odd_lot, walked.price,
                      walked.size, walked.ask, walked.ask_size, number)
        )  # fmt: skip
        self._bar_columns = tuple(
            c.tolist()
            for c in (bars.symbol, bars.open, bars.high, bars.low, bars.close, bars.volume,
                      bars.trades, trades.vwap)
        )  # fmt: skip

    def ticks_until(self, now_ns: int, limit: int) -> Batch | None:
        first = self._next
        last = min(bisect_right(self._columns[0], now_ns, lo=first), first + limit)
        if first == last:
            return None
        self._next = last
        symbols, tapes, exchanges = self._symbols, self._tapes, self._exchanges
        messages: list[Message] = []
        keys: list[Key] = []
        columns = (column[first:last] for column in self._columns[1:])
        for i, trade, odd, price, size, ask, ask_size, number in zip(*columns, strict=True):
            exchange = exchanges[number % len(exchanges)]
            if trade:
                keys.append(self._trade_keys[i])
                conditions = _ODD_LOT if odd else _REGULAR
                messages.append(
                    {"T": "t", "S": symbols[i], "i": number, "x": exchange, "p": price,
                     "s": size, "c": conditions, "t": None, "z": tapes[i]}
                )  # fmt: skip
            else:
                keys.append(self._quote_keys[i])
                messages.append(
                    {"T": "q", "S": symbols[i], "bx": exchange, "bp": price, "bs": size,
                     "ax": exchange, "ap": ask, "as": ask_size, "c": _QUOTE_CONDITIONS,
                     "t": None, "z": tapes[i]}
                )  # fmt: skip
        return Batch(messages, times_ns=self._columns[0][first:last], keys=keys)

    def bars(self) -> Batch:
        messages: list[Message] = [
            {"T": "b", "S": self._symbols[i], "o": o, "h": h, "l": low, "c": c, "v": v, "n": n,
             "vw": vwap, "t": None}
            for i, o, h, low, c, v, n, vwap in zip(*self._bar_columns, strict=True)
        ]  # fmt: skip
        keys = [("bars", m["S"]) for m in messages]
        return Batch(messages, times_ns=list(repeat(self.start_ns, len(messages))), keys=keys)
