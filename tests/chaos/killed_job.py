"""The streaming job in a process of its own that dies and is started again; and its ledger."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from pipelines.codec import decode_items
from pipelines.errors import RaytapeError
from pipelines.events import parse_time_ns
from pipelines.features.spec import FEATURE_SPEC
from pipelines.kinesis.tail import StreamTail
from pipelines.lake.query import LakeQuery
from pipelines.ports import KinesisConfig
from pipelines.streaming.signals import FOLDER
from tests.chaos.ledger import counted
from tests.chaos.tape_sender import SYMBOLS, TapeSender

SCRIPT = Path(__file__).with_name("streaming_job.py")
MAX_RESTARTS = 20
PATIENCE_S = 600.0
"""A machine may be busy; whoever waits longer for one step waits in vain."""


@dataclass(frozen=True)
class Ledger:
    """What was sent against what is stored and, with signals, what was decided and published.

    Args:
        rounds: Deaths.
        restarts: How often it ended by itself and was started again.
        sent: Messages.
        stored: Rows of the raw tables.
        lost: Messages without a row.
        twice: Rows too many.
        disordered: Symbols whose rows are not in the order in which they were sent.
        holes: Of the archive's own counters.
        counted: What the archive says it stored.
        bars: Bars with features, of those sent.
        wrong: Bars without features, or with others than a run without faults has.
        undecided: Bars without exactly one signal.
        unpublished: Signals that are not on the stream, or are there with another content.
        recovery_s: From each death to the first new row.
    """

    rounds: int
    restarts: int
    sent: int
    stored: int
    lost: int
    twice: int
    disordered: int
    holes: int
    counted: int
    bars: int = 0
    wrong: int = 0
    undecided: int = 0
    unpublished: int = 0
    recovery_s: list[float] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, twice, out of order, or decided twice."""
        return self.sent == self.stored == self.counted and not (
            self.lost or self.twice or self.disordered or self.holes
            or self.wrong or self.undecided or self.unpublished
        )  # fmt: skip


def in_time(places: Sequence[str]) -> Iterator[str]:
    """The places to die at; no further ones after ``RAYTAPE_KILL_MINUTES``, if that is set."""
    minutes = float(os.environ.get("RAYTAPE_KILL_MINUTES", "inf"))
    ends = time.monotonic() + 60 * minutes
    for place in places:
        if time.monotonic() > ends:
            return
        yield place


class KilledJob:
    """A streaming job that is started again after each death, and what it is sent meanwhile.

    Args:
        kinesis: Its streams.
        folder: Lake, checkpoints, log, orders to die.
        rng: What is sent.
        signals: Whether the query ``signals`` runs too.
        policy_url: Whom that asks.
        master: Spark's master.
        ray: Settings of the Ray it runs on, for ``raydp``.
        task_dies: What dies where a task is told to: ``worker`` or ``executor``.
        parts: Parts of the state of ``signals``; with more than one there is a shuffle.
    """

    def __init__(
        self,
        kinesis: KinesisConfig,
        folder: Path,
        rng: random.Random,
        *,
        signals: bool = False,
        policy_url: str | None = None,
        master: str = "local[2]",
        ray: dict[str, Any] | None = None,
        task_dies: str = "worker",
        parts: int = 1,
    ) -> None:
        self.kinesis, self.folder, self.rng = kinesis, folder, rng
        self.order = folder / "die"
        self.process: subprocess.Popen[bytes] | None = None
        self.sender = TapeSender(kinesis, rng)
        self.recovery_s: list[float] = []
        self.rounds = 0
        self.restarts = 0
        self.scratch = "spark"
        self._given = {
            "kinesis": asdict(kinesis), "signals": signals, "policy_url": policy_url,
            "master": master, "ray": ray, "task_dies": task_dies, "parts": parts,
        }  # fmt: skip

    @property
    def lake(self) -> LakeQuery:
        """The lake as readers see it."""
        return LakeQuery(str(self.folder / "lake"))

    def start(self, *, drain: bool = False, maintenance_every_s: float = 0) -> None:
        """Start it; with ``drain`` it processes what there is and ends."""
        given = self._given | {
            "drain": drain, "maintenance_every_s": maintenance_every_s, "scratch": self.scratch,
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.folder), json.dumps(given)],
                stdout=log,
                stderr=log,
                env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
                start_new_session=True,
            )

    def dead(self) -> bool:
        """Whether it does not run."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """kill -9 of driver and JVM."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def close(self) -> None:
        """End it, and the Python workers of Spark, which end when they notice."""
        workers = []
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                workers = psutil.Process(self.process.pid).children(recursive=True)
        self.kill()
        psutil.wait_procs(workers, timeout=30)

    def again(self) -> None:
        """Start it after it ended by itself, as Ray does.

        On a starved machine Spark gives its Python workers up after ten seconds.

        Raises:
            AssertionError: It ended :data:`MAX_RESTARTS` times by now; the message is its log.
        """
        assert self.restarts < MAX_RESTARTS, self.log()
        self.restarts += 1
        self.start()

    def kept_alive_until(self, ready: Callable[[], bool]) -> None:
        """Poll until something is so, and start it again when it ends before."""

        def seen() -> bool:
            if (found := ready()) or not self.dead():
                return found
            self.again()
            return False

        self.until(seen)

    def until(self, ready: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
        """Poll until something is so.

        Raises:
            AssertionError: It was not in time; the message ends with the job's log.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                raise AssertionError(self.log())
            time.sleep(0.3)  # to look at the lake costs more the larger its log is

    def log(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])

    def stored(self) -> int:
        """Trades in the lake."""
        try:
            return int(self.lake.dataset("trades").count_rows())
        except RaytapeError:
            return 0

    def signalled(self) -> int:
        """Signals in the lake."""
        try:
            return int(self.lake.dataset("signals").count_rows())
        except RaytapeError:
            return 0

    def parts(self) -> set[str]:
        """Parts of the state of ``signals`` that its checkpoints have."""
        found = (self.folder / "checkpoints").glob(f"*/{FOLDER}/state/0/[0-9]*")
        return {path.name for path in found}

    def begun(self) -> None:
        """Start it and wait until it stores something new; that is how long it took to recover."""
        before, at = self.stored(), time.monotonic()
        self.start()
        self.sender.send(5)
        self.kept_alive_until(lambda: self.stored() > before)
        self.recovery_s.append(round(time.monotonic() - at, 1))

    def order_death(self, place: str) -> None:
        """Tell it where to die, and send until somebody did."""
        self.rounds += 1
        draft = self.order.with_suffix(".tmp")
        draft.write_text(place)
        draft.rename(self.order)
        deadline = time.monotonic() + PATIENCE_S
        while self.order.exists():
            if self.dead() and self.order.exists():
                self.again()
            assert time.monotonic() < deadline, f"nobody came to {place}\n{self.log()}"
            self.sender.send(self.rng.randrange(1, 6))
            time.sleep(0.1 + self.rng.random() / 5)

    def die_at(self, place: str) -> None:
        """Start it, see it store something, and let the driver die there."""
        self.begun()
        self.order_death(place)
        self.until(self.dead, timeout_s=60)

    def task_dies_at(self, place: str) -> None:
        """Let a task die there while the driver lives, and wait until the job goes on."""
        self.order_death(place)
        died, before = time.monotonic(), self.stored()
        sent = len(self.sender.trades)
        self.sender.send(3)
        self.kept_alive_until(lambda: self.stored() >= sent)
        assert self.stored() >= before
        self.recovery_s.append(round(time.monotonic() - died, 1))

    def forget(self) -> None:
        """Delete the checkpoints."""
        shutil.rmtree(self.folder / "checkpoints")

    def drained(self, *, maintenance_every_s: float = 0.5) -> dict[str, Any]:
        """Counters after a last, quiet run that stored everything there is."""
        self.sender.end_minute()
        path = self.folder / "stats.json"
        while not path.exists():
            assert self.restarts < MAX_RESTARTS, self.log()
            self.start(drain=True, maintenance_every_s=maintenance_every_s)
            self.until(self.dead)
            self.restarts += not path.exists()
        stats: dict[str, Any] = json.loads(path.read_text())
        assert stats["drained"], self.log()
        return stats

    def ledger(self, stats: dict[str, Any]) -> Ledger:
        """The balance, after :meth:`drained`."""
        sql = "SELECT symbol, trade_id AS n FROM trades ORDER BY symbol, bseq, position"
        trades = [(row["symbol"], row["n"]) for row in self.lake.sql(sql).to_pylist()]
        bars = self._starts("bars")
        archive = stats["archive"]
        return Ledger(
            rounds=self.rounds,
            restarts=self.restarts,
            **counted([*self.sender.trades, *self.sender.bars], [*trades, *bars]),
            disordered=sum(
                (numbers := [n for s, n in trades if s == symbol]) != sorted(numbers)
                for symbol in SYMBOLS
            ),
            holes=archive["holes"],
            counted=archive["stored"],
            recovery_s=self.recovery_s,
            **(self._decisions() if self._given["signals"] else {}),
        )

    def _starts(self, table: str) -> list[tuple[str, int]]:
        rows = self.lake.sql(f"SELECT symbol, event_time_ns AS n FROM {table}").to_pylist()
        return [(row["symbol"], row["n"]) for row in rows]

    def _decisions(self) -> dict[str, int]:
        wanted = self.sender.values()
        names = FEATURE_SPEC.names
        columns = ", ".join(names)
        rows = self.lake.sql(f"SELECT symbol, event_time_ns, {columns} FROM features").to_pylist()
        found = {(r["symbol"], r["event_time_ns"]): [r[n] for n in names] for r in rows}
        decided = Counter(self._starts("signals"))
        payloads = self.lake.sql("SELECT payload FROM signals")["payload"].to_pylist()
        lake = {(p["symbol"], p["event_time"]): p for p in map(orjson.loads, payloads)}
        published: dict[tuple[str, int], list[Any]] = {}
        for data in StreamTail(self.kinesis, self.kinesis.market_signals).read_after({}):
            for item in decode_items(data):
                if item["kind"] == "signal":
                    at = item["symbol"], parse_time_ns(item["event_time"])
                    published.setdefault(at, []).append(item["data"])
        held = {(s, parse_time_ns(t)): p for (s, t), p in lake.items()}
        return {
            "bars": len(found),
            "wrong": len(rows) - len(found)
            + sum(not _alike(found.get(at), values) for at, values in wanted.items())
            + len(found.keys() - wanted.keys()),
            "undecided": sum(decided[at] != 1 for at in wanted.keys() | decided.keys()),
            "unpublished": sum(
                not published.get(at) or any(data != held.get(at) for data in published[at])
                for at in wanted.keys() | published.keys()
            ),
        }  # fmt: skip


def _alike(got: list[float | None] | None, wanted: list[float | None]) -> bool:
    return got is not None and all(
        a == b or (a is not None and b is not None and abs(a - b) <= 1e-9 * max(1.0, abs(b)))
        for a, b in zip(got, wanted, strict=True)
    )
