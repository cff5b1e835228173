"""The suite ``platform``: the running platform under load, measured from outside.

One platform of its own on the stand-ins, 20 symbols at nearly ten times real time, with as many
ticks as make the wanted rate. Latencies are wall-clock differences between stamps of the same
machine.
"""

from __future__ import annotations

import http.client
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
from playwright.sync_api import sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cluster import processes, runtime
from cluster.settings import Settings
from pipelines.clock import MarketClock
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.ledger import lag_of
from tests.bench.rows import Row, Samples, Say
from tests.running import FAST, Running, platform, until

SYMBOLS = 20
SPEED = 9.7
"""Not 10: a minute of 6 s is twelve triggers of the query, and all bars would come in step."""
SETTLE_S, WARM_S = 90.0, 60.0
"""Longest time that the queries may need until they keep up, after a start on busy cores; and how
long they run then before anything is measured, for their JVMs still compile."""


class Listener(threading.Thread):
    """A client of the stream, as the page is one."""

    def __init__(self, running: Running, clock: MarketClock) -> None:
        super().__init__(daemon=True)
        self._address = running.settings.gateway_url.replace("http", "ws") + "/v1/stream"
        self._clock = clock
        self._stop = threading.Event()
        self.ticks = Samples()
        self.signals = Samples()
        self.recording = False

    def run(self) -> None:
        with connect(self._address, max_size=None) as socket:
            channels = ["trades", "quotes", "signals"]
            socket.send(
                orjson.dumps(
                    {"action": "subscribe", "channels": channels, "symbols": ["*"]}
                ).decode()
            )
            while not self._stop.is_set():
                try:
                    frame = socket.recv(timeout=0.5)
                except TimeoutError:
                    continue
                except ConnectionClosed:
                    return
                now = time.time_ns()
                document = orjson.loads(frame)
                for update in document if isinstance(document, list) else [document]:
                    if self.recording and not update.get("snapshot"):
                        self._note(update, now)

    def _note(self, update: dict[str, Any], now: int) -> None:
        channel, data = update.get("channel"), update.get("data")
        if channel in ("trades", "quotes"):
            self.ticks.values.append((now - parse_time_ns(data["received_at"])) / 1e6)
        elif channel == "signals":
            closed = self._clock.wall_at(parse_time_ns(data["event_time"]) + MINUTE_NS)
            self.signals.values.append((now - closed) / 1e6)

    def stop(self) -> None:
        self._stop.set()
        self.join(timeout=5)


def ask_signals(running: Running, seconds: float) -> Samples:
    """Latency of ``POST /v1/signals``, one request after the other on one connection."""
    samples = Samples()
    settings = running.settings
    client = http.client.HTTPConnection(settings.host, settings.gateway_port, timeout=10)
    deadline = time.monotonic() + seconds
    i = 0
    while time.monotonic() < deadline:
        body = orjson.dumps({"symbol": settings.symbols[i % SYMBOLS]})
        started = time.perf_counter()
        client.request("POST", "/v1/signals", body, {"content-type": "application/json"})
        answer = client.getresponse()
        answer.read()
        samples.values.append((time.perf_counter() - started) * 1000)
        assert answer.status == 200, answer.status
        i += 1
        time.sleep(0.005)  # a pace, not a wait: a closed loop without one measures itself
    client.close()
    return samples


def watch_page(running: Running, seconds: float) -> Samples:
    """What the page itself shows as tick latency, in a real browser; empty where there is none."""
    samples = Samples()
    executable = processes.program("chromium")
    if executable is None:
        return samples
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(running.settings.gateway_url + "/")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            page.wait_for_timeout(500)
            shown = page.get_by_test_id("latency").first.get_attribute("data-ms")
            if shown:
                samples.values.append(float(shown))
        browser.close()
    return samples


def counters(running: Running) -> dict[str, float]:
    producer, archive = running.stats("producer"), running.stats("archive")
    return {
        "at": time.monotonic(),
        "received": producer["received"],
        "acked": producer["acked"],
        "stored": archive["stored"],
    }


def memory_gb(settings: Settings) -> float:
    """Proportional set size of every process of this platform, GB."""
    total = 0
    marks = (str(settings.var_dir), str(runtime.ray_temp_dir(settings)))
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + str(process.environ())
            if process.pid != os.getpid() and any(mark in text for mark in marks):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e9


def settle(running: Running) -> None:
    """Wait until what came while Spark started is worked off, and both queries keep up."""
    looks = 0

    def keeps_up() -> bool:
        nonlocal looks
        late_ms, _ = lag_of(running.stats("signals"))
        looks = looks + 1 if counters(running)["stored"] and late_ms < 1000 else 0
        return looks == 5

    until(keeps_up, timeout_s=SETTLE_S, what="the signals up to date", poll_s=1)
    time.sleep(WARM_S)  # a stretch of the run, not a wait


def measure(running: Running, *, seconds: float, say: Say) -> list[Row]:
    clock = MarketClock.from_dict(running.exchange("/raytape/clock")["clock"])
    listener = Listener(running, clock)
    listener.start()
    say("warming up")
    settle(running)
    listener.recording = True
    before = counters(running)
    say(f"measuring under load for {seconds:.0f} s")
    loaded = ask_signals(running, seconds)
    after = counters(running)
    listener.recording = False
    memory = memory_gb(running.settings)
    listener.stop()
    say("opening the page in a browser")
    page = watch_page(running, 20)
    say("waiting for the market to finish, for the idle figures")
    until(
        lambda: running.exchange("/raytape/clock")["state"] == "finished",
        timeout_s=300,
        what="the market finished",
        poll_s=1,
    )
    running.ask("streaming", "drain", 60.0, timeout_s=70)
    idle = ask_signals(running, 10)
    took = after["at"] - before["at"]

    def rate(name: str) -> float:
        return (after[name] - before[name]) / took

    return [
        Row("exchange → producer", rate("received"), "msg/s", 5000, at_least=True),
        Row("exchange → Kinesis", rate("acked"), "msg/s", 5000, at_least=True),
        Row("exchange → Spark → lake", rate("stored"), "msg/s", 5000, at_least=True),
        Row("tick → client, p50", listener.ticks.at(0.5), "ms", 250),
        Row("tick → client, p99", listener.ticks.at(0.99), "ms", 1000),
        Row("tick → page in Chromium, p50", page.at(0.5), "ms", 250),
        Row("bar close → signal, p50", listener.signals.at(0.5), "ms", 1200),
        Row("bar close → signal, p95", listener.signals.at(0.95), "ms", 2500),
        Row("/v1/signals loaded, p50", loaded.at(0.5), "ms", 5),
        Row("/v1/signals loaded, p99", loaded.at(0.99), "ms", 30),
        Row("/v1/signals idle, p50", idle.at(0.5), "ms", 1.5),
        Row("memory, all processes", memory, "GB", 8),
    ]


def run(say: Say, *, rate: int = 5500, seconds: float = 60) -> list[Row]:
    """Start a platform of its own, load it, measure it.

    Args:
        say: Tells the user what is being done.
        rate: Messages per second offered.
        seconds: How long it is measured under load.
    """
    per_minute = int(rate * 60 / SPEED / SYMBOLS)
    minutes = int((seconds + SETTLE_S + WARM_S + 60) * SPEED / 60)
    with tempfile.TemporaryDirectory(prefix="raytape-bench-") as folder:
        chosen = {**FAST, "archive_trigger_s": 10, "speed": SPEED, "max_minutes": minutes}
        with platform(Path(folder), messages_per_minute=per_minute, **chosen) as running:
            return measure(running, seconds=seconds, say=say)
