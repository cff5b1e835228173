"""A small feed server and a stream in memory, both with faults on demand."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from pipelines import codec
from pipelines.errors import StreamError
from pipelines.events import Message, Record, effective_ns, format_time_ns
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.kinesis.batching import Batcher
from pipelines.ports import Put, PutResult

MINUTE_NS = 60_000_000_000


class FakeFeed:
    """Speaks the protocol; its tape holds every message published, sent or not."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tape: list[Message] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self.actions: list[dict[str, Any]] = []
        self.on_connect: list[list[dict[str, Any]]] = []
        self.refuse: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None
        self._subscribers: dict[ServerConnection, dict[str, set[str]]] = {}
        self._last_ns = 0
        self._server: Server = serve(self._serve, "127.0.0.1", 0, compression=None)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v2/iex"

    def close(self) -> None:
        self.drop()
        self._server.shutdown()
        self._thread.join(5)

    def _serve(self, ws: ServerConnection) -> None:
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        binary = "msgpack" in (ws.request.headers.get("Content-Type") or "")
        ws.binary = binary
        try:
            if self.on_connect:
                self._say(ws, self.on_connect.pop(0))
                return
            self._say(ws, [{"T": "success", "msg": "connected"}])
            for raw in ws:
                self._act(ws, _decode_action(raw, binary))
        except ConnectionClosed:
            pass
        finally:
            self.open_now -= 1
            with self.lock:
                self._subscribers.pop(ws, None)

    def _act(self, ws: ServerConnection, action: dict[str, Any]) -> None:
        with self.lock:
            self.actions.append(action)
            refusal = self.refuse(action)
            if refusal is not None:
                self._say(ws, [refusal])
                return
            if action["action"] == "auth":
                self._say(ws, [{"T": "success", "msg": "authenticated"}])
                return
            has = self._subscribers.setdefault(ws, {})
            for channel in action.keys() - {"action"}:
                symbols = has.setdefault(channel, set())
                if action["action"] == "subscribe":
                    symbols |= set(action[channel])
                else:
                    symbols -= set(action[channel])
            lists = {channel: sorted(symbols) for channel, symbols in has.items()}
            self._say(ws, [{"T": "subscription", **lists}])

    def _say(self, ws: ServerConnection, messages: Sequence[Message]) -> None:
        if ws.binary:
            ws.send(codec.encode_msgpack_frame(messages))
        else:
            ws.send(codec.encode_json_frame(messages).decode())

    def publish(self, messages: Sequence[Message]) -> None:
        """Put messages on the tape and send each subscriber its own, in one frame."""
        with self.lock:
            self.tape += [dict(m) for m in messages]
            for ws, has in list(self._subscribers.items()):
                mine = [m for m in messages if _asked_for(m, has)]
                if mine:
                    with contextlib.suppress(ConnectionClosed, OSError):
                        self._say(ws, mine)

    def send_raw(self, frame: bytes | str) -> None:
        with self.lock:
            for ws in list(self._subscribers):
                ws.send(frame)

    def drop(self, *, mid_frame: bool = False) -> None:
        """End every connection without a word, if asked with a frame begun."""
        with self.lock:
            for ws in list(self._subscribers):
                self._subscribers.pop(ws)
                with contextlib.suppress(OSError):
                    if mid_frame:
                        ws.socket.sendall(b"\x82\x7e\x40\x00half")
                    ws.socket.shutdown(2)

    def now_ns(self) -> int:
        """Wall time, never the same twice."""
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return self._last_ns

    def trade(self, symbol: str, **changed: Any) -> Message:
        t = format_time_ns(self.now_ns())
        return {"T": "t", "S": symbol, "i": 1, "p": 10.5, "s": 100, "t": t, "c": ["@"], **changed}

    def bars(self, symbols: Iterable[str]) -> list[Message]:
        """The bars of a minute that ends now: all of one effective time."""
        t = format_time_ns(self.now_ns() - MINUTE_NS)
        ohlc = {"o": 10.0, "h": 11.0, "l": 9.0, "c": 10.5, "v": 100, "n": 3, "vw": 10.1}
        return [{"T": "b", "S": symbol, **ohlc, "t": t} for symbol in symbols]


CHANNEL_OF = {
    "t": "trades", "q": "quotes", "b": "bars", "u": "updatedBars", "d": "dailyBars",
    "s": "statuses", "l": "lulds", "c": "trades", "x": "trades", "i": "imbalances", "n": "news",
}  # fmt: skip


def _asked_for(message: Message, has: Mapping[str, set[str]]) -> bool:
    symbols = has.get(CHANNEL_OF[message["T"]], set())
    about = message.get("symbols") or [message["S"]]
    return "*" in symbols or bool(symbols.intersection(about))


def _decode_action(raw: bytes | str, binary: bool) -> dict[str, Any]:
    if binary:
        import msgpack

        return msgpack.unpackb(raw)
    return orjson.loads(raw)


@dataclass
class MemoryStream:
    """A stream of two shards in memory: a sink and a tail reader, with faults on demand."""

    shards: int = 2
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    refuse: float = 0.0
    lose_answer: float = 0.0
    down: bool = False
    name: str = "memory@1"
    stored: list[tuple[str, int, Put]] = field(default_factory=list)
    calls: int = 0

    def put(self, records: Sequence[Put]) -> list[PutResult]:
        self.calls += 1
        if self.down:
            raise StreamError("down")
        results = []
        order = list(range(len(records)))
        self.rng.shuffle(order)  # PutRecords keeps no order among its entries
        outcome: dict[int, PutResult] = {}
        for i in order:
            if self.rng.random() < self.refuse:
                outcome[i] = PutResult(error="ProvisionedThroughputExceededException")
                continue
            shard, sequence = f"shard-{int(records[i].key) % self.shards}", len(self.stored) + 1
            self.stored.append((shard, sequence, records[i]))
            outcome[i] = PutResult(sequence=str(sequence), shard=shard)
        results = [outcome[i] for i in range(len(records))]
        if self.rng.random() < self.lose_answer:
            raise StreamError("no answer")
        return results

    def identity(self) -> str:
        if self.down:
            raise StreamError("down")
        return self.name

    def read_after(self, positions: Mapping[str, str]) -> Iterator[bytes]:
        for shard, sequence, put in list(self.stored):
            if sequence > int(positions.get(shard, "0")):
                yield put.data

    def records(self) -> list[Record]:
        """The records without repeats; fails on a hole or a record that changed."""
        last: dict[tuple[str, int], int] = {}
        seen: dict[tuple[str, int, int], bytes] = {}
        out = []
        for _, _, put in list(self.stored):
            record = codec.decode_record(put.data)
            lane = (record.epoch, record.bucket)
            assert put.key == str(record.bucket)
            if record.bseq <= last.get(lane, 0):
                assert seen[(*lane, record.bseq)] == put.data
                continue
            assert record.bseq == last.get(lane, 0) + 1
            last[lane] = record.bseq
            seen[(*lane, record.bseq)] = put.data
            out.append(record)
        return out

    def messages(self, *kinds: str) -> list[Message]:
        found = [m for record in self.records() for m in record.messages]
        return [m for m in found if not kinds or m["T"] in kinds]


class Running:
    """A producer in a thread."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.thread = threading.Thread(target=producer.run, daemon=True)
        self.thread.start()

    def until(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition(self.producer.stats()):
            assert time.monotonic() < deadline, str(self.producer.stats())
            time.sleep(0.005)

    def streaming(self) -> None:
        self.until(lambda s: s["state"] == "streaming")

    def drain(self, timeout_s: float = 10) -> bool:
        done = self.producer.drain(timeout_s)
        self.thread.join(5)
        return done


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    server = FakeFeed()
    yield server
    server.close()


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream()


@pytest.fixture
def make_config(feed: FakeFeed, tmp_path: Path) -> Callable[..., ProducerConfig]:
    def make(**changed: Any) -> ProducerConfig:
        settings: dict[str, Any] = {
            "url": feed.url,
            "key": "key-id",
            "secret": "very-secret",
            "symbols": ("SPY", "AAPL", "TSLA"),
            "state_path": tmp_path / "producer.json",
            "batch_ms": 5,
            "backoff_first_s": 0.02,
            "backoff_cap_s": 0.1,
            "heartbeat_s": 0.2,
            "state_save_s": 0.05,
        }
        return ProducerConfig(**{**settings, **changed})

    return make


@pytest.fixture
def start(
    make_config: Callable[..., ProducerConfig], stream: MemoryStream
) -> Iterator[Callable[..., Running]]:
    """Starts producers; ends those that a test left running."""
    running: list[Running] = []

    def begin(
        *,
        sink: Any = None,
        tail: Any = None,
        lake: Any = None,
        history: Any = None,
        **changed: Any,
    ) -> Running:
        producer = Producer(
            make_config(**changed),
            sink=sink or stream,
            make_batcher=Batcher,
            tail=tail or stream,
            lake=lake,
            history=history,
            rng=random.Random(5),
        )
        running.append(Running(producer))
        return running[-1]

    yield begin
    for one in running:
        one.producer.stop()
        one.thread.join(10)


def balance(tape: Sequence[Message], stored: Sequence[Message]) -> dict[str, list[str]]:
    """Per symbol, the times of the tape that are neither stored nor inside a gap row, or both.

    At the first and at the last instant of a gap, both is right.
    """
    wrong: dict[str, list[str]] = {}
    for symbol in {m["S"] for m in tape}:
        got = [
            (m["T"], m["t"])
            for m in stored
            if m["T"] not in ("hb", "gap", "bad") and m["S"] == symbol
        ]
        assert len(got) == len(set(got)), "stored twice"
        want = [(m["T"], m["t"], effective_ns(m)) for m in tape if m["S"] == symbol]
        order = [(kind, t) for kind, t, _ in want]
        assert got == [key for key in order if key in set(got)], "order"
        gaps = [m for m in stored if m["T"] == "gap" and m["S"] == symbol]
        for kind, t, at_ns in want:
            inside = sum((g["from_ns"] or 0) < at_ns < g["to_ns"] for g in gaps)
            edge = any(at_ns in ((g["from_ns"] or 0) + 1, g["to_ns"] - 1) for g in gaps)
            here = (kind, t) in set(got)
            if inside + here != 1 and not (here and edge and inside == 1):
                wrong.setdefault(symbol, []).append(f"{kind} {t} {inside}")
    return wrong


@pytest.fixture(name="balance")
def _balance() -> Callable[[Sequence[Message], Sequence[Message]], dict[str, list[str]]]:
    return balance


@pytest.fixture
def wait() -> Callable[[Callable[[], object]], None]:
    """Polls a condition until it holds, at most 15 s."""

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline, "it did not come about in 15 s"
            time.sleep(0.005)

    return until
