"""FAULTS 22–24, 42: the archive killed -9 at every point, its checkpoint deleted now and then.

Nine places: those of the source (before the offset log, after it, while an executor reads, after
the sink, after the commit log) and those of the lake (before and after the commit of the batch's
state, before and after the commit of a table). In the end every message sent is one row, in the
order of its symbol, and the archive's own counters say the same.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.codec import encode_record
from pipelines.events import Record, bucket_of, format_time_ns, parse_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.ports import KinesisConfig
from tests.pipelines.kinesis.deadly import PLACES

SCRIPT = Path(__file__).with_name("archive_job.py")
SYMBOLS = ("SPY", "AAPL", "QQQ", "KO")
START_NS = parse_time_ns("2011-01-03T14:30:00Z")
LAKE_PLACES = ("before the state", "after the state", "before a table", "after a table")


@dataclass(frozen=True)
class Ledger:
    """What was sent against what is stored."""

    sent: int
    stored: int
    lost: int
    twice: int
    disordered: int
    holes: int
    counted: int
    batches: int

    @property
    def clean(self) -> bool:
        return self.sent == self.stored == self.counted and not (
            self.lost or self.twice or self.disordered or self.holes
        )


class KilledArchive:
    """An archive that is started again after each death; sends records meanwhile."""

    def __init__(self, kinesis: KinesisConfig, folder: Path) -> None:
        self.kinesis, self.folder = kinesis, folder
        self.order = folder / "die"
        self.process: subprocess.Popen[bytes] | None = None
        self.sent: list[tuple[str, int]] = []  # symbol and trade id
        self._client = boto3.client("kinesis", **kinesis.client_kwargs())
        self._bseq = dict.fromkeys(SYMBOLS, 0)

    def start(self, *, drain: bool = False, maintenance_every_s: float = 0) -> None:
        given = {
            "kinesis": asdict(self.kinesis), "drain": drain,
            "maintenance_every_s": maintenance_every_s,
        }  # fmt: skip
        environment = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.folder), json.dumps(given)],
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,
            )

    def send(self, records: int, rng: random.Random) -> None:
        entries = []
        for _ in range(records):
            symbol = rng.choice(SYMBOLS)
            self._bseq[symbol] += 1
            messages = []
            for _ in range(rng.randrange(1, 20)):
                number = len(self.sent) + 1
                at = format_time_ns(START_NS + number * 1_000_003)
                messages.append(
                    {"T": "t", "S": symbol, "p": 1.5, "s": 1, "i": number, "x": "D", "t": at}
                    | {"r": number}
                )
                self.sent.append((symbol, number))
            now = START_NS + len(self.sent) * 1_000_003
            record = Record("run-1", bucket_of(symbol), self._bseq[symbol], now, now, messages)
            entries.append({"Data": encode_record(record), "PartitionKey": str(record.bucket)})
            if rng.random() < 0.1:
                entries.append(entries[-1])  # an answer was lost: sent again
        for entry in entries:
            self._client.put_record(StreamName=self.kinesis.market_data, **entry)

    def dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def until(self, ready: Callable[[], bool], *, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                lines = (self.folder / "log").read_text().splitlines()[-25:]
                raise AssertionError("\n".join(lines))
            time.sleep(0.05)

    def stored(self) -> int:
        return int(LakeQuery(str(self.folder / "lake")).dataset("trades").count_rows())

    def rows(self) -> list[tuple[str, int]]:
        """Symbol and trade id of every row, in the order of the stream."""
        sql = "SELECT symbol, trade_id FROM trades ORDER BY symbol, bseq, position"
        return [
            tuple(r.values()) for r in LakeQuery(str(self.folder / "lake")).sql(sql).to_pylist()
        ]

    def die_at(self, place: str, rng: random.Random) -> None:
        """Start it, see it store something, and die there."""
        before = self.stored()
        self.start()
        self.send(5, rng)
        self.until(lambda: self.stored() > before)
        self.order.write_text(place)
        while not self.dead():
            self.send(rng.randrange(1, 6), rng)
            time.sleep(0.2 + rng.random() / 5)
        assert not self.order.exists(), (self.folder / "log").read_text()[-2000:]

    def drained(self) -> dict[str, Any]:
        self.start(drain=True, maintenance_every_s=0.5)
        self.until(self.dead)
        stats: dict[str, Any] = json.loads((self.folder / "stats.json").read_text())
        assert stats["drained"]
        return stats

    def ledger(self, stats: dict[str, Any]) -> Ledger:
        rows = self.rows()
        disordered = 0
        for symbol in SYMBOLS:
            numbers = [number for s, number in rows if s == symbol]
            disordered += numbers != sorted(numbers)
        return Ledger(
            sent=len(self.sent),
            stored=len(rows),
            lost=len(set(self.sent) - set(rows)),
            twice=len(rows) - len(set(rows)),
            disordered=disordered,
            holes=stats["archive"]["holes"],
            counted=stats["archive"]["stored"],
            batches=stats["archive"]["batches"],
        )


def matrix(
    archive: KilledArchive, places: list[str], rng: random.Random, *, forget_every: int
) -> Ledger:
    """Let it die at these places one after the other; the ledger after a last, quiet run."""
    try:
        for number, place in enumerate(places, start=1):
            archive.die_at(place, rng)
            if number % forget_every == 0:
                shutil.rmtree(archive.folder / "checkpoints")
        return archive.ledger(archive.drained())
    finally:
        archive.kill()


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_archive_killed_after_its_state_and_without_its_checkpoint_is_clean(
    kinesis: KinesisConfig, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    archive = KilledArchive(kinesis, tmp_path)
    ledger = matrix(archive, ["after the state"], random.Random(22), forget_every=1)
    record_property("ledger", str(ledger))
    assert ledger.clean, str(ledger)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_archive_killed_fifty_times_at_every_point_is_clean(
    kinesis: KinesisConfig, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(23)
    everywhere = [*PLACES, *LAKE_PLACES]
    kills = int(os.environ.get("RAYTAPE_KILLS", "50"))
    places = [everywhere[k % len(everywhere)] for k in range(kills)]
    ledger = matrix(KilledArchive(kinesis, tmp_path), places, rng, forget_every=7)
    record_property("ledger", str(ledger))
    assert ledger.clean, str(ledger)
