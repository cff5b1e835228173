"""What the driver decides and how often it reads, against a Kinesis in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kinesis import ends, service
from pipelines.kinesis.ends import Limit
from pipelines.kinesis.offsets import ranges
from tests.pipelines.kinesis.query import ALL, Query


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = service.Gate.__init__.__kwdefaults__ | {"sleep": lambda _: None}
    monkeypatch.setattr(service.Gate.__init__, "__kwdefaults__", defaults)


def test_plan_of_an_empty_stream_resolves_the_begin_and_then_stands_still(fake: Any) -> None:
    query = Query(fake)
    assert query.tick() == []
    assert query.log[-1]["shards"]["a"]["end"] == "horizon"
    assert query.tick() == []
    assert len(query.log) == 2


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_from_latest_after_a_restart_before_the_first_record_loses_nothing(
    fake: Any, native_time: bool
) -> None:
    fake.put("a", count=5)
    fake.now_ms += 1
    query = Query(fake, "LATEST", native_time=native_time)
    query.tick()
    made = fake.put("a", count=5)
    query.restart()
    assert query.drain() == made


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_reads_what_is_there_once(fake: Any, native_time: bool) -> None:
    made = fake.put("a", count=120)
    query = Query(fake, native_time=native_time)
    assert query.drain() == made
    assert query.tick() == []


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_lets_the_last_record_before_a_quiet_spell_through(
    fake: Any, native_time: bool
) -> None:
    query = Query(fake, native_time=native_time)
    query.drain()
    made = fake.put("a")
    fake.now_ms += 60_000
    assert query.tick() == made


def test_plan_in_a_quiet_stream_reads_each_shard_once(fake: Any) -> None:
    query = Query(fake)
    query.drain()
    fake.reads.clear()
    for _ in range(10):
        fake.now_ms += 500
        query.planner.plan(query.log[-1], ALL)
    assert len(fake.reads) == 10


def _busy(query: Query, fake: Any) -> Iterator[int]:
    """Eight batches of half a second at 2,000 records a second."""
    made: list[int] = []
    for turn in range(8):
        for _ in range(10):
            fake.now_ms += 50
            made += fake.put("a", count=100)
        query.seconds += 0.5
        fake.reads.clear()
        query.log.append(query.planner.plan(query.log[-1], ALL))
        yield turn
    assert [s for batch in range(1, len(query.log)) for s in query.read(batch)] == made


def test_plan_in_a_busy_stream_reads_each_shard_once_and_nothing_twice(fake: Any) -> None:
    query = Query(fake, fetch_size=2_000)
    for turn in _busy(query, fake):
        assert fake.reads == [("a", 1000)]
        if turn:
            (part,) = ranges(query.log[-2], query.log[-1])
            assert len(query.planner.at_hand(part)) == 1000


def test_plan_in_a_flood_reads_each_shard_once_and_little_twice(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "_LITTLE", 1)
    query = Query(fake, keep_bytes=0, fetch_size=2_000)
    for turn in _busy(query, fake):
        if turn > 2:
            assert len(fake.reads) == 1
            assert fake.reads[0][1] <= 300


@pytest.mark.parametrize("native_time", [True, False])
@settings(max_examples=20, deadline=None)
@given(
    bursts=st.lists(
        st.tuples(st.integers(0, 620), st.integers(0, 5_000), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    limit=st.sampled_from([ALL, Limit(records=64), Limit(max_bytes=1000)]),
    begin=st.sampled_from(["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP:1000000"]),
    skew_ms=st.sampled_from([0, -3_000, 3_000]),
)
def test_plan_of_any_traffic_with_restarts_reads_everything_once_and_replays_the_same(
    bursts: list[tuple[int, int, bool, bool]],
    limit: Limit,
    begin: str,
    skew_ms: int,
    native_time: bool,
    make_fake: Callable[[], Any],
) -> None:
    service = make_fake()
    query = Query(_Skewed(service, skew_ms), begin, native_time=native_time)
    query.tick(limit)  # LATEST is now
    made: list[int] = []
    got: list[int] = []
    for count, pause_ms, restart, replay in bursts:
        service.now_ms += 1
        made += service.put("a", count=count)
        service.now_ms += pause_ms
        got += query.tick(limit)
        if restart and (got or skew_ms <= 0):  # before the first record our clock counts
            query.restart()
        if replay and len(query.log) > 1:
            last = len(query.log) - 1
            assert query.read(last) == query.read(last)
    got += query.drain(limit)
    assert got == made


class _Skewed:
    """The service as a driver sees it whose clock is off."""

    def __init__(self, service: Any, skew_ms: int) -> None:
        self._service = service
        self._skew_ms = skew_ms

    @property
    def now_ms(self) -> int:
        return int(self._service.now_ms + self._skew_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)


def test_plan_keeps_a_limit_in_records(fake: Any) -> None:
    made = fake.put("a", count=130)
    query = Query(fake)
    assert [len(query.tick(Limit(records=40))) for _ in range(4)] == [40, 40, 40, 10]
    assert query.log[-1]["shards"]["a"]["end"] == f"after:{made[-1]}"


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    limit=st.integers(1, 10),
    available_now=st.booleans(),
)
def test_plan_over_any_shards_holds_at_most_its_limit_and_reads_everything(
    counts: list[int], limit: int, available_now: bool, make_fake: Callable[[], Any]
) -> None:
    service = make_fake()
    made = []
    for n, count in enumerate(counts):
        shard = f"a{n}" if n else "a"
        if n:
            service.add_shard(shard)
        made += service.put(shard, count=count)
    query = Query(service)
    if available_now:
        query.planner.stop_at_now()
    got = []
    while True:
        before = len(query.log)
        batch = query.tick(Limit(records=limit))
        assert len(batch) <= limit
        got += batch
        if len(query.log) == before:
            break
    assert sorted(got) == made


def test_plan_from_latest_with_a_limit_below_the_shards_reads_what_came_since(fake: Any) -> None:
    fake.add_shard("b")
    fake.add_shard("c")
    query = Query(fake, "LATEST")
    fake.now_ms += 1
    look = query.planner._look

    def while_something_comes(*given: Any) -> Any:
        found = look(*given)
        if not made:
            made.extend(fake.put(shard)[0] for shard in ("a", "b", "c"))
        return found

    made: list[int] = []
    query.planner._look = while_something_comes  # type: ignore[method-assign]
    got = query.tick(Limit(records=1))
    fake.now_ms += 1_000
    assert sorted(got + query.drain(Limit(records=1))) == made


def test_plan_cuts_a_backlog_by_arrival_without_reading_it(fake: Any) -> None:
    query = Query(fake)
    made = fake.put("a")
    query.tick()
    for _ in range(100):
        fake.now_ms += 1000
        made += fake.put("a", count=60)
    query.restart()
    limit = Limit(max_bytes=10_000_000)
    fake.reads.clear()
    query.log.append(query.planner.plan(query.log[-1], limit))
    assert [count for _, count in fake.reads] == [50, 1]  # one page tells the service's clock
    fake.reads.clear()
    query.log.append(query.planner.plan(query.log[-1], limit))
    assert [count for _, count in fake.reads] == [1]
    assert 9 * 60 <= len(query.read(len(query.log) - 1)) <= 11 * 60
    query.drain(Limit(max_bytes=10_000_000))
    got = [s for batch in range(1, len(query.log)) for s in query.read(batch)]
    assert got == made


@pytest.mark.parametrize("limit", [ALL, Limit(max_bytes=10_000_000)])
def test_plan_of_a_backlog_in_a_closed_shard_is_not_read_on_the_driver(
    fake: Any, limit: Limit
) -> None:
    query = Query(fake)
    made = fake.put("a")
    query.tick()
    for _ in range(25):
        fake.now_ms += 1000
        made += fake.put("a", count=60)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    fake.now_ms += 3_600_000
    made += fake.put("b", count=3)
    query.restart()
    sizes, driver = [], []
    while query.log[-1]["shards"].get("b", {"end": ""})["end"] != f"after:{made[-1]}":
        query.seconds += 1
        fake.reads.clear()
        query.log.append(query.planner.plan(query.log[-1], limit))
        driver += [count for shard, count in fake.reads if shard == "a"]
        sizes.append(len(query.read(len(query.log) - 1)))
    assert sum(driver) <= 50 + 3
    assert max(sizes) <= (11 * 60 if limit.max_bytes else 1500)
    assert [s for batch in range(1, len(query.log)) for s in query.read(batch)] == made


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_begins_children_after_their_parent(fake: Any, native_time: bool) -> None:
    query = Query(fake, native_time=native_time)
    first = fake.put("a", count=3)
    assert query.tick() == first
    last = fake.put("a", count=2)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    fake.add_shard("c", "a")
    child = fake.put("b", count=2) + fake.put("c")
    assert query.tick() == last
    assert sorted(query.drain()) == child
    assert query.planner._finders.keys() == {"b", "c"}  # what is over holds nothing open


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_after_a_restart_through_a_reshard_continues(fake: Any, native_time: bool) -> None:
    query = Query(fake, native_time=native_time)
    made = fake.put("a", count=3)
    query.drain()
    made += fake.put("a", count=100)
    fake.close_shard("a")
    fake.add_shard("b", "a")
    made += fake.put("b", count=100)
    fake.close_shard("b")
    fake.add_shard("c", "b")
    made += fake.put("c", count=3)
    query.restart()
    query.drain()
    assert [s for batch in range(1, len(query.log)) for s in query.read(batch)] == made


@pytest.mark.parametrize("reads_per_s", [0.5, 2.0])
@pytest.mark.parametrize("keep_bytes", [0, 900_000])
@pytest.mark.parametrize("native_time", [True, False])
def test_plan_within_a_budget_driver_and_executors_read_no_more_than_it_together(
    fake: Any, reads_per_s: float, keep_bytes: int, native_time: bool
) -> None:
    query = Query(fake, reads_per_s=reads_per_s, keep_bytes=keep_bytes, native_time=native_time)
    query.tick()
    fake.reads.clear()
    begun = query.seconds
    while query.seconds < begun + 60:
        fake.now_ms += 100
        fake.put("a")
        query.seconds += 0.1
        end = query.planner.plan(query.log[-1], ALL)
        if end != query.log[-1]:
            query.log.append(end)
            seen = len(fake.reads)
            query.read(len(query.log) - 1)
            (part,) = ranges(query.log[-2], query.log[-1])
            if query.planner.at_hand(part):
                del fake.reads[seen:]  # no executor reads what travels with the task
    batches = len(query.log) - 2
    assert len(fake.reads) <= (query.seconds - begun) * reads_per_s + 3
    assert batches >= 60 * reads_per_s / (1 if keep_bytes else 2) - 2


@pytest.mark.parametrize("native_time", [True, False])
@pytest.mark.parametrize("limit", [ALL, Limit(records=7)])
def test_plan_with_available_now_ends_at_the_moment_it_began(
    fake: Any, native_time: bool, limit: Limit
) -> None:
    made = fake.put("a", count=20)
    query = Query(fake, native_time=native_time)
    query.planner.stop_at_now()
    got = []
    for _ in range(50):
        fake.now_ms += 100
        later = fake.put("a", count=20)
        before = len(query.log)
        got += query.tick(limit)
        if len(query.log) == before:
            break
    assert got == made
    query.restart()
    assert query.tick()[-1] == later[-1]


@pytest.mark.parametrize("native_time", [True, False])
def test_plan_with_available_now_by_a_clock_that_is_late_leaves_nothing_out(
    fake: Any, native_time: bool
) -> None:
    made = fake.put("a", count=20)
    query = Query(_Skewed(fake, -3_000), native_time=native_time)
    query.planner.stop_at_now()
    assert query.drain() == made
