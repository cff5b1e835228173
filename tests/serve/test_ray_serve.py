"""The applications in Ray Serve behind HAProxy, over the embedded Kinesis, from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import orjson
import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from cluster import local_aws
from cluster.processes import free_port
from pipelines import codec
from pipelines.clock import wall_ns
from pipelines.events import bucket_of
from pipelines.features.spec import FEATURE_SPEC
from pipelines.ports import KinesisConfig
from rl.baselines import rules_model
from rl.registry import Registry
from serve.config import FeedConfig, ServeConfig
from serve.ingress import socket_dir
from tests.serve.conftest import bar, features_item, record, trade

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
START_S, DEADLINE_S = 150, 20


@dataclass
class Platform:
    port: int
    registry: Registry
    kinesis: KinesisConfig
    process: subprocess.Popen[str]
    ports: dict[str, int]
    bseq: int = 0

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def put_messages(self, *messages: dict[str, Any]) -> None:
        self.bseq += 1
        made = record(*messages, bseq=self.bseq, wall=wall_ns())
        self._put(self.kinesis.market_data, codec.encode_record(made), str(made.bucket))

    def put_items(self, *items: dict[str, Any]) -> None:
        data = codec.encode_items(items)
        self._put(self.kinesis.market_signals, data, str(bucket_of("SPY")))

    def _put(self, stream: str, data: bytes, key: str) -> None:
        client = boto3.client("kinesis", **self.kinesis.client_kwargs())
        client.put_record(StreamName=stream, Data=data, PartitionKey=key)
        client.close()


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        value = found()
        if value or time.monotonic() > deadline:
            assert value
            return value
        time.sleep(0.05)


@pytest.fixture(scope="module")
def platform(
    kinesis_server: KinesisConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("serve")
    kinesis = replace(kinesis_server, market_data="serve-data", market_signals="serve-signals")
    local_aws.ensure_streams(kinesis, shards=2)
    ports = {name: free_port() for name in ("metrics_port", "stats_port", "fallback_port")}
    given = {
        "kinesis": asdict(kinesis), "registry_uri": str(folder / "models"), "port": free_port(),
        "run_dir": str(folder / "haproxy"), "lake_uri": str(folder / "lake"), **ports,
    }  # fmt: skip
    script = Path(__file__).with_name("ray_platform.py")
    log = folder / "platform.log"
    with log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, script, json.dumps(given)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=err, text=True, cwd=script.parents[2],
        )  # fmt: skip
        family = psutil.Process(process.pid)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", log.read_text()[-2000:]
            made = Platform(given["port"], Registry(given["registry_uri"]), kinesis, process, ports)
            yield made
            children = family.children(recursive=True)
            made.say("stop")
            process.wait(60)
            _, alive = psutil.wait_procs(children, timeout=10)
            assert not [p.name() for p in alive]
            config = ServeConfig(
                feed=FeedConfig(kinesis=kinesis), registry_uri="", run_dir=Path(given["run_dir"])
            )
            assert not socket_dir(config).exists()
        finally:
            if process.poll() is None:
                for child in family.children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.fixture
def client(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{platform.port}", timeout=10) as made:
        yield made


@pytest.fixture
def socket(platform: Platform) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{platform.port}/v1/stream", proxy=None) as made:
        yield made


def hear(socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        message: dict[str, Any] = orjson.loads(socket.recv(timeout=DEADLINE_S))
        if wanted(message):
            return message
    raise AssertionError("not heard in time")


def subscribe(socket: ClientConnection, *channels: str) -> None:
    wanted = {"action": "subscribe", "channels": channels, "symbols": ["*"]}
    socket.send(orjson.dumps(wanted).decode())
    hear(socket, lambda m: m["channel"] == "subscribed")


def test_every_application_answers_behind_one_port(client: httpx.Client) -> None:
    statuses = {
        path: client.get(path).status_code
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/v1/symbols", "/v1/signals/SPY")
    }
    assert set(statuses.values()) == {200}, statuses
    # Feed and streams are there; producer and Spark are no part of this test.
    ready = until(lambda: (r := client.get("/readyz").json())["parts"]["streams"] and r)
    assert ready["reasons"] == ["producer: no answer", "streaming: no answer"]
    assert client.get("/readyz").status_code == 503
    assert client.get("/v1/models").json()["items"][0]["id"] == "rules-1"
    assert client.get("/v1/gaps").json()["items"] == []


def test_errors_keep_their_shape_through_haproxy(client: httpx.Client) -> None:
    cases = [
        (client.post("/v1/signals", json={"symbol": "ZZZ"}), 404),
        (client.post("/v1/signals", json={"symbol": "SPY", "features": []}), 422),
        (client.get("/v1/bars/ZZZ"), 404),
        (client.get("/v1/unknown"), 404),
    ]
    for response, status in cases:
        assert response.status_code == status
        assert set(response.json()["error"]) == {"code", "message", "detail"}


def test_tick_goes_from_the_stream_to_the_socket_and_to_rest(platform, client, socket) -> None:
    subscribe(socket, "trades", "system")
    platform.put_messages(trade(price=321.5), bar(i=0))
    heard = hear(socket, lambda m: m["channel"] == "trades")
    assert (heard["symbol"], heard["data"]["price"]) == ("SPY", 321.5)
    hear(socket, lambda m: m["channel"] == "system")
    bars = until(lambda: client.get("/v1/bars/SPY").json()["items"])
    assert bars[0]["close"] == 100.0
    latest = until(lambda: client.get("/v1/latest/SPY").json()["trade"])
    assert latest["data"]["price"] == 321.5


def test_batch_asked_twice_gives_one_answer_and_latest_repeats_it(platform, client) -> None:
    row = [0.0] * 11
    wanted = {
        "symbols": ["SPY"], "features": [row], "reasons": [None],
        "bars": [{"event_time": "2024-07-05T13:30:00Z", "open": 100.0, "close": 100.0}],
    }  # fmt: skip
    first = client.post("/v1/signals/batch", json=wanted).json()
    assert client.post("/v1/signals/batch", json=wanted).json() == first
    platform.put_items(features_item())
    asked = lambda: client.post("/v1/signals", json={"symbol": "SPY"}).json()  # noqa: E731
    latest = until(lambda: asked() if asked()["event_time"] else None)
    assert latest["decided_at"] == first["signals"][0]["decided_at"]
    assert latest["model"]["fingerprint"] == FEATURE_SPEC.fingerprint


def test_promoted_model_is_swapped_in_without_ending_sockets(platform, client, socket) -> None:
    subscribe(socket, "system")
    manifest, onnx = rules_model()
    ref = platform.registry.register(replace(manifest, id="ppo"), onnx)
    platform.registry.promote(ref)
    wanted = {"symbol": "SPY", "features": [0.0] * 11}
    answer = until(
        lambda: next(
            (a for a in [client.post("/v1/signals", json=wanted).json()] if not a["reason"]), None
        )
    )
    assert answer["model"]["id"] == "ppo"
    hear(socket, lambda m: m["channel"] == "system")


def test_killed_feed_comes_back_and_sockets_go_on(platform, socket) -> None:
    subscribe(socket, "trades", "system")
    before = hear(socket, lambda m: m["channel"] == "system")["seq"]
    platform.say("kill-feed")

    def back(message: dict[str, Any]) -> bool:
        if message["channel"] != "system" or message["seq"] < before + 100_000:
            return False
        # It reads from the tip on: what came while it was away stands in the lake, not here.
        return set(message["data"]["feed"]["streams"].values()) == {"streaming"}

    hear(socket, back)
    platform.put_messages(trade(price=777))
    assert hear(socket, lambda m: m["channel"] == "trades" and m["data"]["price"] == 777)


def test_haproxy_and_replicas_listen_on_loopback_only(platform: Platform) -> None:
    family = psutil.Process(platform.process.pid).children(recursive=True)
    listening = {
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in family
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    haproxy = {(ip, port) for name, ip, port in listening if name == "haproxy"}
    ports = {platform.port, platform.ports["metrics_port"], platform.ports["stats_port"]}
    assert haproxy == {("127.0.0.1", port) for port in ports}
    direct = {ip for _, ip, port in listening if 30000 <= port <= 31000}
    assert direct == {"127.0.0.1"}
    assert platform.ports["fallback_port"] in {port for _, _, port in listening}
