"""``spark.readStream.format("kinesis")``: a Kinesis stream for PySpark 4.2, without JVM jars.

In: a stream. Out: rows ``stream, shard, sequence, partition_key, data, arrival``. The end of each
batch is decided on the driver and lies in Spark's offset log before anything is read, so a batch
that runs again holds the same rows. Small batches travel with their tasks; what is larger, and
whatever runs again, is read by the executors.

The options are those of :mod:`pipelines.kinesis.options`. Plain PySpark is enough::

    spark.dataSource.register(KinesisDataSource)
    spark.readStream.format("kinesis").option("streamName", "market-data").load()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxBytes,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)

from pipelines.errors import ConfigError
from pipelines.kinesis.begin import symbolic
from pipelines.kinesis.clients import client_of, timestamps_work
from pipelines.kinesis.cursor import RawRecord
from pipelines.kinesis.ends import Limit
from pipelines.kinesis.fanout import FanOutCursor, consumer_arn
from pipelines.kinesis.offsets import ShardRange, ranges
from pipelines.kinesis.options import SourceOptions, source_options
from pipelines.kinesis.planner import BatchPlanner, OpenCursor
from pipelines.kinesis.ranges import read_range
from pipelines.workers import settle

log = logging.getLogger(__name__)

__all__ = ["SCHEMA", "KinesisDataSource", "KinesisStreamReader", "source_options"]

SCHEMA = (
    "stream string, shard string, sequence string, partition_key string, data binary, "
    "arrival timestamp"
)

ARROW_SCHEMA = pa.schema(
    [
        ("stream", pa.string()),
        ("shard", pa.string()),
        ("sequence", pa.string()),
        ("partition_key", pa.string()),
        ("data", pa.binary()),
        ("arrival", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one task reads of one shard.

    Args:
        range: The records.
        rows: They themselves, where the driver has them in hand.
    """

    range: ShardRange
    rows: pa.RecordBatch | None = None


class KinesisDataSource(DataSource):
    """The data source ``kinesis``; see :mod:`pipelines.kinesis.options` for its options."""

    @classmethod
    def name(cls) -> str:
        """Short name for ``format``."""
        return "kinesis"

    def schema(self) -> str:
        """Columns of a row."""
        return SCHEMA

    def streamReader(self, schema: Any) -> KinesisStreamReader:  # noqa: N802, ARG002
        """The reader of one run of a query."""
        return KinesisStreamReader(SourceOptions.parse(self.options))


class KinesisStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Plans batches on the driver and reads them on executors.

    ``latestOffset`` and ``partitions`` run in one process of the driver that lives as long as the
    run of the query; ``read`` runs in worker processes from a pickled copy.
    """

    together: ClassVar[bool] = False
    """Whether a small batch of several shards is one task. What a task costs Spark is more than it
    takes to hand on a few hundred records; but who folds a task's rows in order then meets the same
    minutes once for each shard."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._planner: BatchPlanner | None = None
        self._begun = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_planner": None, "_begun": False}

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802
        """A symbol, always the same: Spark asks for it again when it replays its first batch."""
        return symbolic(self._options.begin)

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802
        """The limit of the options."""
        if self._options.max_records is not None:
            return ReadMaxRows(self._options.max_records)
        return ReadMaxBytes(self._options.max_bytes)

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: N802
        """Decide where the next batch ends; ``start`` itself when nothing has arrived."""
        end = self._driver.plan(start, self._limit(limit))
        self._begun = self._begun or end != start
        return end

    def reportLatestOffset(self) -> dict[str, Any] | None:  # noqa: N802
        """The last end that was decided and the ``lag`` of each shard, from memory.

        Spark shows it as ``latestOffset`` of the source in ``StreamingQueryProgress``.
        """
        return self._planner.report() if self._planner else None

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        """Read what has arrived by now, and no more."""
        self._driver.stop_at_now()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """A task for each shard that has records between two offsets.

        None for a batch that was planned in a stream that is gone, where that is no error.
        """
        if start != end and self._driver.replaced(end):
            log.warning("%s: a batch went with its stream: %s", self._options.name, end)
            return []
        parts = []
        for one in ranges(start, end):
            records = self._driver.at_hand(one)
            rows = None if records is None else _to_arrow(self._options.name, records)
            parts.append(Part(one, rows))
        if self.together and sum(map(_bytes_of, parts)) <= self._options.inline_bytes:
            return [InputPartition(tuple(parts))] if parts else []
        return [InputPartition((part,)) for part in parts]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Exactly the records of a task's parts.

        Raises:
            DataLoss: Some of them are gone; the message names the range.
            StreamError: The service did not answer in time.
        """
        for part in partition.value:
            yield from self._read(part)
        settle("read")

    def _read(self, part: Part) -> Iterator[pa.RecordBatch]:
        options = self._options
        if part.rows is not None:
            yield part.rows
            return
        for records in read_range(
            client_of(options.kinesis, options.role),
            options.stream,
            part.range,
            native_time=timestamps_work(options.kinesis),
            fetch_size=options.fetch_size,
            fail_on_data_loss=options.fail_on_data_loss,
            timeout_s=options.retry_timeout_s,
        ):
            yield _to_arrow(options.name, records)

    def stop(self) -> None:
        """End the driver's threads."""
        if self._planner is not None:
            self._planner.close()

    @property
    def _driver(self) -> BatchPlanner:
        options = self._options
        if self._planner is None:
            client = client_of(options.kinesis, options.role)
            self._planner = BatchPlanner(
                client,
                options.stream,
                begin=options.begin,
                native_time=timestamps_work(options.kinesis),
                fetch_size=options.fetch_size,
                reads_per_s=options.reads_per_s,
                keep_bytes=options.inline_bytes,
                subscribe=_subscription(client, options),
                fail_on_data_loss=options.fail_on_data_loss,
                restart_when_replaced=options.restart_when_replaced,
            )
        return self._planner

    def _limit(self, limit: ReadLimit) -> Limit:
        options = self._options
        most = options.max_bytes if self._begun else options.first_bytes
        if isinstance(limit, ReadMaxRows):
            return Limit(records=limit.max_rows, max_bytes=most)
        if isinstance(limit, ReadMaxBytes):
            return Limit(records=options.max_records, max_bytes=min(limit.max_bytes, most))
        if isinstance(limit, ReadAllAvailable):
            return Limit()
        raise ConfigError(f"kinesis source: cannot keep the limit {limit!r}")


def _subscription(client: Any, options: SourceOptions) -> Callable[[], OpenCursor] | None:
    """What registers the driver's consumer in fan-out mode; ``None`` where it polls."""
    name = options.consumer
    if name is None:
        return None

    def subscribe() -> OpenCursor:
        arn = consumer_arn(client, options.stream, name)
        return lambda shard, place, latest: FanOutCursor(client, arn, shard, place, latest=latest)

    return subscribe


def _bytes_of(part: Part) -> float:
    """Bytes that travel with a task; what it has to read itself is more than any bound."""
    return float("inf") if part.rows is None else part.rows.nbytes


def _to_arrow(stream: str, records: Sequence[RawRecord]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([stream] * len(records), pa.string()),
            pa.array([r.shard for r in records], pa.string()),
            pa.array([r.sequence for r in records], pa.string()),
            pa.array([r.key for r in records], pa.string()),
            pa.array([r.data for r in records], pa.binary()),
            pa.array([r.arrival_ms * 1000 for r in records], pa.timestamp("us", tz="UTC")),
        ],
        schema=ARROW_SCHEMA,
    )
