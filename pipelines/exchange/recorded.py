"""A market out of a tape: the recorded messages, played again at their own times.

A message is due at its effective time, or when the message before it was, whichever is later: so a
tape is played in the order in which it was recorded, whatever it holds (bars of the minute that is
over, late trades, times that are no times). Bars for the history come from the tape's own bars,
and from its trades where a minute has none.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.events import BAR, DAY_NS, MINUTE_NS, TRADE, Message, effective_ns, reject_reason
from pipelines.exchange.frames import Batch
from pipelines.exchange.market import Session
from pipelines.exchange.news import Item
from pipelines.exchange.replay import ReplayMarket, find_sessions
from pipelines.exchange.tape_index import TapeIndex
from pipelines.tape import GAP_NOTE, RAW, read_entries, tape_files

_INDEXED = frozenset({TRADE, BAR, "n"})
_AFTER_THE_MINUTE = frozenset("bdu")
_NO_PRICE = frozenset("CHIMNPQRTUVWZ479")
"""Conditions of trades that make no price of a bar."""

_MAX_JUMP_NS = 7 * DAY_NS
"""A time further ahead than this is a fault that was recorded, not the market's time."""


_TABLE = {
    "symbol": pa.string(),
    "timestamp": pa.timestamp("ns", "UTC"),
    **dict.fromkeys(("open", "high", "low", "close"), pa.float64()),
    **dict.fromkeys(("volume", "trade_count"), pa.int64()),
    "vwap": pa.float64(),
}


class Entry(NamedTuple):
    """One message, or one raw frame, of a tape and when it is due."""

    due_ns: int
    minute_ns: int
    message: Message | None
    raw: bytes


def entries(
    path: Path, *, symbols: frozenset[str] = frozenset(), index: TapeIndex | None = None
) -> Iterator[Entry]:
    """What a tape holds for some symbols (empty: for all), in order.

    What comes before the first message with a time is left out, and so are notes of gaps.

    Args:
        path: The tape.
        symbols: Whose messages.
        index: Reads it and is to remember where things are.

    Raises:
        ConfigError: It is no tape.
    """
    now_ns: int | None = None
    for line in read_entries(path) if index is None else index.entries():
        if line["c"] == GAP_NOTE:
            continue
        if line["c"] == RAW:
            if now_ns is not None:
                yield Entry(now_ns, _minute(now_ns), None, _raw(line, path))
            continue
        message = line["m"]
        if not isinstance(message, dict):
            continue
        if symbols and symbols.isdisjoint(message.get("symbols") or (message.get("S"),)):
            continue
        at_ns = _time(message)
        if at_ns is not None and (now_ns is None or now_ns < at_ns <= now_ns + _MAX_JUMP_NS):
            now_ns = at_ns
        if now_ns is not None:
            own_ns = now_ns - 1 if message.get("T") in _AFTER_THE_MINUTE else now_ns
            yield Entry(now_ns, _minute(own_ns), message, b"")


class RecordedMarket(ReplayMarket):
    """The messages of a tape, as a :class:`~pipelines.exchange.market.BarSource`.

    Args:
        path: Folder or file of the tape.
        symbols: Which of its symbols; empty for all.
        sessions: ``all`` or ``regular``.
        max_sessions: Most sessions to play.

    Raises:
        ConfigError: It is no tape, or has nothing to play.
    """

    def __init__(
        self,
        path: Path,
        *,
        symbols: Sequence[str] = (),
        sessions: Literal["all", "regular"] = "all",
        max_sessions: int | None = None,
    ) -> None:
        if not tape_files(path):
            raise ConfigError(f"replay {path}: no tape there (tape-*.msgpack.gz)")
        found, index = _Known(), TapeIndex(path)
        for entry in entries(path, symbols=frozenset(symbols), index=index):
            found.add(entry)
            if entry.message is not None:
                index.note(entry.message)
        if not found.minutes:
            raise ConfigError(f"replay {path}: the tape has no message of these symbols")
        self.tape = path
        self.ticks = index.ticks
        self._items = found.items
        names = [s for s in symbols if s in found.symbols] or sorted(found.symbols)
        super().__init__(found.table(), symbols=names, sessions=sessions)
        self.name = f"tape:{path.name}:{sessions}"
        self._sessions = find_sessions(sorted(found.minutes), sessions, path)[:max_sessions]

    def news(self, session: Session, /) -> tuple[Item, ...]:
        """The news that the tape has of a session."""
        return tuple(item for item in self._items if session[0] <= item.at_ns < session[1])


class RecordedPlayback:
    """Plays sessions of a tape once; as :class:`~pipelines.exchange.playback.Playback`.

    Args:
        path: The tape.
        sessions: What to play of it.
        symbols: Whose messages; empty for all.
        before_minute: Called with the start of a minute before any of its messages is handed out.
    """

    def __init__(
        self,
        path: Path,
        sessions: Sequence[Session],
        *,
        symbols: Sequence[str] = (),
        before_minute: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._opens = [opens for opens, _ in sessions]
        self._closes = [closes for _, closes in sessions]
        self._before_minute = before_minute
        self._begun_ns = -1
        self.reached_ns = 0
        """Market time of what was handed out last."""
        self._entries = filter(self._wanted, entries(path, symbols=frozenset(symbols)))
        self._next = next(self._entries, None)

    @property
    def finished(self) -> bool:
        """Whether everything was handed out."""
        return self._next is None

    def due(self, now_ns: int, *, limit: int = 2000) -> Batch | None:
        """The next messages whose time has come, at most ``limit``; ``None`` when none is due.

        Before a raw frame it ends, and :meth:`raw` has it.
        """
        messages: list[Message] = []
        entry = self._next
        while entry is not None and entry.due_ns <= now_ns and len(messages) < limit:
            if entry.message is None or (messages and entry.minute_ns != self._begun_ns):
                break
            if entry.minute_ns != self._begun_ns:
                self._begun_ns = entry.minute_ns
                self._before_minute(entry.minute_ns)
            messages.append(entry.message)
            self.reached_ns = entry.due_ns
            entry = next(self._entries, None)
        self._next = entry
        return Batch.injected(messages) if messages else None

    def raw(self, now_ns: int) -> bytes | None:
        """The raw frame that is due now, or ``None``."""
        entry = self._next
        if entry is None or entry.message is not None or entry.due_ns > now_ns:
            return None
        self._next = next(self._entries, None)
        return entry.raw

    def _wanted(self, entry: Entry) -> bool:
        i = bisect_right(self._opens, entry.minute_ns) - 1
        return i >= 0 and entry.minute_ns < self._closes[i]


@dataclass(slots=True)
class _Bar:
    """A bar that was recorded, or is made of trades."""

    prices: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    volume: int = 0
    count: int = 0
    notional_usd: float = 0.0
    recorded: bool = False

    def add(self, price: float, size: int, *, priced: bool) -> None:
        if priced:
            o, h, low, _ = self.prices
            self.prices = (o, max(h, price), min(low, price), price) if o else (price,) * 4
        self.volume += size
        self.count += 1
        self.notional_usd += price * size

    def row(self) -> tuple[float | int, ...]:
        vwap = self.notional_usd / self.volume if self.volume else self.prices[3]
        return (*self.prices, self.volume, self.count, round(vwap, 6))


class _Known:
    """What is known of a tape after reading it once."""

    def __init__(self) -> None:
        self.minutes: set[int] = set()
        self.symbols: set[str] = set()
        self.items: list[Item] = []
        self._bars: dict[tuple[str, int], _Bar] = {}

    def add(self, entry: Entry) -> None:
        self.minutes.add(entry.minute_ns)
        message = entry.message
        if message is None:
            return
        kind, symbol = message.get("T"), message.get("S")
        if isinstance(symbol, str):
            self.symbols.add(symbol)
        if kind not in _INDEXED or reject_reason(message, market_ns=entry.due_ns) is not None:
            return
        if kind == "n":
            self.items.append(
                Item(
                    at_ns=effective_ns(message),
                    symbol=",".join(message.get("symbols", ())),
                    sentiment=0.0,
                    headline=str(message.get("headline", "")),
                    sector="",
                    told=message,
                )
            )
        elif kind == BAR and effective_ns(message) % MINUTE_NS == 0:
            key = (message["S"], effective_ns(message) - MINUTE_NS)
            o, h, low, c, volume = (message[k] for k in "ohlcv")
            worth = volume * (message.get("vw") or c)
            count = max(1, message.get("n") or 1)
            self._bars[key] = _Bar((o, h, low, c), volume, count, worth, recorded=True)
        elif kind == TRADE:
            key = (message["S"], _minute(effective_ns(message)))
            bar = self._bars.setdefault(key, _Bar())
            if not bar.recorded:
                priced = _NO_PRICE.isdisjoint(message.get("c") or ())
                bar.add(message["p"], message["s"], priced=priced)

    def table(self) -> pa.Table:
        """The bars, as a table of :class:`ReplayMarket`."""
        rows = [(s, ns, *bar.row()) for (s, ns), bar in self._bars.items() if bar.prices[0]]
        columns: list[list[Any]] = [list(c) for c in zip(*rows, strict=True)] or [[]] * len(_TABLE)
        arrays = [pa.array(c, type=t) for c, t in zip(columns, _TABLE.values(), strict=True)]
        return pa.table(arrays, names=list(_TABLE))


def _time(message: Message) -> int | None:
    if message.get("T") in ("d", "u"):
        return None  # their time is the beginning of what they are about
    try:
        return effective_ns(message)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _minute(ns: int) -> int:
    return ns - ns % MINUTE_NS


def _raw(line: dict[str, Any], path: Path) -> bytes:
    try:
        return base64.b64decode(line["b64"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ConfigError(f"replay {path}: a raw frame is no base64: {error}") from error
