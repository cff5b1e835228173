"""Gaps are filled: once, whole, after the market passed them, and never before live data."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pipelines.clock import MarketClock
from pipelines.errors import FeedFatal, FeedTransient
from pipelines.events import (
    MINUTE_NS,
    SECOND_NS,
    Message,
    effective_ns,
    format_time_ns,
    parse_time_ns,
)
from pipelines.ingest.backfill import CHANNEL_OF, Backfiller
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.unfilled import Filling, Gap

FAST = BackfillConfig(
    delay_s=0.0, chunk=3, interval_s=0.001, retry_first_s=0.01, retry_cap_s=0.02, poll_s=0.01
)
BASE_NS = 1_700_000_040_000_000_000


class History:
    """The market's past, of a tape; with faults on demand."""

    def __init__(self, tape: list[Message], *, page: int = 2) -> None:
        self.tape = tape
        self.page = page
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.errors: list[Exception | None] = []
        self.hold: threading.Event | None = None

    def pages(
        self, kind: str, symbols: Sequence[str], *, start_ns: int, end_ns: int
    ) -> Iterator[list[Message]]:
        self.asked.append((kind, tuple(symbols)))
        found = [
            dict(m)
            for symbol in symbols
            for m in self.tape
            if m["T"] == kind and m["S"] == symbol and start_ns <= parse_time_ns(m["t"]) <= end_ns
        ]
        for first in range(0, len(found), self.page):
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error
            yield found[first : first + self.page]
            if self.hold is not None:
                self.hold.wait(10)


def _inside(tape: Sequence[Message], stored: Sequence[Message]) -> list[tuple[str, str, str, int]]:
    """What of the tape lies inside a declared gap and did not come live."""
    gaps = [m for m in stored if m["T"] == "gap" and not m.get("backfilled")]
    live = {_name(m) for m in stored if m["T"] in CHANNEL_OF and not m.get("bf")}
    return sorted(
        _name(m)
        for m in tape
        if any(m["S"] == g["S"] and g["from_ns"] < effective_ns(m) < g["to_ns"] for g in gaps)
        and _name(m) not in live
    )


def _name(m: Message) -> tuple[str, str, str, int]:
    return (m["S"], m["T"], m["t"], m.get("i", 0))


def _backfilled(stored: Sequence[Message]) -> list[tuple[str, str, str, int]]:
    return sorted(_name(m) for m in stored if m.get("bf"))


def _interrupt(feed: Any, running: Any) -> None:
    """Break the connection while the market goes on; some messages are of one moment."""
    feed.publish([feed.trade(s) for s in ("SPY", "AAPL", "TSLA")])
    running.until(lambda s: s["acked"] >= 3)
    feed.on_connect = [[{"T": "error", "code": 406, "msg": "connection limit exceeded"}]] * 3
    before = feed.connections
    feed.drop()
    for n in range(7):
        feed.publish([feed.trade("SPY", i=10 + n), feed.trade("AAPL", i=20 + n)])
    one = feed.trade("SPY", i=30)
    feed.publish([one, {**one, "i": 31}, {**one, "i": 32}])
    feed.publish(feed.bars(["SPY", "AAPL", "TSLA"]))
    running.until(lambda s: s["state"] == "streaming" and feed.connections > before + 3)
    feed.publish([feed.trade(s) for s in ("SPY", "AAPL", "TSLA")])


def test_backfill_of_a_broken_connection_is_what_was_missed(feed, stream, start, balance) -> None:
    history = History(feed.tape)
    running = start(history=history, backfill=FAST)
    running.streaming()
    _interrupt(feed, running)
    running.until(lambda s: s["backfills_done"] >= 3 and s["backfills_open"] == 0)
    assert running.drain()
    stored = stream.messages()
    live = [m for m in stored if not m.get("bf") and not m.get("backfilled")]
    assert balance(feed.tape, live) == {}
    inside = _inside(feed.tape, stored)
    assert len(inside) >= 18
    assert _backfilled(stored) == inside
    rows = [m for m in stored if m["T"] == "gap" and m.get("backfilled")]
    for row in rows:
        mine = [kind for symbol, kind, *_ in inside if symbol == row["S"]]
        assert row["filled"] == {kind: mine.count(kind) for kind in "tqb"}
    assert {row["S"] for row in rows} == {"SPY", "AAPL", "TSLA"}
    stats = running.producer.stats()
    market = [m for m in stored if m["T"] not in ("hb", "gap")]
    assert stats["received"] == stats["acked"] == len(market)
    assert stats["backfilled"] == len(inside)
    assert ("t", ("AAPL", "SPY", "TSLA")) in history.asked  # one request for all


def test_backfill_goes_on_after_a_restart_where_the_stream_ends(feed, stream, start) -> None:
    history = History(feed.tape)
    history.hold = threading.Event()
    running = start(history=history, backfill=FAST)
    running.streaming()
    _interrupt(feed, running)
    running.until(lambda s: s["backfilled"] > 0)
    assert running.drain()
    assert running.producer.stats()["backfills_open"] > 0
    first = _backfilled(stream.messages())
    history.hold.set()
    again = start(history=History(feed.tape), backfill=FAST)
    again.streaming()
    again.until(lambda s: s["backfills_done"] > 0 and s["backfills_open"] == 0)
    assert again.drain()
    stored = stream.messages()
    assert 0 < len(first) < len(_backfilled(stored))
    assert _backfilled(stored) == _inside(feed.tape, stored)


def test_backfill_of_a_trade_that_came_late_on_the_feed_is_not_stored_twice(
    feed, stream, start
) -> None:
    running = start(history=History(feed.tape), backfill=FAST)
    running.streaming()
    _interrupt(feed, running)
    (missed,) = (m for m in feed.tape if m.get("i") == 12)
    feed.publish([dict(missed)])  # comes on the feed after all
    feed.tape.pop()
    running.until(lambda s: s["backfills_done"] >= 3 and s["backfills_open"] == 0)
    assert running.drain()
    stored = [m for m in stream.messages("t") if m["S"] == "SPY"]
    ids = [m["i"] for m in stored if m["i"] != 1]
    assert sorted(ids) == sorted(set(ids))
    assert 12 in ids


class _Queues:
    """The queues of a batcher."""

    def __init__(self) -> None:
        self.waiting: dict[int, list[Message]] = {}
        self.unsent = 0

    def queue(self, bucket: int) -> list[Message]:
        return self.waiting.setdefault(bucket, [])

    def all(self, *kinds: str) -> list[Message]:
        return [m for q in list(self.waiting.values()) for m in q if m["T"] in kinds]


class Bench:
    """A backfiller without its thread, at a wall time of our choice."""

    def __init__(self, tape: list[Message], **changed: Any) -> None:
        self.queues = _Queues()
        self.tracker = GapTracker()
        self.intake = Intake(self.queues, self.tracker)  # type: ignore[arg-type]
        self.intake.clock_known = True
        self.history = History(tape)
        self.now_s = 0.0
        self.ready = True
        self.subscribed = {"trades": ["SPY"], "bars": ["*"]}
        settings = {f: getattr(FAST, f) for f in BackfillConfig.__dataclass_fields__}
        self.filler = Backfiller(
            self.history,
            BackfillConfig(**(settings | changed)),
            tracker=self.tracker,
            intake=self.intake,
            lock=threading.Lock(),
            subscribed=lambda: self.subscribed,
            rng=random.Random(1),
            ready=lambda: self.ready,
            now_s=lambda: self.now_s,
            now_ns=lambda: BASE_NS + int(self.now_s * SECOND_NS),
        )

    def declare(self, symbol: str, from_s: float, to_s: float) -> Gap:
        bounds = (BASE_NS + int(s * SECOND_NS) for s in (from_s, to_s))
        gap = Gap(symbol, *bounds, "x")
        self.tracker.unfilled.stored(Filling(declared=(gap,)))
        return gap

    def work(self, now_s: float) -> dict[str, Any]:
        self.now_s = now_s
        self.filler.work()
        return self.filler.stats()


@pytest.fixture
def trades() -> list[Message]:
    return [
        {"T": "t", "S": "SPY", "i": n, "p": 1.0, "s": 1, "t": format_time_ns(BASE_NS + n * 10**9)}
        for n in range(10)
    ]


def test_backfill_waits_until_the_market_passed_the_gap(trades: list[Message]) -> None:
    bench = Bench(trades, delay_s=5.0)
    bench.declare("SPY", 1, 4)
    bench.work(8.9)
    assert bench.history.asked == []
    assert bench.work(9.0)["backfilled"] == 2
    assert [m["i"] for m in bench.queues.all("t")] == [2, 3]


def test_backfill_waits_for_the_clock_of_the_market(trades: list[Message]) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    bench.intake.clock_known = False
    assert bench.work(60)["backfilled"] == 0


def test_backfill_waits_until_the_stream_holds_what_earlier_runs_made(
    trades: list[Message],
) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    bench.ready = False
    assert bench.work(60)["backfilled"] == 0
    bench.ready = True
    assert bench.work(61)["backfilled"] == 2


def test_backfill_of_symbols_that_are_no_longer_subscribed_asks_for_everything(
    trades: list[Message],
) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    bench.subscribed = {}
    bench.work(60)
    assert [kind for kind, _ in bench.history.asked] == ["t", "q", "b"]


def test_backfill_at_the_end_of_the_last_session_is_not_waited_for_for_ever(
    trades: list[Message],
) -> None:
    bench = Bench(trades)
    end_ns = BASE_NS + 4 * SECOND_NS
    bench.intake.clock = MarketClock(wall_origin_ns=BASE_NS, sessions=((BASE_NS, end_ns),))
    bench.declare("SPY", 1, 4 + 1e-9)
    assert bench.work(60)["backfilled"] == 3


def test_backfill_asks_only_for_what_is_subscribed(trades: list[Message]) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    bench.declare("AAPL", 1, 4)
    bench.work(60)
    assert bench.history.asked == [("t", ("SPY",)), ("b", ("AAPL", "SPY"))]


def test_backfill_that_fails_is_tried_again_from_what_is_stored(trades: list[Message]) -> None:
    bench = Bench(trades)
    gap = bench.declare("SPY", 0, 9)
    bench.history.errors = [None, None, FeedTransient("gone")]
    assert bench.work(60)["backfill_error"] == "gone"
    first = bench.queues.all("t")
    assert [m["i"] for m in first] == [1, 2, 3, 4]
    bench.work(120)  # what was handed on is not stored yet: asking again would repeat it
    assert len(bench.history.asked) == 1
    _, note = bench.tracker.seal(first, BASE_NS)
    bench.tracker.stored(note)
    stats = bench.work(180)
    assert [m["i"] for m in bench.queues.all("t")] == list(range(1, 9))
    assert (stats["backfills_done"], stats["backfill_error"]) == (1, None)
    (row,) = bench.queues.all("gap")
    assert row["filled"] == {"t": 8, "q": 0, "b": 0}
    assert (row["from_ns"], row["to_ns"]) == gap.key[1:]
    bench.work(240)
    assert len(bench.queues.all("gap")) == 1


def test_backfill_that_fails_for_too_long_is_given_up(trades: list[Message]) -> None:
    bench = Bench(trades, give_up_s=100)
    bench.declare("SPY", 1, 4)
    bench.history.errors = [FeedFatal("HTTP 403", code=403)] * 3
    assert bench.work(60)["backfills_open"] == 1
    stats = bench.work(161)
    assert (stats["backfills_open"], stats["backfills_failed"]) == (0, 1)
    assert stats["backfill_error"] == "HTTP 403"
    assert bench.queues.all("gap") == []


def test_backfill_of_a_gap_that_is_too_long_is_not_tried(trades: list[Message]) -> None:
    bench = Bench(trades, max_gap_s=2)
    bench.declare("SPY", 1, 4)
    assert bench.work(60)["backfills_failed"] == 1
    assert bench.history.asked == []


def test_backfill_leaves_out_history_that_no_reader_would_take(trades: list[Message]) -> None:
    trades[2]["p"] = -1.0
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    stats = bench.work(60)
    assert (stats["backfilled"], stats["backfill_rejected"]) == (1, 1)


def test_backfill_of_a_market_that_began_again_hands_nothing_on(trades: list[Message]) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 4)
    real = bench.history.pages

    def pages(*args: Any, **more: Any) -> Iterator[list[Message]]:
        bench.tracker.unfilled.forget(["SPY"])
        yield from real(*args, **more)

    bench.history.pages = pages  # type: ignore[method-assign]
    assert bench.work(60)["backfilled"] == 0
    assert bench.queues.all("gap") == []


def test_backfill_hands_nothing_on_while_live_data_waits(trades: list[Message]) -> None:
    bench = Bench(trades, max_waiting=10)
    bench.declare("SPY", 1, 4)
    bench.queues.unsent = 11
    worker = threading.Thread(target=bench.work, args=(60,))
    worker.start()
    worker.join(0.05)
    assert worker.is_alive()
    assert bench.queues.all("t") == []
    bench.queues.unsent = 10
    worker.join(10)
    assert len(bench.queues.all("t")) == 2


def test_backfill_that_is_stopped_hands_nothing_on_though_an_answer_comes(
    trades: list[Message],
) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 1, 9)
    bench.history.hold = threading.Event()
    bench.now_s = 60.0
    bench.filler.start()
    while not bench.queues.all("t"):
        assert bench.filler._thread.is_alive()
    bench.filler.stop()
    handed = len(bench.queues.all("t"))
    bench.history.hold.set()
    bench.filler._thread.join(10)
    assert not bench.filler._thread.is_alive()
    assert len(bench.queues.all("t")) == handed


def test_backfill_of_a_bar_goes_by_its_end(trades: list[Message]) -> None:
    ohlc = {"o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1}
    tape = [
        {"T": "b", "S": "SPY", **ohlc, "t": format_time_ns(BASE_NS + n * MINUTE_NS)}
        for n in range(-2, 3)
    ]
    bench = Bench(tape)
    bench.declare("SPY", 0, 60 + 1e-9)
    bench.work(600)
    assert [effective_ns(m) - BASE_NS for m in bench.queues.all("b")] == [MINUTE_NS]


def test_backfill_of_a_gap_with_nothing_between_its_ends_asks_nothing(
    trades: list[Message],
) -> None:
    bench = Bench(trades)
    bench.declare("SPY", 4, 4)
    assert bench.work(60)["backfills_done"] == 1
    assert bench.history.asked == []
    assert [row["filled"] for row in bench.queues.all("gap")] == [{"t": 0, "q": 0, "b": 0}]
