"""The feed: one reader of both streams for all replicas, which follow it by long polls.

In: ``market-data`` from its tip, ``market-signals`` from some hours back (so that a restarted
feed remembers). Out: :meth:`Feed.changes`. Two threads read, one coroutine puts the state of the
platform each second. A stream that fails is tried again with back-off, and the state says so.
:class:`Feed` is a plain class; ``cluster`` hosts it as an asynchronous Ray actor.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pipelines import codec, retry
from pipelines.clock import MarketClock, wall_ns
from pipelines.errors import MalformedFrame, RaytapeError
from pipelines.events import format_time_ns
from pipelines.ticks import decode_ticks
from serve.config import FeedConfig
from serve.memory import FeedMemory
from serve.platform_state import PlatformState
from serve.updates import Update, newest

log = logging.getLogger(__name__)

AskStats = Callable[[str], Awaitable[Mapping[str, Any] | None]]
History = Callable[[str, int], Sequence[Mapping[str, Any]]]


class RawRecordLike(Protocol):
    """What is read of a stream's record."""

    @property
    def data(self) -> bytes:
        """Its bytes."""
        ...


class Reader(Protocol):
    """A reader of one stream."""

    def poll(self) -> Sequence[RawRecordLike]:
        """Records since the last poll, in order per shard."""
        ...


class Feed:
    """Reads, remembers and answers.

    Args:
        config: What to read.
        open_reader: Opens a reader of a stream's name; tests bring their own.
        ask_stats: Asks a named part for its statistics; ``None`` when it does not answer.
        history: The last closed bars of a symbol, ``(symbol, limit)``, oldest first.
        on_system: Told the state of the platform each second.
        wall: The wall clock.
    """

    def __init__(
        self,
        config: FeedConfig,
        *,
        open_reader: Callable[[str], Reader],
        ask_stats: AskStats,
        history: History | None = None,
        on_system: Callable[[Mapping[str, Any]], None] | None = None,
        wall: Callable[[], int] = wall_ns,
    ) -> None:
        self._config = config
        self._open_reader = open_reader
        self._ask_stats = ask_stats
        self._history = history
        self._on_system = on_system
        self._wall = wall
        self._memory = FeedMemory(
            first_seq=wall() // 1000,
            rate=config.rate,
            conflate_s=config.conflate_s,
            max_bars=config.max_bars,
            max_signals=config.max_signals,
            max_updates=config.max_updates,
        )
        for symbol in config.symbols:
            self._memory.symbol(symbol)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._streams = {config.kinesis.market_data: "connecting"}
        self._streams[config.kinesis.market_signals] = "connecting"
        self._malformed = 0
        self._stage: dict[str, Mapping[str, Any] | None] = {}
        self._platform = PlatformState(config)
        self._started_ns = wall()

    # ---- life

    async def start(self) -> None:
        """Begin to read; harmless when it reads already."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        jobs: list[tuple[str, Callable[[], None]]] = [
            ("feed-data", lambda: self._pump(self._config.kinesis.market_data, self._on_record)),
            ("feed-items", lambda: self._pump(self._config.kinesis.market_signals, self._on_items)),
        ]
        if self._history is not None:
            jobs.append(("feed-history", self._load_history))
        for name, job in jobs:
            thread = threading.Thread(target=job, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._tasks.append(asyncio.create_task(self._watch()))

    async def stop(self) -> None:
        """Stop reading; what is remembered stays."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 5)
        self._threads, self._tasks, self._loop = [], [], None

    # ---- questions

    async def changes(
        self,
        after_seq: int,
        timeout_s: float = 20.0,
        channels: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Wait for updates after a number.

        Args:
            after_seq: The last number that the caller has; -1 for none.
            timeout_s: Longest wait, wall seconds.
            channels: Only these; ``None`` for all.

        Returns:
            ``seq`` (the caller's next ``after_seq``), ``updates`` (ascending), ``reset`` (the
            caller stood too far back or before a restart: ``updates`` is everything kept) and
            ``market`` (a :class:`~serve.market.MarketTime` as dict).
        """
        deadline = time.monotonic() + timeout_s
        while True:
            changed = self._changed
            with self._lock:
                kept = self._memory.log
                reset = after_seq < kept.floor or after_seq > kept.seq
                found = list(kept.all()) if reset else kept.after(after_seq)
                seq = kept.seq
                market = self._memory.market
            if channels is not None:
                found = [u for u in found if u.channel in channels]
            left = deadline - time.monotonic()
            if found or reset or left <= 0 or self._stopping.is_set():
                return {
                    "seq": seq,
                    "reset": reset,
                    "updates": [tuple(u) for u in found],
                    "market": market.to_dict(),
                }
            after_seq = seq
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                continue

    async def snapshot(
        self, channels: Sequence[str] | None = None, symbols: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The newest update of each channel and symbol: ``{"seq", "updates"}``."""
        with self._lock:
            found: Iterable[Update] = list(self._memory.log.all())
            seq = self._memory.log.seq
        if channels is not None:
            found = [u for u in found if u.channel in channels]
        if symbols is not None:
            found = [u for u in found if u.symbol in symbols]
        return {"seq": seq, "updates": [tuple(u) for u in newest(found)]}

    async def bars(self, symbol: str) -> list[dict[str, Any]]:
        """Closed minute bars that are remembered, oldest first, and the forming one at the end."""
        with self._lock:
            memory = self._memory.symbols.get(symbol)
            return self._memory.bars_of(memory) if memory else []

    async def rows(self, kind: str, symbol: str) -> list[dict[str, Any]]:
        """Remembered ``signals``, ``features`` or ``stats`` of a symbol, oldest first."""
        with self._lock:
            memory = self._memory.symbols.get(symbol)
            if memory is None:
                return []
            kept = {"signals": memory.signals, "stats": memory.stats}
            return list(kept.get(kind, memory.features))

    async def stats(self) -> dict[str, Any]:
        """Counters, latency and the state of both streams."""
        with self._lock:
            return {
                "state": "streaming" if self._healthy() else "connecting",
                "streams": dict(self._streams),
                "symbols": sorted(self._memory.symbols),
                "seq": self._memory.log.seq,
                "malformed": self._malformed,
                "latency_ms": self._latency(),
                **self._memory.counts,
            }

    async def ping(self) -> str:
        """Whether it lives."""
        return "pong"

    def add_history(self, symbol: str, bars: Sequence[Mapping[str, Any]]) -> None:
        """Put closed bars of the past: ``event_time open high low close volume``, oldest first."""
        with self._lock:
            self._memory.add_history(symbol, bars)

    # ---- reading, in threads

    def _pump(self, stream: str, apply: Callable[[bytes], None]) -> None:
        waits = retry.delays(first_s=0.2, cap_s=5, rng=random.Random())  # noqa: S311
        reader: Reader | None = None
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                if reader is None:
                    reader = self._open_reader(stream)
                raws = reader.poll()
                if self._streams[stream] != "streaming":
                    self._streams[stream] = "streaming"
                    waits = retry.delays(first_s=0.2, cap_s=5, rng=random.Random())  # noqa: S311
                self._take(stream, raws, apply)
            except RaytapeError as error:
                if self._streams[stream] != "backing_off":
                    log.warning("feed: %s cannot be read: %s", stream, error)
                self._streams[stream] = "backing_off"
                self._stopping.wait(next(waits))
                continue
            except Exception:  # nobody foresaw it: shown as failed, and begun anew
                log.exception("feed: reading %s failed; it is opened anew", stream)
                self._streams[stream] = "failed"
                _close(reader)
                reader = None
                self._stopping.wait(next(waits))
                continue
            self._stopping.wait(max(0.0, self._config.poll_s - (time.monotonic() - begun)))
        _close(reader)

    def _take(
        self, stream: str, raws: Sequence[RawRecordLike], apply: Callable[[bytes], None]
    ) -> None:
        for raw in raws:
            # One record per turn of the lock: a long backlog must not hold up the questions.
            try:
                apply(raw.data)
            except MalformedFrame as error:
                self._malformed += 1
                log.warning("feed: a record of %s was skipped: %s", stream, error)
            except Exception:  # read again, it would fail again: it is skipped and counted
                self._malformed += 1
                log.exception("feed: a record of %s was skipped", stream)
        with self._lock:
            changed = self._memory.flush(wall=self._wall())
        if changed:
            self._wake()

    def _on_record(self, data: bytes) -> None:
        ticks = decode_ticks(data)
        if ticks is not None:
            with self._lock:
                self._memory.apply_ticks(ticks)
            return
        record = codec.decode_record(data)
        with self._lock:
            self._memory.apply_record(record)

    def _on_items(self, data: bytes) -> None:
        items = codec.decode_items(data)
        with self._lock:
            self._memory.apply_items(items)

    def _load_history(self) -> None:
        assert self._history is not None  # noqa: S101
        for symbol in self._config.symbols:
            if self._stopping.is_set():
                return
            try:
                self.add_history(symbol, self._history(symbol, self._config.max_bars))
            except RaytapeError as error:
                log.warning("feed: no bars of the past: %s", error)
                return
            except Exception:
                log.exception("feed: no bars of the past of %s", symbol)

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_here)

    def _wake_here(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- the state of the platform, in the event loop

    async def _watch(self) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                # The archive first: what the producer receives meanwhile is in flight, and never
                # makes a surplus.
                await self._ask("streaming", self._config.streaming_actor)
                await self._ask("producer", self._config.producer_actor)
                self._streams.pop("system", None)
                self._put_system()
            except Exception:  # a part that answers nonsense must not silence the others
                log.exception("feed: the state of the platform cannot be told")
                self._streams["system"] = "failed"
            await asyncio.sleep(max(0.05, 1.0 - (time.monotonic() - begun)))

    async def _ask(self, part: str, name: str) -> None:
        try:
            self._stage[part] = await asyncio.wait_for(
                self._ask_stats(name), self._config.stats_timeout_s
            )
        except TimeoutError:
            self._stage[part] = None

    def _put_system(self) -> None:
        wall = self._wall()
        producer, streaming = self._stage.get("producer"), self._stage.get("streaming")
        with self._lock:
            memory = self._memory
            announced = (producer or {}).get("clock")
            if announced:
                clock = MarketClock.from_dict(announced)
                if clock != memory.market.clock:
                    memory.market = replace(memory.market, clock=clock, rate=clock.rate)
            now = memory.market.now_ns(wall)
            time_text = format_time_ns(now // 1000 * 1000) if now is not None else ""
            system = {
                **self._platform.system(producer, streaming, market=memory.market, wall=wall),
                "feed": {"streams": dict(self._streams), **memory.counts},
                "latency_ms": self._latency(),
                "symbols": sorted(memory.symbols),
            }
            memory.set_system(system, event_time=time_text)
            memory.flush(wall=wall)
        self._wake_here()
        if self._on_system is not None:
            self._on_system(system)

    def _healthy(self) -> bool:
        return all(state == "streaming" for state in self._streams.values())

    def _latency(self) -> dict[str, float | None]:
        samples = sorted(self._memory.latency_ms)
        if not samples:
            return {"feed_p50": None, "feed_p99": None}
        return {
            "feed_p50": round(samples[len(samples) // 2], 3),
            "feed_p99": round(samples[min(len(samples) - 1, len(samples) * 99 // 100)], 3),
        }


def _close(reader: Reader | None) -> None:
    close = getattr(reader, "close", None)
    if close is not None:
        try:
            close()
        except Exception:  # what is broken may refuse to close, too
            log.exception("feed: a reader did not close")
