"""Revisions when things come at bad moments: around midnight, between messages, while away."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import StreamError
from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.lake.query import LakeQuery
from tests.pipelines.streaming.test_revisions import OPEN_NS, Market, gap, market  # noqa: F401

CLOSE_NS = parse_time_ns("2011-01-03T20:59:00Z")
EVENING_NS = parse_time_ns("2011-01-04T00:05:00Z")  # 19:05 in New York


def cancel(trade: dict[str, Any], ns: int) -> dict[str, Any]:
    return {
        "T": "x", "S": "SPY", "i": trade["i"], "x": trade["x"], "p": trade["p"], "s": trade["s"],
        "a": "E", "t": format_time_ns(ns), "z": "C",
    }  # fmt: skip


def test_cancel_after_midnight_utc_revises_the_bar_of_its_trading_day(market: Market):  # noqa: F811
    minute = (CLOSE_NS - OPEN_NS) // MINUTE_NS
    wrong = market.trade(minute, 30, 300.0)
    market.send(market.trade(minute, 1, 101.0), wrong, market.bar(minute, [101.0, 300.0]))
    market.tape._ns = EVENING_NS + 1
    market.send(cancel(wrong, EVENING_NS))
    market.revisions.run()
    assert market.closes(minute) == [300.0, 101.0]
    left = LakeQuery(market.uri).sql("SELECT price FROM trades_current").to_pylist()
    assert left == [{"price": 101.0}]


@pytest.mark.parametrize("with_bar", [True, False])
def test_gap_that_is_said_to_be_filled_after_a_look_leaves_bars_without_a_doubt(
    market: Market,  # noqa: F811
    with_bar: bool,
):
    market.minute(0, 101.0)
    hole = gap(OPEN_NS + 1, OPEN_NS + 2 * MINUTE_NS + 5)
    missed = [market.trade(1, 10 * k, 102.0 + k) for k in range(3)]
    market.send(hole)
    for minute in (2, 3, 4):
        market.minute(minute, 105.0)
    assert [row["gap"] for minute in (2, 3, 4) for row in market.rows(minute)] == [True] * 3
    bars = [market.bar(1, [102.0, 103.0, 104.0], bf=True)] if with_bar else []
    market.send(*(trade | {"bf": True} for trade in missed), *bars)
    market.revisions.run()  # between the messages and the word that they were all
    market.send(hole | {"backfilled": True, "filled": {"t": 3, "q": 0, "b": len(bars)}})
    market.revisions.run()
    newest = [market.rows(minute)[-1] for minute in range(1, 5)]
    assert [row["close"] for row in newest] == [104.0, 105.0, 105.0, 105.0]
    assert [row["gap"] for row in newest] == [False] * 4


def test_bar_of_the_vendor_after_our_own_stood_in_becomes_a_revision(market: Market):  # noqa: F811
    market.minute(0, 101.0)
    market.send(market.trade(1, 30, 101.0))
    for second in (1, 30, 59):
        market.tape._ns = OPEN_NS + 2 * MINUTE_NS + second * 1_000_000_000
        market.send({"T": "hb", "market_ns": 0, "symbols": ["SPY"]})
    assert [row["source"] for row in market.rows(1)] == ["trades"]
    market.send(market.bar(1, [101.0, 102.0]))
    market.revisions.run()
    assert market.closes(1) == [101.0, 102.0]


def test_revision_that_could_not_be_published_is_published_by_the_next_pass(market: Market):  # noqa: F811
    market.minute(0, 101.0)
    market.minute(1, 101.0)
    market.send(market.bar(0, [105.0], T="u"), market.bar(1, [106.0], T="u"))
    put, away = market.sink.put_items, StreamError("the stream is away")

    def refuse(items: Any) -> None:
        raise away

    market.sink.put_items = refuse  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(StreamError, match="away"):
            market.revisions.run()
    market.sink.put_items = put  # type: ignore[method-assign]
    assert market.revisions.settle()
    assert (market.closes(0), market.closes(1)) == ([101.0, 105.0], [101.0, 106.0])
    ids = [item["id"] for item in market.sink.items if item["kind"] in ("bar", "features")]
    assert len(ids) == len(set(ids)) == 4


def test_symbol_without_features_is_waited_for_a_day(market: Market):  # noqa: F811
    market.minute(0, 101.0)
    market.send({**market.bar(0, [105.0], T="u"), "S": "KO"})
    for _ in range(2):
        market.revisions.run()
        assert market.archive.dirty().minutes.keys() == {"KO"}
        market.wall_ns += 23 * 3600 * 1_000_000_000
    market.revisions.run()
    assert len(market.archive.dirty()) == 0
    assert market.revisions.stats()["given_up"] == 1
