"""The source port: what a producer streams from, and the adapters that there are."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pipelines.errors import FeedError, FeedTransient
from pipelines.ingest import lease
from pipelines.ingest.config import ProducerConfig, SourceConfig
from pipelines.ingest.connection import Connection, probe
from pipelines.ingest.failover import Failover
from pipelines.ingest.meter import Meter
from pipelines.ingest.polling import Polling, RestTicks
from pipelines.ingest.reception import POLL_S, Reception
from pipelines.ingest.subscriptions import Subscriptions

log = logging.getLogger(__name__)


class FeedSource(Protocol):
    """A stay at a place that has market data; hands it to a :class:`Reception`."""

    @property
    def subscriptions(self) -> Subscriptions:
        """What it gives us."""
        ...

    def run(self) -> None:
        """Stream until we are to leave; all that was published to us until then is taken.

        Raises:
            FeedFatal: It refuses us, and trying again cannot help.
            FeedTransient: It broke.
        """
        ...


MakeClient = Callable[[SourceConfig, ProducerConfig, Callable[[], bool]], RestTicks]
"""Makes the client of a source that is polled; it waits for nothing when we are to leave."""


def open_source(
    source: SourceConfig,
    reception: Reception,
    *,
    meter: Meter,
    wanted: Callable[[], Subscriptions],
    make_client: MakeClient,
) -> FeedSource:
    """The adapter of a source, for one session."""
    if source.polled:
        client = make_client(source, reception.config, reception.leaving)
        return Polling(client, reception, wanted=wanted)
    return Connection(source.url, reception, meter=meter, wanted=wanted)


def rest_client(
    source: SourceConfig, config: ProducerConfig, leaving: Callable[[], bool]
) -> RestTicks:
    """Alpaca's REST through the vendor's client."""
    from pipelines.history import RestHistory

    def wait(seconds: float) -> None:
        deadline_s, never = time.monotonic() + seconds, threading.Event()
        while (left_s := deadline_s - time.monotonic()) > 0:
            if leaving():
                raise FeedTransient("REST was left while it allowed no more")
            never.wait(min(POLL_S, left_s))

    return RestHistory(
        base_url=source.url,
        key=config.key,
        secret=config.secret,
        feed=source.feed,
        timeout_s=config.connect_timeout_s,
        per_minute=config.rest_per_minute,
        sleep=wait,
    )


class Prober:
    """Asks better sources from time to time whether they would have us again.

    Args:
        config: Settings of the producer.
        failover: Knows which are better.
        stopped: Whether to end.
        rng: Jitter, so that several producers do not ask together.

    Attributes:
        found: The best source that would have us, or ``None``.
    """

    def __init__(
        self,
        config: ProducerConfig,
        failover: Failover,
        *,
        stopped: Callable[[], bool],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._failover = failover
        self._stopped = stopped
        self._rng = rng
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.found: int | None = None

    def watch(self) -> None:
        """Begin to ask, if a worse source is used and nobody asks yet."""
        alive = self._thread is not None and self._thread.is_alive()
        if self._failover.better and not alive:
            self._over.clear()
            self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Ask no more; a question that is under way may still wait for its answer."""
        self._over.set()

    def join(self) -> None:
        """Wait, after :meth:`end`, until nobody asks."""
        if self._thread is not None:
            self._thread.join(self._config.connect_timeout_s + 1)

    def _run(self) -> None:
        while not self._over.wait(self._config.probe_s * (0.75 + self._rng.random() / 2)):
            for index in self._failover.better:
                if self._stopped() or self._over.is_set():
                    return
                if self._would_have_us(self._config.sources[index]):
                    self.found = index
                    return

    def _would_have_us(self, source: SourceConfig) -> bool:
        config = self._config
        try:
            if not source.polled:
                with lease.held(
                    config.lock_dir, url=source.url, key=config.key, index=config.index
                ):
                    probe(source.url, config, stopped=self._over.is_set)
        except FeedError as error:
            log.info("%s would not have us yet: %s", source.name, error)
            return False
        return not self._over.is_set()
