"""The producer: from the feed's socket to the records of ``market-data``, nothing lost in silence.

A reader thread (the one that calls :meth:`Producer.run`) takes frames from one connection and
queues their messages; a sender thread makes records and puts them. What the feed published while
we were not there is declared in gap rows (:mod:`pipelines.ingest.gaps`). A process that was killed
finds out from the stream itself how far it had come (:mod:`pipelines.ingest.state`).

The data comes from a source (:mod:`pipelines.ingest.sources`): the feed, or the next one of the
list while the feed will not have us. A refusal for good of all of them ends in the state ``failed``
with its reason; everything else is tried again, for ever unless a limit is set.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipelines.clock import wall_ns
from pipelines.events import NEWS
from pipelines.ingest import edges, subscriptions
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.assembly import Parts, assemble
from pipelines.ingest.backfill import Backfiller
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.meter import Meter
from pipelines.ingest.reception import Desk
from pipelines.ingest.sender import Sender
from pipelines.ingest.sessions import Sessions
from pipelines.ingest.sources import MakeClient, rest_client
from pipelines.ingest.subscriptions import ALL, Subscriptions, symbols_of
from pipelines.ingest.unfilled import Unfilled
from pipelines.ingest.watch import StalenessWatch
from pipelines.ports import BatcherFactory, RecordSink, StoredMarks, TailReader, TickHistory
from pipelines.retry import delays

log = logging.getLogger(__name__)

STOP_FLUSH_S = 2.0


class Producer:
    """One producer run; used once.

    Args:
        config: Its settings.
        sink: Takes the records; closed by its owner.
        make_batcher: Makes the batcher (:class:`pipelines.kinesis.batching.Batcher`).
        tail: Reads what a killed predecessor had written; without it, what was written after the
            last save of the state is declared as missed although it is stored.
        history: The market's past; without it no gap is filled.
        lake: Knows what is stored and need not be sent again when the stream lost it.
        make_client: Makes the client of a source that is polled.
        rng: Jitter of the delays.
    """

    def __init__(
        self,
        config: ProducerConfig,
        *,
        sink: RecordSink,
        make_batcher: BatcherFactory,
        tail: TailReader | None = None,
        lake: StoredMarks | None = None,
        history: TickHistory | None = None,
        make_client: MakeClient = rest_client,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._sink = sink
        self._make_batcher = make_batcher
        self._tail = tail
        self._lake = lake
        self._alarms = Alarms()
        self._history = history
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._epoch = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._finished = threading.Event()
        self._make_client = make_client
        self._wishing = threading.RLock()
        self._wishes = _last_wishes(config)
        self._wanted = subscriptions.share(self._wishes, config.index, config.producers)
        self._stopping = False
        self._paused = False
        self._flush_s = STOP_FLUSH_S
        self._drained = False
        self._state = "connecting"
        self._error: str | None = None
        self._reconnects = 0
        self._before = 0
        self._meter = Meter()
        self._watch = StalenessWatch(stale_s=config.stale_s, stale_bars_s=config.stale_bars_s)
        self._tracker = GapTracker()
        self._intake: Intake | None = None
        self._sender: Sender | None = None
        self._parts: Parts | None = None
        self._backfiller: Backfiller | None = None
        self._sessions: Sessions | None = None

    def run(self) -> None:
        """Stream until stopped. Blocks."""
        try:
            self._prepare()
            self._stream_for_ever()
            self._declare_rest()
        except Exception as error:
            log.exception("the producer failed")
            self._state, self._error = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            self._finish()

    def stop(self, *, flush_s: float = STOP_FLUSH_S) -> None:
        """End soon: what is queued gets so long to be stored."""
        self._flush_s = flush_s
        self._stopping = True
        self._changed.set()

    def drain(self, timeout_s: float) -> bool:
        """Stop reading, store everything queued and end; whether all was stored in time."""
        self.stop(flush_s=timeout_s)
        self._finished.wait(timeout_s + STOP_FLUSH_S)
        return self._drained

    def pause(self) -> None:
        """Leave the feed until :meth:`resume`; what is missed meanwhile becomes a gap row."""
        self._paused = True
        self._changed.set()

    def resume(self) -> None:
        """Go on after :meth:`pause`, or try again after a fatal refusal."""
        self._paused = False
        if self._state == "failed":
            self._error = None
            self._state = "connecting"
            if self._sessions is not None:
                self._sessions.begin_again()
        self._changed.set()

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change the symbols of every channel, without a new connection.

        Of several producers that share the symbols each is told all of them and takes its own.
        """
        with self._wishing:
            channels = self._wishes or self._config.configured
            self.set_subscriptions(subscriptions.with_symbols(channels, symbols))

    def set_subscriptions(self, wishes: Subscriptions) -> None:
        """Change the channels and the symbols of each, without a new connection.

        Any thread may; of two at once the later one is both obeyed and kept.

        Raises:
            ConfigError: An unknown channel, or ``*`` among several producers.
            OSError: They cannot be kept for a restart; nothing is changed.
        """
        config = self._config
        tidy = subscriptions.tidy(wishes)
        share = subscriptions.share(tidy, config.index, config.producers)
        with self._wishing:
            if config.subscriptions_path is not None:
                subscriptions.save(config.subscriptions_path, tidy, configured=config.configured)
            self._wishes, self._wanted = tidy, share
        self._changed.set()

    @property
    def finished(self) -> bool:
        """Whether :meth:`run` has ended."""
        return self._finished.is_set()

    def stats(self) -> dict[str, Any]:
        """State and counters, as JSON types."""
        intake, sender, sessions = self._intake, self._sender, self._sessions
        granted = sessions.granted if sessions else None
        granted = self._wanted if granted is None else granted
        with self._lock:
            queued = intake.unsent if intake else 0
            filling = self._backfiller.stats() if self._backfiller else {}
        counters: dict[str, Any] = {
            "acked": 0, "records_acked": 0, "bytes_acked": 0, "retries": 0, "put_ms_p50": None,
            "gaps": 0, "alarms": [],
        }  # fmt: skip
        if sender:
            counters = sender.stats()
        error = self._error or (sender.error if sender else None)
        return {
            "state": self._state,
            "error": error,
            "epoch": self._epoch,
            "received": self._before + (intake.received if intake else 0),
            "malformed": intake.malformed if intake else 0,
            "duplicates": intake.duplicates if intake else 0,
            "queued": queued,
            "reconnects": self._reconnects,
            "stalls": self._meter.stalls,
            "last_message_wall_ns": self._meter.last_ns,
            "messages_per_s": round(self._meter.rate(time.monotonic()), 1),
            "bytes_received": self._meter.n_bytes,
            "by_type": self._meter.by_type(),
            "source": sessions.source if sessions else self._config.source,
            "degraded": sessions.degraded if sessions else None,
            "symbols": sorted(symbols_of(granted)),
            "subscriptions": {channel: len(has) for channel, has in granted.items()},
            "left_out": {c: list(s) for c, s in sessions.left_out.items()} if sessions else {},
            "halted": sorted(self._watch.halted),
            "clock": intake.clock.to_dict() if intake else None,
            **counters,
            **filling,
        }

    def series(self) -> dict[tuple[str, str], int]:
        """Messages received per type and symbol, this run."""
        return self._meter.series()

    def _leaving(self) -> bool:
        return self._stopping or self._paused

    def _prepare(self) -> None:
        config = self._config
        self._tracker, parts = assemble(
            config,
            epoch=self._epoch,
            sink=self._sink,
            make_batcher=self._make_batcher,
            tail=self._tail,
            lake=self._lake,
            make_tracker=lambda state: GapTracker(
                state.marks,
                unfilled=Unfilled(state.unfilled),
                edges=edges.from_json(state.edges),
            ),
            lock=self._lock,
            alarms=self._alarms,
            rng=self._rng,
            on_failure=self._keep_trying(),
        )
        self._parts, self._before = parts, parts.before
        self._intake, self._sender = parts.intake, parts.sender
        wanted = {*symbols_of(self._wanted), NEWS}
        if parts.restarted:
            self._tracker.interrupted(
                [s for s in self._tracker.known if s in wanted or ALL in wanted],
                reason="restart",
            )
        desk = Desk(
            config,
            intake=self._intake,
            tracker=self._tracker,
            sender=self._sender,
            lock=self._lock,
            watch=self._watch,
            meter=self._meter,
            alarms=self._alarms,
        )
        self._sessions = Sessions(
            desk,
            wanted=lambda: self._wanted,
            leaving=self._leaving,
            stopping=lambda: self._stopping,
            on_state=self._enter,
            make_client=self._make_client,
            rng=self._rng,
        )
        parts.start()
        if self._history is not None:
            self._backfiller = Backfiller(
                self._history,
                config.backfill,
                tracker=self._tracker,
                intake=self._intake,
                lock=self._lock,
                subscribed=lambda: self._wanted,
                ready=lambda: not parts.sender.catching_up,
                rng=self._rng,
            )
            self._backfiller.start()

    def _keep_trying(self) -> Callable[[str], bool]:
        """Waits longer and longer for a stream that cannot be read; whether to try again."""
        backoff = self._delays()

        def wait(error: str) -> bool:
            self._state, self._error = "backing_off", error
            self._wait_out(next(backoff))
            return not self._stopping

        return wait

    def _stream_for_ever(self) -> None:
        if self._sessions is None:
            raise RuntimeError("run() prepares the sessions first")
        backoff = self._delays()
        while not self._stopping:
            if self._paused or self._state == "failed":
                self._state = "failed" if self._state == "failed" else "paused"
                self._wait(1.0)
                continue
            if not self._wanted:
                self._state, self._error = "idle", None
                self._wait(1.0)
                continue
            self._state = "connecting"
            ended = self._sessions.once()
            if ended.streamed:
                backoff = self._delays()
            if ended.failed is not None:
                self._state, self._error = "failed", ended.failed
            if self._leaving() or ended.failed is not None or ended.switched:
                continue
            delay_s = next(backoff)
            self._state, self._error = "backing_off", ended.reason
            self._reconnects += 1
            log.warning("disconnected (%s); connecting again in %.1f s", ended.reason, delay_s)
            self._wait_out(delay_s)

    def _declare_rest(self) -> None:
        """The end, and we are not connected: what was missed until now is declared now."""
        intake = self._intake
        with self._lock:
            if intake is not None and self._tracker.open and intake.clock_known:
                now_ns = wall_ns()
                rows = self._tracker.close(intake.clock.market_ns(now_ns) + 1)
                intake.write_gaps(rows, wall_ns=now_ns)

    def _enter(self, state: str, error: str | None) -> None:
        self._state, self._error = state, error

    def _finish(self) -> None:
        if self._sessions is not None:
            self._sessions.end()
        if self._backfiller is not None:
            self._backfiller.stop()
        stored = self._parts is None or self._parts.finish(self._flush_s)
        self._drained = stored
        if self._sessions is not None:
            self._sessions.join()
        if self._state != "failed":
            self._state = "stopped"
        log.info("stopped; %s", "all is stored" if stored else "not all could be stored")
        self._finished.set()

    def _wait(self, seconds: float) -> None:
        self._changed.wait(seconds)
        self._changed.clear()

    def _wait_out(self, seconds: float) -> None:
        """Wait the whole time, unless we are to leave."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not (self._stopping or self._paused):
            self._wait(left)

    def _delays(self) -> Iterator[float]:
        config = self._config
        return delays(first_s=config.backoff_first_s, cap_s=config.backoff_cap_s, rng=self._rng)


def _last_wishes(config: ProducerConfig) -> dict[str, tuple[str, ...]]:
    """What was subscribed last, as far as the settings have not changed since."""
    path = config.subscriptions_path
    if path is None:
        return config.configured
    return subscriptions.load(path, configured=config.configured)
