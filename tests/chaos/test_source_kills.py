"""FAULTS 19, 20, 23: the driver of a query killed -9 at every point, fifty times.

Ten deaths each: before the offset log, after it, while reading, after the sink, after the commit
log; the stream is resharded while the job is down, and the batches are small enough to travel with
their tasks or not, by turns. In the end every record put lies in exactly one batch, in the order of
its key, and no batch ever held anything else when it ran again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.kinesis.clients import client_of
from pipelines.kinesis.source import source_options
from pipelines.ports import KinesisConfig
from tests.chaos.ledger import counted
from tests.pipelines.kinesis.deadly import PLACES

SCRIPT = Path(__file__).with_name("source_query.py")
KEYS = 12


class KilledQuery:
    """A query that is started again after each death.

    Args:
        kinesis: Where its stream is.
        folder: Its checkpoint, its sink, its orders to die.
    """

    def __init__(self, kinesis: KinesisConfig, folder: Path) -> None:
        self.kinesis = kinesis
        self.folder = folder
        self.client = client_of(kinesis)
        self.process: subprocess.Popen[bytes] | None = None
        self.put_so_far = 0
        self.rounds = 0

    def start(self, **options: object) -> None:
        given = source_options(
            self.kinesis, self.kinesis.market_data, startingPosition="TRIM_HORIZON",
            readsPerSecond=0, **options,
        )  # fmt: skip
        environment = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.folder), json.dumps(given)],
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,
            )

    def put(self, count: int) -> None:
        for at in range(self.put_so_far, self.put_so_far + count):
            self.client.put_record(
                StreamName=self.kinesis.market_data,
                Data=_text(at).encode(),
                PartitionKey=str(at % KEYS),
            )
        self.put_so_far += count

    def rows(self) -> list[list[str]]:
        """Shard, sequence, key and text of every row, batch after batch."""
        files = sorted((self.folder / "rows").glob("*.json"))
        return [row for path in files for row in json.loads(path.read_text())]

    def until(self, ready: Callable[[], bool], *, timeout_s: float = 600) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                lines = (self.folder / "log").read_text().splitlines()[-25:]
                raise AssertionError("\n".join(lines))
            time.sleep(0.05)

    def dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def reshard(self, rng: random.Random) -> str:
        """Split or merge; what was done."""
        stream = self.kinesis.market_data
        listed = self.client.list_shards(StreamName=stream)["Shards"]
        open_ones = sorted(
            (s for s in listed if "EndingSequenceNumber" not in s["SequenceNumberRange"]),
            key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]),
        )
        if len(open_ones) > 2:
            at = rng.randrange(len(open_ones) - 1)
            left, right = (open_ones[at + i]["ShardId"] for i in (0, 1))
            self.client.merge_shards(
                StreamName=stream, ShardToMerge=left, AdjacentShardToMerge=right
            )
            done = "merged"
        else:
            shard = rng.choice(open_ones)
            low, high = (
                int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending")
            )
            self.client.split_shard(
                StreamName=stream,
                ShardToSplit=shard["ShardId"],
                NewStartingHashKey=str((low + high) // 2),
            )
            done = "split"
        self.until(self._active)
        return done

    def _active(self) -> bool:
        summary: dict[str, Any] = self.client.describe_stream_summary(
            StreamName=self.kinesis.market_data
        )
        return bool(summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

    def ledger(self) -> dict[str, int]:
        counts = counted(map(_text, range(self.put_so_far)), [row[3] for row in self.rows()])
        changed = len(list((self.folder / "rows").glob("*.differs")))
        return {"rounds": self.rounds, **counts, "batches_that_changed": changed}

    def check(self) -> None:
        ledger = self.ledger()
        assert ledger["sent"] == ledger["stored"], ledger
        assert not (ledger["lost"] or ledger["twice"] or ledger["batches_that_changed"]), ledger
        for key in range(KEYS):
            texts = [row[3] for row in self.rows() if row[2] == str(key)]
            by_batch = list(texts)
            assert by_batch == sorted(by_batch), f"order of key {key}"


def _text(number: int) -> str:
    return f"m{number:07d}"


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(14_400)
def test_query_killed_fifty_times_at_every_point_is_clean(
    kinesis: KinesisConfig, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    kills = int(os.environ.get("RAYTAPE_KILLS", "50"))
    rng = random.Random(20)
    query = KilledQuery(kinesis, tmp_path)
    order = tmp_path / "die"
    try:
        for seed in range(kills):
            query.start(inlineBytes=rng.choice([0, 900_000]))
            query.put(rng.randrange(1, 60))
            query.until(lambda: len(query.rows()) >= query.put_so_far)
            order.write_text(PLACES[seed % len(PLACES)])
            while not query.dead():  # it dies when it comes to that place
                query.put(rng.randrange(1, 20))
                time.sleep(rng.random() / 10)
            assert not order.exists()
            query.rounds += 1
            if seed % 5 == 4:
                query.put(20)
                query.reshard(rng)
                query.put(20)
        query.start()
        query.until(lambda: len(query.rows()) >= query.put_so_far)
    finally:
        query.kill()
    record_property("ledger", query.ledger())
    query.check()
