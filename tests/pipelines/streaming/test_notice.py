"""Bars that may be others: what comes after a bar is over, however that came about."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipelines.codec import encode_record
from pipelines.events import MINUTE_NS, SECOND_NS, Record
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.notice import Notice, merged
from pipelines.streaming.parse import Parser
from pipelines.streaming.parts import Start
from pipelines.streaming.reduce import add, parts_of
from tests.pipelines.streaming.conftest import START_NS, Tape

M0 = START_NS // MINUTE_NS


class Scene:
    """Records with stamps of their own, seen by both queries, in batches of one record."""

    def __init__(self, *, speed: int = 1) -> None:
        self.tape, self._speed = Tape(), speed
        self._notice = Notice()
        self._state = SymbolState()
        self.closed: list[Any] = []
        self.dirty: set[int] = set()

    def at(self, minute: int, second: float, *messages: Any) -> None:
        """A record that is sent at a market time."""
        passed = minute * MINUTE_NS + int(second * SECOND_NS)
        made = self.tape.record(*messages)
        record = Record(
            made.epoch, made.bucket, made.bseq, 10**18 + passed // self._speed, START_NS + passed,
            made.messages,
        )  # fmt: skip
        notice = Notice(self._notice.closed, self._notice.ended)
        parser = Parser({}, notice)
        parser.add(encode_record(record), arrival_ns=1)
        parser.take()
        self.dirty |= {minute - M0 for minute in notice.dirty.minutes.get("SPY", ())}
        self._notice = notice
        rows: dict[str, list[Any]] = {}
        add(record, rows)
        parts = parts_of([(1, orjson.dumps(rows.get("SPY", [])))])
        self.closed += self._state.fold(parts, start_of=lambda _: Start())

    def heartbeat(self, minute: int, second: float) -> None:
        self.at(minute, second, {"T": "hb", "market_ns": 0, "symbols": ["SPY"]})

    def trade(self, minute: int, second: float, price: float) -> dict[str, Any]:
        self.tape._ns = START_NS + minute * MINUTE_NS + int(second * SECOND_NS)
        return self.tape.trade(p=price, c=["@"])


@pytest.mark.parametrize("late", ["trade", "bar", "both"])
def test_what_comes_after_our_own_bar_stood_in_is_noticed(late):
    scene = Scene()
    scene.at(0, 1, scene.trade(0, 1, 1.2))
    for second in (0.5, 3, 6):
        scene.heartbeat(1, second)
    assert [bar.bar.source for bar in scene.closed] == ["trades"]
    assert scene.dirty == set()
    if late != "bar":
        scene.at(1, 7, scene.trade(0, 59, 1.9))
    if late != "trade":
        scene.at(1, 8, scene.tape.bar(minute=0))
    assert scene.dirty == {0}


@pytest.mark.parametrize("speed", [1, 10])
def test_bars_and_trades_in_time_are_not_noticed(speed):
    scene = Scene(speed=speed)
    for minute in range(20):
        scene.at(minute, 1, scene.trade(minute, 1, 1.2))
        scene.at(minute, 59, scene.trade(minute, 58, 1.2))
        # So late is the vendor's bar of the minute before, at most: 4 s of wall time.
        scene.at(minute + 1, min(4 * speed, 40) - 1, scene.tape.bar(minute=minute))
    assert {bar.bar.source for bar in scene.closed} == {"vendor"}
    assert scene.dirty == set()


def test_trade_of_a_minute_between_bars_that_came_out_of_order_is_noticed():
    scene = Scene()
    scene.at(6, 0, scene.tape.bar(minute=5))
    scene.at(6, 1, scene.tape.bar(minute=2))
    scene.at(6, 2, scene.trade(4, 30, 9.0))
    assert scene.dirty == {2, 4}


def test_market_that_begins_anew_is_not_late_after_its_first_bar():
    scene = Scene()
    scene.at(200, 1, scene.trade(200, 1, 1.2), scene.tape.bar(minute=199))
    scene.heartbeat(201, 1)
    scene._notice.ended = dict.fromkeys(scene._notice.ended, 0)  # it played long ago
    scene.at(5, 1, scene.trade(5, 1, 1.2))
    scene.at(6, 1, scene.trade(6, 0.5, 1.2), scene.tape.bar(minute=5))
    scene.dirty.clear()  # until the first bar, nobody knows
    scene.at(7, 1, scene.trade(7, 0.5, 1.2), scene.tape.bar(minute=6))
    assert scene.dirty == set()


def test_gap_that_was_filled_makes_its_minutes_dirty_and_the_bars_after_it():
    notice = Notice()
    gap = {"S": "SPY", "from_ns": START_NS + 1, "to_ns": START_NS + 2 * MINUTE_NS}
    notice.filled(gap)
    notice.filled(gap | {"S": "@news"})
    notice.filled(gap | {"S": "KO", "from_ns": None})
    notice.filled(gap | {"S": "BA", "from_ns": 0})
    assert notice.dirty.minutes["SPY"] == set(range(M0, M0 + 3))
    assert notice.dirty.minutes["KO"] == {M0 + 2}
    assert (len(notice.dirty.minutes["BA"]), max(notice.dirty.minutes["BA"])) == (1441, M0 + 2)
    assert notice.dirty.minutes.keys() == {"SPY", "KO", "BA"}
    assert notice.dirty.after == {symbol: {M0 + 2} for symbol in ("SPY", "KO", "BA")}


def test_what_is_remembered_of_minutes_is_bounded():
    notice = Notice()
    for minute in range(500):
        notice.settled_ns(market_ns=minute * MINUTE_NS, sent_at_ns=minute * SECOND_NS)
        assert len(notice.ended) <= 7
    assert len(merged([dict.fromkeys(range(500), 0)])) == 64
