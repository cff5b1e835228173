"""The hub: WebSocket clients and what each of them wants. No socket in here.

A client says ``subscribe``, ``unsubscribe`` or ``ping``; it gets an acknowledgement, a snapshot
(updates marked ``"snapshot": true``, or, with ``after_seq``, all that it missed) and then updates.
Each client has a bounded queue in which a trade, quote, forming bar or system state that was not
sent yet is replaced by its successor; a client too slow even for that is told so and closed. A
client that missed more than its queue holds gets a snapshot: sent all of it, it would be closed
again at once, for ever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipelines.clock import wall_ns
from pipelines.events import format_time_ns
from serve.mirror import Mirror
from serve.updates import CHANNELS, LATER_CHANNELS, MARKET, WHOLE_MARKET, Update, newest, wire

MAX_PENDING = 5_000
MAX_REPLIES = 100
MAX_SYMBOLS = 12_000
KNOWN = frozenset(CHANNELS) | frozenset(LATER_CHANNELS)


class TooSlow(Exception):
    """A client did not take what it subscribed to."""


class Client:
    """One client: its subscription and its queue.

    Args:
        mirror: What is known.
        wall: The wall clock.
        max_pending: Updates that may wait.
    """

    def __init__(
        self,
        mirror: Mirror,
        *,
        wall: Callable[[], int] = wall_ns,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._mirror = mirror
        self._wall = wall
        self._max = self._bound = max_pending
        self._wanted: set[tuple[str, str]] = set()
        self._pending: OrderedDict[tuple[str, str, str], tuple[Update, bool]] = OrderedDict()
        self._replies: list[bytes] = []
        self._ready = asyncio.Event()
        self.slow = False
        self.conflated = 0

    # ---- from the client

    def handle(self, text: str | bytes) -> None:
        """Take one message of the client; what is wrong with it is answered, never raised."""
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            self._error("bad_json", "the message is no JSON")
            return
        if not isinstance(message, dict):
            self._error("bad_message", "the message is no object")
            return
        action = message.get("action")
        if action == "ping":
            self._reply({"channel": "pong", "id": message.get("id"), "sent_at": self._now()})
        elif action in ("subscribe", "unsubscribe"):
            wanted = self._read(message)
            if wanted is not None:
                self._change(action == "subscribe", *wanted, message.get("after_seq"))
        else:
            self._error("unknown_action", "action is subscribe, unsubscribe or ping")

    def _read(self, message: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
        channels, symbols = message.get("channels"), message.get("symbols", [MARKET])
        if not _texts(channels) or not channels:
            self._error("bad_channels", "channels is a list of names")
            return None
        unknown = sorted(set(channels) - KNOWN)
        if unknown:
            self._error("unknown_channel", f"no such channel: {', '.join(unknown)[:200]}")
            return None
        if not _texts(symbols) or len(symbols) > MAX_SYMBOLS:
            self._error("bad_symbols", "symbols is a list of symbols, or of *")
            return None
        known = self._mirror.symbols
        strangers = [s for s in symbols if s != MARKET and s not in known]
        if strangers and self._mirror.synced:
            self._error("unknown_symbol", f"no such symbol: {', '.join(strangers)[:200]}")
        return list(channels), [s for s in symbols if s not in strangers]

    def _change(
        self, subscribe: bool, channels: list[str], symbols: list[str], after_seq: object
    ) -> None:
        pairs = {(c, MARKET if c in WHOLE_MARKET else s) for c in channels for s in symbols}
        if not subscribe:
            self._wanted -= pairs
            self._pending = OrderedDict(
                (k, v) for k, v in self._pending.items() if self.wants(v[0])
            )
            self._reply({"channel": "unsubscribed", "channels": channels, "symbols": symbols})
            return
        added = pairs - self._wanted
        self._wanted |= pairs
        missed = self._missed(after_seq, added)
        self._reply(
            {
                "channel": "subscribed",
                "channels": channels,
                "symbols": symbols,
                "seq": self._mirror.log.seq,
                "resumed": missed is not None,
            }
        )
        if missed is not None:
            self._queue(missed, snapshot=False)
            return
        for update in newest(u for u in self._mirror.log.all() if _in(u, added)):
            self._put(update, snapshot=True)
        # A snapshot is as large as what is subscribed: it takes no room from what comes after it.
        self._bound = self._max + min(len(self._pending), len(self._mirror.log))
        self._wake()

    def _missed(self, after_seq: object, added: set[tuple[str, str]]) -> list[Update] | None:
        """What a client that comes back missed; ``None`` when it must have a snapshot."""
        log = self._mirror.log
        if not isinstance(after_seq, int) or isinstance(after_seq, bool):
            return None
        if not log.floor <= after_seq <= log.seq:
            return None
        missed = [u for u in log.after(after_seq) if _in(u, added)]
        return missed if len(self._pending) + len(missed) <= self._max else None

    # ---- to the client

    def wants(self, update: Update) -> bool:
        """Whether an update is subscribed."""
        return _in(update, self._wanted)

    def offer(self, updates: Sequence[Update]) -> None:
        """Queue what is subscribed of new updates."""
        self._queue((u for u in updates if self.wants(u)), snapshot=False)

    def _queue(self, updates: Iterable[Update], *, snapshot: bool) -> None:
        for update in updates:
            self._put(update, snapshot=snapshot)
        if len(self._pending) > self._bound:
            self.slow = True
        self._wake()

    def _put(self, update: Update, *, snapshot: bool) -> None:
        key = (update.channel, update.symbol, update.key)
        if self._pending.pop(key, None) is not None:
            self.conflated += 1
        self._pending[key] = (update, snapshot)

    def _wake(self) -> None:
        if self._pending or self.slow:
            self._ready.set()

    async def take(self) -> list[bytes]:
        """Wait for messages, and take them all.

        Raises:
            TooSlow: The queue overflowed; the last message to send says so.
        """
        await self._ready.wait()
        self._ready.clear()
        if self.slow:
            raise TooSlow
        sent_at = self._now()
        out, self._replies = self._replies, []
        pending, self._pending = self._pending, OrderedDict()
        self._bound = self._max
        out.extend(wire(u, sent_at=sent_at, snapshot=s) for u, s in pending.values())
        return out

    def _reply(self, message: Mapping[str, Any]) -> None:
        if len(self._replies) >= MAX_REPLIES:
            self.slow = True
        else:
            self._replies.append(orjson.dumps(message))
        self._ready.set()

    def _error(self, code: str, text: str) -> None:
        self._reply({"channel": "error", "code": code, "message": text})

    def _now(self) -> str:
        return format_time_ns(self._wall() // 1000 * 1000)


class Hub:
    """All clients of one replica.

    Args:
        mirror: What they are told.
        max_clients: Bound.
    """

    def __init__(self, mirror: Mirror, *, max_clients: int = 500) -> None:
        self._mirror = mirror
        self._max = max_clients
        self.clients: set[Client] = set()
        mirror.listen(self._offer)

    def join(self) -> Client | None:
        """A new client, or ``None`` when there are too many."""
        if len(self.clients) >= self._max:
            return None
        client = Client(self._mirror)
        self.clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """A client is gone."""
        self.clients.discard(client)

    def _offer(self, updates: Sequence[Update]) -> None:
        for client in self.clients:
            client.offer(updates)


def _in(update: Update, wanted: set[tuple[str, str]]) -> bool:
    return (update.channel, update.symbol) in wanted or (update.channel, MARKET) in wanted


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
