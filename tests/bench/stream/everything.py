"""The whole platform at once: the rate it sustains, and how soon it is back after ``kill -9``."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil

from pipelines.clock import MarketClock
from pipelines.lake.query import LakeQuery
from tests.bench.platform import (
    SETTLE_S,
    SPEED,
    SYMBOLS,
    WARM_S,
    Listener,
    counters,
    memory_gb,
    settle,
)
from tests.bench.rows import Row, Say
from tests.bench.stream.restart import TARGET_S, ticks_in
from tests.running import FAST, Running, platform, until

RATE = 8500
"""Messages a second offered."""
MEASURE_S, RESTART_S = 40.0, 90.0
TARGET = 8000


def everything(say: Say) -> list[Row]:
    """Exchange, producer, Kinesis, both queries, serving: all of it on this machine."""
    minutes = int((SETTLE_S + WARM_S + MEASURE_S + RESTART_S + 120) * SPEED / 60)
    with tempfile.TemporaryDirectory(prefix="raytape-bench-") as folder:
        chosen = {**FAST, "archive_trigger_s": 10, "speed": SPEED, "max_minutes": minutes}
        per_minute = int(RATE * 60 / SPEED / SYMBOLS)
        say(f"a platform at {RATE:,} messages a second")
        with platform(Path(folder), messages_per_minute=per_minute, **chosen) as running:
            return [*sustained(running, say), *restart(running, say)]


def sustained(running: Running, say: Say) -> list[Row]:
    """What passes each stage in a stretch of time: of the lake one from batch to batch."""
    listener = Listener(running, MarketClock.from_dict(running.exchange("/raytape/clock")["clock"]))
    listener.start()
    settle(running)
    say(f"measuring for {MEASURE_S:.0f} s")
    listener.recording = True
    before = next_batch(running)
    time.sleep(MEASURE_S)
    underway = counters(running)
    after = next_batch(running)
    listener.recording = False
    took = after["at"] - before["at"]
    rates = {name: (after[name] - before[name]) / took for name in ("received", "acked", "stored")}
    listener.stop()
    waiting = underway["received"] - underway["stored"]
    return [
        Row("everything running, into the producer", rates["received"], "msg/s", TARGET, True),
        Row("everything running, into Kinesis", rates["acked"], "msg/s", TARGET, True),
        Row("everything running, into the lake", rates["stored"], "msg/s", TARGET, True),
        Row("received and not yet in the lake at the end", waiting, "messages"),
        Row("bar close → signal with everything, p50", listener.signals.at(0.5), "ms"),
        Row("bar close → signal with everything, p95", listener.signals.at(0.95), "ms"),
        Row("memory, all processes", memory_gb(running.settings), "GB"),
    ]


def next_batch(running: Running) -> dict[str, float]:
    """The counters just after the lake took a batch."""
    stored = counters(running)["stored"]

    def more() -> dict[str, float] | None:
        now = counters(running)
        return now if now["stored"] > stored else None

    counted: dict[str, float] = until(more, timeout_s=60, what="the lake's next batch")
    return counted


def restart(running: Running, say: Say) -> list[Row]:
    """``kill -9`` for Spark's driver; seconds until the lake holds a row more than it left."""
    pid = running.ask("streaming", "pid")
    lake = LakeQuery(running.settings.uri("lake"), running.settings.store_options())
    say("killing Spark's driver")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), timeout_s=10, what="the end of the driver")
    held = ticks_in(lake)
    until(lambda: ticks_in(lake) > held, timeout_s=RESTART_S, what="a new row after the kill")
    return [Row("kill -9 of the driver → first new row", time.monotonic() - began, "s", TARGET_S)]
