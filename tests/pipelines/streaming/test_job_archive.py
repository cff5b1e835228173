"""The job with the archive query alone, on Spark and the embedded Kinesis."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from cluster import local_aws
from pipelines.codec import encode_record
from pipelines.errors import PartFailed
from pipelines.events import Record
from pipelines.lake.maintenance import Limits
from pipelines.lake.query import LakeQuery
from pipelines.ports import KinesisConfig
from pipelines.streaming import job as job_module
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.session import SparkConfig, close_session, open_session
from tests.chaos.killed_job import KilledJob
from tests.chaos.ledger import counted

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]  # a machine may be busy

SPARK = SparkConfig(master="local[2]", app_name="archive-test", driver_memory="512m", ui_port=None)


def put(kinesis: KinesisConfig, records: list[Record | bytes]) -> None:
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    for start in range(0, len(records), 400):
        answer = client.put_records(
            StreamName=kinesis.market_data,
            Records=[
                {"Data": r, "PartitionKey": "0"} if isinstance(r, bytes)
                else {"Data": encode_record(r), "PartitionKey": str(r.bucket)}
                for r in records[start : start + 400]
            ],
        )  # fmt: skip
        assert answer["FailedRecordCount"] == 0


def eventually(condition: Callable[[], bool], *, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


@pytest.fixture
def config(kinesis: KinesisConfig, tmp_path: Path) -> StreamingConfig:
    return StreamingConfig(
        spark=SPARK,
        kinesis=kinesis,
        lake_uri=str(tmp_path / "lake"),
        checkpoint_uri=str(tmp_path / "checkpoints"),
        archive_trigger_s=0.2,
        signals=False,
    )


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    """One session for all jobs here: starting one costs more than the tests."""
    yield open_session(SPARK)
    closer = threading.Thread(target=close_session, args=(SPARK,))  # as a host may: elsewhere
    closer.start()
    closer.join()
    assert SparkContext._active_spark_context is None
    assert SparkContext._gateway is None


@pytest.fixture
def jobs(
    config: StreamingConfig, session: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., StreamingJob]]:
    """Starts a job; every one is stopped at the end."""
    monkeypatch.setattr(job_module, "open_session", lambda _: session)
    monkeypatch.setattr(job_module, "close_session", lambda _: None)
    started: list[StreamingJob] = []

    def start(**changes: Any) -> StreamingJob:
        job = StreamingJob(replace(config, **changes))
        started.append(job)
        starter = threading.Thread(target=job.start)  # as its host does: not where it is stopped
        starter.start()
        starter.join()
        return job

    yield start
    for job in started:
        job.stop()


def trades(config: StreamingConfig) -> list[dict[str, Any]]:
    sql = "SELECT symbol, epoch, bseq, position, event_time_ns FROM trades ORDER BY ALL"
    return LakeQuery(config.lake_uri).sql(sql).to_pylist()


def test_job_stores_each_message_once_over_restarts_replays_and_lost_checkpoints(
    config, jobs, kinesis, new_tape
):
    tape = new_tape()
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        records = [
            tape.record(tape.trade(symbol), tape.quote(symbol), symbol=symbol)
            for _ in range(count)
            for symbol in ("SPY", "AAPL", "QQQ")
        ]
        put(kinesis, [*records, records[-1]])
        sent += len(records)

    send(20)
    job = jobs()
    eventually(lambda: job.stats()["archive"]["by_table"].get("trades") == sent)
    job.check()
    send(10)
    assert job.drain(240)
    assert job.stats()["state"] == "running"
    assert len(trades(config)) == sent
    job.stop()
    assert job.stats()["state"] == "stopped"

    # The last batch runs again: its commit log entry never reached the disk.
    (commits,) = Path(config.checkpoint_uri).glob("*/archive/commits")
    last = max((p for p in commits.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    last.unlink()
    (commits / f".{last.name}.crc").unlink(missing_ok=True)
    send(10)
    job = jobs()
    assert job.drain(240)
    assert len(trades(config)) == sent
    assert job.stats()["archive"]["duplicates"] == 3 * 2
    job.stop()

    # The whole checkpoint is gone: the lake knows where to go on.
    shutil.rmtree(config.checkpoint_uri)
    send(10)
    put(kinesis, [b"no record"])
    job = jobs()
    assert job.drain(240)
    found = trades(config)
    assert len(found) == len({tuple(row.values()) for row in found}) == sent
    totals = job.stats()["archive"]
    assert totals["stored"] == 2 * sent
    assert totals["duplicates"] == 4 * 2
    assert (totals["holes"], totals["undecodable"], totals["quarantined"]) == (0, 1, 0)


@pytest.mark.chaos
@pytest.mark.long
def test_job_begins_anew_when_its_streams_were_made_anew(
    config, jobs, kinesis, new_tape, record_property
):
    old, new = new_tape("run-1"), new_tape("run-2")
    sent = [old.record(old.trade()) for _ in range(5)]
    put(kinesis, sent)
    quick = {"archive_trigger_s": 0.1, "signals_trigger_s": 0.1}
    job = jobs(signals=True, **quick)
    checkpoints = Path(config.checkpoint_uri)
    eventually(lambda: job.check() or job.stats()["archive"]["stored"] == 5)
    eventually(lambda: job.check() or len(list(checkpoints.glob("*/*/commits/0"))) == 2)
    job.stop()
    put(kinesis, [old.record(old.trade())])  # goes with the stream: the producer's to send again
    # A batch that was planned in the old stream and never ran: it can not run in the new one.
    for entry in checkpoints.glob("*/*/commits/*"):
        entry.unlink()

    client = boto3.client("kinesis", **kinesis.client_kwargs())
    for name in (kinesis.market_data, kinesis.market_signals):
        client.delete_stream(StreamName=name)
        client.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    local_aws.ensure_streams(kinesis, shards=2)
    for signals in (True, False):  # and once more: it has begun anew for good
        put(kinesis, more := [new.record(new.trade()) for _ in range(3)])
        sent += more
        job = jobs(signals=signals, starting_position="LATEST", **quick)
        stored = partial(lambda job: job.stats()["archive"]["stored"], job)
        eventually(lambda read=stored, n=8 if signals else 11: read() == n)
        eventually(lambda: len(list(checkpoints.glob("*/*/commits/0"))) == 2)
        assert job.stats()["archive"]["streams_replaced"] == 1
        job.stop()
    rows = [(row["epoch"], row["bseq"]) for row in trades(config)]
    record_property("ledger", counted([(one.epoch, one.bseq) for one in sent], rows))
    assert len(list(checkpoints.iterdir())) == 1


@pytest.mark.chaos
def test_job_after_a_kill_between_two_commits_and_without_its_checkpoint_is_clean(
    jobs, kinesis, tmp_path, record_property
):
    killed = KilledJob(kinesis, tmp_path, random.Random(22))  # `config`'s folders
    try:
        killed.die_at("after the state")
    finally:
        killed.close()
    killed.forget()
    job = jobs()
    assert job.drain(240)
    ledger = killed.ledger(job.stats())
    record_property("ledger", asdict(ledger))
    assert ledger.clean, str(ledger)
    job.stop()


def test_job_maintains_the_lake_while_it_runs(config, jobs, kinesis, new_tape):
    tape = new_tape()
    job = jobs(maintenance_every_s=0.2, maintenance=Limits(many_files=2, retention_h=0))
    sent = 0

    def vacuumed() -> bool:
        nonlocal sent
        job.check()
        put(kinesis, [tape.record(tape.trade())])
        sent += 1
        done = job.stats()["maintenance"]
        return bool(done["vacuumed_files"]) and done["compacted_files"] > 2

    eventually(vacuumed)
    assert job.drain(240)
    assert len(trades(config)) == sent
    job.stop()


def test_job_whose_query_dies_says_so(config, jobs, kinesis, new_tape):
    job = jobs()
    shutil.rmtree(Path(config.lake_uri) / "trades")
    tape = new_tape()
    put(kinesis, [tape.record(tape.trade())])
    with pytest.raises(PartFailed, match="archive"):
        job.wait()
    assert job.stats()["state"] == "failed"
    assert "trades" in job.stats()["error"]


def test_job_without_its_stream_does_not_start(config):
    lost = replace(config, kinesis=replace(config.kinesis, market_data="no-such-stream"))
    job = StreamingJob(lost)
    with pytest.raises(PartFailed, match="no-such-stream"):
        job.start()
    assert job.stats()["state"] == "failed"
    job.stop()


def test_job_stopped_while_spark_starts_starts_no_query(config, session, monkeypatch):
    job, closed = StreamingJob(config), []

    def opened(_: SparkConfig) -> SparkSession:
        job.stop()
        return session

    monkeypatch.setattr(job_module, "open_session", opened)
    monkeypatch.setattr(job_module, "close_session", closed.append)
    job.start()
    assert closed == [config.spark]
    assert job.stats()["state"] == "stopped"
    assert not session.streams.active


def test_job_revises_a_bar_that_the_vendor_updates(config, jobs, kinesis, new_tape):
    tape = new_tape()
    job = jobs(signals=True, revisions_every_s=0.1, signals_trigger_s=0.1)
    put(kinesis, [tape.record(tape.trade(r=1), tape.bar(r=2))])

    def closes() -> list[float]:
        job.check()
        sql = "SELECT close FROM features ORDER BY revision"
        return LakeQuery(config.lake_uri).sql(sql)["close"].to_pylist()

    eventually(lambda: closes() == [1.5])
    put(kinesis, [tape.record(tape.bar(c=1.75, r=3) | {"T": "u"})])
    eventually(lambda: closes() == [1.5, 1.75])
    assert job.stats()["revisions"]["revisions"] == 1
    job.stop()
