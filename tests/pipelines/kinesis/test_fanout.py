"""Enhanced fan-out against a stand-in that speaks its event stream to boto3."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.errors import StreamError
from pipelines.kinesis.clients import client_of
from pipelines.kinesis.fanout import FanOutCursor, consumer_arn
from pipelines.kinesis.offsets import HORIZON, Position
from pipelines.kinesis.reader import StreamReader
from pipelines.kinesis.source import KinesisDataSource, source_options
from tests.pipelines.kinesis.fanout_server import FanOutServer


@pytest.fixture
def server(fake: Any) -> Iterator[FanOutServer]:
    made = FanOutServer(fake)
    yield made
    made.stop()


@pytest.fixture
def client(server: FanOutServer) -> Iterator[Any]:
    made = client_of.__wrapped__(server.config)
    yield made
    made.close()


@pytest.fixture
def cursor(server: FanOutServer, client: Any) -> Iterator[Callable[..., FanOutCursor]]:
    made: list[FanOutCursor] = []

    def make(place: Position = HORIZON, **options: Any) -> FanOutCursor:
        arn = consumer_arn(client, "s", "c")
        made.append(FanOutCursor(client, arn, "a", place, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
    _until(lambda: server.open == 0)


def _until(ready: Callable[[], bool], *, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _take(cursor: FanOutCursor, count: int) -> list[int]:
    found: list[int] = []
    _until(lambda: bool(found.extend(int(r.sequence) for r in cursor.page().records))
           or len(found) >= count)  # fmt: skip
    return found


def test_cursor_gets_what_is_pushed_in_order_and_says_when_it_is_at_the_tip(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    made = server.fake.put("a", count=30)
    one = cursor()
    assert not one.page().at_tip  # nothing is known yet
    assert _take(one, 30) == made
    _until(lambda: one.page().at_tip)
    assert one.position == Position("after", made[-1])


def test_cursor_whose_subscription_ends_goes_on_behind_its_continuation_number(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    made = server.fake.put("a", count=10)
    one = cursor()
    found = _take(one, 10)
    for _ in range(3):
        seen = len(server.subscribed)
        _until(lambda seen=seen: len(server.subscribed) > seen)  # type: ignore[misc]
        made += server.fake.put("a", count=10)
        found += _take(one, 10)
    assert found == made
    later = server.subscribed[1:]
    assert {start["Type"] for start in later} == {"AFTER_SEQUENCE_NUMBER"}
    assert [int(start["SequenceNumber"]) for start in later[:1]] == [made[9]]


def test_cursor_whose_stream_breaks_or_is_in_use_goes_on_without_loss(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    made = server.fake.put("a", count=10)
    one = cursor()
    found = _take(one, 10)
    server.refuses = ["ResourceInUseException", "LimitExceededException"]
    server.breaks = ["InternalFailureException"]
    made += server.fake.put("a", count=10)
    found += _take(one, 10)
    _until(lambda: not server.refuses)
    made += server.fake.put("a", count=10)
    found += _take(one, 10)
    assert found == made


def test_cursor_from_latest_that_is_refused_at_first_skips_nothing(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    server.fake.put("a", count=5)
    server.fake.now_ms += 1
    server.refuses = ["ResourceInUseException"]
    one = cursor(Position("time", server.fake.now_ms), latest=True)
    one.page()
    _until(lambda: not server.refuses)
    made = server.fake.put("a", count=5)
    assert _take(one, 5) == made
    assert server.subscribed[0]["Type"] == "AT_TIMESTAMP"


def test_cursor_that_is_refused_for_good_says_so(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    server.refuses = ["AccessDeniedException"]
    one = cursor()
    one.page()
    _until(lambda: one._failure is not None)
    with pytest.raises(StreamError, match="AccessDenied"):
        one.page()


def test_cursor_that_nobody_reads_holds_no_more_than_its_buffer(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    made = server.fake.put("a", count=200)
    one = cursor(buffer_bytes=500)
    one.page()
    _until(lambda: one._room <= 0)
    assert len(one._buffer) < 40
    assert _take(one, 200) == made


def test_cursor_of_a_closed_shard_ends(
    server: FanOutServer, cursor: Callable[..., FanOutCursor]
) -> None:
    made = server.fake.put("a", count=3)
    server.fake.close_shard("a")
    one = cursor()
    assert _take(one, 3) == made
    _until(lambda: one.page().closed)


def test_consumer_that_is_registered_already_is_used(server: FanOutServer, client: Any) -> None:
    first = consumer_arn(client, "s", "c")
    assert consumer_arn(client, "s", "c") == first
    assert server.calls.count("RegisterStreamConsumer") == 2


def test_reader_with_a_consumer_reads_through_a_split_without_a_single_poll(
    server: FanOutServer, client: Any
) -> None:
    fake = server.fake
    made = fake.put("a", count=20)
    reader = StreamReader(server.config, "s", start="TRIM_HORIZON", consumer="c", client=client)
    found: list[int] = []
    _until(lambda: bool(found.extend(int(r.sequence) for r in reader.poll())) or len(found) >= 20)
    with server.lock:
        made += fake.put("a", count=5)
        fake.close_shard("a")
        fake.add_shard("b", "a")
        made += fake.put("b", count=5)
    _until(lambda: bool(found.extend(int(r.sequence) for r in reader.poll())) or len(found) >= 30)
    reader.close()
    assert found == made
    assert reader.shards == ["b"]
    assert "GetRecords" not in server.calls
    _until(lambda: server.open == 0)


def test_source_with_fan_out_fixes_ends_on_the_driver_and_a_replay_reads_the_same_rows(
    server: FanOutServer,
) -> None:
    options = source_options(
        server.config, "s", readMode="fanout", consumerName="c", startingPosition="TRIM_HORIZON"
    )
    reader = KinesisDataSource(options).streamReader(None)
    replay = KinesisDataSource(options).streamReader(None)  # knows nothing of what was pushed
    made = server.fake.put("a", count=20)
    log, found = [reader.initialOffset()], []
    for burst in range(3):
        if burst:
            with server.lock:
                made += server.fake.put("a", count=20)
        _go_on(reader, log, made[-1])
    assert "GetRecords" not in server.calls
    for start, end in itertools.pairwise(log):
        (part,) = reader.partitions(start, end) or [None]
        if part is not None:
            again = [row for (p,) in [replay.partitions(start, end)] for row in _rows(replay, p)]
            found += again
            if all(one.rows is not None for one in part.value):
                assert _rows(reader, part) == again
    reader.stop()
    assert found == made
    assert reader.reportLatestOffset()["lag"] == {"a": {"ms": 0, "records": 0}}
    _until(lambda: server.open == 0)


def _next_end(reader: Any, log: list[Any]) -> bool:
    end = reader.latestOffset(log[-1], reader.getDefaultReadLimit())
    if end != log[-1]:
        log.append(end)
        return True
    return False


def _go_on(reader: Any, log: list[Any], last: int) -> None:
    """Plan batches until one ends behind a record."""
    _until(lambda: _next_end(reader, log) and log[-1]["shards"]["a"]["end"] == f"after:{last}")


def _rows(reader: Any, part: Any) -> list[int]:
    return [int(s) for batch in reader.read(part) for s in batch["sequence"].to_pylist()]
