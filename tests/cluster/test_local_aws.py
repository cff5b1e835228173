"""The embedded Kinesis keeps what it was given."""

import hashlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import pytest

from cluster import local_aws, processes
from pipelines.errors import DataLoss
from pipelines.kinesis.offsets import Position, ShardRange
from pipelines.kinesis.ranges import read_range
from pipelines.kinesis.reader import StreamReader
from pipelines.ports import KinesisConfig


def test_put_then_get_returns_the_record(kinesis: KinesisConfig) -> None:
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    put = client.put_record(StreamName=kinesis.market_data, Data=b"x", PartitionKey="1")
    iterator = client.get_shard_iterator(
        StreamName=kinesis.market_data, ShardId=put["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = client.get_records(ShardIterator=iterator)["Records"]
    assert [r["Data"] for r in records] == [b"x"]
    client.close()


def test_kinesis_outlives_a_client_that_is_killed_in_the_middle_of_a_request(
    kinesis: KinesisConfig,
) -> None:
    port = urlsplit(kinesis.endpoint_url or "").port
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = (
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
            )
            client.sendall(head)
            assert client.recv(1000).startswith(b"HTTP/1.1 100")  # the request has begun
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    local_aws.ensure_streams(kinesis, shards=2)


def test_kinesis_listens_on_loopback_only(kinesis: KinesisConfig) -> None:
    port = urlsplit(kinesis.endpoint_url or "").port
    addresses = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert addresses == {"127.0.0.1"}


def places(random: Random) -> Iterator[tuple[str, Any]]:
    """Questions to the functions that :file:`sequence.cjs` replaces, most of them usual."""
    for _ in range(2000):
        shard = random.choice((0, 1, 7, 15, 16, 4095, 2**31 - 1))
        parts = {
            "shardCreateTime": random.randrange(1, 2**43),
            "shardIx": shard,
            "seqIx": random.choice((random.randrange(2**53), str(random.randrange(2**63)))),
            "seqTime": random.randrange(1, 2**43),
        }
        yield "stringify", parts
        yield "stringify", {**parts, "version": random.randrange(4), "byte1": "7f"}
        yield "stringify", {"shardCreateTime": parts["shardCreateTime"], "shardIx": -1}
        yield "stringify", {"shardCreateTime": parts["shardCreateTime"]}
        for missing in ("shardIx", "seqIx", "seqTime"):
            yield "stringify", {**parts, missing: random.choice((None, 0, ""))}
        yield "stringify", {**parts, "version": None, "byte1": random.choice((None, "", "00"))}
        digits = f"{random.getrandbits(180):045x}"
        yield "parse", str(int(f"2{digits}2", 16))
        yield "parse", str(int(f"{random.randrange(1, 16):x}{digits}{random.randrange(16):x}", 16))
        yield "parse", str(random.getrandbits(random.randrange(1, 190)))
        bound = random.choice((0, 2**127, 2**128 - 1, random.getrandbits(128)))
        key = f"{random.getrandbits(32):x}"
        at = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16)
        yield "place", [key, *(str(b) for b in (bound, at - 1, at, at + 1))]
    for text in ("", "x", "-1", " 1", "0x10", "1e5", "LATEST", "4" * 56, "9" * 56, "0" * 56):
        yield "parse", text


def test_sequence_numbers_are_those_of_kinesalite() -> None:
    folder = Path(local_aws.__file__).parent / "kinesalite"
    asked = list(places(Random(7)))
    command = ["node", str(Path(__file__).with_name("sequences.cjs")), str(folder)]
    answer = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == []


RETENTION_S = 2.0
SHARD = "shardId-000000000000"


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[KinesisConfig]:
    """A kinesalite that keeps records for two seconds, on disk."""
    port = processes.free_port()
    child = local_aws.start_kinesis(
        port=port,
        path=tmp_path / "db",
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
        retention_s=RETENTION_S,
        trim_every_s=0.2,
    )
    config = local_aws.embedded_kinesis(port)
    local_aws.ensure_streams(config, shards=1)
    yield config
    processes.stop(child, run_dir=tmp_path / "run")


def put(client: Any, config: KinesisConfig, count: int, *, data: bytes = b"x") -> list[str]:
    answer = client.put_records(
        StreamName=config.market_data, Records=[{"Data": data, "PartitionKey": "1"}] * count
    )
    return [record["SequenceNumber"] for record in answer["Records"]]


def held(config: KinesisConfig, start: Any = "TRIM_HORIZON") -> list[str]:
    reader = StreamReader(config, config.market_data, start=start)
    try:
        return [record.sequence for record in reader.poll()]
    finally:
        reader.close()


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_old_records_expire_and_only_readers_that_missed_some_notice(
    forgetful: KinesisConfig,
) -> None:
    client = boto3.client("kinesis", **forgetful.client_kwargs())
    old = put(client, forgetful, 5)
    assert held(forgetful) == old
    eventually(lambda: held(forgetful) == old[-1:])  # the newest that expired stays
    new = put(client, forgetful, 3)

    def read(after: str) -> list[str]:
        first, last = Position("after", int(after)), Position("after", int(new[-1]))
        pages = read_range(
            client, forgetful.market_data, ShardRange(SHARD, first, last),
            native_time=False, fetch_size=100, fail_on_data_loss=True, timeout_s=5,
        )  # fmt: skip
        return [record.sequence for page in pages for record in page]

    assert read(old[-1]) == new
    with pytest.raises(DataLoss):
        read(old[1])
    assert held(forgetful, {SHARD: old[1]}) == [old[-1], *new]
    assert held(forgetful, {SHARD: old[-1]}) == new
    assert int(new[0]) > int(old[-1])
    client.close()


def folder_mb(path: Path) -> float:
    total = 0
    for entry in os.scandir(path):
        try:
            total += entry.stat().st_size
        except FileNotFoundError:  # LevelDB works there
            continue
    return total / 1e6


def test_expired_records_free_their_place_on_disk(forgetful: KinesisConfig, tmp_path: Path) -> None:
    client = boto3.client("kinesis", **forgetful.client_kwargs())
    written = threading.Event()

    def read_on() -> None:  # LevelDB keeps what an open reader may still see
        while not written.is_set():
            held(forgetful)

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        until, pages = time.monotonic() + 3 * RETENTION_S, 0
        while time.monotonic() < until or pages < 10:  # a page is 1 MB that does not compress
            put(client, forgetful, 20, data=os.urandom(50_000))
            pages += 1
    finally:
        written.set()
        reader.join()
    eventually(lambda: folder_mb(tmp_path / "db") < 2)
    eventually(lambda: len(held(forgetful)) == 1)
    client.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "kinesis"
    path.mkdir()
    (path / "000001.ldb").write_bytes(bytes(2_000_000))
    return path


def test_bound_disk_deletes_a_drained_store_that_is_too_large(store: Path) -> None:
    local_aws.mark_drained(store)
    assert not local_aws.bound_disk(store, 3)
    assert local_aws.bound_disk(store, 1)
    assert list(store.parent.iterdir()) == []
    assert not local_aws.bound_disk(store, 1)


def test_bound_disk_keeps_a_store_that_was_not_drained(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not local_aws.bound_disk(store, 1)
    assert (store / "000001.ldb").exists()
    assert "not drained" in caplog.text


def test_start_takes_the_mark_of_draining_away(tmp_path: Path) -> None:
    path = tmp_path / "kinesis"
    local_aws.mark_drained(path)
    run_dir = tmp_path / "run"
    child = local_aws.start_kinesis(
        port=processes.free_port(), path=path, run_dir=run_dir, log_dir=tmp_path / "log"
    )
    processes.stop(child, run_dir=run_dir)
    assert not local_aws.bound_disk(path, 0)
    assert path.is_dir()
