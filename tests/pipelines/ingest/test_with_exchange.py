"""The producer as a process of its own between our exchange and the embedded Kinesis; kill -9."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from dataclasses import asdict

import orjson
import pytest

from cluster import processes
from pipelines import codec
from pipelines.events import MARKET_TYPES, reject_reason
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.kinesis.batching import Batcher
from pipelines.kinesis.tail import StreamTail
from pipelines.tape import read_tape
from tests.pipelines.exchange.conftest import exchange  # noqa: F401 (a fixture)
from tests.pipelines.ingest.conftest import Running

SYMBOLS = ("SPY", "AAPL", "TSLA", "NVDA", "MSFT")

PROGRAM = """
import json, signal, sys, threading
from pathlib import Path
from pipelines.ingest.actor import ProducerActor
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.files import replace_text
from pipelines.kinesis.batching import Batcher
from pipelines.kinesis.tail import StreamTail
from pipelines.kinesis.writer import KinesisWriter
from pipelines.ports import KinesisConfig
settings = json.loads(sys.argv[1])
kinesis = KinesisConfig(**settings["kinesis"])
config = ProducerConfig(
    url=settings["url"], key="k", secret="s", symbols=tuple(settings["symbols"]),
    clock_url=settings["clock_url"], state_path=Path(settings["state_path"]), backoff_first_s=0.1,
)
actor = ProducerActor(
    config, lambda: KinesisWriter(kinesis, kinesis.market_data), Batcher,
    lambda: StreamTail(kinesis, kinesis.market_data),
)
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
out = Path(settings["stats"])
while not asked.wait(0.05):
    replace_text(out, json.dumps(actor.stats()))
drained = actor.drain(20)
replace_text(out, json.dumps({**actor.stats(), "drained": drained}))
"""


@pytest.fixture
def platform(kinesis, tmp_path):
    """An exchange, and a way to start producers."""
    run, port = tmp_path / "run", processes.free_port()
    settings = {
        "port": port, "symbols": SYMBOLS, "speed": 60, "messages_per_minute": 600,
        "max_minutes": 8, "record_dir": str(tmp_path / "tape"),
        "events": False, "correction_rate": 0, "cancel_rate": 0,
    }  # fmt: skip
    (tmp_path / "exchange.json").write_bytes(orjson.dumps(settings))
    market = processes.start(
        "exchange",
        [sys.executable, "-m", "pipelines.exchange", str(tmp_path / "exchange.json")],
        run_dir=run, log_dir=tmp_path / "log",
    )  # fmt: skip
    processes.wait_until(
        lambda: processes.port_in_use(port), name="exchange", timeout_s=30, child=market
    )
    given = {
        "kinesis": asdict(kinesis), "symbols": SYMBOLS, "url": f"ws://127.0.0.1:{port}/v2/iex",
        "clock_url": f"http://127.0.0.1:{port}/raytape/clock",
        "state_path": str(tmp_path / "state.json"), "stats": str(tmp_path / "stats.json"),
    }  # fmt: skip

    class Platform:
        tape = tmp_path / "tape"

        def produce(self):
            (tmp_path / "stats.json").unlink(missing_ok=True)
            return processes.start(
                "producer",
                [sys.executable, "-c", PROGRAM, json.dumps(given)],
                run_dir=run, log_dir=tmp_path / "log",
            )  # fmt: skip

        def stats(self):
            path = tmp_path / "stats.json"
            return json.loads(path.read_text()) if path.exists() else {}

        def received(self, n):
            """Whether so much came and is stored; on a slow machine the market is over before."""
            stats = self.stats()
            if min(stats.get("received", 0), stats.get("acked", 0)) > n:
                return True
            return stats.get("state") == "streaming" and self.market() == "finished"

        def until(self, condition, child=None):
            processes.wait_until(condition, name="producer", timeout_s=40, child=child, poll_s=0.02)

        def market(self):
            with urllib.request.urlopen(given["clock_url"]) as answer:
                return json.load(answer)["state"]

        def end_exchange(self):
            processes.stop(market, run_dir=run)

    yield Platform()
    for child in processes.running(run_dir=run):
        processes.stop(child, run_dir=run)


def test_producer_process_killed_twice_loses_nothing_in_silence(platform, kinesis, balance):
    for received in (1500, 4000):
        child = platform.produce()
        platform.until(lambda n=received: platform.received(n), child)
        os.killpg(child.pid, signal.SIGKILL)
        platform.until(lambda c=child: c.process() is None)
    child = platform.produce()
    platform.until(lambda: platform.market() == "finished", child)
    platform.until(lambda: platform.stats().get("gaps", 0) >= len(SYMBOLS), child)
    quiet = time.monotonic() + 3  # its last messages, and the gap rows if nothing comes any more
    platform.until(lambda: time.monotonic() > quiet and platform.stats().get("queued") == 0, child)
    os.kill(child.pid, signal.SIGTERM)
    platform.until(lambda: "drained" in platform.stats())
    platform.end_exchange()
    stats = platform.stats()
    assert stats["drained"], stats

    tape = list(read_tape(platform.tape))
    last: dict[tuple[str, int], int] = {}
    stored = []
    for data in StreamTail(kinesis, kinesis.market_data).read_after({}):
        record = codec.decode_record(data)
        lane = (record.epoch, record.bucket)
        if record.bseq <= last.get(lane, 0):
            continue
        assert record.bseq == last.get(lane, 0) + 1
        last[lane] = record.bseq
        stored += record.messages
    assert len({epoch for epoch, _ in last}) <= 3
    assert len(tape) > 6000
    lost = [text for texts in balance(tape, stored).values() for text in texts]
    gaps = [m for m in stored if m["T"] == "gap"]
    # Starved, it may declare too much.
    assert not [text for text in lost if text.endswith(" 0")], (gaps, stats)
    market = sum(m["T"] not in ("hb", "gap") for m in stored)
    assert stats["received"] == stats["acked"] == market
    assert stats["gaps"] == sum(m["T"] == "gap" for m in stored) >= len(SYMBOLS)


def test_test_feed_by_the_wall_clock_is_stored_and_not_quarantined(
    exchange,  # noqa: F811
    stream,
    tmp_path,
):
    """FAKEPACA is dated by the wall clock, whatever day the simulated market has."""
    market = exchange(test_interval_s=0.1)
    config = ProducerConfig(
        url=market.ws + "/v2/test", key="k", secret="s", symbols=("FAKEPACA",),
        state_path=tmp_path / "state.json", batch_ms=5,
    )  # fmt: skip
    running = Running(Producer(config, sink=stream, make_batcher=Batcher, tail=stream))
    running.until(lambda s: s["acked"] > 10)
    assert running.drain()
    for record in stream.records():
        for message in record.messages:
            if message["T"] in MARKET_TYPES:
                assert message["S"] == "FAKEPACA"
                assert reject_reason(message, market_ns=record.market_ns) is None
