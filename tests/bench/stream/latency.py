"""Bar close to feature row and to signal as the rate grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.bench.platform import SPEED, SYMBOLS
from tests.bench.rows import Row, Samples, Say
from tests.bench.stream.embedded import embedded
from tests.bench.stream.load import Derived, Load, Moments, between
from tests.bench.stream.running import MASTERS, JobProcess, running
from tests.bench.stream.tape import DAY_NS, OPEN_NS, symbols_of
from tests.chaos.deciding import deciding

BUILD = Path(__file__).parents[3] / "build"
LATENCIES = "streaming-latencies.json"
RATES = (500, 1000, 2000, 5000, 8000)
AT = 5000
"""The rate at which there are targets, messages a second."""
SETTLE_S, MEASURE_S, LONGEST_S = 6.0, 36.0, 60.0
TARGETS = (("p50", 0.5, 1000.0), ("p95", 0.95, 2500.0))
SIGNAL_TARGETS = (("p50", 0.5, 1200.0), ("p95", 0.95, 2500.0))


@dataclass(frozen=True, slots=True)
class Measured:
    """One rate on one master.

    Args:
        master: Spark's master.
        rate: Messages a second.
        sent: Bars sent.
        took: Milliseconds from sending a closed bar to its features, per bar.
        signals: The same to its signal.
        executor_mb: The most that executor and Python workers took until then, megabytes.
    """

    master: str
    rate: int
    sent: int
    took: Samples
    signals: Samples
    executor_mb: float


def latency(say: Say) -> list[Row]:
    """All rates on RayDP and on ``local[2]``; what is drawn is kept under ``build/``."""
    found = [one for master in MASTERS for one in sweep(say, master)]
    document = [
        {"master": one.master, "rate": one.rate, "sent": one.sent, "took_ms": one.took.values}
        for one in found
    ]
    BUILD.mkdir(exist_ok=True)
    (BUILD / LATENCIES).write_bytes(orjson.dumps(document))
    return rows_of(found)


def sweep(say: Say, master: str, rates: Sequence[int] = RATES) -> list[Measured]:
    """All rates, one after the other, on one job with both queries.

    The first is done twice, and counted once: JIT and Python workers are cold before. The policy
    is a stand-in that answers at once.
    """
    found = []
    with (
        embedded() as (folder, kinesis),
        deciding() as policy,
        running(folder / "job", kinesis, master, config=both_queries(policy), history=False) as job,
    ):
        job.event("running")
        with Derived(kinesis) as derived:
            for day, rate in enumerate((rates[0], *rates)):
                say(f"{rate:,} messages a second on {master}")
                load = Load(
                    kinesis, symbols_of(SYMBOLS), rate, speed=SPEED, begin_ns=OPEN_NS + day * DAY_NS
                )
                with load:
                    sent = _sent(job, load, derived)
                took, signals = (between(sent, x) for x in (derived.features, derived.signals))
                found.append(Measured(master, rate, len(sent), took, signals, job.executor_mb))
    return found[1:]


def both_queries(policy: str) -> dict[str, Any]:
    """Configuration of a job with both queries, as the platform runs it."""
    symbols = symbols_of(SYMBOLS)
    return {"signals": True, "archive_trigger_s": 10, "symbols": symbols, "policy_url": policy}


def _sent(job: JobProcess, load: Load, derived: Derived) -> Moments:
    """The bars of a stretch of time; the load goes on, so that the slowest are not left out."""
    time.sleep(SETTLE_S)
    before = set(load.bars)
    time.sleep(MEASURE_S)
    sent = {bar: ns for bar, ns in dict(load.bars).items() if bar not in before}
    deadline = time.monotonic() + LONGEST_S
    while sent.keys() - derived.signals.keys() and time.monotonic() < deadline:
        job.check()
        time.sleep(0.1)
    return sent


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """Four rows for each rate, those of :data:`AT` with targets; memory; bars that got nothing."""
    rows = [
        Row(
            f"{what} at {one.rate:,} msg/s, {name}, {one.master}",
            took.at(quantile),
            "ms",
            target if one.rate == AT else None,
        )
        for one in measured
        for what, took, targets in (
            ("event → feature row", one.took, TARGETS),
            ("bar sent → signal published", one.signals, SIGNAL_TARGETS),
        )
        for name, quantile, target in targets
    ]
    features = sum(one.sent - len(one.took.values) for one in measured)
    signals = sum(one.sent - len(one.signals.values) for one in measured)
    most = {one.master: one.executor_mb for one in measured}  # it only grows
    return [
        *rows,
        *(
            Row(f"memory of the executor with both queries, {master}", mb / 1000, "GB", 2)
            for master, mb in most.items()
        ),
        Row("bars without a feature row", features, "bars", 0),
        Row("bars without a signal", signals, "bars", 0),
    ]
