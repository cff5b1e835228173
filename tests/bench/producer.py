"""The producer: messages a second from a real socket into nothing, and into the embedded Kinesis.

Feed and Kinesis run on one core, the producer on the other. Speeds that share a machine with
others are given per second of the producer's own CPU time as well.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import boto3
import orjson
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from cluster import local_aws, processes
from pipelines import codec
from pipelines.errors import StreamError
from pipelines.events import Record, bucket_of, format_time_ns
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.kinesis.batching import Batcher
from pipelines.kinesis.writer import KinesisWriter
from pipelines.ports import KinesisConfig, Put, PutResult, RecordSink
from tests.bench.rows import Row, Samples, Say

SYMBOLS = DEFAULT_SYMBOLS
PER_FRAME = 20
MESSAGES = 240_000
OUTAGE_S = 60.0
OUTAGE_RATE = 50_000
"""Messages a second, ten times the usual load."""

RECEIVED = re.compile(rb'"r":(\d+)')

_CPUS = sorted(os.sched_getaffinity(0))
MINE, OTHERS = _CPUS[0], _CPUS[-1]


@dataclass(frozen=True, slots=True)
class Load:
    """What the feed sends.

    Args:
        codec: Encoding.
        messages: How many.
        rate: Messages a second; 0 for as fast as they are taken.
        per_frame: Messages of a frame.
    """

    codec: str = "msgpack"
    messages: int = MESSAGES
    rate: float = 0.0
    per_frame: int = PER_FRAME


def frames(load: Load) -> list[bytes]:
    """The frames of a load: a third trades, two thirds quotes, of all symbols."""
    rng = random.Random(1)
    now_ns = time.time_ns()
    encode = codec.encode_msgpack_frame if load.codec == "msgpack" else codec.encode_json_frame
    out, batch = [], []
    for n in range(load.messages):
        price = round(100 + rng.random(), 2)
        common = {"S": rng.choice(SYMBOLS), "t": format_time_ns(now_ns + n * 1000), "z": "C"}
        if n % 3 == 0:
            batch.append({"T": "t", "i": n, "x": "V", "p": price, "s": 100, "c": ["@"], **common})
        else:
            batch.append(
                {"T": "q", "bx": "V", "bp": price, "bs": 2, "ax": "Q", "ap": price + 0.01,
                 "as": 3, "c": ["R"], **common}
            )  # fmt: skip
        if len(batch) == load.per_frame:
            out.append(encode(batch))
            batch = []
    return out


def feed(load: Load, port: Any, go: Event) -> None:
    """A server of the feed's protocol that sends its frames once (the feed's process)."""
    psutil.Process().cpu_affinity([OTHERS])
    made = frames(load)

    def say(ws: ServerConnection, message: dict[str, Any]) -> None:
        binary = load.codec == "msgpack"
        encode = codec.encode_msgpack_frame if binary else codec.encode_json_frame
        data = encode([message])
        ws.send(data if binary else data.decode())

    def handle(ws: ServerConnection) -> None:
        say(ws, {"T": "success", "msg": "connected"})
        ws.recv()
        say(ws, {"T": "success", "msg": "authenticated"})
        ws.recv()
        lists = {channel: list(SYMBOLS) for channel in ("trades", "quotes", "bars")}
        say(ws, {"T": "subscription", **lists})
        go.wait()
        with contextlib.suppress(ConnectionClosed):
            _send(ws, made, load)
            for _ in ws:
                pass

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        port.value = server.socket.getsockname()[1]
        server.serve_forever()


def _send(ws: ServerConnection, made: Sequence[bytes], load: Load) -> None:
    text = load.codec == "json"
    began = time.monotonic()
    for n, frame in enumerate(made):
        if load.rate:
            due = began + n * load.per_frame / load.rate
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
        ws.send(frame, text=text)


@contextlib.contextmanager
def feeding(load: Load) -> Iterator[tuple[str, Event]]:
    """A feed in a process of its own; its address, and the sign to begin."""
    context = mp.get_context("spawn")
    port, go = context.Value("i", 0), context.Event()
    child = context.Process(target=feed, args=(load, port, go), daemon=True)
    child.start()
    try:
        _wait_for(lambda: port.value != 0, timeout_s=240)
        yield f"ws://127.0.0.1:{port.value}/v2/iex", go
    finally:
        child.kill()
        child.join()


@dataclass
class Nothing:
    """A sink that accepts at once, unless it is down."""

    down: bool = False

    def identity(self) -> str:
        return "nothing@1"

    def put(self, records: Sequence[Put]) -> list[PutResult]:
        if self.down:
            raise StreamError("down")
        return [PutResult(sequence="1", shard="s")] * len(records)


class Keeping:
    """A sink that notes when each record was stored."""

    def __init__(self, sink: KinesisWriter) -> None:
        self._sink = sink
        self.kept: list[tuple[int, Sequence[Put]]] = []

    def identity(self) -> str:
        return self._sink.identity()

    def put(self, records: Sequence[Put]) -> list[PutResult]:
        results = self._sink.put(records)
        self.kept.append((time.time_ns(), records))
        return results


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the producer.

    Args:
        per_s: Messages a second, from the first to the last.
        per_cpu_s: Messages a second of its CPU time.
        rss_mb: Most resident memory, megabytes.
        stats: What it said at the end.
    """

    per_s: float
    per_cpu_s: float
    rss_mb: float
    stats: dict[str, Any]


def produce(
    load: Load, sink: RecordSink, *, during: Callable[[Producer], None] | None = None
) -> Measured:
    """Run a producer on this process's core until it has stored the whole load."""
    folder = Path(tempfile.mkdtemp(prefix="raytape-bench-"))
    me = psutil.Process()
    with feeding(load) as (url, go):
        me.cpu_affinity([MINE])
        producer = Producer(
            ProducerConfig(
                url=url, key="k", secret="s", symbols=SYMBOLS, codec=load.codec,  # type: ignore[arg-type]
                state_path=folder / "state.json",
            ),
            sink=sink,
            make_batcher=Batcher,
        )  # fmt: skip
        thread = threading.Thread(target=producer.run, daemon=True)
        thread.start()
        try:
            _wait_for(lambda: producer.stats()["state"] == "streaming")
            go.set()
            _wait_for(lambda: producer.stats()["received"] > 0)
            began, cpu, rss = time.monotonic(), sum(me.cpu_times()[:2]), 0
            if during is not None:
                during(producer)
            while (stats := producer.stats())["acked"] < load.messages:
                rss = max(rss, me.memory_info().rss)
                time.sleep(0.02)
                if producer.finished:
                    raise RuntimeError(f"the producer ended: {stats}")
            took, cpu = time.monotonic() - began, sum(me.cpu_times()[:2]) - cpu
            return Measured(load.messages / took, load.messages / cpu, rss / 1e6, stats)
        finally:
            producer.stop()
            thread.join(10)
            me.cpu_affinity(_CPUS)
            shutil.rmtree(folder, ignore_errors=True)


def bare_loop(load: Load, config: KinesisConfig, per_put: int) -> float:
    """Messages a second of decode + PutRecords in batches of the producer's size, nothing else."""
    psutil.Process().cpu_affinity([MINE])
    client = boto3.client("kinesis", **config.client_kwargs())
    with feeding(load) as (url, go), _joined(url, load) as ws:
        go.set()
        done, began = 0, time.monotonic()
        waiting: list[dict[str, Any]] = []
        while done < load.messages:
            waiting += codec.decode_msgpack_frame(ws.recv())
            if len(waiting) >= per_put or done + len(waiting) == load.messages:
                entries = [
                    {"Data": data, "PartitionKey": str(bucket)}
                    for bucket, data in _records(waiting)
                ]
                client.put_records(StreamName=config.market_data, Records=entries)
                done += len(waiting)
                waiting = []
        took = time.monotonic() - began
    client.close()
    psutil.Process().cpu_affinity(_CPUS)
    return load.messages / took


def naive(load: Load, config: KinesisConfig, seconds: float = 3.0) -> float:
    """Messages a second of a client that puts each message alone."""
    psutil.Process().cpu_affinity([MINE])
    client = boto3.client("kinesis", **config.client_kwargs())
    with feeding(load) as (url, go), _joined(url, load) as ws:
        go.set()
        done, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            for message in codec.decode_msgpack_frame(ws.recv()):
                client.put_record(
                    StreamName=config.market_data,
                    Data=orjson.dumps(message),
                    PartitionKey=message["S"],
                )
                done += 1
        took = time.monotonic() - began
    client.close()
    psutil.Process().cpu_affinity(_CPUS)
    return done / took


@contextlib.contextmanager
def _joined(url: str, load: Load) -> Iterator[Any]:
    with connect(url, compression=None, max_size=None) as ws:
        ws.recv()
        ws.send(b"auth")
        ws.recv()
        ws.send(b"subscribe")
        ws.recv()
        yield ws


def _records(messages: Sequence[dict[str, Any]]) -> list[tuple[int, bytes]]:
    by_bucket: dict[int, list[dict[str, Any]]] = {}
    for message in messages:
        by_bucket.setdefault(bucket_of(message["S"]), []).append(message)
    return [(b, codec.encode_record(Record("e", b, 1, 1, 1, of))) for b, of in by_bucket.items()]


def latencies(kept: Sequence[tuple[int, Sequence[Put]]]) -> Samples:
    """Milliseconds from the receipt of a message to the answer that stored it."""
    return Samples([
        (at_ns - int(received)) / 1e6
        for at_ns, puts in kept
        for put in puts
        for received in RECEIVED.findall(put.data)
    ])  # fmt: skip


def _wait_for(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark waits in vain")
        time.sleep(0.01)


@contextlib.contextmanager
def kinesis() -> Iterator[KinesisConfig]:
    """An embedded Kinesis on the other core."""
    folder = Path(tempfile.mkdtemp(prefix="raytape-bench-"))
    port = processes.free_port()
    child = local_aws.start_kinesis(
        port=port, path=folder / "db", run_dir=folder / "run", log_dir=folder / "log"
    )
    psutil.Process(child.pid).cpu_affinity([OTHERS])
    config = local_aws.embedded_kinesis(port)
    try:
        local_aws.ensure_streams(config, shards=2)
        yield config
    finally:
        processes.stop(child, run_dir=folder / "run")
        shutil.rmtree(folder, ignore_errors=True)


def run(say: Say) -> list[Row]:
    """All rows; takes about six minutes, most of them for making messages and for the outage."""
    rows: list[Row] = []
    most_mb = 0.0
    for name, target in (("msgpack", 40_000), ("json", 25_000)):
        say(f"{name} into a sink that accepts at once")
        got = produce(Load(codec=name), Nothing())
        most_mb = max(most_mb, got.rss_mb)
        rows += [
            Row(f"{name}, sink accepts at once", got.per_s, "msg/s", target, at_least=True),
            Row(f"{name}, per second of its CPU", got.per_cpu_s, "msg/s"),
        ]
    with kinesis() as config:
        say("into the embedded Kinesis, and a bare loop with the same batches")
        load = Load()
        sink = Keeping(KinesisWriter(config, config.market_data))
        got = produce(load, sink)
        bare = bare_loop(load, config, max(1, load.messages // max(1, len(sink.kept))))
        most_mb = max(most_mb, got.rss_mb)
        rows += [
            Row("into the embedded Kinesis", got.per_s, "msg/s", 15_000, at_least=True),
            Row("bare loop of decode + PutRecords", bare, "msg/s"),
            Row("of the bare loop", 100 * got.per_s / bare, "%", 50, at_least=True),
            Row("naive client: one PutRecord a message", naive(load, config), "msg/s"),
        ]
        for what, load, p50 in (
            ("5,000 msg/s", Load(messages=60_000, rate=5000, per_frame=5), 45),
            ("50 msg/s", Load(messages=500, rate=50, per_frame=1), 20),
        ):
            say(f"frame to stored record at {what}")
            sink = Keeping(KinesisWriter(config, config.market_data))
            got = produce(load, sink)
            took = latencies(sink.kept)
            rows += [
                Row(f"frame → stored at {what}, p50", took.at(0.5), "ms", p50),
                Row(f"frame → stored at {what}, p99", took.at(0.99), "ms"),
            ]
    rows += [Row("resident memory under load", most_mb, "MB", 512), *outage(say)]
    return rows


def outage(say: Say) -> list[Row]:
    """A sink that is down for a minute at ten times the usual load of 5,000 messages a second."""
    say(f"the sink is down for {OUTAGE_S:.0f} s")
    load = Load(messages=int(OUTAGE_S * OUTAGE_RATE), rate=OUTAGE_RATE, per_frame=50)
    sink = Nothing(down=True)

    def during(producer: Producer) -> None:
        deadline = time.monotonic() + OUTAGE_S
        while time.monotonic() < deadline:
            peaks.append(psutil.Process().memory_info().rss / 1e6)
            time.sleep(0.1)
        sink.down = False
        began.append(time.monotonic())

    peaks: list[float] = []
    began: list[float] = []
    got = produce(load, sink, during=during)
    drained_s = time.monotonic() - began[0]
    return [
        Row("resident memory, sink down 60 s at 10×", max(*peaks, got.rss_mb), "MB", 512),
        Row("messages that waited on disk", float(got.stats["spilled_total"]), "messages"),
        Row("drained after", drained_s, "s"),
    ]
