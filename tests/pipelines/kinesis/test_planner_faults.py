"""What the driver does when the service fails it or records are gone, in memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.errors import (
    DataLoss,
    StreamError,
    StreamMissing,
    StreamReplaced,
    StreamUnavailable,
)
from pipelines.kinesis import service
from pipelines.kinesis.cursor import Page, ShardCursor
from pipelines.kinesis.ends import Limit
from pipelines.kinesis.offsets import Position, ranges
from pipelines.kinesis.options import SourceOptions
from pipelines.kinesis.source import KinesisStreamReader
from tests.pipelines.kinesis.query import Query


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = service.Gate.__init__.__kwdefaults__ | {"sleep": lambda _: None}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", defaults)


def test_plan_while_the_service_throttles_waits_and_continues(
    fake: Any, refused: Callable[..., Exception]
) -> None:
    query = Query(fake)
    query.tick()
    made = fake.put("a", count=5)
    fake.failures = [refused("ProvisionedThroughputExceededException") for _ in range(3)]
    assert query.tick() == made


def test_plan_while_the_service_is_away_ends_no_query(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, passed = time.monotonic, itertools.count()
    slow = service.Gate.__init__.__kwdefaults__ | {"clock": lambda: real() + next(passed)}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", slow)  # each look: one second
    query = Query(fake)
    query.tick()
    made = fake.put("a", count=5)
    fake.failures = [refused("InternalFailure", 500) for _ in range(20)]
    assert query.tick() == []
    fake.failures = []
    assert query.tick() == made


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_from_latest_while_the_service_is_away_begins_when_it_was_asked(
    fake: Any,
    refused: Callable[..., Exception],
    monkeypatch: pytest.MonkeyPatch,
    native_time: bool,
) -> None:
    real, passed = time.monotonic, itertools.count()
    slow = service.Gate.__init__.__kwdefaults__ | {"clock": lambda: real() + next(passed)}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", slow)
    fake.put("a", count=5)
    fake.now_ms += 1
    made: list[int] = []
    query = Query(fake, "LATEST", native_time=native_time)

    def meanwhile(seconds: float) -> None:
        query.seconds += seconds
        fake.now_ms += 1000
        made.extend(fake.put("a"))

    query.planner._sleep = meanwhile
    fake.failures = [refused("InternalFailure", 500) for _ in range(20)]
    found = query.tick()
    assert made
    assert found + query.drain() == made


def test_plan_from_latest_of_a_service_that_stays_away_fails_and_logs_nothing(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, passed = time.monotonic, itertools.count()
    slow = service.Gate.__init__.__kwdefaults__ | {"clock": lambda: real() + next(passed)}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", slow)
    query = Query(fake, "LATEST")
    fake.failures = [refused("InternalFailure", 500) for _ in range(1000)]
    with pytest.raises(StreamUnavailable):
        query.tick()
    assert query.log == [{"begin": "LATEST", "v": 1}]


def test_plan_with_an_expired_iterator_asks_for_another(
    fake: Any, refused: Callable[..., Exception]
) -> None:
    query = Query(fake)
    query.tick()
    made = fake.put("a", count=5)
    fake.failures = [refused("ExpiredIteratorException")]
    assert query.tick() == made


def test_plan_refused_for_good_raises(fake: Any, refused: Callable[..., Exception]) -> None:
    query = Query(fake)
    query.tick()
    fake.failures = [refused("AccessDeniedException")]
    with pytest.raises(StreamError, match="AccessDenied"):
        query.tick()


def test_plan_of_a_stream_made_anew_fails_by_default(fake: Any) -> None:
    query = Query(fake)
    fake.put("a", count=5)
    query.tick()
    fake.created_ms += 1
    with pytest.raises(StreamReplaced, match="made at"):
        query.tick(after_s=60)


def test_plan_of_a_stream_made_anew_begins_anew_when_asked_to(fake: Any) -> None:
    query = Query(fake, restart_when_replaced=True)
    fake.put("a", count=5)
    query.tick()
    fake.make_anew()
    made = fake.put("a", count=3)
    assert query.tick(after_s=60) == made
    assert query.tick() == []


def test_plan_of_a_shard_forgotten_unread_is_data_loss(fake: Any) -> None:
    query = Query(fake)
    fake.put("a", count=5)
    query.tick()
    del fake.shards["a"]
    fake.add_shard("b", "a")
    query.restart()
    with pytest.raises(DataLoss, match="a behind after:"):
        query.tick()


def test_plan_of_a_shard_forgotten_unread_goes_on_when_asked_to(fake: Any) -> None:
    query = Query(fake, fail_on_data_loss=False)
    fake.put("a", count=5)
    query.tick()
    del fake.shards["a"]
    fake.add_shard("b", "a")
    made = fake.put("b", count=2)
    query.restart()
    assert query.drain() == made


def test_plan_after_a_forgotten_parent_that_was_read_begins_with_its_children(fake: Any) -> None:
    query = Query(fake)
    made = fake.put("a", count=5)
    fake.close_shard("a")
    assert query.drain() == made
    fake.add_shard("b", "a")
    fake.add_shard("c", "a")
    del fake.shards["a"]
    made = [*fake.put("b", count=2), *fake.put("c", count=2)]
    query.restart()
    assert query.log[-1]["shards"]["a"]["done"]
    with pytest.raises(DataLoss, match=r"'b', 'c'.* may be gone"):
        query.tick()
    query.options["fail_on_data_loss"] = False
    query.restart()
    assert query.drain() == made
    query.options["fail_on_data_loss"] = True
    query.restart()
    assert query.tick() == []


def test_plan_logs_the_children_of_a_split_before_they_hold_anything(fake: Any) -> None:
    query = Query(fake)
    fake.put("a", count=5)
    query.drain()
    fake.close_shard("a")
    fake.add_shard("b", "a")
    query.drain()
    assert query.log[-1]["shards"]["b"]["end"] == "horizon"


def test_plan_from_the_lake_after_a_reshard_that_is_forgotten_goes_on(fake: Any) -> None:
    (last,) = fake.put("a")
    fake.add_shard("b", "a")
    (known,) = fake.put("b")
    made = fake.put("b", count=3)
    del fake.shards["a"]
    assert Query(fake, f"a={last},b={known}").drain() == made
    with pytest.raises(DataLoss, match="a behind after:"):
        Query(fake, f"a={last}").drain()
    assert Query(fake, f"a={last}", fail_on_data_loss=False).drain() == [known, *made]


def test_read_of_a_trimmed_range_is_data_loss_and_names_what_is_missing(fake: Any) -> None:
    query = Query(fake)
    fake.put("a", count=5)
    query.tick()
    made = fake.put("a", count=5)
    query.tick()
    fake.trim("a", 7)
    with pytest.raises(DataLoss, match=f"from at:{made[0]} to at:{made[2]} are gone"):
        query.read(2)


def test_read_of_a_range_whose_end_is_gone_is_data_loss(fake: Any) -> None:
    query = Query(fake)
    fake.put("a", count=5)
    query.tick()
    fake.shards["a"]["records"].pop()
    with pytest.raises(DataLoss):
        query.read(1)


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_over_a_backlog_that_is_trimmed_meanwhile_hands_on_no_records_and_loss_is_seen(
    fake: Any, native_time: bool
) -> None:
    made = fake.put("a", count=100)
    query = Query(fake, native_time=native_time)
    assert query.tick(Limit(records=40)) == made[:40]
    fake.trim("a", 60)
    end = query.planner.plan(query.log[-1], Limit(records=40))
    (part,) = ranges(query.log[-1], end)
    assert query.planner.at_hand(part) is None
    query.log.append(end)
    with pytest.raises(DataLoss, match=f"from after:{made[39]} to at:{made[60]} are gone"):
        query.read(2)


def test_plan_of_a_quiet_shard_whose_last_record_expired_sees_no_loss(fake: Any) -> None:
    query = Query(fake)
    first = fake.put("a", count=5)
    assert query.tick() == first
    query.tick()
    fake.trim("a", 5)
    made = fake.put("a", count=2)
    assert query.tick() == made


def _quiet(query: Query, fake: Any, *, hours: int) -> None:
    """Hours without a record, in which the query looks and what is old expires."""
    for _ in range(2 * hours):
        fake.now_ms += 1_800_000
        fake.expire()
        assert query.tick(after_s=1_800) == []


@pytest.mark.parametrize("looks", [0, 1])
def test_plan_after_days_of_quiet_and_a_restart_sees_no_loss(fake: Any, looks: int) -> None:
    query = Query(fake)
    made = fake.put("a", count=5)
    assert query.drain() == made
    batches = len(query.log)
    _quiet(query, fake, hours=72)
    assert fake.sequences("a") == []
    assert len(query.log) <= batches + 72
    query.restart()
    for _ in range(looks):
        assert query.tick() == []
    made = fake.put("a", count=2)
    assert query.tick() == made
    assert query.read(len(query.log) - 1) == made


@pytest.mark.parametrize("looks", [0, 3])
def test_plan_after_more_than_the_retention_away_says_that_records_may_be_gone(
    fake: Any, looks: int
) -> None:
    query = Query(fake)
    (last,) = fake.put("a")
    query.drain()
    fake.put("a", count=3)
    fake.now_ms += 25 * 3_600_000
    fake.expire()
    query.restart()
    for _ in range(looks):
        assert query.tick() == []
    (first,) = fake.put("a")
    with pytest.raises(DataLoss, match=f"from after:{last} to at:{first} are gone"):
        query.tick()


def test_plan_of_a_shard_whose_children_are_listed_late_goes_on_with_them(fake: Any) -> None:
    query = Query(fake)
    made = fake.put("a", count=5)
    fake.close_shard("a")
    assert query.drain() == made
    assert query.tick() == []
    fake.add_shard("b", "a")
    made = fake.put("b", count=2)
    assert query.drain() == made


def test_plan_while_the_stream_is_away_waits_for_the_new_one_when_asked_to(
    fake: Any, refused: Callable[..., Exception]
) -> None:
    query = Query(fake, restart_when_replaced=True)
    fake.put("a", count=5)
    query.tick()
    for _ in range(3):  # of the shard, and then of the stream
        fake.failures = [refused("ResourceNotFoundException")]
        assert query.tick() == []
    fake.make_anew()
    made = fake.put("a", count=3)
    assert query.tick() == made


def test_plan_of_a_stream_made_anew_subscribes_to_the_new_one(fake: Any) -> None:
    opened: list[int] = []

    def subscribe() -> Any:
        made_ms = fake.created_ms
        opened.append(made_ms)

        def open_cursor(shard: str, place: Position, latest: bool) -> ShardCursor:
            assert fake.created_ms == made_ms, "a consumer of the stream that is gone"
            return ShardCursor(fake, "s", shard, place, native_time=True, latest=latest)

        return open_cursor

    query = Query(fake, restart_when_replaced=True, subscribe=subscribe)
    fake.put("a", count=5)
    query.tick()
    fake.make_anew()
    made = fake.put("a", count=3)
    assert query.tick(after_s=60) == made
    assert opened == [fake.created_ms - 1, fake.created_ms]


def test_batch_that_was_planned_in_a_stream_made_anew_holds_nothing_when_asked_to(
    fake: Any,
) -> None:
    query = Query(fake, restart_when_replaced=True)
    fake.put("a", count=5)
    query.tick()
    start, end = query.log[-2:]
    reader = KinesisStreamReader(SourceOptions.parse({"streamName": "s"}))
    reader._planner = query.planner
    assert len(reader.partitions(start, end)) == 1
    fake.make_anew()
    made = fake.put("a", count=3)
    query.restart()  # Spark asks for its last batch again
    reader._planner = query.planner
    assert reader.partitions(start, end) == []
    assert query.tick() == made


def test_plan_after_more_than_the_retention_away_from_a_shard_that_was_closed_is_data_loss(
    fake: Any,
) -> None:
    query = Query(fake)
    (last,) = fake.put("a")
    query.drain()
    fake.put("a", count=3)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    fake.now_ms += 25 * 3_600_000
    fake.expire()
    query.restart()
    with pytest.raises(DataLoss, match=f"from after:{last} to after:.* are gone"):
        query.drain()


def test_plan_of_a_quiet_shard_that_is_closed_days_later_sees_no_loss(fake: Any) -> None:
    query = Query(fake)
    fake.put("a")
    query.drain()
    _quiet(query, fake, hours=30)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    made = fake.put("b", count=2)
    query.restart()
    assert query.drain() == made


def test_plan_of_an_old_record_that_was_the_last_is_sure_of_quiet_all_the_same(fake: Any) -> None:
    fake.put("a")
    fake.now_ms += 23 * 3_600_000 + 2_700_000
    query = Query(fake)
    assert len(query.drain()) == 1  # its arrival says little of the service's clock
    _quiet(query, fake, hours=72)
    query.restart()
    made = fake.put("a", count=2)
    assert query.tick() == made


class _Pushed(ShardCursor):
    """Gives nothing at first, as a subscription does that is just made."""

    pushed = True
    begun = False

    def page(self, limit: int = 10_000) -> Page:
        if not self.begun:
            self.begun = True
            return Page((), 1, full=False, closed=False)
        return super().page(limit)


def test_plan_of_a_stream_made_anew_waits_for_what_its_subscription_brings(fake: Any) -> None:
    opened = []

    def subscribe() -> Any:
        opened.append(fake.created_ms)
        return lambda shard, place, latest: _Pushed(
            fake, "s", shard, place, native_time=True, latest=latest
        )

    query = Query(fake, restart_when_replaced=True, subscribe=subscribe)
    fake.put("a", count=5)
    assert len(query.drain()) == 5
    fake.make_anew()
    made = fake.put("a", count=3)
    got = query.tick(after_s=60)
    for _ in range(3):
        got += query.tick()
    assert got == made
    assert len(opened) == 2


def test_plan_of_a_shard_that_is_missing_from_the_same_stream_ends_the_query(
    fake: Any, refused: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(fake, restart_when_replaced=True)
    fake.put("a")
    query.drain()

    def missing(**_: Any) -> Any:
        raise refused("ResourceNotFoundException")

    monkeypatch.setattr(fake, "get_records", missing)
    assert query.tick() == []
    with pytest.raises(StreamMissing):
        query.tick()
