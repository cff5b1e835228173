"""How fast the archive drains a backlog, beside what its plan does without Kinesis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import boto3

from pipelines.kinesis.cursor import ShardCursor
from pipelines.kinesis.offsets import HORIZON
from pipelines.ports import KinesisConfig
from tests.bench.rows import Row, Say
from tests.bench.stream.embedded import embedded
from tests.bench.stream.running import MASTERS, JobProcess, running
from tests.bench.stream.tape import Backlog

BACKLOG = 600_000
"""Messages: a minute of ten thousand a second."""


def drain(say: Say, masters: Sequence[str] = MASTERS) -> list[Row]:
    """A backlog into the lake, archive alone, each master from the beginning."""
    with embedded() as (folder, kinesis):
        return _drain(say, folder, kinesis, masters)


def _drain(say: Say, folder: Path, kinesis: KinesisConfig, masters: Sequence[str]) -> list[Row]:
    say(f"a backlog of {BACKLOG:,} messages")
    put = Backlog(kinesis).fill(BACKLOG)
    rows = [Row("embedded Kinesis alone, GetRecords", read_all(kinesis, put), "msg/s")]
    for master in masters:
        say(f"drained by {master}")
        with running(
            folder / f"drain-{master[:5]}", kinesis, master, config={"archive_trigger_s": 0}
        ) as job:
            began = job.event("running")["at"]
            cpu = job.cpu_s()
            ended = job.stored(put)["at"]
            per_s, cpu = put / (ended - began), (job.cpu_s() - cpu) / put
            warm = _warm(job, put)
            memory = job.executor_mb
        say(f"the same plan behind Spark's rate source on {master}")
        with running(folder / f"limit-{master[:5]}", None, master, limit=BACKLOG) as job:
            began = job.event("running")["at"]
            line = job.stored(BACKLOG)
            limit = line["stored"] / (line["at"] - began)
        rows += [
            Row(f"drain into the lake, {master}", per_s, "msg/s", 25_000, at_least=True),
            Row(f"drain after its first batch, {master}", warm, "msg/s"),
            Row(f"the same plan without Kinesis, {master}", limit, "msg/s"),
            Row(f"of that limit, {master}", 100 * per_s / limit, "%"),
            Row(f"CPU of the job per message, {master}", cpu * 1e6, "µs"),
            Row(f"memory of the executor in a drain, {master}", memory / 1000, "GB", 2),
        ]
    return rows


def _warm(job: JobProcess, put: int) -> float:
    """Messages a second between the first batch and the last."""
    stored = [(x["stored"], x["at"]) for x in job.lines if x["event"] == "stats" and x["stored"]]
    (first, began), (last, ended) = stored[0], next(x for x in stored if x[0] >= put)
    return (last - first) / (ended - began) if last > first else float("nan")


def read_all(kinesis: KinesisConfig, put: int) -> float:
    """Messages a second that one reader gets from the service, and does nothing with."""
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    began = time.monotonic()
    for shard in client.list_shards(StreamName=kinesis.market_data)["Shards"]:
        cursor = ShardCursor(
            client, kinesis.market_data, shard["ShardId"], HORIZON, native_time=False
        )
        while not cursor.page().at_tip:
            pass
    took = time.monotonic() - began
    client.close()
    return put / took
