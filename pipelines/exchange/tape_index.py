"""Where on a tape its ticks are: read once, then any few minutes of it without the rest.

A tape is a stream of compressed values, which can only be read from front to back. On its one way
through it the index keeps copies of the reader (about 40 KB each, a few hundred at most), and per
minute the parts between two copies that hold ticks of it. A tick is of the minute that it is dated
in, wherever it lies: one that lies far behind the others of its minute is kept in memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.events import MINUTE_NS, QUOTE, TRADE, Message, parse_time_ns
from pipelines.exchange.market import Session
from pipelines.exchange.tick_history import Tick
from pipelines.tape import CHANNELS, TapePart, entries_of, tape_files

_PARTS = 256
_LEAST_BYTES = 128 * 1024
_AT_ONCE = 64 * 1024
_STRAYS = 100_000
_CHANNELS = {kind: CHANNELS[kind] for kind in (TRADE, QUOTE)}


class TapeIndex:
    """Reads a tape once, and ticks of it again.

    Args:
        path: Folder or file of the tape.
        part_bytes: Compressed bytes between two copies of the reader; by default as few as keep
            the number of copies bounded.

    Raises:
        ConfigError: (of :meth:`entries`) It is no tape.
    """

    def __init__(self, path: Path, *, part_bytes: int | None = None) -> None:
        self._files = tape_files(path)
        size = sum(file.stat().st_size for file in self._files)
        self._part_bytes = part_bytes or max(_LEAST_BYTES, size // _PARTS)
        self._parts: list[TapePart] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._minutes: dict[tuple[str, str], array[int]] = {}
        self._strays: dict[int, list[Tick]] = {}
        self._stray_count = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        """The entries of the tape, as :func:`~pipelines.tape.read_entries` has them."""
        for file in self._files:
            part = TapePart(file)
            size = file.stat().st_size
            while part.offset < size:
                self._parts.append(part.copy())
                for value in part.read(until=part.offset + self._part_bytes, at_once=_AT_ONCE):
                    yield from entries_of(value)

    def note(self, message: Message) -> None:
        """Remember where the message lies that :meth:`entries` gave last, if it is a tick."""
        tick = _tick(message)
        if tick is None:
            return
        minute, here = tick.ns // MINUTE_NS, len(self._parts) - 1
        minutes = self._minutes.setdefault((tick.channel, tick.symbol), array("q"))
        if not minutes or minutes[-1] < minute:
            minutes.append(minute)
        elif minutes[-1] != minute:
            _insert(minutes, minute)
        first, last = self._spans.get(minute, (here, here))
        if last >= here - 1:
            self._spans[minute] = (first, here)
            return
        self._strays.setdefault(minute, []).append(tick)
        self._stray_count += 1
        if self._stray_count > _STRAYS:  # too many to keep: these are read where they lie
            self._stray_count -= len(self._strays.pop(minute))
            self._spans[minute] = (first, here)

    def ticks(self, piece: Session, symbols: Sequence[str]) -> Iterator[Tick]:
        """The ticks of some symbols that are dated in a piece of time, in their recorded order.

        Args:
            piece: Its first moment, and the first one behind it; whole minutes, ns.
            symbols: Whose.
        """
        first, last = piece[0] // MINUTE_NS, -(-piece[1] // MINUTE_NS)
        wanted = {key for key in self._minutes if key[1] in symbols and self._has(key, first, last)}
        if not wanted:
            return
        spans = [self._spans[m] for m in range(first, last) if m in self._spans]
        for number in range(min(s[0] for s in spans), max(s[1] for s in spans) + 1):
            yield from (t for t in self._read(number, wanted) if piece[0] <= t.ns < piece[1])
        for minute in range(first, last):
            yield from (t for t in self._strays.get(minute, ()) if (t.channel, t.symbol) in wanted)

    def _has(self, key: tuple[str, str], first: int, last: int) -> bool:
        minutes = self._minutes[key]
        at = bisect_left(minutes, first)
        return at < len(minutes) and minutes[at] < last

    def _read(self, number: int, wanted: set[tuple[str, str]]) -> Iterator[Tick]:
        part = self._parts[number].copy(times_as_text=False)
        for value in part.read(until=part.offset + self._part_bytes, at_once=_AT_ONCE):
            if not isinstance(value, list) or len(value) != 2:
                continue
            for message in value[1]:
                if (channel := _channel(message)) and (channel, _symbol(message)) in wanted:
                    tick = _tick(message)
                    if tick is not None and number <= self._last_part(tick):
                        yield tick

    def _last_part(self, tick: Tick) -> int:
        """The last part in which a tick of its minute is no stray."""
        return self._spans.get(tick.ns // MINUTE_NS, (0, -1))[1]


def _channel(message: Any) -> str:
    kind = message.get("T") if isinstance(message, dict) else None
    return _CHANNELS.get(kind, "") if isinstance(kind, str) else ""


def _symbol(message: Message) -> str:
    symbol = message.get("S")
    return symbol if isinstance(symbol, str) else ""


def _tick(message: Message) -> Tick | None:
    """A tick that has a time; a tape may well hold others."""
    channel, symbol, time = _channel(message), _symbol(message), message.get("t")
    if not channel or not symbol:
        return None
    try:
        ns = time if type(time) is int else parse_time_ns(time or "")
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None
    return Tick(channel, symbol, ns, message)


def _insert(minutes: array[int], minute: int) -> None:
    at = bisect_left(minutes, minute)
    if at == len(minutes) or minutes[at] != minute:
        minutes.insert(at, minute)
