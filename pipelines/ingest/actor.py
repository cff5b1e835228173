"""The edge to Ray: a plain class that runs a producer in a thread, made for a named actor.

``ray.remote(ProducerActor).options(name=…, max_restarts=-1, max_concurrency=8)``: its constructor
starts streaming, so an actor that Ray restarts streams again by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.ingest.subscriptions import NEWS_CHANNEL, Subscriptions
from pipelines.ingest.totals import total
from pipelines.ports import BatcherFactory, RecordSink, StoredMarks, TailReader, TickHistory

log = logging.getLogger(__name__)

JOIN_S = 15.0


class ProducerActor:
    """Hosts a producer, and beside it the one of the news where there are news.

    Args:
        config: Its settings.
        sink_factory: Makes the sink of a producer, in this process.
        make_batcher: Makes the batcher; the class ``Batcher``.
        tail_factory: Makes the reader of what a killed predecessor wrote, in this process.
        history_factory: Makes the history that gaps are filled from, in this process.
        lake_factory: Makes what knows the lake, in this process.
        on_crash: Called when a producer failed by itself (not refused by the feed); the cluster
            ends the process here, and Ray starts it again.
    """

    def __init__(
        self,
        config: ProducerConfig,
        sink_factory: Callable[[], RecordSink],
        make_batcher: BatcherFactory,
        tail_factory: Callable[[], TailReader | None] = lambda: None,
        *,
        history_factory: Callable[[], TickHistory | None] = lambda: None,
        lake_factory: Callable[[], StoredMarks | None] = lambda: None,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        def make(chosen: ProducerConfig, *, history: bool) -> Callable[[], Producer]:
            sink = sink_factory()
            return lambda: Producer(
                chosen,
                sink=sink,
                make_batcher=make_batcher,
                tail=tail_factory(),
                lake=lake_factory(),
                history=history_factory() if history else None,
            )

        news = config.news()
        self._market = Hosted(make(config, history=True), name="producer", on_crash=on_crash)
        self._news = (
            Hosted(make(news, history=False), name="news", on_crash=on_crash) if news else None
        )
        self._all = [hosted for hosted in (self._market, self._news) if hosted is not None]
        self.start()

    def start(self) -> None:
        """Stream; does nothing while it does, tries again after a fatal refusal."""
        for hosted in self._all:
            hosted.start()

    def stats(self) -> dict[str, Any]:
        """State and counters, news included (:func:`pipelines.ingest.totals.total`)."""
        news = self._news.producer.stats() if self._news else None
        return total([self._market.producer.stats()], news)

    def series(self) -> dict[tuple[str, str], int]:
        """Messages received per type and symbol, this run."""
        counts: dict[tuple[str, str], int] = {}
        for hosted in self._all:
            for key, n in hosted.producer.series().items():
                counts[key] = counts.get(key, 0) + n
        return counts

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change the symbols of every channel, and of the news; lasts over restarts."""
        chosen = tuple(symbols)
        for hosted in self._all:
            hosted.producer.set_symbols(chosen)

    def set_subscriptions(self, wishes: Subscriptions) -> None:
        """Change the channels and the symbols of each; lasts over restarts.

        Args:
            wishes: Per channel, its symbols; ``news`` among them where there are news.
        """
        self._market.producer.set_subscriptions(
            {channel: has for channel, has in wishes.items() if channel != NEWS_CHANNEL}
        )
        if self._news is not None and NEWS_CHANNEL in wishes:
            self._news.producer.set_subscriptions({NEWS_CHANNEL: wishes[NEWS_CHANNEL]})

    def pause(self) -> None:
        """Leave the feed until :meth:`resume`."""
        for hosted in self._all:
            hosted.producer.pause()

    def resume(self) -> None:
        """Go on."""
        for hosted in self._all:
            hosted.producer.resume()

    def drain(self, timeout_s: float) -> bool:
        """Stop reading and store everything queued; whether all was stored in time."""
        for hosted in self._all:
            hosted.producer.stop(flush_s=timeout_s)
        drained = [hosted.producer.drain(timeout_s) for hosted in self._all]
        return all(drained)

    def stop(self) -> None:
        """Stop; returns when it has."""
        for hosted in self._all:
            hosted.producer.stop()
        for hosted in self._all:
            hosted.join()

    def ping(self) -> bool:
        """Whether the actor answers."""
        return True


class Hosted:
    """A producer in a thread, made anew when it has ended.

    Args:
        make: Makes it.
        name: Of the thread.
        on_crash: Called when it failed by itself.

    Attributes:
        producer: The one that runs, or ran last.
    """

    def __init__(
        self, make: Callable[[], Producer], *, name: str, on_crash: Callable[[], None]
    ) -> None:
        self._make = make
        self._name = name
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.producer = make()

    def start(self) -> None:
        """Run it; if it does, let it go on."""
        with self._lock:
            if self._thread is not None:
                if not self.producer.finished:
                    self.producer.resume()
                    return
                self._thread.join(JOIN_S)
                self.producer = self._make()
            self._thread = threading.Thread(
                target=_run, args=(self.producer, self._on_crash), name=self._name, daemon=True
            )
            self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        if self._thread is not None:
            self._thread.join(JOIN_S)


def _run(producer: Producer, on_crash: Callable[[], None]) -> None:
    try:
        producer.run()
    except Exception:  # noqa: BLE001 (the producer logged it and tells it in its stats)
        log.info("the producer's thread ends")
        on_crash()
