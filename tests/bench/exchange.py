"""The suite ``exchange``: how many messages a second one exchange sends, its recorder on.

The exchange runs in a process of its own on one core, its client on another. The market is made as
fast as it can be (every message is due at once), in frames of 20 messages. The baseline is a bare
loop in such a process: dictionaries that are there already are dated, packed and sent frame by
frame with the same library, without market, tape, subscriptions or queues. It does nothing but
what no sender can leave out, so it is a hard one: the exchange also makes the messages, encodes
each a second time for the tape, and compresses that.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgpack
import orjson
import psutil
from aiohttp import WSMsgType, web

from cluster.processes import free_port
from pipelines.events import SECOND_NS, Message, format_time_ns
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.market import remaining
from pipelines.exchange.playback import Playback
from pipelines.exchange.synthetic import SyntheticMarket
from tests.bench.rows import Row, Say

Codec = Literal["json", "msgpack"]
_CODECS: tuple[Codec, ...] = ("msgpack", "json")

FRAME = 20
PER_MINUTE = 600
MINUTES = 60
"""20 symbols, 600 messages a minute each: 720,000 messages."""

_START = date(2024, 7, 2)
_SETTLED = 0.1
"""Share of the messages at each end that is not timed: starting and running dry."""


@dataclass(frozen=True)
class Rate:
    """Messages a second, of the wall clock and of the server's own processor time.

    Both are one when its core is its own; on a shared machine only the second can be compared.
    """

    wall: float
    cpu: float


def run(say: Say) -> list[Row]:
    """Measure both codecs, and the bare loop beside them."""
    rates: dict[str, Rate] = {}
    for codec in _CODECS:
        say(f"exchange, recorder on, to one {codec} client")
        with tempfile.TemporaryDirectory(prefix="raytape-bench-") as folder:
            rates[codec] = _rate(_exchange(Path(folder)), codec)
        say(f"bare loop, {codec}")
        rates[f"bare {codec}"] = _rate([sys.executable, "-m", __name__, codec], codec)
    rows = []
    for codec, target, share in zip(_CODECS, (120_000, 60_000), (50, None), strict=True):
        ours, bare = rates[codec], rates[f"bare {codec}"]
        rows += [
            Row(f"exchange → one {codec} client", ours.wall, "msg/s", target, at_least=True),
            Row(f"exchange, {codec}, of its core's time", ours.cpu, "msg/s"),
            Row(f"bare loop, {codec}", bare.wall, "msg/s"),
            Row(f"bare loop, {codec}, of its core's time", bare.cpu, "msg/s"),
            Row(f"exchange : bare loop, {codec}", 100 * ours.cpu / bare.cpu, "%", share, True),
        ]
    return rows


def _exchange(folder: Path) -> list[str]:
    config = {
        "symbols": list(DEFAULT_SYMBOLS),
        "start_date": str(_START),
        "speed": 1e6,
        "messages_per_minute": PER_MINUTE,
        "max_minutes": MINUTES,
        "frame_messages": FRAME,
        "client_queue": 100_000_000,
        "record_dir": str(folder / "tape"),
    }
    path = folder / "exchange.json"
    path.write_bytes(orjson.dumps(config))
    return [sys.executable, "-m", "pipelines.exchange", str(path)]


def _rate(command: list[str], codec: Codec) -> Rate:
    """From a server of its own on one core to a client on another."""
    port = free_port()
    if command[2] == "pipelines.exchange":
        path = Path(command[3])
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "port": port}))
    else:
        command = [*command, str(port)]
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            os.sched_setaffinity(server.pid, {cores[0]})
            with _on(cores[-1]):
                return asyncio.run(_listen(port, codec, psutil.Process(server.pid)))
        finally:
            server.terminate()
            server.wait(30)


@contextmanager
def _on(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    yield
    os.sched_setaffinity(0, before)


async def _listen(port: int, codec: Codec, server: psutil.Process) -> Rate:
    """Count what comes until the market has ended; the client decodes no message."""
    url = f"ws://127.0.0.1:{port}/v2/iex"
    headers = {"Content-Type": f"application/{codec}"}
    async with aiohttp.ClientSession() as http:
        socket = await _connect(http, url, headers)
        await socket.receive()
        await socket.send_json({"action": "auth", "key": "k", "secret": "s"})
        await socket.receive()
        everything = {channel: ["*"] for channel in ("trades", "quotes", "bars")}
        await socket.send_json({"action": "subscribe", **everything})
        await socket.receive()
        before = _cpu_s(server)
        used, used_for = 0.0, 0
        marks: list[tuple[int, float]] = [(0, time.perf_counter())]
        count = 0
        while True:
            try:
                frame = await asyncio.wait_for(socket.receive(), 2)
            except TimeoutError:
                break  # the market has ended
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            count += _messages(frame.data)
            if len(marks) % 1000 == 0:
                used = _cpu_s(server) - before
                used_for = count
            marks.append((count, time.perf_counter()))
    timed = [m for m in marks if _SETTLED * count <= m[0] <= (1 - _SETTLED) * count]
    (first, begun), (last, ended) = timed[0], timed[-1]
    return Rate(wall=(last - first) / (ended - begun), cpu=used_for / used)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _connect(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> aiohttp.ClientWebSocketResponse:
    deadline = time.monotonic() + 30
    while True:
        try:
            return await http.ws_connect(url, headers=headers, max_msg_size=0)
        except aiohttp.ClientConnectionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def _messages(data: bytes | str) -> int:
    if isinstance(data, str):
        return data.count('{"T":')
    unpacker = msgpack.Unpacker()
    unpacker.feed(data[:5])
    return int(unpacker.read_array_header())


def _made() -> list[Message]:
    """The market's first messages."""
    source = SyntheticMarket(
        DEFAULT_SYMBOLS, seed=7, start_date=_START, max_sessions=1,
        trades_per_minute=PER_MINUTE / 3,
    )  # fmt: skip
    playback = Playback(
        source, remaining(source.playable(), after_ns=None, max_minutes=5), seed=7,
        messages_per_minute=PER_MINUTE,
    )  # fmt: skip
    messages: list[Message] = []
    while (batch := playback.due(2**62)) is not None:
        messages += map(orjson.loads, batch.json())
    return messages


def _bare(codec: Codec, port: int) -> None:
    messages = _made()
    frames = [messages[i : i + FRAME] for i in range(0, len(messages), FRAME)]
    total = PER_MINUTE * MINUTES * len(DEFAULT_SYMBOLS)

    def date_of(n: int) -> Any:
        if codec == "msgpack":
            return msgpack.Timestamp(1_720_000_000, n)
        return format_time_ns(1_720_000_000 * SECOND_NS + n)

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.send_json([])
        for _ in range(2):
            await socket.receive()
            await socket.send_json([])
        sent = 0
        while sent < total:
            for frame in frames:
                for n, message in enumerate(frame, sent):
                    message["t"] = date_of(n)
                if codec == "msgpack":
                    await socket.send_frame(msgpack.packb(frame), WSMsgType.BINARY)
                else:
                    await socket.send_frame(orjson.dumps(frame), WSMsgType.TEXT)
                sent += len(frame)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/v2/iex", stream)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    _bare(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]
