"""``spark.readStream.format("kinesis")``: a Kinesis stream for PySpark 4.2, without JVM jars.

In: a stream. Out: rows ``stream, shard, sequence, partition_key, data, arrival``. The end of each
batch is decided on the driver and lies in Spark's offset log before anything is read, so a batch
that runs again holds the same rows.

Options (all text; names are not case-sensitive):

=====================  ====================  =====================================================
option                 default               meaning
=====================  ====================  =====================================================
stream                 (needed)              name of the stream
region                 us-east-1             AWS region
endpoint               AWS                   address of an embedded Kinesis
accessKey, secretKey   the standard chain    fixed credentials; for an embedded Kinesis only
startingPosition       LATEST                see :meth:`~pipelines.kinesis.offsets.Begin.parse`;
                                             used where there is no checkpoint
maxRecordsPerBatch     none                  at most so many records in a batch
maxBytesPerBatch       33554432              at most about so many bytes in a batch
fetchSize              2000                  records per GetRecords, at most 10000
readsPerSecond         2; embedded: none     GetRecords per shard and second of driver and executor
                                             together (the service allows 5 to all its readers)
failOnDataLoss         true                  fail when records that are due are gone; else go on
onStreamReplaced       fail                  ``fail`` or ``restart`` (from its oldest record) when
                                             the stream was deleted and made again
retryTimeoutS          180                   how long an executor tries a request
=====================  ====================  =====================================================

Plain PySpark is enough: ``spark.dataSource.register(KinesisDataSource)``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxBytes,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)

from pipelines.errors import ConfigError, DataLoss
from pipelines.kinesis.cursor import (
    MAX_PAGE,
    RawRecord,
    ShardCursor,
    client_of,
    timestamps_work,
)
from pipelines.kinesis.offsets import Begin, Position, ShardRange, ranges, symbolic
from pipelines.kinesis.planner import BatchPlanner, Limit
from pipelines.ports import KinesisConfig
from pipelines.workers import settle

log = logging.getLogger(__name__)

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
class SourceOptions:
    """The options of the source, checked; see the module for their meaning."""

    stream: str
    kinesis: KinesisConfig
    begin: Begin
    max_records: int | None
    max_bytes: int
    fetch_size: int
    reads_per_s: float | None
    fail_on_data_loss: bool
    restart_when_replaced: bool
    retry_timeout_s: float

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> SourceOptions:
        """The options of their text.

        Raises:
            ConfigError: One is unknown, missing or out of range.
        """
        given = {key.lower(): value for key, value in options.items()}
        unknown = sorted(given.keys() - _KNOWN)
        if unknown:
            raise ConfigError(f"kinesis source: unknown option {unknown[0]!r}; known: {_KNOWN}")
        if not given.get("stream"):
            raise ConfigError("kinesis source: option 'stream' is needed")
        config = KinesisConfig(
            region=given.get("region", "us-east-1"),
            endpoint_url=given.get("endpoint") or None,
            access_key=given.get("accesskey") or None,
            secret_key=given.get("secretkey") or None,
        )
        reads = given.get("readspersecond")
        if reads is None and timestamps_work(config):
            reads = "2"
        max_records = given.get("maxrecordsperbatch")
        return cls(
            stream=given["stream"],
            kinesis=config,
            begin=Begin.parse(given.get("startingposition", "LATEST")),
            max_records=int(_number("maxRecordsPerBatch", max_records)) if max_records else None,
            max_bytes=int(_number("maxBytesPerBatch", given.get("maxbytesperbatch", "33554432"))),
            fetch_size=min(int(_number("fetchSize", given.get("fetchsize", "2000"))), MAX_PAGE),
            reads_per_s=_number("readsPerSecond", reads) if reads else None,
            fail_on_data_loss=_choice("failOnDataLoss", given, "true", "false") == "true",
            restart_when_replaced=_choice("onStreamReplaced", given, "fail", "restart")
            == "restart",
            retry_timeout_s=_number("retryTimeoutS", given.get("retrytimeouts", "180")),
        )


_KNOWN = frozenset(
    {
        "stream", "region", "endpoint", "accesskey", "secretkey", "startingposition",
        "maxrecordsperbatch", "maxbytesperbatch", "fetchsize", "readspersecond",
        "failondataloss", "onstreamreplaced", "retrytimeouts",
    }
)  # fmt: skip


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"kinesis source: {name}={text!r} is no number") from error
    if not value > 0:
        raise ConfigError(f"kinesis source: {name}={text!r} must be positive")
    return value


def _choice(name: str, given: Mapping[str, str], default: str, other: str) -> str:
    value = given.get(name.lower(), default).lower()
    if value not in {default, other}:
        raise ConfigError(f"kinesis source: {name}={value!r}, need {default} or {other}")
    return value


def source_options(config: KinesisConfig, stream: str, **options: object) -> dict[str, str]:
    """Options for ``readStream.format("kinesis").options(**...)`` that read a stream of a config.

    Args:
        config: Where the stream is.
        stream: Its name.
        options: Further options of the source by name.
    """
    found = {"stream": stream, "region": config.region}
    if config.endpoint_url:
        found["endpoint"] = config.endpoint_url
    if config.access_key and config.secret_key:
        found |= {"accessKey": config.access_key, "secretKey": config.secret_key}
    return found | {name: str(value) for name, value in options.items() if value is not None}


class KinesisDataSource(DataSource):
    """The data source ``kinesis``; the options are described in the module."""

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

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._planner: BatchPlanner | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_planner": None}

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
        return self._driver.plan(start, self._limit(limit))

    def reportLatestOffset(self) -> dict[str, Any] | None:  # noqa: N802
        """The last end that was decided, from memory."""
        return self._planner.newest if self._planner else None

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        """Read what has arrived by now, and no more."""
        self._driver.stop_at_now()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """One part per shard that has records between two offsets."""
        return [InputPartition(part) for part in ranges(start, end)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Exactly the records of a part.

        Raises:
            DataLoss: Some of them are gone; the message names the range.
            StreamError: The service did not answer in time.
        """
        options = self._options
        for records in read_range(
            client_of(options.kinesis),
            options.stream,
            partition.value,
            native_time=timestamps_work(options.kinesis),
            fetch_size=options.fetch_size,
            fail_on_data_loss=options.fail_on_data_loss,
            timeout_s=options.retry_timeout_s,
        ):
            yield _to_arrow(options.stream, records)
        settle("read")

    def stop(self) -> None:
        """End the driver's threads."""
        if self._planner is not None:
            self._planner.close()

    @property
    def _driver(self) -> BatchPlanner:
        options = self._options
        if self._planner is None:
            self._planner = BatchPlanner(
                client_of(options.kinesis),
                options.stream,
                begin=options.begin,
                native_time=timestamps_work(options.kinesis),
                fetch_size=options.fetch_size,
                reads_per_s=options.reads_per_s,
                fail_on_data_loss=options.fail_on_data_loss,
                restart_when_replaced=options.restart_when_replaced,
            )
        return self._planner

    def _limit(self, limit: ReadLimit) -> Limit:
        if isinstance(limit, ReadMaxRows):
            return Limit(records=limit.max_rows)
        if isinstance(limit, ReadMaxBytes):
            return Limit(max_bytes=limit.max_bytes)
        if isinstance(limit, ReadAllAvailable):
            return Limit()
        raise ConfigError(f"kinesis source: cannot keep the limit {limit!r}")


_EMPTY_PAGES = 3  # at the tip in a row: what the driver saw there is not there any more


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


def read_range(
    client: Any,
    stream: str,
    part: ShardRange,
    *,
    native_time: bool,
    fetch_size: int,
    fail_on_data_loss: bool,
    timeout_s: float,
) -> Iterator[list[RawRecord]]:
    """Exactly the records of one shard between two positions, page by page.

    The record behind which a range begins is asked for too: if it is gone, what followed it may
    be gone with it, and the service itself would begin with its oldest record and say nothing.

    Args:
        client: boto3 Kinesis client.
        stream: Name of the stream.
        part: Shard, begin and end.
        native_time: See :class:`~pipelines.kinesis.cursor.ShardCursor`.
        fetch_size: Records per request.
        fail_on_data_loss: Raise when records are gone, or go on with a warning.
        timeout_s: How long one request is tried for.

    Yields:
        Lists of records, none empty.

    Raises:
        DataLoss: The begin or the end of the range is gone.
        StreamError: The service refused or did not answer in time.
    """
    first = Position("at", part.begin.value) if part.begin.exact else part.begin
    cursor = ShardCursor(
        client, stream, part.shard, first, native_time=native_time, timeout_s=timeout_s
    )
    checked = not part.begin.exact
    empty = 0
    while True:
        page = cursor.page(fetch_size)
        records = list(page.records)
        if records and not checked:
            checked = True
            if int(records[0].sequence) != part.begin.value:
                _lost(stream, part, f"the oldest left is {records[0].sequence}", fail_on_data_loss)
        passed = bool(records) and int(records[-1].sequence) >= part.end.value
        wanted = [
            record
            for record in records
            if part.end.admits(int(record.sequence))
            and not (part.begin.kind == "after" and int(record.sequence) == part.begin.value)
        ]
        if wanted:
            yield wanted
        if passed:
            found = any(int(record.sequence) == part.end.value for record in records)
            if not found and not part.done:
                _lost(stream, part, f"its last record is {records[-1].sequence}", fail_on_data_loss)
            return
        empty = 0 if records else empty + 1
        if page.closed or (page.at_tip and empty >= _EMPTY_PAGES):
            # Behind the last record of a closed shard lies its end, which is no record.
            if not (part.done and page.closed):
                _lost(stream, part, "the shard ends before it", fail_on_data_loss)
            return


def _lost(stream: str, part: ShardRange, why: str, fail: bool) -> None:
    text = f"{stream}/{part.shard}: records from {part.begin} to {part.end} are gone: {why}"
    if fail:
        raise DataLoss(text)
    log.warning("%s; going on (failOnDataLoss=false)", text)
