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
from pipelines.ports import BatcherFactory, RecordSink, TailReader, TickHistory

log = logging.getLogger(__name__)

JOIN_S = 15.0


class ProducerActor:
    """Hosts a producer.

    Args:
        config: Its settings.
        sink_factory: Makes the sink, in this process.
        make_batcher: Makes the batcher; the class ``Batcher``.
        tail_factory: Makes the reader of what a killed predecessor wrote, in this process.
        history_factory: Makes the history that gaps are filled from, in this process.
        on_crash: Called when the producer failed by itself (not refused by the feed); the cluster
            ends the process here, and Ray starts it again.
    """

    def __init__(
        self,
        config: ProducerConfig,
        sink_factory: Callable[[], RecordSink],
        make_batcher: BatcherFactory,
        tail_factory: Callable[[], TailReader | None] = lambda: None,
        on_crash: Callable[[], None] = lambda: None,
        history_factory: Callable[[], TickHistory | None] = lambda: None,
    ) -> None:
        self._config = config
        self._sink = sink_factory()
        self._make_batcher = make_batcher
        self._tail_factory = tail_factory
        self._history_factory = history_factory
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Stream; does nothing while it does, tries again after a fatal refusal."""
        with self._lock:
            running = self._producer
            if running is not None and not running.finished:
                running.resume()
                return
            if self._thread is not None:
                self._thread.join(JOIN_S)
            self._producer = Producer(
                self._config,
                sink=self._sink,
                make_batcher=self._make_batcher,
                tail=self._tail_factory(),
                history=self._history_factory(),
            )
            self._thread = threading.Thread(
                target=_run, args=(self._producer, self._on_crash), name="producer", daemon=True
            )
            self._thread.start()

    def stats(self) -> dict[str, Any]:
        """State and counters of the producer."""
        return self._current().stats()

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change what is subscribed."""
        self._current().set_symbols(symbols)

    def pause(self) -> None:
        """Leave the feed until :meth:`resume`."""
        self._current().pause()

    def resume(self) -> None:
        """Go on."""
        self._current().resume()

    def drain(self, timeout_s: float) -> bool:
        """Stop reading and store everything queued; whether all was stored in time."""
        return self._current().drain(timeout_s)

    def stop(self) -> None:
        """Stop; returns when it has."""
        self._current().stop()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def ping(self) -> bool:
        """Whether the actor answers."""
        return True

    def _current(self) -> Producer:
        if self._producer is None:
            raise RuntimeError("the constructor starts a producer")
        return self._producer


def _run(producer: Producer, on_crash: Callable[[], None]) -> None:
    try:
        producer.run()
    except Exception:  # noqa: BLE001 (the producer logged it and tells it in its stats)
        log.info("the producer's thread ends")
        on_crash()
