"""The query ``archive``: every message of ``market-data`` into the lake, exactly once.

A batch is one Spark job. Each executor task parses its shard's records, writes Parquet files
straight into the tables' folders and gives back one row: which files, which records, what became
of the messages. The driver folds these into the next :class:`ArchiveState` and commits that
first, with the names of the files; from then on the batch is in the lake, and adding the files to
their tables is repeated until it is done, by whoever comes next. Files of an attempt that did not
get so far are orphans.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from pipelines.clock import wall_ns
from pipelines.errors import LakeError
from pipelines.events import DAY_NS
from pipelines.kinesis.clients import client_of
from pipelines.kinesis.service import created_ms
from pipelines.kinesis.source import source_options
from pipelines.lake import archive_state
from pipelines.lake.archive_state import ArchiveState, Totals
from pipelines.lake.dirty import Dirty
from pipelines.lake.files import FileInfo, read_files, write_files
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import ARCHIVE_STATE, RAW_TABLES, TABLES
from pipelines.lake.writer import LakeWriter
from pipelines.ports import KinesisConfig
from pipelines.streaming import missing, replaced
from pipelines.streaming.archive_task import COUNTERS, Task
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.notice import merged
from pipelines.streaming.schemas import ARCHIVE, RESULT_SCHEMA, SOURCE_FORMAT, checkpoint
from pipelines.streaming.session import ARCHIVE_POOL

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

_log = logging.getLogger(__name__)


class Archive:
    """The driver's side: takes one batch after the other. One thread calls it.

    But for :meth:`dirty`, :meth:`look` and :meth:`looked_at`, which another may call.

    Args:
        writer: The lake.
        revised: Whether somebody looks at dirty bars; if not, none are noted.
        clock: Wall time, nanoseconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        *,
        revised: bool = True,
        clock: Callable[[], int] = wall_ns,
    ) -> None:
        self._writer = writer
        self._revised = revised
        self._clock = clock
        self._generation = 0
        self._lock = threading.Lock()
        self._looked_at = Dirty()  # since the last commit
        self._since_look = Dirty()  # what became dirty since the last look began
        self.state = ArchiveState()
        self.replaced = False  # whether the stream is another one than the lake knew
        self.last_batch_ms: float | None = None

    def open(self, stream: str) -> ArchiveState:
        """Take the query over from any older driver, and finish what it left half done.

        Args:
            stream: Which stream will be read, for ever: its name and when it was made.

        Returns:
            How far the lake is; without positions if they are of another stream.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        tables = (ARCHIVE_STATE.name, *RAW_TABLES)
        self._generation = self._writer.open_query(ARCHIVE, tables=tables)
        self.state = self._load()
        self._finish(self.state)
        if self.state.stream != stream:
            self.replaced = self.state.stream != ""
            if self.replaced:
                _log.error(
                    "the stream was replaced: the lake holds %s up to its batch %d, now begins %s; "
                    "what the old one held beyond that is lost",
                    self.state.stream,
                    self.state.batch_id,
                    stream,
                )
            totals = self.state.totals
            totals = replace(totals, streams_replaced=totals.streams_replaced + self.replaced)
            awaited = self._last_of() if self.replaced else {}
            self.state = replace(
                self.state,
                stream=stream,
                positions={},
                totals=totals,
                awaited=awaited,
                broken=replaced.still_broken(self.state),
            )
        return self.state

    def dirty(self) -> Dirty:
        """The bars that have to be looked at again; of batches that are committed."""
        with self._lock:
            return self.state.dirty.minus(self._looked_at)

    def look(self) -> Dirty:
        """The same, for a look that begins now: it need not see what is committed from here on."""
        with self._lock:
            self._since_look = Dirty()
            return self.state.dirty.minus(self._looked_at)

    def looked_at(self, done: Dirty) -> None:
        """Forget these, but not what became dirty again since the look began.

        For good with the next commit, so that a crash looks at them once more.
        """
        with self._lock:
            self._looked_at = self._looked_at.plus(done.minus(self._since_look))

    def process(self, frame: DataFrame, batch_id: int) -> None:
        """Archive a batch of the source's rows (for ``foreachBatch``); again is harmless.

        Raises:
            Fenced: A newer driver owns the query.
            LakeError: The lake cannot be written.
        """
        started = time.perf_counter()
        query_id = frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
        if query_id is None:
            raise LakeError("process() works inside foreachBatch only")
        if not self.state.holds(query_id, batch_id):
            self.take(
                partial(_run, frame, self.task(batch_id)), query_id=query_id, batch_id=batch_id
            )
        self.last_batch_ms = (time.perf_counter() - started) * 1000

    def task(self, batch_id: int) -> Task:
        """What the executors need for the next batch."""
        state = self.state
        return Task(
            self._writer.uri,
            self._writer.storage_options,
            state.marks,
            f"{ARCHIVE}-{batch_id}",
            state.closed,
            state.ended,
            tuple({**state.awaited, **state.missing}),
        )

    def take(
        self,
        run: Callable[[bool], Sequence[Mapping[str, Any]]],
        *,
        query_id: str,
        batch_id: int,
    ) -> None:
        """Run the tasks of a batch and commit what they did.

        Args:
            run: Runs them and returns their results; told whether all records must go through one
                task, because two had taken the same record (as may be around a reshard).
            query_id: Spark's query id.
            batch_id: Spark's batch id.
        """
        results = run(False)
        accepted, overlap = archive_state.union(_ranges(r) for r in results)
        if overlap:
            _log.warning("batch %d: two tasks read the same record; once more in one", batch_id)
            results = run(True)
            accepted, overlap = archive_state.union(_ranges(r) for r in results)
            if overlap:
                raise LakeError(f"batch {batch_id}: one task took a record twice")
        marks, holes = archive_state.advance(self.state.marks, accepted)
        if holes:
            _log.error("batch %d: %d records are missing by their counters", batch_id, holes)
        files: dict[str, list[FileInfo]] = {}
        positions, closed = dict(self.state.positions), dict(self.state.closed)
        first: dict[str, int] = {}
        looked_at = self._looked_at
        dirty, fresh = self.state.dirty.minus(looked_at) if self._revised else Dirty(), Dirty()
        for result in results:
            positions.update(result["positions"])
            closed.update(result["closed"])
            first |= {s: min(ns, first.get(s, ns)) for s, ns in result["first"].items()}
            if self._revised:
                fresh = fresh.plus(Dirty.from_dict(result["dirty"]))
            for name, infos in result["files"].items():
                files.setdefault(name, []).extend(FileInfo.from_dict(i) for i in infos)
        awaited, broken = replaced.judge(self.state, accepted)
        missed = missing.ended(self.state.missing, first)
        waiting = {s: ns for s, ns in self.state.missing.items() if s not in first}
        if holes:
            more, since = self._missed(missing.holes_of(self.state.marks, accepted), files)
            missed, waiting = [*missed, *more], since | waiting
        lost = self._lost(awaited, first, missed, batch_id)
        files.setdefault("gaps", []).extend(lost)
        dirty, left_out = dirty.plus(fresh).bounded()
        if left_out:
            _log.error("batch %d: %d dirty minutes are too many, never revised", batch_id, left_out)
        totals = _add(self.state.totals, results, {k: v for k, v in files.items() if v}, holes)
        state = ArchiveState(
            query_id=query_id,
            batch_id=batch_id,
            totals=replace(
                totals,
                gaps=totals.gaps + sum(info.rows for info in lost),
                not_revised=totals.not_revised + left_out,
            ),
            marks=marks,
            stream=self.state.stream,
            positions=positions,
            files={name: infos for name, infos in files.items() if infos},
            committed_ns=self._clock(),
            dirty=dirty,
            closed=closed,
            ended=_ended(results) or self.state.ended,
            awaited={s: ns for s, ns in awaited.items() if s not in first},
            broken=broken,
            missing={s: ns for s, ns in waiting.items() if s not in awaited},
        )
        added = self._writer.commit(
            ARCHIVE_STATE.name,
            state.to_table(),
            query_id=query_id,
            batch_id=batch_id,
            generation=self._generation,
            query=ARCHIVE,
            replace=True,
        )
        if not added:  # an earlier attempt of ours got through without our knowing
            state = self._load()
        self._finish(state)
        with self._lock:  # what was looked at meanwhile is still in the state
            self.state, self._looked_at = state, self._looked_at.minus(looked_at).minus(fresh)
            self._since_look = self._since_look.plus(fresh)

    def stats(self) -> dict[str, Any]:
        """The ledger's side of the archive, as JSON types; totals since the lake began."""
        return {
            **self.state.totals.to_dict(),
            "last_batch_ms": self.last_batch_ms,
            "last_commit_wall_ns": self.state.committed_ns or None,
            "dirty": len(self.dirty()),
        }

    def _finish(self, state: ArchiveState) -> None:
        for name, infos in state.files.items():
            self._writer.commit(
                name,
                infos,
                query_id=state.query_id,
                batch_id=state.batch_id,
                generation=self._generation,
                query=ARCHIVE,
            )

    def _lost(
        self,
        awaited: Mapping[str, int],
        first: Mapping[str, int],
        missed: Sequence[missing.Gap],
        batch_id: int,
    ) -> list[FileInfo]:
        """Files with the gaps that a replaced stream and lost records left in these symbols."""
        now = self._clock()
        missed = [gap for gap in missed if gap.symbol not in awaited]  # that gap holds this one
        rows = [
            replaced.gap_rows(awaited, first, wall_ns=now),
            missing.gap_table(missed, reason=missing.REASON, wall_ns=now),
        ]
        return write_files(
            self._writer.uri, TABLES["gaps"], pa.concat_tables(rows),
            tag=f"{ARCHIVE}-{batch_id}", storage_options=self._writer.storage_options,
        )  # fmt: skip

    def _missed(
        self, holes: Sequence[missing.Hole], files: Mapping[str, Sequence[FileInfo]]
    ) -> tuple[list[missing.Gap], dict[str, int | None]]:
        """The gaps that holes in this batch left, and the symbols that are waited for."""
        tables = {
            name: read_files(
                self._writer.uri, TABLES[name], [info.path for info in files.get(name, ())],
                storage_options=self._writer.storage_options,
            )
            for name in missing.TABLES_WITH_TIME
        }  # fmt: skip
        rows = missing.times_of(tables)
        # Without a limit of time: a batch that failed on one is replayed, and fails for ever.
        return missing.gaps_of(holes, rows, self._last_of)

    def _last_of(self) -> dict[str, int]:
        """The newest moment that the lake knows of each symbol that is not forgotten, market ns."""
        days = missing.FORGOTTEN_NS // DAY_NS + 1
        return replaced.last_of(self._query(timeout_s=None), days=days)

    def _load(self) -> ArchiveState:
        return archive_state.load(self._query())

    def _query(self, *, timeout_s: float | None = 60.0) -> LakeQuery:
        return LakeQuery(self._writer.uri, self._writer.storage_options, timeout_s=timeout_s)


def start(
    spark: SparkSession,
    config: StreamingConfig,
    archive: Archive,
    *,
    everything_and_stop: bool = False,
) -> StreamingQuery:
    """Start the query in a session; its thread and its jobs are in the archive's fair pool.

    Args:
        spark: The session.
        config: Streams, checkpoint and trigger.
        archive: The driver's side, open.
        everything_and_stop: Read what has arrived by now and end, instead of running on.
    """
    state = archive.state
    begin = ",".join(f"{shard}={sequence}" for shard, sequence in sorted(state.positions.items()))
    options = source_options(
        config.kinesis,
        config.kinesis.market_data,
        startingPosition=begin or config.starting_position,
        maxBytesPerBatch=config.archive_max_bytes,
        maxBytesInFirstBatch=config.first_max_bytes,
        failOnDataLoss=config.fail_on_data_loss,
        # Of the five reads a second that a shard allows to all its readers.
        readsPerSecond=1 if everything_and_stop else 0.5,
    )
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", ARCHIVE_POOL)
    writing = (
        spark.readStream.format(SOURCE_FORMAT)
        .options(**options)
        .load()
        .writeStream.queryName(ARCHIVE)
        .option("checkpointLocation", checkpoint(config.checkpoint_uri, ARCHIVE))
        .foreachBatch(archive.process)
    )
    if everything_and_stop:
        return writing.trigger(availableNow=True).start()
    return writing.trigger(
        processingTime=f"{config.archive_trigger_s * 1000:.0f} milliseconds"
    ).start()


def stream_identity(config: KinesisConfig) -> str:
    """Name of the stream of market data and when it was made: another one is another stream.

    Raises:
        StreamError: There is no such stream, or the service did not answer.
    """
    return f"{config.market_data}@{created_ms(client_of(config), config.market_data)}"


def _run(frame: DataFrame, task: Task, single: bool) -> list[dict[str, Any]]:
    source = frame.coalesce(1) if single else frame
    rows = source.mapInArrow(task, RESULT_SCHEMA).collect()
    return [orjson.loads(row["result"]) for row in rows]


def _ended(results: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """When the last minutes were first seen to be over, as the tasks have it together."""
    return merged([{int(end): ns for end, ns in r["ended"].items()} for r in results])


def _ranges(result: Mapping[str, Any]) -> dict[str, dict[int, list[tuple[int, int]]]]:
    return {
        epoch: {int(bucket): [(low, high) for low, high in ranges] for bucket, ranges in of.items()}
        for epoch, of in result["accepted"].items()
    }


def _add(
    totals: Totals,
    results: Sequence[Mapping[str, Any]],
    files: Mapping[str, Sequence[FileInfo]],
    holes: int,
) -> Totals:
    sums = {n: getattr(totals, n) + sum(r[n] for r in results) for n in COUNTERS}
    rows = dict(totals.by_table)
    for name, infos in files.items():
        rows[name] = rows.get(name, 0) + sum(info.rows for info in infos)
    return replace(
        totals, batches=totals.batches + 1, holes=totals.holes + holes, by_table=rows, **sums
    )
