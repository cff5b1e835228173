"""One session after the other, each at the best source that will have us."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import FeedFatal, FeedTransient
from pipelines.ingest import lease
from pipelines.ingest.config import ProducerConfig, SourceConfig
from pipelines.ingest.failover import Failover
from pipelines.ingest.reception import Desk, Reception
from pipelines.ingest.sources import FeedSource, MakeClient, Prober, open_source
from pipelines.ingest.subscriptions import Subscriptions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended.

    Args:
        reason: Why, for people and for the gap rows.
        streamed: Whether it had data.
        switched: Whether another source is to be used now, without a pause.
        failed: Why there is no use in trying again, or ``None``.
    """

    reason: str
    streamed: bool
    switched: bool = False
    failed: str | None = None


class Sessions:
    """Opens one session after the other.

    Args:
        desk: What outlives them.
        wanted: What to subscribe, now.
        leaving: Whether to leave.
        stopping: Whether this is the end: what is open is declared with the connection.
        on_state: Told the state, and what is wrong though it goes on.
        make_client: Makes the client of a source that is polled.
        rng: Jitter.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        wanted: Callable[[], Subscriptions],
        leaving: Callable[[], bool],
        stopping: Callable[[], bool],
        on_state: Callable[[str, str | None], None],
        make_client: MakeClient,
        rng: random.Random,
    ) -> None:
        config = desk.config
        self._desk = desk
        self._config: ProducerConfig = config
        self._wanted = wanted
        self._leaving = leaving
        self._stopping = stopping
        self._on_state = on_state
        self._make_client = make_client
        self._attempts = 0
        self._failover = Failover([s.name for s in config.sources], after=config.failover_after)
        self._prober = Prober(config, self._failover, stopped=leaving, rng=rng)
        self._source: FeedSource | None = None
        self._reception: Reception | None = None

    @property
    def source(self) -> str:
        """Name of the source in use."""
        return self._failover.name

    @property
    def degraded(self) -> str | None:
        """Why it is not the best one, or ``None``."""
        return self._failover.degraded

    @property
    def granted(self) -> Subscriptions | None:
        """What the source gives us; ``None`` before the first session."""
        return self._source.subscriptions if self._source is not None else None

    @property
    def left_out(self) -> Subscriptions:
        """What it does not give us though we want it."""
        return self._reception.left_out if self._reception is not None else {}

    def begin_again(self) -> None:
        """Someone asks to try again, from the best source on."""
        self._failover.begin_again()
        self._attempts = 0

    def end(self) -> None:
        """There will be no other session."""
        self._prober.end()

    def join(self) -> None:
        """Wait until nothing of them runs any more."""
        self._prober.join()

    def once(self) -> Ended:
        """One session, from its opening to its end; what is missed from now on is noted."""
        desk = self._desk
        chosen = self._config.sources[self._failover.index]
        self._prober.watch()
        reception = self._reception = Reception(
            desk,
            wanted=self._wanted(),
            leaving=self._over,
            on_state=self._on_state,
        )
        try:
            self._run(chosen, reception)
        except FeedFatal as error:
            ended = self._refused(chosen, str(error), reception.had_data)
        except FeedTransient as error:
            ended = self._failed(chosen, str(error), reception.had_data)
        else:
            if not self._wanted():
                desk.clear()
            if self._stopping():
                with desk.lock:
                    reception.declare_open_gaps()
                return Ended("stopped", reception.had_data)
            ended = self._left(reception.had_data)
        with desk.lock:
            desk.tracker.interrupted(desk.lost(), reason=ended.reason)
        self._say_source()
        return ended

    def _say_source(self) -> None:
        if self.degraded is not None:
            self._desk.alarms.on("failover", f"{self.source} is used; {self.degraded}")
        else:
            self._desk.alarms.off("failover")

    def _over(self) -> bool:
        return self._leaving() or self._prober.found is not None or not self._wanted()

    def _run(self, chosen: SourceConfig, reception: Reception) -> None:
        config = self._config
        with lease.held(config.lock_dir, url=chosen.url, key=config.key, index=config.index):
            self._source = open_source(
                chosen,
                reception,
                meter=self._desk.meter,
                wanted=self._wanted,
                make_client=self._make_client,
            )
            self._source.run()

    def _left(self, streamed: bool) -> Ended:
        better, self._prober.found = self._prober.found, None
        if better is None or self._leaving():
            return Ended("paused", streamed, switched=not self._wanted())
        self._failover.back_to(better)
        log.info("back to %s: it would have us again", self.source)
        return Ended(f"back to {self.source}", streamed, switched=True)

    def _refused(self, source: SourceConfig, reason: str, streamed: bool) -> Ended:
        log.error("%s refuses us for good: %s", source.name, reason)
        if self._failover.failed(reason, fatal=True):
            log.warning("%s takes over for %s", self.source, source.name)
            return Ended(reason, streamed, switched=True)
        return Ended(reason, streamed, failed=reason if self._failover.refused else None)

    def _failed(self, source: SourceConfig, reason: str, streamed: bool) -> Ended:
        if streamed:
            self._failover.streamed()
            self._attempts = 0
            return Ended(reason, streamed)
        self._attempts += 1
        most = self._config.max_attempts
        if most is not None and self._attempts >= most:
            gave_up = (
                f"{reason}; gave up after {self._attempts} attempts (RAYTAPE_RECONNECT_ATTEMPTS)"
            )
            log.error("%s", gave_up)
            return Ended(reason, streamed, failed=gave_up)
        if self._failover.failed(reason):
            log.warning("%s takes over for %s: %s", self.source, source.name, reason)
            return Ended(reason, streamed, switched=True)
        return Ended(reason, streamed)
