"""How soon the job is back after ``kill -9``, under the load at which latency has its targets."""

from __future__ import annotations

import time

from pipelines.lake.query import LakeQuery
from tests.bench.platform import SPEED, SYMBOLS
from tests.bench.rows import Row, Say
from tests.bench.stream.embedded import embedded
from tests.bench.stream.latency import AT, both_queries
from tests.bench.stream.load import Load
from tests.bench.stream.running import MASTERS, running
from tests.bench.stream.tape import OPEN_NS, symbols_of
from tests.chaos.deciding import deciding
from tests.running import until

WARM_S, LONGEST_S = 30.0, 120.0
TARGET_S = 40.0


def restart(say: Say) -> list[Row]:
    """``kill -9`` for the job, Ray and all, and what it takes until the next one stores rows."""
    return [_restart(say, master) for master in MASTERS]


def _restart(say: Say, master: str) -> Row:
    with (
        embedded() as (folder, kinesis),
        deciding() as policy,
        Load(kinesis, symbols_of(SYMBOLS), AT, speed=SPEED, begin_ns=OPEN_NS),
    ):
        say(f"killed at {AT:,} messages a second on {master}")
        given = {"config": both_queries(policy), "history": False}
        with running(folder / "job", kinesis, master, **given) as job:
            job.stored(1)
            lake = LakeQuery(str(folder / "job" / "lake"))
            time.sleep(WARM_S)  # the load goes on; what is measured is a job that was at work
            job.check()
            job.kill()
            killed = time.monotonic()
            held = ticks_in(lake)
        with running(folder / "job", kinesis, master, **given) as job:
            until(
                lambda: job.check() or ticks_in(lake) > held,
                timeout_s=LONGEST_S, what="a new row after the kill",
            )  # fmt: skip
            took = time.monotonic() - killed
    return Row(f"kill -9 at {AT:,} msg/s → first new row, {master}", took, "s", TARGET_S)


def ticks_in(lake: LakeQuery) -> int:
    """How many trades and quotes a lake holds."""
    return sum(int(lake.dataset(name).count_rows()) for name in ("trades", "quotes"))
