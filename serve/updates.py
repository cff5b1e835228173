"""Updates and the log that readers resume from. Pure.

An update is what changed for one (channel, symbol), with its payload already encoded: it is
encoded once in the feed and only copied afterwards. Trades, quotes and the system state are
*conflated* (only the newest matters); closed bars, features and signals are *kept*, each one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

CHANNELS = (
    "trades", "quotes", "bars", "rollups", "features", "provisional", "signals", "stats",
    "anomalies", "fills", "alerts", "system",
)  # fmt: skip
WHOLE_MARKET = frozenset(("alerts", "system"))
"""Channels that are about the platform, whatever symbols a client asks for."""
LATER_CHANNELS = ("portfolio",)
"""Channels that may be subscribed already; nothing is sent on them yet."""
MARKET = "*"
"""Symbol of what concerns no single symbol."""


class Update(NamedTuple):
    """One change.

    Args:
        seq: Its number; grows over all channels and over restarts of the feed.
        channel: One of :data:`CHANNELS`.
        symbol: Its symbol, or ``*``.
        key: What it replaces: an update with the same (channel, symbol, key) takes its place.
        event_time: Market time, RFC 3339.
        data: The payload, JSON.
    """

    seq: int
    channel: str
    symbol: str
    key: str
    event_time: str
    data: bytes


class UpdateLog:
    """The newest updates by number, each replaced by its successor of the same key.

    Args:
        max_updates: Bound; the oldest go first.

    >>> log = UpdateLog(max_updates=2)
    >>> for seq, key in ((1, "a"), (2, "b"), (3, "a")):
    ...     log.add(Update(seq, "trades", "SPY", key, "", b"{}"))
    >>> [u.seq for u in log.after(0)], [u.seq for u in log.after(2)]
    ([2, 3], [3])
    >>> log.add(Update(4, "bars", "SPY", "c", "", b"{}"))
    >>> log.floor     # 2 was thrown away: a reader that stands before it must start anew
    2
    """

    def __init__(self, *, max_updates: int) -> None:
        self._max = max_updates
        self._log: OrderedDict[tuple[str, str, str], Update] = OrderedDict()
        self.floor = 0
        self.seq = 0

    def __len__(self) -> int:
        return len(self._log)

    def add(self, update: Update) -> None:
        """Put an update, whose number must exceed all before it."""
        key = update[1:4]
        self._log.pop(key, None)
        self._log[key] = update
        self.seq = update.seq
        while len(self._log) > self._max:
            self.floor = self._log.popitem(last=False)[1].seq

    def after(self, seq: int) -> list[Update]:
        """Updates with a greater number, ascending."""
        found = []
        for update in reversed(self._log.values()):
            if update.seq <= seq:
                break
            found.append(update)
        found.reverse()
        return found

    def all(self) -> Iterator[Update]:
        """Every update kept, ascending."""
        return iter(self._log.values())

    def clear(self) -> None:
        """Forget everything."""
        self._log.clear()
        self.floor = self.seq = 0


def wire(update: Update, *, sent_at: str, snapshot: bool = False) -> bytes:
    """The message of an update for a WebSocket client.

    >>> wire(Update(7, "trades", "SPY", "", "t", b'{"price":1}'), sent_at="s").decode()
    '{"channel":"trades","symbol":"SPY","seq":7,"event_time":"t","sent_at":"s","data":{"price":1}}'
    """
    return b'{"channel":"%b","symbol":%b,"seq":%d,"event_time":%b,"sent_at":"%b"%b,"data":%b}' % (
        update.channel.encode(),
        orjson.dumps(update.symbol),
        update.seq,
        orjson.dumps(update.event_time),
        sent_at.encode(),
        b',"snapshot":true' if snapshot else b"",
        update.data,
    )


def newest(updates: Iterable[Update]) -> list[Update]:
    """The last update of each (channel, symbol), ascending by number; of alerts, each one."""
    last = {(u.channel, u.symbol, u.key if u.channel == "alerts" else ""): u for u in updates}
    return sorted(last.values(), key=lambda u: u.seq)
