"""From decoded messages to the queues of their buckets.

Routing, quarantine of what is no message, gap rows and heartbeats. A trade that came before and a
message with a number or a key that JSON cannot carry (NaN, bytes) are kept raw for the quarantine;
all else is judged by the readers of the stream (:func:`pipelines.events.reject_reason`). News may
be about many symbols: all of it goes into one bucket, once, in order. No I/O; the caller holds the
lock of the batcher.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, MutableSequence, Sequence
from math import isfinite
from typing import Any

from pipelines import codec
from pipelines.clock import LIVE, MarketClock
from pipelines.events import (
    BAR,
    GAP,
    HEARTBEAT,
    MALFORMED,
    NEWS,
    QUOTE,
    TRADE,
    Message,
    bucket_of,
    effective_ns,
    malformed,
    reject_reason,
)
from pipelines.ingest.gaps import RETROSPECTIVE, GapTracker
from pipelines.ingest.repeats import RecentTicks
from pipelines.ports import MessageQueues

OWN_TYPES = frozenset({HEARTBEAT, GAP, MALFORMED})
MAX_ROUTES = 50_000
_SHALLOW = reprlib.Repr()
_SHALLOW.maxlevel, _SHALLOW.maxdict, _SHALLOW.maxlist = 20, 100, 100
_SHALLOW.maxstring = _SHALLOW.maxother = 1000
REPEATED = {TRADE: "duplicate_trade", QUOTE: "duplicate_quote", BAR: "duplicate_bar"}


class Intake:
    """Puts messages where they belong, in order.

    Args:
        batcher: Its queues.
        tracker: Knows what was missed.

    Attributes:
        received: Market messages taken in (malformed ones included), this run.
        malformed: Of these, what was no message, and what came twice.
        duplicates: Of these, what came twice.
        backfilled: Of these, what was missed and fetched later.
        clock: The market clock, as last announced.
        clock_known: Whether it was announced.
    """

    def __init__(self, batcher: MessageQueues, tracker: GapTracker) -> None:
        self._batcher = batcher
        self._quarantine = batcher.queue(0)
        self._raw_bytes = 0
        self._tracker = tracker
        self._routes: dict[str, MutableSequence[Message]] = {}
        self._buckets: dict[int, set[str]] = {}
        self.received = 0
        self.malformed = 0
        self.backfilled = 0
        self.duplicates = 0
        self._ticks = RecentTicks()
        self.clock: MarketClock = LIVE
        self.clock_known = False
        self._all = False

    @property
    def unsent(self) -> int:
        """Messages that the stream does not hold for certain yet."""
        return self._batcher.unsent

    @property
    def raw_bytes(self) -> int:
        """Size of what waits for the quarantine, or more; any thread may ask."""
        return self._raw_bytes if self._quarantine else 0

    def use(self, symbols: Iterable[str]) -> None:
        """Symbols that are subscribed: heartbeats go to their buckets, and only there.

        With ``*``, to the bucket of every symbol that had data.
        """
        named = set(symbols)
        self._all = "*" in named
        if self._all:
            named = (named - {"*"}) | self._routes.keys()
        self._buckets = {bucket_of(symbol): set() for symbol in named}
        for symbol in named:
            self._buckets[bucket_of(symbol)].add(symbol)

    def take(self, messages: Sequence[Any], *, received_ns: int) -> None:
        """Take in the messages of one frame.

        Args:
            messages: Elements of the frame; what is no message is kept as ``bad``.
            received_ns: Wall time of receipt.
        """
        if self._tracker.open:
            self._take_after_gap(messages, received_ns)
            return
        routes = self._routes
        for message in messages:
            if type(message) is dict:
                symbol, kind = message.get("S"), message.get("T")
                if (
                    type(symbol) is str
                    and type(kind) is str
                    and kind not in OWN_TYPES
                    and _fits_json(message)
                    and (symbol in routes or _is_text(symbol))
                    and not self._ticks.repeats(symbol, message)
                ):
                    if "bf" in message:
                        del message["bf"]  # ours: it says that a message was fetched later
                    message["r"] = received_ns
                    queue = routes.get(symbol)
                    if queue is None:
                        queue = self._route(symbol)
                    queue.append(message)
                    continue
            self._take_odd(message, received_ns)
        self.received += len(messages)

    def take_malformed(self, reason: str, raw: bytes, *, received_ns: int) -> None:
        """Keep raw bytes that are no message, for the quarantine."""
        self._keep_raw(reason, raw, received_ns)
        self.received += 1

    def begin_again(self) -> None:
        """The market began again, with the same trades."""
        self._ticks.clear()

    def lost(self, n_messages: int) -> None:
        """Messages that were received are lost: they count as missed, and may come again."""
        self.received -= n_messages
        self._ticks.clear()

    def take_backfilled(self, messages: Iterable[Message], *, received_ns: int) -> list[Message]:
        """Take in messages of a gap, fetched later; those that did not come before.

        They go through no gap row and say nothing about how far their symbols came.

        Args:
            messages: Trades, quotes and bars with their symbols.
            received_ns: Wall time of receipt.
        """
        taken = []
        for message in messages:
            if self._ticks.repeats(message["S"], message):
                continue
            message["bf"], message["r"] = True, received_ns
            self._route(message["S"]).append(message)
            taken.append(message)
        self.received += len(taken)
        self.backfilled += len(taken)
        return taken

    def heartbeat(self, *, wall_ns: int) -> None:
        """Write one heartbeat into every bucket in use.

        It says that everything up to its market time that came has been written. While a gap row
        is still to be written nobody may say so. The one before, if it still waits and nothing
        came since, says nothing beyond it: a stream that is away for days costs no memory.
        """
        if self._tracker.open:
            return
        market_ns = self.clock.market_ns(wall_ns)
        for bucket, symbols in self._buckets.items():
            queue = self._batcher.queue(bucket)
            if queue and queue[-1]["T"] == HEARTBEAT:
                del queue[-1]
            queue.append(
                {
                    "T": HEARTBEAT,
                    "market_ns": market_ns,
                    "symbols": sorted(symbols),
                    "r": wall_ns,
                }
            )

    def write_gaps(self, rows: Iterable[Message], *, wall_ns: int) -> None:
        """Write gap rows, each into its symbol's own bucket."""
        for row in rows:
            row["r"] = wall_ns
            self._batcher.queue(bucket_of(row["S"])).append(row)

    def _take_after_gap(self, messages: Sequence[Any], received_ns: int) -> None:
        """As :meth:`take`, one by one: before a message stand the gap rows that it ends."""
        market_ns = self.clock.market_ns(received_ns)
        for position, message in enumerate(messages):
            if not self._tracker.open:
                self.take(messages[position:], received_ns=received_ns)
                return
            self.received += 1
            if not _plain(message) or self._ticks.repeats(message["S"], message):
                if NEWS in self._tracker.waiting and _is_news(message, market_ns):
                    rows = self._tracker.resume(NEWS, effective_ns(message), now_ns=market_ns)
                    self.write_gaps(rows, wall_ns=received_ns)
                self._take_odd(message, received_ns)
                continue
            if (
                message["T"] not in RETROSPECTIVE
                and reject_reason(message, market_ns=market_ns) is None
            ):
                rows = self._tracker.resume(
                    message["S"], effective_ns(message), message=message, now_ns=market_ns
                )
                self.write_gaps(rows, wall_ns=received_ns)
            message.pop("bf", None)
            message["r"] = received_ns
            self._route(message["S"]).append(message)

    def begin(self, symbol: str, *, since_ns: int, now_ns: int) -> None:
        """A symbol was subscribed at a market time."""
        waiting = self._batcher.queue(bucket_of(symbol))
        self._tracker.begin(symbol, since_ns, waiting=waiting, market_ns=now_ns)

    def _route(self, symbol: str) -> MutableSequence[Message]:
        if len(self._routes) > MAX_ROUTES:
            self._routes.clear()
        bucket = bucket_of(symbol)
        if self._all:
            self._buckets.setdefault(bucket, set()).add(symbol)
        queue = self._routes[symbol] = self._batcher.queue(bucket)
        return queue

    def _take_odd(self, message: Any, received_ns: int) -> None:
        """A message without a symbol of its own, or no message at all."""
        reason = _why_odd(message)
        if reason is None:
            message.pop("bf", None)
            message["r"] = received_ns
            self._batcher.queue(bucket_of(NEWS)).append(message)
            return
        if reason.startswith("duplicate_"):
            raw = raw_of(message)
            self.duplicates += 1
        else:
            raw = printed(message)
        self._keep_raw(reason, raw, received_ns)

    def _keep_raw(self, reason: str, raw: bytes, received_ns: int) -> None:
        message = malformed(reason, raw=raw, received_ns=received_ns)
        self._raw_bytes = self.raw_bytes + len(message["raw"])
        self._quarantine.append(message)
        self.malformed += 1


def _plain(message: Any) -> bool:
    return (
        type(message) is dict
        and type(message.get("S")) is str
        and type(message.get("T")) is str
        and message["T"] not in OWN_TYPES
        and _fits_json(message)
        and _is_text(message["S"])
    )


def _is_text(symbol: str) -> bool:
    """Whether UTF-8 can carry it: half a surrogate pair comes through JSON, and goes nowhere."""
    try:
        symbol.encode()
    except UnicodeEncodeError:
        return False
    return True


def raw_of(message: Any) -> bytes:
    """A message as JSON; as far as Python can print it, where JSON cannot hold it."""
    try:
        return codec.encode_json(message)
    except TypeError:  # a value that JSON cannot hold came in by msgpack
        return printed(message)


def printed(message: Any) -> bytes:
    """What came, as far as Python can print it: kept raw where no format can hold it."""
    try:
        text = repr(message)
    except RecursionError:  # nested deeper than Python can follow: as deep as is of use
        text = _SHALLOW.repr(message)
    return text.encode(errors="backslashreplace")


def _fits_json(message: Message) -> bool:
    """Whether JSON can carry its numbers (it would write others as null) and its keys."""
    for key, value in message.items():
        if (type(value) is float and not isfinite(value)) or type(key) is not str:
            return False
    return True


def _is_news(message: Any, market_ns: int) -> bool:
    odd = type(message) is not dict or _why_odd(message) is not None
    return not odd and reject_reason(message, market_ns=market_ns) is None


def _why_odd(message: Any) -> str | None:
    if type(message) is not dict:
        return "not_an_object"
    kind = message.get("T")
    if type(kind) is not str:
        return "missing_field:T"
    if kind in OWN_TYPES:
        return f"reserved_type:{kind}"
    for key, value in message.items():
        if type(key) is not str:  # msgpack has keys of bytes
            return f"bad_key:{key!r}"
        if type(value) is float and not isfinite(value):
            return f"bad_number:{key}"
    symbol = message.get("S")
    if type(symbol) is str:
        if not _is_text(symbol):
            return "bad_symbol"
        return REPEATED.get(kind, "duplicate_event")  # nothing else is odd about it
    if "S" in message:
        return "bad_symbol"
    return None if "symbols" in message else "missing_field:S"
