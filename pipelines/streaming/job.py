"""The streaming job: one Spark session with the queries ``archive`` and ``signals``.

A plain class; ``cluster`` hosts it. A query that dies ends the job: :meth:`StreamingJob.wait`
raises, the process ends, and a new one continues from lake and checkpoints.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import Fenced, PartFailed, RaytapeError
from pipelines.kinesis.lag import lag_of
from pipelines.kinesis.offsets import TRIM_HORIZON
from pipelines.kinesis.writer import KinesisWriter
from pipelines.lake.files import local_path
from pipelines.lake.maintenance import Maintenance
from pipelines.lake.writer import LakeWriter
from pipelines.streaming import archive as archive_query
from pipelines.streaming import signals
from pipelines.streaming.archive import Archive, stream_identity
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.outbox import Outbox, new_stats
from pipelines.streaming.revisions import Revisions
from pipelines.streaming.schemas import ARCHIVE, SIGNALS, checkpoint_of_stream
from pipelines.streaming.session import close_session, open_session
from pipelines.streaming.warmup import Warmup
from pipelines.streaming.watch import EVERY_S, Watch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["StreamingConfig", "StreamingJob"]

_POLL_S = 0.25
_ASK_AGAIN_S = 0.2
_BESIDE_ENDS_S = 5.0
_LONGEST = 500
_RAISED = re.compile(r"(?:(?:[a-z_]\w*\.)+([A-Z]\w+)|([A-Z]\w*(?:Error|Exception))): (.+)")
"""The line of a Python traceback that says what was raised."""
_log = logging.getLogger(__name__)


class StreamingJob:
    """Runs the two queries.

    Args:
        config: What it needs to know.
        monotonic: Monotonic clock, seconds.
    """

    def __init__(
        self,
        config: StreamingConfig,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._monotonic = monotonic
        self._lock = threading.RLock()  # held while queries are exchanged, so that none looks dead
        self._stopped = threading.Event()
        self._state = "starting"
        self._error: str | None = None
        self._spark: SparkSession | None = None
        self._revised = bool(config.signals and config.archive and config.revisions_every_s)
        self._archive = Archive(
            LakeWriter(config.lake_uri, config.storage_options), revised=self._revised
        )
        self._maintenance = Maintenance(
            LakeWriter(config.lake_uri, config.storage_options), config.maintenance
        )
        self._watch: Watch | None = None
        self._revisions: Revisions | None = None
        self._threads: list[threading.Thread] = []
        self._sinks: list[KinesisWriter] = []
        self._outbox: Outbox | None = None
        self._queries: dict[str, StreamingQuery] = {}
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}  # by query: when, and what

    def start(self) -> None:
        """Open the session, take the lake over from an older job, start the queries.

        Raises:
            PartFailed: The session or a query did not start.
        """
        try:
            config = self._config = self._of_stream(stream_identity(self._config.kinesis))
            with ThreadPoolExecutor(1, "spark") as beside:  # for most of its start Spark is Java
                session = beside.submit(self._open_session)
                self._open(config)
            spark = session.result()
            with self._lock:
                if self._stopped.is_set():  # meanwhile
                    self._close_session()
                    return
                if config.archive:
                    self._queries[ARCHIVE] = archive_query.start(spark, config, self._archive)
                if config.signals:
                    self._queries[SIGNALS] = signals.start(spark, config, self._outbox)
                self._state = "running"
        except Exception as error:
            self._fail(f"did not start: {cause_of(error)}")
            raise PartFailed(f"streaming did not start: {cause_of(error)}") from error
        if config.maintenance_every_s:
            self._beside("maintenance", self._maintenance.run, lambda: config.maintenance_every_s)
        if self._watch is not None:
            self._beside("watch", self._watch.step, lambda: min(EVERY_S, config.ledger_every_s))
        if (revisions := self._revisions) is not None:
            least_s = config.revisions_every_s
            self._beside("revisions", revisions.run, lambda: max(least_s, revisions.rest_s))
        _log.info("running: %s", ", ".join(self._queries))

    def _open_session(self) -> SparkSession:
        self._spark = open_session(self._config.spark)  # also if all else fails: stop() closes it
        return self._spark

    def _close_session(self) -> None:
        if self._spark is not None:
            close_session(self._config.spark)
            self._spark = None

    def _open(self, config: StreamingConfig) -> None:
        """Open what this job writes to, besides the archive."""
        if config.maintenance_every_s:
            self._maintenance.open()
        if config.ledger_every_s:
            self._watch = self._open_watch(config)
        if config.signals:
            self._outbox = signals.open_outbox(config, self._sink(config))
        if self._revised:
            self._revisions = self._open_revisions(config)

    def wait(self) -> None:
        """Block until stopped.

        Raises:
            PartFailed: A query died; the message says which and of what.
        """
        while not self._stopped.wait(_POLL_S):
            self.check()

    def check(self) -> None:
        """Look at the queries once.

        Raises:
            PartFailed: One of them is dead.
        """
        with self._lock:
            if self._stopped.is_set():
                return
            for name, query in self._queries.items():
                if not query.isActive:
                    cause = query.exception()
                    text = cause_of(cause) if cause else "it ended"
                    self._fail(f"query {name}: {text}")
                    raise PartFailed(f"streaming: query {name} died: {text}")

    def stats(self) -> dict[str, Any]:
        """State and counters as JSON types; the archive's totals are the lake's."""
        return {
            "state": self._state,
            "error": self._error,
            "archive": self._archive.stats() | self._progress(ARCHIVE),
            "signals": (self._outbox.stats() if self._outbox else new_stats())
            | self._progress(SIGNALS),
            "maintenance": self._maintenance.stats(),
            "revisions": self._revisions.stats() if self._revisions else None,
            **(self._watch.stats() if self._watch else {}),
        }

    def _progress(self, name: str) -> dict[str, Any]:
        """What a query's last progress says: its lag behind each shard, and what took how long.

        Kept for a moment: to ask takes Spark some milliseconds.
        """
        at, said = self._said.get(name, (float("-inf"), {}))
        if self._monotonic() - at < _ASK_AGAIN_S:
            return said
        query = self._queries.get(name)
        try:
            progress = query.lastProgress if query is not None else None
        except Exception:  # noqa: BLE001 - Spark is going; check() says so, and why
            progress = None
        document = {} if progress is None else json.loads(progress.json)
        said = {"lag": lag_of(document), "durations_ms": document.get("durationMs", {})}
        self._said[name] = (self._monotonic(), said)
        return said

    def drain(self, timeout_s: float) -> bool:
        """Process what has arrived, then run on.

        The archive does not wait for its next trigger: it is restarted to take everything there
        is, and once more to run on. Revisions that are due are made; those of bars that nobody
        decided on yet, and of windows that are not over, are not.

        Args:
            timeout_s: Longest wait.

        Returns:
            Whether both queries have caught up and committed, and revisions are published.

        Raises:
            PartFailed: A query died.
        """
        deadline = self._monotonic() + timeout_s
        drained = self._drain_archive(deadline) if ARCHIVE in self._queries else True
        if SIGNALS in self._queries:
            drained = self._catch_up(self._queries[SIGNALS], deadline) and drained
        self.check()
        return self._settle(deadline) and drained

    def stop(self) -> None:
        """Stop the queries and Spark. What they had not committed is done again next time."""
        self._stopped.set()
        with self._lock:
            for name, query in self._queries.items():
                try:
                    query.stop()
                except Exception:  # noqa: BLE001 - this is the end; Spark goes next
                    _log.exception("stopping query %s", name)
            self._queries.clear()
            self._close_session()
        for thread in self._threads:
            thread.join(_BESIDE_ENDS_S)  # a step cut short is done by the next
        if self._watch is not None and self._state == "running":
            with contextlib.suppress(RaytapeError):  # the next one tells it too
                self._watch.finish()
        if self._outbox is not None:
            self._outbox.close()
        for sink in self._sinks:
            sink.close()
        if self._state != "failed":
            self._state = "stopped"

    def _beside(self, what: str, work: Callable[..., object], pause: Callable[[], float]) -> None:
        """Do something to the lake until the end; whatever goes wrong, the queries run on."""

        def run() -> None:
            while not self._stopped.wait(pause()):
                try:
                    work(stopped=self._stopped.is_set)
                except Fenced as error:
                    _log.warning("a newer job does the %s of the lake: %s", what, error)
                    return
                except Exception:  # noqa: BLE001 - the next pass tries again
                    _log.exception("%s of the lake", what)

        thread = threading.Thread(target=run, name=f"lake-{what}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _sink(self, config: StreamingConfig) -> KinesisWriter:
        """A writer of ``market-signals`` that gives up when the job stops."""
        kinesis = config.kinesis
        sink = KinesisWriter(kinesis, kinesis.market_signals, stopped=self._stopped.is_set)
        self._sinks.append(sink)
        return sink

    def _open_watch(self, config: StreamingConfig) -> Watch:
        watch = Watch(
            LakeWriter(config.lake_uri, config.storage_options),
            self.stats,
            producer=config.producer_stats,
            sink=self._sink(config),
            ledger_every_s=config.ledger_every_s,
        )
        watch.open()
        return watch

    def _open_revisions(self, config: StreamingConfig) -> Revisions:
        warmup = Warmup(
            config.lake_uri, config.storage_options, config.history, spec=config.features
        )
        revisions = Revisions(
            LakeWriter(config.lake_uri, config.storage_options),
            self._archive,
            self._sink(config),
            warmup.loader(),
            config.features,
            assumed_spread_bps=config.assumed_spread_bps,
        )
        revisions.open()
        return revisions

    def _of_stream(self, identity: str) -> StreamingConfig:
        """Open the archive; the configuration for this stream, which has checkpoints of its own.

        A stream made anew is read from its oldest record by both queries: the offsets of the old
        one, and batches that were planned in it, could never be read again.
        """
        self._archive.open(identity)
        config = self._config
        begin = config.starting_position
        if self._archive.replaced:
            begin = TRIM_HORIZON
            _forget_others(config.checkpoint_uri, identity)
        return replace(
            config,
            checkpoint_uri=checkpoint_of_stream(config.checkpoint_uri, identity),
            starting_position=begin,
        )

    def _fail(self, error: str) -> None:
        self._state, self._error = "failed", error
        _log.error("failed: %s", error)

    def _drain_archive(self, deadline: float) -> bool:
        with self._lock:
            if self._spark is None or self._stopped.is_set():
                return False
            self._queries[ARCHIVE].stop()
            once = archive_query.start(
                self._spark, self._config, self._archive, everything_and_stop=True
            )
            done = once.awaitTermination(max(1, int(deadline - self._monotonic())))
            if not done:
                once.stop()
            self._queries[ARCHIVE] = archive_query.start(self._spark, self._config, self._archive)
        return bool(done)

    def _settle(self, deadline: float) -> bool:
        """Make the revisions that are due; whatever goes wrong is tried again by the next job."""
        if self._revisions is None:
            return True

        def stopped() -> bool:
            return self._stopped.is_set() or self._monotonic() >= deadline

        try:
            return self._revisions.settle(stopped=stopped)
        except RaytapeError as error:
            _log.warning("revisions that are due wait for the next job: %s", error)
            return False

    def _catch_up(self, query: StreamingQuery, deadline: float) -> bool:
        """Wait until a query finds nothing new; Spark's own call for it knows no deadline."""
        done = threading.Event()

        def process() -> None:
            with contextlib.suppress(Exception):  # a query that died says why in check()
                query.processAllAvailable()
                done.set()

        threading.Thread(target=process, name="catch-up", daemon=True).start()
        while not done.wait(min(_POLL_S, max(0.0, deadline - self._monotonic()))):
            self.check()
            if self._monotonic() >= deadline:
                return False
        return True


def _forget_others(checkpoint_uri: str, identity: str) -> None:
    """Delete the local checkpoints of streams that were replaced; in a store they stay."""
    folder = Path(local_path(checkpoint_uri))
    for other in folder.glob(f"{glob.escape(identity.rpartition('@')[0])}@*"):
        if other.name != identity:
            shutil.rmtree(other, ignore_errors=True)


def cause_of(error: BaseException) -> str:
    r"""What an error says, in one line; of an error that crossed into Java, what Python said there.

    >>> cause_of(ValueError("no\nmore"))
    'ValueError: no'
    >>> text = "Traceback (most recent call last):\n  File x\na.b.LakeError: gone\n\nIdentifier: x"
    >>> cause_of(RuntimeError(text))
    'LakeError: gone'
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    if any("Traceback (most recent call last)" in line for line in lines):
        raised = [found for line in lines if (found := _RAISED.match(line))]
        if raised:
            return f"{raised[-1][1] or raised[-1][2]}: {raised[-1][3]}"[:_LONGEST]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_LONGEST]
