"""The Ray edge of the feed: the actor that hosts it, and what replicas hold of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.clock import wall_ns
from pipelines.kinesis.reader import StreamReader
from pipelines.lake.query import LakeQuery
from serve.bars import bar_of_lake
from serve.config import FeedConfig
from serve.feed import Feed, Reader
from serve.metrics import FeedGauges
from serve.mirror import FeedLost

log = logging.getLogger(__name__)

ANSWER_S = 5.0
"""Longest wait for an answer beyond the wait that was asked for."""


class Named:
    """An actor by its name: looked up again after it died.

    Args:
        name: Its name.
        namespace: Its namespace.
    """

    def __init__(self, name: str, namespace: str) -> None:
        self._name, self._namespace = name, namespace
        self._handle: Any = None

    async def call(self, method: str, *args: object, timeout_s: float) -> Any:
        """Call a method.

        Raises:
            FeedLost: There is no such actor, or it did not answer in time.
        """
        try:
            if self._handle is None:
                # Looking up asks Ray's control store, which may take its time.
                self._handle = await asyncio.wait_for(
                    asyncio.to_thread(ray.get_actor, self._name, self._namespace), timeout_s
                )
            return await asyncio.wait_for(getattr(self._handle, method).remote(*args), timeout_s)
        except (RayError, ValueError, TimeoutError, AttributeError) as error:
            self._handle = None
            raise FeedLost(f"{self._name}: {error!r:.300}") from error


class RayFeed:
    """The feed as replicas see it: a :class:`~serve.mirror.FeedPort`.

    Args:
        config: Its names.
    """

    def __init__(self, config: FeedConfig) -> None:
        self._actor = Named(config.actor, config.namespace)

    async def changes(
        self, after_seq: int, timeout_s: float, channels: Sequence[str] | None
    ) -> dict[str, Any]:
        """See :meth:`serve.feed.Feed.changes`."""
        answer: dict[str, Any] = await self._actor.call(
            "changes", after_seq, timeout_s, channels, timeout_s=timeout_s + ANSWER_S
        )
        return answer

    async def bars(self, symbol: str) -> list[dict[str, Any]]:
        """See :meth:`serve.feed.Feed.bars`."""
        rows: list[dict[str, Any]] = await self._actor.call("bars", symbol, timeout_s=ANSWER_S)
        return rows

    async def rows(self, kind: str, symbol: str) -> list[dict[str, Any]]:
        """See :meth:`serve.feed.Feed.rows`."""
        rows: list[dict[str, Any]] = await self._actor.call(
            "rows", kind, symbol, timeout_s=ANSWER_S
        )
        return rows


class FeedActor:
    """Hosts a :class:`~serve.feed.Feed` in an asynchronous actor; a restart begins anew.

    ``ray.remote(FeedActor).options(name=config.actor, namespace=config.namespace,
    max_concurrency=1000, max_restarts=-1).remote(config)``.

    Args:
        config: What to read.
    """

    def __init__(self, config: FeedConfig) -> None:
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._named: dict[str, Named] = {}
        self._feed = Feed(
            config,
            open_reader=_opener(config),
            ask_stats=self._ask_stats,
            history=_history(config),
            on_system=FeedGauges().set,
        )

    async def start(self) -> str:
        """Begin to read; returns when it began."""
        await self._feed.start()
        return "started"

    async def stop(self) -> None:
        """Stop reading."""
        await self._feed.stop()

    async def changes(
        self, after_seq: int, timeout_s: float, channels: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """See :meth:`serve.feed.Feed.changes`."""
        await self._feed.start()  # after a restart nobody else says so
        return await self._feed.changes(after_seq, timeout_s, channels)

    async def snapshot(
        self, channels: Sequence[str] | None = None, symbols: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """See :meth:`serve.feed.Feed.snapshot`."""
        return await self._feed.snapshot(channels, symbols)

    async def bars(self, symbol: str) -> list[dict[str, Any]]:
        """See :meth:`serve.feed.Feed.bars`."""
        return await self._feed.bars(symbol)

    async def rows(self, kind: str, symbol: str) -> list[dict[str, Any]]:
        """See :meth:`serve.feed.Feed.rows`."""
        return await self._feed.rows(kind, symbol)

    async def stats(self) -> dict[str, Any]:
        """See :meth:`serve.feed.Feed.stats`."""
        await self._feed.start()
        return await self._feed.stats()

    async def ping(self) -> str:
        """Whether it lives."""
        return "pong"

    async def add_history(self, symbol: str, bars: Sequence[Mapping[str, Any]]) -> None:
        """See :meth:`serve.feed.Feed.add_history`."""
        self._feed.add_history(symbol, bars)

    def _ask_stats(self, name: str) -> Awaitable[Mapping[str, Any] | None]:
        actor = self._named.setdefault(name, Named(name, self._config.namespace))
        return _stats_of(actor, self._config.stats_timeout_s)


async def _stats_of(actor: Named, timeout_s: float) -> Mapping[str, Any] | None:
    try:
        stats: Mapping[str, Any] = await actor.call("stats", timeout_s=timeout_s)
    except FeedLost:
        return None  # shown as a part that does not answer
    return stats


def _opener(config: FeedConfig) -> Callable[[str], Reader]:
    def open_reader(stream: str) -> Reader:
        start = "LATEST"
        if stream == config.kinesis.market_signals:
            start = f"AT_TIMESTAMP:{wall_ns() // 1_000_000 - int(config.signals_back_s * 1000)}"
        reader: Reader = StreamReader(config.kinesis, stream, start=start, consumer=config.consumer)
        return reader

    return open_reader


def _history(
    config: FeedConfig,
) -> Callable[[str, int], Sequence[Mapping[str, Any]]] | None:
    if config.lake_uri is None:
        return None
    lake = LakeQuery(config.lake_uri, config.lake_options)

    def bars(symbol: str, limit: int) -> Sequence[Mapping[str, Any]]:
        return [bar_of_lake(row) for row in lake.recent_bars(symbol, limit=limit)]

    return bars
