"""A Spark job of its own to be measured: ``job.py CONFIG``, tells what it does in lines of JSON.

Without ``limit`` it runs the streaming job until its standard input ends; with it, it writes rows
of Spark's own rate source through the archive's plan and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from cluster import runtime
from cluster.settings import load
from pipelines.codec import encode_record
from pipelines.events import Record
from pipelines.lake.writer import LakeWriter
from pipelines.ports import KinesisConfig
from pipelines.streaming.archive import Archive
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.session import ARCHIVE_POOL, SparkConfig, close_session, open_session
from tests.bench.stream.tape import OPEN_NS, Tape, symbols_of

POLL_S = 0.02
RATE_RECORDS = 12_500
"""Records of a batch of the rate source: as many messages as the archive takes at a time."""
PER_RECORD = 16


def say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **values}) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def ray_for(master: str, folder: Path) -> Iterator[None]:
    """Ray of this process's own, where Spark runs on it."""
    if master != "raydp":
        yield
        return
    settings = load(var_dir=folder)
    runtime.prepare(settings)
    import ray

    ray.init(
        address="local", num_cpus=8, include_dashboard=False, namespace=runtime.NAMESPACE,
        object_store_memory=128 * 2**20, log_to_driver=False, logging_level=logging.ERROR,
        _temp_dir=str(runtime.ray_temp_dir(settings)),
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
        runtime.remove_session(settings)


def spark_of(given: dict[str, Any], folder: Path) -> SparkConfig:
    """What the platform gives Spark on two cores."""
    return SparkConfig(
        master=given["master"], app_name=f"bench-{folder.name}", driver_memory="768m",
        ui_port=None, folder=str(folder / "spark"), executor_tmp=str(folder),
    )  # fmt: skip


class NoHistory:
    """A market that begins: no symbol is warmed up."""

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> list[dict[str, Any]]:
        return []


def run(given: dict[str, Any], folder: Path) -> None:
    """The streaming job until standard input ends; a line whenever rows were stored."""
    job = StreamingJob(
        StreamingConfig(
            spark=spark_of(given, folder),
            kinesis=KinesisConfig(**given["kinesis"]),
            lake_uri=str(folder / "lake"),
            checkpoint_uri=str(folder / "checkpoints"),
            history=NoHistory() if not given.get("history", True) else None,
            **given["config"] | {"symbols": tuple(given["config"].get("symbols", ()))},
        )
    )
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    try:
        job.start()
        say("running")
        last: dict[str, Any] = {}
        while not ended.wait(POLL_S):
            job.check()
            stats = job.stats()
            seen = {
                "stored": stats["archive"]["stored"],
                "archive_ms": stats["archive"]["last_batch_ms"],
                "batches": stats["signals"]["batches"],
                "bars": stats["signals"]["bars"],
                "signals_ms": stats["signals"]["last_batch_ms"],
                "phases": stats["signals"]["last_phases_ms"],
                "durations": stats["signals"]["durations_ms"],
                "caught_up": _caught_up(stats["signals"]["lag"]),
            }
            if seen != last:
                say("stats", **seen)
                last = seen
    finally:
        job.stop()


def _caught_up(lag: dict[str, dict[str, int | None]]) -> bool:
    return bool(lag) and all(shard["records"] == 0 for shard in lag.values())


def limit(given: dict[str, Any], folder: Path) -> None:
    """Rows of the rate source through the archive: what its plan does without Kinesis."""
    from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

    symbols = symbols_of(20)
    halves = []
    for i, symbol in enumerate(symbols):
        tape = Tape((symbol,), step_ns=1_000_000)
        messages = list(tape.messages(PER_RECORD, received_ns=OPEN_NS))
        text = encode_record(Record("limit", i, 1, OPEN_NS, OPEN_NS, messages)).decode()
        halves.append(text.split('"bseq":1,', 1))
    spark = open_session(spark_of(given, folder))
    archive = Archive(LakeWriter(str(folder / "lake")))
    archive.open("limit@0")

    def batch(frame: Any, batch_id: int) -> None:
        archive.process(frame, batch_id)
        say("stats", stored=archive.stats()["stored"])

    many = len(symbols)
    heads, tails = (F.array(*[F.lit(h[i]) for h in halves]) for i in (0, 1))
    bucket = (F.col("value") % many).cast("int")
    bseq = F.concat(F.lit('"bseq":'), (F.floor(F.col("value") / many) + 1).cast("string"))
    text = F.concat(heads[bucket], bseq, F.lit(","), tails[bucket])
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", ARCHIVE_POOL)
    query = (
        spark.readStream.format("rate-micro-batch")
        .options(rowsPerBatch=RATE_RECORDS, numPartitions=2)
        .load()
        .select(
            F.lit("rate").alias("stream"), F.lit("rate").alias("shard"),
            F.col("value").cast("string").alias("sequence"),
            bucket.cast("string").alias("partition_key"),
            text.cast("binary").alias("data"), F.col("timestamp").alias("arrival"),
        )
        .writeStream.foreachBatch(batch)
        .option("checkpointLocation", str(folder / "checkpoint"))
        .start()
    )  # fmt: skip
    say("running")
    while archive.stats()["stored"] < given["limit"] and query.isActive:
        time.sleep(POLL_S)
    query.stop()
    close_session(spark_of(given, folder))


def main() -> None:
    file = Path(sys.argv[1])
    given = json.loads(file.read_bytes())
    with ray_for(given["master"], file.parent):
        (limit if given.get("limit") else run)(given, file.parent)
    say("ended")


if __name__ == "__main__":
    main()
