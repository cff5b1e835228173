"""What the driver decides and how often it reads, against a Kinesis in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataLoss, StreamError, StreamReplaced
from pipelines.kinesis import ends, service
from pipelines.kinesis.begin import Begin, symbolic
from pipelines.kinesis.ends import Limit
from pipelines.kinesis.offsets import ranges
from pipelines.kinesis.planner import BatchPlanner
from pipelines.kinesis.ranges import read_range

ALL = Limit()
Doc = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.time, "sleep", lambda _: None)


class Query:
    """Plays Spark: asks for ends, keeps its log, reads batches, restarts."""

    def __init__(self, client: Any, begin: str = "TRIM_HORIZON", **options: Any) -> None:
        self.client = client
        self.options = {"native_time": True, "fetch_size": 50} | options
        self.begin = Begin.parse(begin)
        self.log: list[Doc] = [symbolic(self.begin)]
        self.restart()

    def restart(self) -> None:
        self.seconds = 0.0
        self.planner = BatchPlanner(
            self.client,
            "s",
            begin=self.begin,
            clock_ms=lambda: self.client.now_ms,
            monotonic=lambda: self.seconds,
            sleep=self._sleep,
            **self.options,
        )

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def tick(self, limit: Limit = ALL, *, after_s: float = 1.0) -> list[int]:
        self.seconds += after_s
        end = self.planner.plan(self.log[-1], limit)
        if end == self.log[-1]:
            return []
        self.log.append(end)
        return self.read(len(self.log) - 1)

    def read(self, batch: int) -> list[int]:
        """The rows of a batch as executors read them, which those at hand must equal."""
        found = []
        for part in ranges(self.log[batch - 1], self.log[batch]):
            pages = read_range(
                self.client, "s", part, native_time=self.options["native_time"], fetch_size=50,
                fail_on_data_loss=self.options.get("fail_on_data_loss", True), timeout_s=5,
            )  # fmt: skip
            records = [record for page in pages for record in page]
            assert self.planner.at_hand(part) in (None, records)
            found += [int(record.sequence) for record in records]
        return found

    def drain(self, limit: Limit = ALL, *, at_most: int = 500) -> list[int]:
        found: list[int] = []
        for _ in range(at_most):
            before = len(self.log)
            found += self.tick(limit)
            if len(self.log) == before:
                return found
        raise AssertionError("no end")


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
    """Twenty batches of half a second at 2,000 records a second."""
    made: list[int] = []
    for turn in range(20):
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
    query = Query(fake)
    query.tick()
    made = fake.put("a", count=5)
    real, now = service.time.monotonic, [0.0]

    def hurry() -> float:
        now[0] += 1
        return real() + now[0]

    monkeypatch.setattr(
        service.attempt, "__kwdefaults__", service.attempt.__kwdefaults__ | {"clock": hurry}
    )
    fake.failures = [refused("InternalFailure", 500) for _ in range(20)]
    assert query.tick() == []
    fake.failures = []
    assert query.tick() == made


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
    fake.created_ms += 1
    fake.trim("a", 5)
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
