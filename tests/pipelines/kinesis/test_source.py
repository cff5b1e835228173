"""The data source in Spark: one session, plain PySpark, the embedded Kinesis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster import processes
from pipelines.kinesis.clients import client_of
from pipelines.kinesis.lag import lag_of
from pipelines.kinesis.source import KinesisDataSource, source_options
from pipelines.ports import KinesisConfig
from pipelines.streaming.session import SparkConfig, close_session, open_session
from tests.chaos.ledger import counted
from tests.chaos.proxy import proxied
from tests.pipelines.kinesis.deadly import PLACES, deadly_source

pytestmark = pytest.mark.heavy

Batches = dict[int, list[list[str]]]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    config = SparkConfig(
        master="local[2]", app_name="test-source", ui_port=None, driver_memory="512m"
    )
    yield open_session(config)
    close_session(config)


@pytest.fixture
def client(kinesis: KinesisConfig) -> Any:
    return client_of(kinesis)


class Run:
    """Runs of one query over one checkpoint; what each batch held at each of its attempts."""

    def __init__(self, spark: Any, kinesis: KinesisConfig, checkpoint: Path) -> None:
        self.spark = spark
        self.kinesis = kinesis
        self.checkpoint = checkpoint
        self.batches: Batches = {}
        self.query: Any = None

    def start(self, *, trigger: dict[str, Any] | None = None, **options: object) -> None:
        options = {"readsPerSecond": 0} | options
        batches = self.batches

        def keep(frame: Any, batch: int) -> None:
            rows = frame.select("shard", "sequence", "data").collect()
            rows.sort(key=lambda row: (row.shard, int(row.sequence)))
            texts = [bytes(row.data).decode() for row in rows]
            batches.setdefault(batch, []).append(texts)

        self.query = (
            self.spark.readStream.format("kinesis")
            .options(**source_options(self.kinesis, self.kinesis.market_data, **options))
            .load()
            .writeStream.foreachBatch(keep)
            .option("checkpointLocation", str(self.checkpoint))
            .trigger(**(trigger or {"processingTime": "100 milliseconds"}))
            .start()
        )

    def stop(self) -> None:
        if self.query is not None:
            self.query.stop()

    def stop_between_batches(self) -> None:
        """Stop when the last batch is committed."""
        commits = self.checkpoint / "commits"
        self.wait((commits / str(max(self.batches))).exists)
        self.stop()

    def rows(self) -> list[str]:
        """The rows of the last attempt of each batch."""
        return [text for batch in sorted(self.batches) for text in self.batches[batch][-1]]

    def wait(self, ready: Callable[[], bool], *, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline or not self.query.isActive:
                raise AssertionError(f"{len(self.rows())} rows; {self.query.exception()}")
            time.sleep(0.02)

    def forget_commit(self) -> int:
        """Undo the last commit, as if the driver had died before it; the batch that replays."""
        commits = [int(p.name) for p in (self.checkpoint / "commits").iterdir() if p.name.isdigit()]
        (self.checkpoint / "commits" / str(max(commits))).unlink()
        return max(commits)

    def forget_all_but_the_first_offset(self) -> None:
        """As if the driver had died in the middle of its first batch."""
        for path in [*(self.checkpoint / "commits").iterdir()]:
            path.unlink()
        for path in (self.checkpoint / "offsets").iterdir():
            if path.name != "0":
                path.unlink()


@pytest.fixture
def run(spark: Any, kinesis: KinesisConfig, tmp_path: Path) -> Iterator[Run]:
    made = Run(spark, kinesis, tmp_path / "checkpoint")
    yield made
    made.stop()


def put(client: Any, config: KinesisConfig, begin: int, end: int) -> list[str]:
    texts = [f"m{n:05d}" for n in range(begin, end)]
    for at in range(0, len(texts), 500):
        client.put_records(
            StreamName=config.market_data,
            Records=[
                {"Data": text.encode(), "PartitionKey": str(int(text[1:]) % 16)}
                for text in texts[at : at + 500]
            ],
        )
    return texts


def test_stream_from_horizon_gives_every_record_once_and_the_last_before_a_quiet_spell(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    made = put(client, kinesis, 0, 700)
    run.start(startingPosition="TRIM_HORIZON", fetchSize=100)
    run.wait(lambda: len(run.rows()) >= 700)
    made += put(client, kinesis, 700, 701)
    run.wait(lambda: len(run.rows()) >= 701)
    assert sorted(run.rows()) == made
    progress = json.loads(run.query.lastProgress.json)
    assert progress["sources"][0]["endOffset"]["stream"] == kinesis.market_data
    assert list(lag_of(progress).values()) == [{"ms": 0, "records": 0}] * 2


def test_stream_with_a_limit_keeps_it_in_every_batch(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    made = put(client, kinesis, 0, 300)
    run.start(startingPosition="TRIM_HORIZON", maxRecordsPerBatch=100)
    run.wait(lambda: len(run.rows()) >= 300)
    assert sorted(run.rows()) == made
    assert max(len(attempt) for tries in run.batches.values() for attempt in tries) <= 100
    lags = [lag_of(json.loads(progress.json)) for progress in run.query.recentProgress]
    behind = [lag["ms"] for one in lags for lag in one.values()]
    assert max(behind) > 0  # while it caught up


def test_first_batch_of_each_run_keeps_a_limit_of_its_own(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    few = {"startingPosition": "TRIM_HORIZON", "maxBytesInFirstBatch": 1, "fetchSize": 20}
    for times in (1, 2):
        put(client, kinesis, 300 * (times - 1), 300 * times)
        run.start(**few)
        run.wait(partial(_has_rows, run, 300 * times))
        run.stop_between_batches()
        *_, first, second = run.batches.values()
        assert len(run.batches) == 2 * times
        assert len(first[-1]) == 2 * 20  # a page of each shard
        assert len(second[-1]) == 300 - 2 * 20
    assert sorted(run.rows()) == [f"m{n:05d}" for n in range(600)]


def _has_rows(run: Run, count: int) -> bool:
    return len(run.rows()) >= count


def test_latest_stays_the_moment_the_query_began_when_its_first_batch_is_replayed(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    put(client, kinesis, 0, 50)
    run.start(startingPosition="LATEST")
    run.wait(lambda: 0 in run.batches)
    made = put(client, kinesis, 100, 140)
    run.wait(lambda: len(run.rows()) >= 40)
    run.stop()
    assert sorted(run.rows()) == made
    run.forget_all_but_the_first_offset()
    run.batches.clear()
    made += put(client, kinesis, 200, 210)
    run.start(startingPosition="LATEST")
    run.wait(lambda: len(run.rows()) >= 50)
    assert sorted(run.rows()) == made


def a_moment(_: Run, __: Any) -> str:
    """What arrives from the next millisecond on."""
    begin_ms = time.time_ns() // 1_000_000 + 1
    processes.wait_until(
        lambda: time.time_ns() // 1_000_000 >= begin_ms,
        name="the next millisecond", timeout_s=5, poll_s=0.001,
    )  # fmt: skip
    return f"AT_TIMESTAMP:{datetime.fromtimestamp(begin_ms / 1000, UTC).isoformat()}"


def places_behind_all(run: Run, client: Any) -> str:
    """Behind the last record of each shard."""
    stream, places = run.kinesis.market_data, {}
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        found = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        records = client.get_records(ShardIterator=found["ShardIterator"])["Records"]
        places[shard["ShardId"]] = f"after:{records[-1]['SequenceNumber']}"
    return json.dumps(places)


def end_of_another_query(run: Run, _: Any) -> str:
    """Where a query of another checkpoint ended."""
    other = Run(run.spark, run.kinesis, run.checkpoint.with_name("other"))
    other.start(startingPosition="TRIM_HORIZON", trigger={"availableNow": True})
    assert other.query.awaitTermination(30)
    return json.dumps(json.loads(other.query.lastProgress.json)["sources"][0]["endOffset"])


@pytest.mark.parametrize("place", [a_moment, places_behind_all, end_of_another_query])
def test_query_that_begins_at_a_place_gives_what_came_after_it(
    run: Run, kinesis: KinesisConfig, client: Any, place: Callable[[Run, Any], str]
) -> None:
    put(client, kinesis, 0, 50)
    begin = place(run, client)
    made = put(client, kinesis, 50, 90)
    run.start(startingPosition=begin)
    run.wait(lambda: len(run.rows()) >= 40)
    made += put(client, kinesis, 90, 95)
    run.wait(lambda: len(run.rows()) >= 45)
    assert sorted(run.rows()) == made


def test_stream_that_is_named_by_its_arn_is_read_and_asked_for_by_it(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    summary = client.describe_stream_summary(StreamName=kinesis.market_data)
    arn = summary["StreamDescriptionSummary"]["StreamARN"]
    made = put(client, kinesis, 0, 50)
    with proxied(kinesis) as proxy:
        run.kinesis = proxy.config
        run.start(streamName="", streamArn=arn, startingPosition="TRIM_HORIZON")
        run.wait(lambda: len(run.rows()) >= 50)
        run.stop()
    assert sorted(run.rows()) == made
    asked = [call.asked for call in proxy.calls if "ShardIterator" not in call.asked]
    assert {one.get("StreamARN") for one in asked} == {arn}


def test_first_batch_with_rows_replayed_holds_the_same_rows(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    made = put(client, kinesis, 0, 50)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 50)
    run.stop()
    run.forget_all_but_the_first_offset()
    made += put(client, kinesis, 50, 60)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 60)
    assert run.batches[0] == [sorted(made[:50], key=run.batches[0][0].index)] * 2
    assert sorted(run.rows()) == made


@pytest.mark.chaos
def test_last_batch_replayed_after_a_death_before_its_commit_holds_the_same_rows(
    run: Run, kinesis: KinesisConfig, client: Any, record_property: Record
) -> None:
    made = put(client, kinesis, 0, 100)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 100)
    made += put(client, kinesis, 100, 150)
    run.wait(lambda: len(run.rows()) >= 150)
    run.stop_between_batches()
    batch = run.forget_commit()
    before = run.batches[batch][-1]
    made += put(client, kinesis, 150, 180)  # arrived meanwhile: must not join the replayed batch
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 180)
    record_property("ledger", {"rounds": 1, **counted(made, run.rows())})
    assert run.batches[batch] == [before, before]
    assert sorted(run.rows()) == made


@pytest.mark.chaos
def test_stream_through_a_split_and_a_merge_loses_nothing(
    run: Run, kinesis: KinesisConfig, client: Any, record_property: Record
) -> None:
    stream = kinesis.market_data
    made = put(client, kinesis, 0, 100)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 50)
    client.split_shard(
        StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
    )
    _wait_active(client, stream)
    made += put(client, kinesis, 100, 200)
    run.wait(lambda: len(run.rows()) >= 200)
    run.stop()
    client.merge_shards(
        StreamName=stream,
        ShardToMerge="shardId-000000000003",
        AdjacentShardToMerge="shardId-000000000001",
    )
    _wait_active(client, stream)
    made += put(client, kinesis, 200, 300)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= 300)
    record_property("ledger", counted(made, run.rows()))
    assert sorted(run.rows()) == made
    keys = {key: [t for t in run.rows() if int(t[1:]) % 16 == key] for key in range(16)}
    assert all(texts == sorted(texts) for texts in keys.values())


def test_available_now_reads_what_is_there_and_ends(
    run: Run, kinesis: KinesisConfig, client: Any
) -> None:
    made = put(client, kinesis, 0, 120)
    now = {"availableNow": True}
    run.start(startingPosition="TRIM_HORIZON", maxRecordsPerBatch=50, trigger=now)
    assert run.query.awaitTermination(30)
    assert sorted(run.rows()) == made
    made += put(client, kinesis, 120, 130)
    run.start(startingPosition="TRIM_HORIZON", trigger=now)
    assert run.query.awaitTermination(30)
    assert sorted(run.rows()) == made


@pytest.mark.chaos
def test_two_sinks_of_one_batch_see_the_same_rows_whatever_arrives_meanwhile(
    spark: Any, kinesis: KinesisConfig, client: Any, tmp_path: Path, record_property: Record
) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    made = put(client, kinesis, 0, 20)

    def texts(frame: Any) -> list[str]:
        return sorted(bytes(row.data).decode() for row in frame.select("data").collect())

    def two_sinks(frame: Any, _: int) -> None:
        first = texts(frame)
        made.extend(put(client, kinesis, len(made), len(made) + 20) if not seen else ())
        seen.append((first, texts(frame)))  # reads the source again

    query = (
        spark.readStream.format("kinesis")
        .options(
            **source_options(
                kinesis, kinesis.market_data, startingPosition="TRIM_HORIZON", readsPerSecond=0,
                inlineBytes=0,
            )
        )
        .load()
        .writeStream.foreachBatch(two_sinks)
        .option("checkpointLocation", str(tmp_path / "two"))
        .trigger(processingTime="50 milliseconds")
        .start()
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while sum(len(first) for first, _ in seen) < 40:
        assert time.monotonic() < deadline
        assert query.isActive, query.exception()
        time.sleep(0.02)
    query.stop()
    rows = [text for first, _ in seen for text in first]
    record_property("ledger", counted(made, rows))
    assert all(first == second for first, second in seen)
    assert sorted(rows) == made


@pytest.mark.chaos
def test_stream_killed_at_every_point_gives_each_record_once_and_replays_the_same_rows(
    run: Run,
    spark: Any,
    kinesis: KinesisConfig,
    client: Any,
    tmp_path: Path,
    record_property: Record,
) -> None:
    order = tmp_path / "die"
    spark.dataSource.register(deadly_source(str(order)))
    try:
        made: list[str] = []
        for n, place in enumerate(place for place in PLACES if place != "sink"):
            # Every other time too much to travel with the tasks.
            run.start(startingPosition="TRIM_HORIZON", inlineBytes=900_000 * (n % 2))
            made += put(client, kinesis, 100 * n, 100 * n + 50)
            run.wait(partial(_has_rows, run, len(made)))
            order.write_text(place)
            made += put(client, kinesis, 100 * n + 50, 100 * n + 90)
            _until_dead_or_done(run, order, len(made))
            run.stop()
            assert not order.exists(), f"nobody came to {place}"
    finally:
        spark.dataSource.register(KinesisDataSource)
    run.start(startingPosition="TRIM_HORIZON")
    run.wait(lambda: len(run.rows()) >= len(made))
    record_property("ledger", {"rounds": len(PLACES) - 1, **counted(made, run.rows())})
    assert sorted(run.rows()) == made
    assert all(one == tries[0] for tries in run.batches.values() for one in tries)


def _until_dead_or_done(run: Run, order: Path, rows: int) -> None:
    """A killed planner ends its query; a killed task is run again, and the query goes on."""
    deadline = time.monotonic() + 30
    while run.query.isActive and (order.exists() or len(run.rows()) < rows):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _wait_active(client: Any, stream: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        summary = client.describe_stream_summary(StreamName=stream)
        if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
            return
    raise AssertionError("the stream is not active")


def test_options_never_show_the_secret(kinesis: KinesisConfig) -> None:
    options = source_options(kinesis, "s", startingPosition="LATEST")
    reader = KinesisDataSource(options).streamReader(None)
    assert "embedded" not in repr(reader._options)
