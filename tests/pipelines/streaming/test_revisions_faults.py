"""Revisions when things come at bad moments: around midnight, between messages, while away."""

from __future__ import annotations

from typing import Any

from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.lake.query import LakeQuery
from tests.pipelines.streaming.test_revisions import OPEN_NS, Market, market  # noqa: F401

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
