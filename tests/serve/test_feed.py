from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipelines import codec
from pipelines.clock import MarketClock
from pipelines.errors import StreamError
from pipelines.ports import KinesisConfig
from serve.config import FeedConfig
from serve.feed import Feed
from tests.serve.conftest import OPEN_NS, features_item, record, trade

DEADLINE_S = 5


@dataclass
class Raw:
    data: bytes


@dataclass
class FakeReader:
    """Gives what the test puts, one list per poll; an exception is raised."""

    lists: list[Any] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def put(self, *datas: bytes) -> None:
        with self.lock:
            self.lists.append([Raw(d) for d in datas])

    def poll(self) -> list[Raw]:
        with self.lock:
            given = self.lists.pop(0) if self.lists else []
        if isinstance(given, Exception):
            raise given
        return given


class Bed:
    """A feed over two fake streams."""

    def __init__(self, stats: Mapping[str, Any] | None = None, **config: Any) -> None:
        kinesis = KinesisConfig()
        self.data, self.items = FakeReader(), FakeReader()
        self.stats: Mapping[str, Any] = stats or {}
        readers = {kinesis.market_data: self.data, kinesis.market_signals: self.items}

        async def ask(name: str) -> Mapping[str, Any] | None:
            return self.stats.get(name)

        self.feed = Feed(
            FeedConfig(kinesis=kinesis, symbols=("SPY",), poll_s=0.005, conflate_s=0, **config),
            open_reader=lambda stream: readers[stream],
            ask_stats=ask,
            history=config.pop("history", None),
        )

    def run(self, job: Callable[[Feed], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            await self.feed.start()
            try:
                return await asyncio.wait_for(job(self.feed), DEADLINE_S)
            finally:
                await self.feed.stop()

        return asyncio.run(main())


async def until(feed: Feed, channel: str) -> dict[str, Any]:
    """The first update of a channel, by long polls as a replica makes them."""
    seq = -1
    while True:
        answer = await feed.changes(seq, 1.0, None)
        seq = answer["seq"]
        for update in answer["updates"]:
            if update[1] == channel:
                return orjson.loads(update[5])


def test_feed_hands_on_what_both_streams_say() -> None:
    bed = Bed()
    bed.data.put(codec.encode_record(record(trade(price=123))))
    bed.items.put(codec.encode_items([features_item()]))

    async def job(feed: Feed) -> None:
        assert (await until(feed, "trades"))["price"] == 123
        assert (await until(feed, "features"))["warm"] is True

    bed.run(job)


def test_question_that_waits_is_answered_by_the_next_change_not_by_its_timeout() -> None:
    bed = Bed()

    async def job(feed: Feed) -> float:
        first = await feed.changes(-1, 0.0, ["trades"])
        begun = time.monotonic()
        waiting = asyncio.create_task(feed.changes(first["seq"], 30.0, ["trades"]))
        bed.data.put(codec.encode_record(record(trade())))
        answer = await waiting
        assert [u[1] for u in answer["updates"]] == ["trades"]
        return time.monotonic() - begun

    assert bed.run(job) < DEADLINE_S


def test_question_without_changes_ends_at_its_timeout_with_nothing() -> None:
    async def job(feed: Feed) -> dict[str, Any]:
        first = await feed.changes(-1, 0.0, ["trades"])
        return await feed.changes(first["seq"], 0.05, ["trades"])

    answer = Bed().run(job)
    assert (answer["updates"], answer["reset"]) == ([], False)


def test_reader_from_before_a_restart_gets_everything_anew() -> None:
    bed = Bed()
    bed.data.put(codec.encode_record(record(trade())))

    async def job(feed: Feed) -> dict[str, Any]:
        await until(feed, "trades")
        return await feed.changes(5, 0.0, ["trades"])

    answer = bed.run(job)
    assert answer["reset"]
    assert len(answer["updates"]) == 1


def test_stream_that_breaks_is_tried_again_and_the_state_says_so() -> None:
    bed = Bed()
    bed.data.lists = [StreamError("down")]
    bed.data.put(codec.encode_record(record(trade())))

    async def job(feed: Feed) -> tuple[str, str]:
        seen = set()
        while (await feed.stats())["streams"]["market-data"] == "connecting":
            await asyncio.sleep(0.001)
        seen.add((await feed.stats())["streams"]["market-data"])
        await until(feed, "trades")
        return seen.pop(), (await feed.stats())["state"]

    assert bed.run(job) == ("backing_off", "streaming")


def test_record_that_is_none_is_counted_and_the_next_one_read() -> None:
    bed = Bed()
    bed.data.put(b"garbage", codec.encode_record(record(trade())))

    async def job(feed: Feed) -> int:
        await until(feed, "trades")
        return (await feed.stats())["malformed"]

    assert bed.run(job) == 1


def test_system_carries_ledger_market_and_stages() -> None:
    clock = MarketClock(rate=10, wall_origin_ns=0, sessions=((OPEN_NS, OPEN_NS + 10**18),))
    producer = {"state": "streaming", "received": 9, "gaps": 0, "clock": clock.to_dict()}
    archive = {"stored": 6, "duplicates": 2, "quarantined": 1, "holes": 0}
    streaming = {"state": "running", "error": None, "archive": archive, "signals": {"bars": 3}}
    bed = Bed({"raytape-producer": producer, "raytape-streaming": streaming})
    system = bed.run(lambda feed: until(feed, "system"))
    assert system["ledger"]["in_flight"] == 2
    assert system["market"]["rate"] == 10
    assert system["market"]["time"].startswith("20")
    assert "clock" not in system["producer"]
    assert system["signals"] == {"bars": 3}


def test_parts_that_do_not_answer_are_unknown_not_zero() -> None:
    system = Bed().run(lambda feed: until(feed, "system"))
    assert system["producer"] is None
    assert system["ledger"]["received"] is None


def test_bars_of_the_past_are_there_and_the_forming_one_comes_last() -> None:
    bed = Bed()
    past = {
        "open": 1,
        "high": 1,
        "low": 1,
        "close": 1,
        "volume": 1,
        "event_time": "2024-07-05T13:00:00Z",
    }
    bed.feed.add_history("SPY", [past])
    bed.data.put(codec.encode_record(record(trade())))

    async def job(feed: Feed) -> list[bool]:
        await until(feed, "bars")
        return [bar["forming"] for bar in await feed.bars("SPY")]

    assert bed.run(job) == [False, True]


def test_reader_that_breaks_unexpectedly_shows_as_failed_and_is_opened_anew() -> None:
    bed = Bed()
    bed.data.lists = [TypeError("odd")]
    bed.data.put(codec.encode_record(record(trade())))

    async def job(feed: Feed) -> tuple[set[str], str]:
        seen = set()
        while "failed" not in seen:
            seen.add((await feed.stats())["streams"]["market-data"])
            await asyncio.sleep(0.001)
        await until(feed, "trades")
        return seen, (await feed.stats())["state"]

    seen, state = bed.run(job)
    assert (seen - {"connecting"}, state) == ({"failed"}, "streaming")


def test_record_that_breaks_the_memory_is_counted_and_the_next_one_read(monkeypatch) -> None:
    from serve.memory import FeedMemory

    bed = Bed()
    apply = FeedMemory.apply_items

    def broken(memory: FeedMemory, items: Any) -> None:
        if items[0]["symbol"] == "ODD":
            raise KeyError("odd")
        apply(memory, items)

    monkeypatch.setattr(FeedMemory, "apply_items", broken)
    bed.items.put(codec.encode_items([features_item("ODD")]), codec.encode_items([features_item()]))

    async def job(feed: Feed) -> tuple[int, str]:
        await until(feed, "features")
        return (await feed.stats())["malformed"], (await feed.stats())["streams"]["market-signals"]

    assert bed.run(job) == (1, "streaming")


def test_state_of_the_platform_is_told_on_though_a_part_answers_nonsense() -> None:
    bed = Bed({"raytape-producer": {"state": "streaming", "clock": {"rate": 0}}})

    async def job(feed: Feed) -> dict[str, Any]:
        await asyncio.sleep(0)
        while (await feed.stats())["streams"].get("system") != "failed":
            await asyncio.sleep(0.005)
        bed.stats = {"raytape-producer": {"state": "streaming", "received": 1}}
        return await until(feed, "system")

    assert bed.run(job)["producer"]["received"] == 1


def test_ledger_asks_the_archive_before_the_producer_so_that_no_surplus_is_made_up() -> None:
    asked: list[str] = []
    bed = Bed()
    inner = bed.feed._ask_stats

    async def ask(name: str) -> Any:
        asked.append(name)
        await asyncio.sleep(0.01)
        asked.append(f"{name} answered")
        return await inner(name)

    bed.feed._ask_stats = ask
    bed.run(lambda feed: until(feed, "system"))
    assert asked[:3] == ["raytape-streaming", "raytape-streaming answered", "raytape-producer"]
