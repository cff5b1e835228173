"""The polling reader, against the embedded Kinesis and one in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.errors import StreamUnavailable
from pipelines.kinesis import service
from pipelines.kinesis.clients import client_of
from pipelines.kinesis.reader import StreamReader, read_after
from pipelines.ports import KinesisConfig


@pytest.fixture
def client(kinesis: KinesisConfig) -> Any:
    return client_of(kinesis)


@pytest.fixture
def reading(kinesis: KinesisConfig) -> Iterator[Callable[..., StreamReader]]:
    made: list[StreamReader] = []

    def make(start: Any, **options: Any) -> StreamReader:
        made.append(StreamReader(kinesis, kinesis.market_data, start=start, **options))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def put(client: Any, config: KinesisConfig, texts: list[str]) -> None:
    for text in texts:
        client.put_record(
            StreamName=config.market_data, Data=text.encode(), PartitionKey=text.split("-")[0]
        )


def poll_until(reader: StreamReader, count: int) -> list[str]:
    found: list[str] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += [record.data.decode() for record in reader.poll()]
    return found


def wait_active(client: Any, stream: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (
            client.describe_stream(StreamName=stream)["StreamDescription"]["StreamStatus"]
            == "ACTIVE"
        ):
            return
    raise AssertionError("the stream is not active")


def texts(keys: int, each: int, *, begin: int = 0) -> list[str]:
    return [f"{key}-{n}" for n in range(begin, begin + each) for key in range(keys)]


def by_key(found: list[str]) -> dict[str, list[int]]:
    order: dict[str, list[int]] = {}
    for text in found:
        key, n = text.split("-")
        order.setdefault(key, []).append(int(n))
    return order


def test_poll_from_horizon_returns_all_in_order(
    kinesis: KinesisConfig, client: Any, reading: Callable[..., StreamReader]
) -> None:
    put(client, kinesis, texts(6, 5))
    found = poll_until(reading("TRIM_HORIZON"), 30)
    assert by_key(found) == {str(key): [0, 1, 2, 3, 4] for key in range(6)}


def test_poll_from_latest_returns_only_what_arrives_later(
    kinesis: KinesisConfig, client: Any, reading: Callable[..., StreamReader]
) -> None:
    put(client, kinesis, ["0-0", "1-0"])
    reader = reading("LATEST")
    assert reader.poll() == []
    put(client, kinesis, ["0-1", "1-1"])
    assert sorted(poll_until(reader, 2)) == ["0-1", "1-1"]
    assert reader.poll() == []


def test_poll_from_a_time_returns_what_arrived_since(
    kinesis: KinesisConfig, client: Any, reading: Callable[..., StreamReader]
) -> None:
    put(client, kinesis, ["0-0", "1-0"])
    first = poll_until(reading("TRIM_HORIZON"), 2)
    assert len(first) == 2
    since = time.time_ns() // 1_000_000 + 1
    put(client, kinesis, ["0-1"])
    assert poll_until(reading(f"AT_TIMESTAMP:{since}"), 1) == ["0-1"]


def test_poll_from_positions_continues_where_another_reader_stopped(
    kinesis: KinesisConfig, client: Any, reading: Callable[..., StreamReader]
) -> None:
    put(client, kinesis, texts(4, 3))
    reader = reading("TRIM_HORIZON")
    poll_until(reader, 12)
    put(client, kinesis, texts(4, 2, begin=3))
    found = poll_until(reading(reader.positions), 8)
    assert by_key(found) == {str(key): [3, 4] for key in range(4)}


def test_poll_through_split_and_merge_keeps_the_order_of_each_key(
    kinesis: KinesisConfig, client: Any, reading: Callable[..., StreamReader]
) -> None:
    stream = kinesis.market_data
    reader = reading("TRIM_HORIZON", limit=7)
    put(client, kinesis, texts(8, 4))
    found = poll_until(reader, 10)
    client.split_shard(
        StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
    )
    wait_active(client, stream)
    put(client, kinesis, texts(8, 4, begin=4))
    client.merge_shards(
        StreamName=stream,
        ShardToMerge="shardId-000000000003",
        AdjacentShardToMerge="shardId-000000000001",
    )
    wait_active(client, stream)
    put(client, kinesis, texts(8, 4, begin=8))
    found += poll_until(reader, 96 - len(found))
    assert by_key(found) == {str(key): list(range(12)) for key in range(8)}
    assert reader.shards == ["shardId-000000000002", "shardId-000000000004"]


def test_read_after_positions_ends_at_the_tip(kinesis: KinesisConfig, client: Any) -> None:
    put(client, kinesis, texts(4, 3))
    assert len(list(read_after(kinesis, kinesis.market_data, {}))) == 12
    reader = StreamReader(kinesis, kinesis.market_data, start="TRIM_HORIZON")
    poll_until(reader, 12)
    reader.close()
    put(client, kinesis, ["2-3", "2-4"])
    assert list(read_after(kinesis, kinesis.market_data, reader.positions)) == [b"2-3", b"2-4"]


def test_poll_when_one_shard_fails_keeps_what_the_other_gave(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add_shard("b")
    reader = StreamReader(KinesisConfig(), "s", start="TRIM_HORIZON", client=fake, timeout_s=0.01)
    made = fake.put("a", count=2) + fake.put("b", count=2)
    real = fake.get_records

    def broken(*, ShardIterator: str, Limit: int) -> Any:  # noqa: N803
        if ShardIterator.startswith("b"):
            raise refused("ProvisionedThroughputExceededException")
        return real(ShardIterator=ShardIterator, Limit=Limit)

    monkeypatch.setattr(fake, "get_records", broken)
    assert [int(r.sequence) for r in reader.poll()] == made[:2]
    with pytest.raises(StreamUnavailable):
        reader.poll()
    monkeypatch.undo()
    assert [int(r.sequence) for r in reader.poll()] == made[2:]
    reader.close()


def test_poll_with_throttling_and_expired_iterators_returns_all(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = service.Gate.__init__.__kwdefaults__ | {"sleep": lambda _: None}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", defaults)
    reader = StreamReader(KinesisConfig(), "s", start="TRIM_HORIZON", client=fake)
    made = fake.put("a", count=2)
    assert [int(r.sequence) for r in reader.poll()] == made
    later = fake.put("a", count=2)
    fake.failures = [
        refused("ProvisionedThroughputExceededException"),
        refused("ExpiredIteratorException"),
        refused("InternalFailure", 500),
    ]
    assert [int(r.sequence) for r in reader.poll()] == later
    reader.close()


def test_cursor_never_shows_the_secret() -> None:
    config = KinesisConfig(access_key="AKIA1", secret_key="hush")
    assert "hush" not in repr(config)
    assert "AKIA1" not in repr(config)


def test_poll_when_the_look_for_children_fails_keeps_what_the_closed_shard_gave(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = StreamReader(KinesisConfig(), "s", start="TRIM_HORIZON", client=fake, timeout_s=0.01)
    made = fake.put("a", count=2)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    later = fake.put("b", count=2)

    def broken(**_: Any) -> Any:
        raise refused("LimitExceededException")

    monkeypatch.setattr(fake, "list_shards", broken)
    assert [int(r.sequence) for r in reader.poll()] == made
    assert not reader.at_tip
    with pytest.raises(StreamUnavailable):
        reader.poll()
    monkeypatch.undo()
    assert reader.poll() == []  # the children are found now
    assert [int(r.sequence) for r in reader.poll()] == later
    reader.close()


def test_poll_whose_children_are_listed_late_finds_them(fake: Any) -> None:
    reader = StreamReader(KinesisConfig(), "s", start="TRIM_HORIZON", client=fake, reads_per_s=0)
    made = fake.put("a", count=2)
    fake.close_shard("a")
    assert [int(r.sequence) for r in reader.poll()] == made
    assert not reader.at_tip
    assert reader.poll() == []
    fake.add_shard("b", "a")
    later = fake.put("b", count=2)
    assert reader.poll() == []
    assert [int(r.sequence) for r in reader.poll()] == later
    assert reader.shards == ["b"]
    reader.close()
