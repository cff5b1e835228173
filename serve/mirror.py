"""A replica's copy of the feed, kept by a long poll in the background.

In: :meth:`serve.feed.Feed.changes`. Out: the newest update of each (channel, symbol) at once,
without a question to anybody. While the feed does not answer, :attr:`Mirror.synced` is false, and
what is known grows old by the market clock: the answers say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from pipelines import retry
from pipelines.errors import RaytapeError
from serve.market import MarketTime
from serve.updates import MARKET, Update, UpdateLog

log = logging.getLogger(__name__)

LOST_AFTER_FAILURES = 3
LONG_POLL_S = 10.0
Listener = Callable[[Sequence[Update]], None]


class FeedLost(RaytapeError):
    """The feed does not answer."""


class FeedPort(Protocol):
    """What a replica asks of the feed; raises :class:`FeedLost` when it does not answer."""

    def changes(
        self, after_seq: int, timeout_s: float, channels: Sequence[str] | None
    ) -> Awaitable[dict[str, Any]]:
        """See :meth:`serve.feed.Feed.changes`."""
        ...

    def bars(self, symbol: str) -> Awaitable[list[dict[str, Any]]]:
        """See :meth:`serve.feed.Feed.bars`."""
        ...

    def rows(self, kind: str, symbol: str) -> Awaitable[list[dict[str, Any]]]:
        """See :meth:`serve.feed.Feed.rows`."""
        ...


class Mirror:
    """Follows the feed.

    Args:
        feed: Whom to ask.
        channels: What to follow; ``None`` for everything.
        symbols: Symbols that are known from the start.
        every_s: Least wall seconds between two questions.
        max_updates: Updates kept for clients that come back.
    """

    def __init__(
        self,
        feed: FeedPort,
        *,
        channels: Sequence[str] | None = None,
        symbols: Sequence[str] = (),
        every_s: float = 0.0,
        max_updates: int = 20_000,
    ) -> None:
        self.feed = feed
        self.log = UpdateLog(max_updates=max_updates)
        self.market = MarketTime()
        self.synced = False
        self._channels = channels
        self._configured = frozenset(symbols)
        self._every_s = every_s
        self._latest: dict[tuple[str, str], Update] = {}
        self._decoded: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self._seen: set[str] = set(symbols)
        self._listeners: list[Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._system_at: float | None = None

    @property
    def symbols(self) -> set[str]:
        """Symbols that are known."""
        return self._seen

    def listen(self, listener: Listener) -> None:
        """Call a function with each batch of new updates."""
        self._listeners.append(listener)

    def latest(self, channel: str, symbol: str = MARKET) -> Update | None:
        """The newest update, encoded."""
        return self._latest.get((channel, symbol))

    def data(self, channel: str, symbol: str = MARKET) -> dict[str, Any] | None:
        """The payload of the newest update, decoded once."""
        update = self._latest.get((channel, symbol))
        if update is None:
            return None
        known = self._decoded.get((channel, symbol))
        if known is None or known[0] != update.seq:
            known = (update.seq, orjson.loads(update.data))
            self._decoded[(channel, symbol)] = known
        return known[1]

    def system_age_s(self) -> float | None:
        """Wall seconds since the state of the platform was last told; ``None`` before."""
        return None if self._system_at is None else time.monotonic() - self._system_at

    def apply(self, answer: dict[str, Any]) -> None:
        """Take one answer of the feed."""
        if answer["reset"]:
            self.log.clear()
            self._latest.clear()
            self._decoded.clear()
            self._seen = set(self._configured)
        updates = [Update(*u) for u in answer["updates"]]
        for update in updates:
            self.log.add(update)
            self._latest[(update.channel, update.symbol)] = update
            if update.symbol != MARKET:
                self._seen.add(update.symbol)
        if answer["reset"]:
            # Nobody may resume from before what is held now.
            self.log.floor = max(self.log.floor, updates[0].seq - 1 if updates else answer["seq"])
        self.log.seq = max(self.log.seq, answer["seq"])
        self.market = MarketTime.from_dict(answer["market"])
        self.synced = True
        if any(update.channel == "system" for update in updates):
            self._system_at = time.monotonic()
        if updates:
            for listener in self._listeners:
                self._tell(listener, updates)

    def _tell(self, listener: Listener, updates: Sequence[Update]) -> None:
        try:
            listener(updates)
        except Exception:  # whatever one listener cannot read, the others hear, and we follow on
            log.exception("mirror: a listener failed")

    def start(self) -> None:
        """Follow from now on (on the running event loop)."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def wait_synced(self, timeout_s: float) -> bool:
        """Wait for the first answer of the feed; whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while not self.synced and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.synced

    async def stop(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _follow(self) -> None:
        seq, failures = -1, 0
        waits = retry.delays(first_s=0.1, cap_s=2, rng=random.Random())  # noqa: S311
        while True:
            try:
                answer = await self.feed.changes(seq, LONG_POLL_S, self._channels)
                self.apply(answer)
                seq = answer["seq"]
            except FeedLost as error:
                failures += 1
                if failures == LOST_AFTER_FAILURES:
                    self.synced = False
                    log.warning("mirror: the feed does not answer: %s", error)
                await asyncio.sleep(next(waits))
                continue
            except Exception:  # an answer that nobody foresaw must not end the following
                failures += 1
                self.synced, seq = False, -1
                log.exception("mirror: failed; it begins anew")
                await asyncio.sleep(next(waits))
                continue
            if failures:
                failures = 0
                waits = retry.delays(first_s=0.1, cap_s=2, rng=random.Random())  # noqa: S311
            if self._every_s:
                await asyncio.sleep(self._every_s)
