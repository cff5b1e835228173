from __future__ import annotations

import asyncio
from typing import Any

from serve.mirror import FeedLost, Mirror
from serve.updates import MARKET
from tests.serve.conftest import FakeFeed, bar, record, trade

DEADLINE_S = 5


class Answering(FakeFeed):
    """Answers what the test queued; then waits."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[int] = []

    async def changes(self, after_seq: int, timeout_s: float, channels: Any) -> dict[str, Any]:
        self.asked.append(after_seq)
        if not self.answers:
            await asyncio.sleep(DEADLINE_S)
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


def answer(bench, *, after: int = 0, reset: bool = False) -> dict[str, Any]:
    bench.memory.flush(wall=bench.wall_ns)
    updates = [tuple(u) for u in bench.memory.log.after(after)]
    return {
        "seq": bench.memory.log.seq, "reset": reset, "updates": updates,
        "market": bench.memory.market.to_dict(),
    }  # fmt: skip


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_mirror_asks_on_from_what_it_has(bench) -> None:
    bench.memory.apply_record(record(trade()))
    first = answer(bench, reset=True)
    feed = Answering([first])

    async def main() -> None:
        mirror = Mirror(feed)
        mirror.start()
        assert await mirror.wait_synced(DEADLINE_S)
        await until(lambda: len(feed.asked) == 2)
        await mirror.stop()
        assert mirror.synced
        assert mirror.data("trades", "SPY")["price"] == 100.0

    asyncio.run(main())
    assert feed.asked == [-1, first["seq"]]


def test_mirror_of_a_lost_feed_says_so_and_comes_back(bench) -> None:
    feed = Answering([answer(bench, reset=True), *[FeedLost("gone")] * 3, answer(bench)])
    states: list[bool] = []

    async def main() -> None:
        mirror = Mirror(feed)
        mirror.start()
        await until(lambda: mirror.synced)
        await until(lambda: not mirror.synced)
        states.append(mirror.synced)
        await until(lambda: mirror.synced)
        await mirror.stop()

    asyncio.run(main())
    assert states == [False]


def test_mirror_told_to_begin_anew_forgets_what_was(bench) -> None:
    mirror = Mirror(FakeFeed(bench.memory), symbols=("SPY",))
    bench.memory.apply_record(record(trade("OLD")))
    mirror.apply(answer(bench, reset=True))
    assert mirror.symbols == {"SPY", "OLD"}
    before = bench.memory.log.seq
    bench.memory.apply_record(record(bar(), epoch="f"))
    mirror.apply(answer(bench, after=before, reset=True))
    assert mirror.symbols == {"SPY"}
    assert mirror.latest("trades", "OLD") is None
    assert mirror.log.after(mirror.log.floor)[0].channel == "bars"


def test_mirror_decodes_the_newest_payload(bench) -> None:
    bench.memory.set_system({"n": 1}, event_time="")
    bench.mirror.apply(answer(bench, reset=True))
    assert bench.mirror.data("system", MARKET) == {"n": 1}
    before = bench.memory.log.seq
    bench.memory.set_system({"n": 2}, event_time="")
    bench.mirror.apply(answer(bench, after=before))
    assert bench.mirror.data("system") == {"n": 2}


def test_listener_that_breaks_keeps_nobody_from_hearing(bench) -> None:
    heard: list[int] = []

    def broken(_: Any) -> None:
        raise KeyError("odd")

    mirror = Mirror(FakeFeed(bench.memory))
    mirror.listen(broken)
    mirror.listen(lambda updates: heard.append(len(updates)))
    bench.memory.apply_record(record(trade()))
    mirror.apply(answer(bench, reset=True))
    assert (len(heard), mirror.synced) == (1, True)


def test_mirror_given_an_odd_answer_is_not_synced_and_begins_anew(bench) -> None:
    good = answer(bench, reset=True)
    feed = Answering([good, {"seq": 1}, TypeError("odd"), good])
    states: list[bool] = []

    async def main() -> None:
        mirror = Mirror(feed)
        mirror.start()
        await until(lambda: len(feed.asked) == 2)  # and waits, after the odd answer
        states.append(mirror.synced)
        await until(lambda: mirror.synced)
        await mirror.stop()

    asyncio.run(main())
    assert states == [False]
    assert feed.asked[:4] == [-1, good["seq"], -1, -1]
