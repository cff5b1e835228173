"""Corrections, cancels, updated bars, late and backfilled trades: the next revision, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from pipelines.errors import Fenced
from pipelines.events import MINUTE_NS, Message, format_time_ns, parse_time_ns
from pipelines.features import indicators
from pipelines.features.builder import batch
from pipelines.features.spec import FEATURE_SPEC, SPECS, FeatureSpec
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming import revisions
from pipelines.streaming.archive import Archive
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.known import Known
from pipelines.streaming.outbox import Outbox
from pipelines.streaming.parts import Part
from pipelines.streaming.redone import REDONE, Redone
from pipelines.streaming.reduce import add, parts_of
from pipelines.streaming.remade import Remake
from pipelines.streaming.revisions import Revisions
from pipelines.streaming.signals import payload_of
from pipelines.streaming.warmup import Warmup

OPEN_NS = parse_time_ns("2011-01-03T14:30:00Z")
WALL_NS = parse_time_ns("2024-01-01T00:00:00Z")


class Sink:
    """Keeps items."""

    def __init__(self) -> None:
        self.items: list[Mapping[str, Any]] = []

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        self.items += items


class Past:
    """Bars before the lake began."""

    def __init__(self, count: int) -> None:
        self.rows = []
        for k in range(count, 0, -1):
            price, at = 100.0 + k % 7, format_time_ns(OPEN_NS - k * MINUTE_NS)
            self.rows.append({"t": at, **dict.fromkeys("ohlc", price), "v": 10.0})

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> list[dict[str, Any]]:
        return [r for r in self.rows if parse_time_ns(r["t"]) + MINUTE_NS <= before_ns][-limit:]


class Market:
    """A lake with both queries, without Spark: what is sent is archived and decided at once."""

    def __init__(
        self, uri: str, tape: Any, rows_of: Any, *, past: int = 80, spec: FeatureSpec = FEATURE_SPEC
    ) -> None:
        self.spec = spec
        self.uri, self.tape, self._rows_of = uri, tape, rows_of
        self.past, self.sink, self.wall_ns = Past(past), Sink(), WALL_NS
        self.warmup = Warmup(uri, history=self.past, spec=spec)
        self.archive = Archive(LakeWriter(uri), clock=self.clock)
        self.archive.open("market-data@1")
        self.outbox = Outbox(LakeWriter(uri), Sink(), clock=self.clock)
        self.outbox.open()
        self.revisions = self.new_revisions()
        self._states: dict[str, SymbolState] = {}
        self._batch, self._id = -1, 0
        self.published: list[Any] = []  # by the stream, of closed bars

    def clock(self) -> int:
        return self.wall_ns

    def new_revisions(self) -> Revisions:
        made = Revisions(
            LakeWriter(self.uri),
            self.archive,
            self.sink,
            self.warmup.loader(),
            self.spec,
            clock=self.clock,
        )
        made.open()
        return made

    def send(self, *messages: Message) -> None:
        self._batch += 1
        self.wall_ns += 1_000_000_000
        record = self.tape.record(*({**m, "r": self.wall_ns + i} for i, m in enumerate(messages)))

        def run(single: bool) -> list[Any]:
            rows = self.archive.task(self._batch)([self._rows_of([record])])
            return [orjson.loads(row.column("result")[0].as_py()) for row in rows]

        self.archive.take(run, query_id="q", batch_id=self._batch)
        rows: dict[str, list[Any]] = {}
        add(record, rows)
        asked = []
        for symbol, found in ({"SPY": []} | rows).items():
            state = self._states.setdefault(symbol, SymbolState(self.spec))
            parts: list[Part] = parts_of([(1, orjson.dumps(found))])
            loader = self.warmup.loader()
            closed = state.fold(parts, start_of=partial(loader.start, symbol))
            made = [payload_of(symbol, bar) for bar in closed]
            self.published += made
            asked += [
                {"symbol": symbol, "payload": orjson.dumps(p).decode(), "signal": None}
                for p in made
            ]
        self.outbox.take(lambda ask: asked, query_id="s", batch_id=self._batch)

    def trade(self, minute: int, second: int, price: float, **more: Any) -> Message:
        self._id += 1
        at = OPEN_NS + minute * MINUTE_NS + second * 1_000_000_000
        self.tape._ns = max(self.tape._ns, at)
        return self.tape.trade(p=price, s=10, i=self._id, t=format_time_ns(at), c=["@"]) | more

    def bar(self, minute: int, prices: Sequence[float], **more: Any) -> Message:
        self.tape._ns = max(self.tape._ns, OPEN_NS + (minute + 1) * MINUTE_NS)
        return self.tape.bar(
            minute=minute, o=prices[0], h=max(prices), l=min(prices), c=prices[-1],
            v=10 * len(prices), n=len(prices), vw=float(np.mean(prices)),
        ) | more  # fmt: skip

    def minutes(self, *closes: float, first: int = 0) -> None:
        """Minutes of one trade each, in one record."""
        made = [
            m
            for minute, close in enumerate(closes, first)
            for m in (self.trade(minute, 0, close), self.bar(minute, [close]))
        ]
        self.send(*made)

    def minute(self, minute: int, *prices: float) -> None:
        trades = [self.trade(minute, 10 * k, p) for k, p in enumerate(prices)]
        self.send(*trades, self.bar(minute, prices))

    def rows(self, minute: int = 0) -> list[dict[str, Any]]:
        sql = "FROM features WHERE event_time_ns = $ns ORDER BY revision"
        return LakeQuery(self.uri).sql(sql, {"ns": OPEN_NS + minute * MINUTE_NS}).to_pylist()

    def drained(self) -> list[Mapping[str, Any]]:
        """The items of all that is due."""
        self.sink.items.clear()
        assert self.revisions.settle()
        return list(self.sink.items)

    def closes(self, minute: int = 0) -> list[float]:
        return [row["close"] for row in self.rows(minute)]


@pytest.fixture
def market(tmp_path, tape, rows_of) -> Market:
    return Market(str(tmp_path), tape, rows_of)


def correction(market: Market, original: Message, price: float) -> Message:
    return {
        "T": "c", "S": "SPY", "x": original["x"], "oi": original["i"], "op": original["p"],
        "os": original["s"], "oc": original["c"], "ci": original["i"] + 1000, "cp": price,
        "cs": original["s"], "cc": original["c"], "t": original["t"], "z": "C",
    }  # fmt: skip


def test_correction_after_the_close_makes_the_bars_next_revision(market):
    last = market.trade(0, 30, 103.0)
    market.send(market.trade(0, 1, 101.0), last, market.bar(0, [101.0, 103.0]))
    market.minute(1, 104.0)
    assert market.revisions.run() == 0
    market.send(correction(market, last, 102.0))
    before = market.rows()[0]
    assert market.revisions.run() == 1
    first, second = market.rows()
    assert first == before
    assert (second["revision"], second["close"], second["high"]) == (1, 102.0, 102.0)
    assert (second["volume"], second["trade_count"], second["source"]) == (20.0, 2, "revised")
    assert second["known_at"] > first["known_at"]
    assert LakeQuery(market.uri).dataset("trades").count_rows() == 3
    assert market.closes(1) == [104.0]


def test_revision_is_published_as_bar_and_features_and_never_as_a_signal(market):
    market.minute(0, 101.0)
    market.minute(1, 101.0)
    market.send(market.bar(0, [105.0], T="u"))
    market.revisions.run()
    assert [(i["kind"], i["revision"]) for i in market.sink.items] == [("bar", 1), ("features", 1)]
    assert market.sink.items[0]["data"]["close"] == 105.0


def test_looking_twice_changes_nothing_also_after_a_restart(market):
    market.minute(0, 101.0)
    market.send(market.bar(0, [105.0], T="u"))
    market.revisions.run()
    assert market.revisions.run() == 0
    market.archive = Archive(LakeWriter(market.uri), clock=market.clock)
    market.archive.open("market-data@1")  # that it was looked at was not committed
    assert len(market.archive.dirty()) == 1
    market.revisions = market.new_revisions()
    assert market.revisions.run() == 1
    assert market.closes() == [101.0, 105.0]
    assert [i["id"] for i in market.sink.items[:2]] == [i["id"] for i in market.sink.items[2:]]


def test_driver_that_died_before_publishing_publishes_after_its_restart(market):
    market.minute(0, 101.0)
    market.send(market.bar(0, [105.0], T="u"))
    market.revisions._publish = lambda: None
    market.revisions.run()
    assert market.sink.items == []
    market.new_revisions().run()
    assert [i["kind"] for i in market.sink.items] == ["bar", "features"]
    market.wall_ns += 25 * 3600 * 1_000_000_000
    market.new_revisions().run()
    assert len(market.sink.items) == 2


def test_cancel_takes_the_trade_out_of_the_bar(market):
    wrong = market.trade(0, 30, 300.0)
    market.send(market.trade(0, 1, 101.0), wrong, market.bar(0, [101.0, 300.0]))
    cancel = {
        "T": "x", "S": "SPY", "i": wrong["i"], "x": wrong["x"], "p": 300.0, "s": 10, "a": "E",
        "t": wrong["t"], "z": "C",
    }  # fmt: skip
    market.send(cancel)
    market.revisions.run()
    assert market.closes() == [300.0, 101.0]


def test_late_trade_then_the_vendors_updated_bar_that_says_the_same_is_one_revision(market):
    market.minute(0, 101.0)
    market.send(market.trade(0, 59, 102.0))
    market.revisions.run()
    assert market.closes() == [101.0, 102.0]
    market.send(market.bar(0, [101.0, 102.0], T="u"))
    market.revisions.run()
    assert market.closes() == [101.0, 102.0]


def test_updated_bar_after_a_correction_is_the_last_word(market):
    last = market.trade(0, 30, 103.0)
    market.send(last, market.bar(0, [103.0]))
    market.send(correction(market, last, 102.0), market.bar(0, [102.5], T="u"))
    market.revisions.run()
    assert market.closes() == [103.0, 102.5]


def gap(from_ns: int, to_ns: int, **more: Any) -> Message:
    return {"T": "gap", "S": "SPY", "from_ns": from_ns, "to_ns": to_ns, "reason": "drop"} | more


def test_backfilled_minute_becomes_a_bar_and_its_features_are_no_longer_gapped(market):
    market.minute(0, 101.0)
    hole = gap(OPEN_NS + 1, OPEN_NS + 2 * MINUTE_NS + 5)
    missed = [market.trade(1, 10 * k, 102.0 + k) for k in range(3)]
    market.send(hole)
    market.minute(2, 105.0)
    assert market.rows(2)[0]["gap"]
    assert market.closes(1) == []
    market.send(*(m | {"bf": True} for m in missed), market.bar(1, [102.0, 103.0, 104.0], bf=True))
    market.send(hole | {"backfilled": True, "filled": {"t": 3, "q": 0, "b": 1}})
    market.revisions.run()
    (row,) = market.rows(1)
    assert (row["close"], row["revision"], row["gap"]) == (104.0, 1, False)


def test_correction_in_a_minute_with_a_hole_waits_for_the_vendor(market):
    last = market.trade(0, 30, 103.0)
    market.send(gap(OPEN_NS + 1, OPEN_NS + 5), last, market.bar(0, [101.0, 103.0]))
    market.send(correction(market, last, 102.0))
    market.revisions.run()
    assert market.closes() == [103.0]
    assert market.revisions.stats()["unknown"] == 1
    market.send(market.bar(0, [101.0, 102.0], T="u"))
    market.revisions.run()
    assert market.closes() == [103.0, 102.0]


def test_bar_that_is_not_decided_yet_waits(market):
    market.minute(0, 101.0)
    market.send(market.trade(1, 5, 101.0, bf=True))
    assert market.revisions.run() == 0
    assert len(market.archive.dirty()) == 1
    market.minute(1, 101.0)
    assert market.revisions.run() == 1
    assert market.closes(1) == [101.0]
    assert len(market.archive.dirty()) == 0


def test_features_of_a_revision_are_those_of_the_batch_over_the_bars_as_they_stand(market):
    rng = np.random.default_rng(3)
    closes = (100 + np.cumsum(rng.normal(0, 0.3, 30))).tolist()
    market.minutes(*closes)
    revised = {7: 99.0, 8: 104.0, 25: 101.0}
    for minute, close in revised.items():
        market.send(market.bar(minute, [close], T="u"))
    market.revisions.run()
    now = np.array([revised.get(m, c) for m, c in enumerate(closes)])
    before = market.past.rows
    expected = batch(
        close=[*(r["c"] for r in before), *now], volume=[*(r["v"] for r in before), *[10.0] * 30]
    )[len(before) :]
    for minute in revised:
        row = market.rows(minute)[-1]
        assert row["warm"]
        for name, value in zip(FEATURE_SPEC.names, expected[minute], strict=True):
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert len(market.rows(9)) == 1  # what was decided on later bars stays as it was


def test_pass_is_bounded_and_the_rest_is_left_for_the_next(market):
    market.revisions._limit = 2
    for minute in range(5):
        market.minute(minute, 101.0)
    for minute in range(5):
        market.send(market.bar(minute, [102.0], T="u"))
    assert [market.revisions.run() for _ in range(4)] == [2, 2, 1, 0]
    assert all(market.closes(m) == [101.0, 102.0] for m in range(5))


@pytest.mark.parametrize(("symbols", "last_batch"), [(1, 1), (50, 0)])
def test_symbols_are_looked_at_together_each_with_its_own_minutes_and_bars_before(
    market, monkeypatch, symbols, last_batch
):
    monkeypatch.setattr(revisions, "SYMBOLS", symbols)

    def of_ko(*messages: Message) -> list[Message]:
        return [m | {"S": "KO"} for m in messages]

    for minute in range(6):
        market.minute(minute, 101.0)
        market.send(*of_ko(market.trade(minute, 5, 50.0 + minute), market.bar(minute, [50.0])))
    last = market.trade(5, 30, 103.0)
    market.send(*of_ko(last), market.bar(1, [105.0], T="u"), *of_ko(market.bar(3, [55.0], T="u")))
    market.send(*of_ko(correction(market, last, 48.0)))
    first = OPEN_NS // MINUTE_NS
    assert market.revisions.run() == 3
    rows = LakeQuery(market.uri).sql("FROM features WHERE revision > 0 ORDER BY symbol, event_time")
    assert [(r["symbol"], r["event_time_ns"], r["close"]) for r in rows.to_pylist()] == [
        ("KO", OPEN_NS + 3 * MINUTE_NS, 55.0),
        ("KO", OPEN_NS + 5 * MINUTE_NS, 48.0),
        ("SPY", OPEN_NS + MINUTE_NS, 105.0),
    ]
    assert LakeWriter(market.uri).last_batch("features", "revisions") == last_batch
    known = Known(LakeQuery(market.uri), window=3)
    found = known.of({"KO": [first + 3], "SPY": [first + 1, first + 2]})
    assert [len(found[s].before) for s in ("KO", "SPY")] == [3, 1]
    assert {row["symbol"] for row in found["KO"].before} == {"KO"}
    assert [row["event_time_ns"] for row in found["SPY"].between] == [
        OPEN_NS + m * MINUTE_NS for m in (1, 2)
    ]
    assert list(found["KO"].features) == [first + 3]
    assert len(market.archive.dirty()) == 0


def test_symbol_whose_bars_cannot_be_made_anew_does_not_stop_the_others(market, monkeypatch):
    for symbol in ("KO", "SPY"):
        market.send(market.trade(0, 5, 101.0) | {"S": symbol})
        market.send(market.bar(0, [101.0]) | {"S": symbol})
    for symbol in ("KO", "SPY"):
        market.send(market.bar(0, [105.0], T="u") | {"S": symbol})
    walk = Remake.walk

    def walk_or_fail(self: Remake, symbol: str, *args: Any) -> Any:
        if symbol == "KO":
            raise KeyError("the history of KO")
        return walk(self, symbol, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Remake, "walk", walk_or_fail)
        with pytest.raises(KeyError, match="KO"):
            market.revisions.run()
    assert market.closes() == [101.0, 101.0, 105.0]
    assert market.archive.dirty().minutes.keys() == {"KO"}
    assert market.revisions.run() == 1
    assert market.closes() == [101.0, 101.0, 105.0, 105.0]


def test_pass_is_followed_by_a_rest_unless_it_left_something(market):
    market.revisions._limit = 2
    market.minutes(*[101.0] * 3)
    market.send(*(market.bar(minute, [102.0], T="u") for minute in range(3)))
    assert (market.revisions.run(), market.revisions.rest_s) == (2, 0.0)
    assert market.revisions.run() == 1
    assert 0 < market.revisions.rest_s <= 30


def test_older_driver_is_fenced(market):
    market.minute(0, 101.0)
    market.send(market.bar(0, [105.0], T="u"))
    market.new_revisions()
    with pytest.raises(Fenced):
        market.revisions.run()
    assert market.closes() == [101.0]


def test_what_was_known_at_a_time_stays_readable(market):
    market.minute(0, 101.0)
    then = market.rows()[0]["known_at"]
    market.send(market.bar(0, [105.0], T="u"))
    market.revisions.run()
    query = LakeQuery(market.uri)
    sql = "SELECT close FROM features_as_of($t)"
    known = query.sql(sql, {"t": then.isoformat()})
    assert known["close"].to_pylist() == [101.0]
    assert query.sql("SELECT close FROM bars_current")["close"].to_pylist() == [105.0]
    assert isinstance(known, pa.Table)


def test_second_correction_of_a_day_looks_at_its_own_minute_alone(market):
    trades = [market.trade(minute, 30, 103.0) for minute in range(3)]
    for minute, trade in enumerate(trades):
        market.send(trade, market.bar(minute, [103.0]))
    market.send(correction(market, trades[0], 102.0))
    assert market.revisions.run() == 1
    market.send(correction(market, trades[1], 101.0))
    assert market.revisions.run() == 1
    market.send(correction(market, trades[0] | {"i": trades[0]["i"] + 1000}, 101.5))  # of the first
    assert market.revisions.run() == 1
    assert [market.closes(m) for m in range(3)] == [[103.0, 102.0, 101.5], [103.0, 101.0], [103.0]]


def by_window(items: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {i["data"]["window"]: i for i in items if i["kind"] == "bar" and "window" in i["data"]}


def test_roll_ups_that_hold_a_revised_minute_are_published_anew_once_they_are_over(market):
    market.minutes(*(100.0 + minute for minute in range(7)))
    market.send(market.bar(2, [150.0, 90.0, 102.0], T="u"))
    assert [i["revision"] for i in by_window(market.drained()).values()] == [REDONE + 1]
    redone = by_window(market.sink.items)["5m"]
    first = next(p for p in market.published if p["rollups"])["rollups"][0]
    assert redone["event_time"] == first["event_time"] == format_time_ns(OPEN_NS)
    assert redone["id"] == f"bar:SPY:{format_time_ns(OPEN_NS)}:{REDONE + 1}:5m"
    wanted = {"open": 100.0, "high": 150.0, "low": 90.0, "close": 104.0, "volume": 70.0}
    assert {k: redone["data"][k] for k in wanted} == wanted
    assert (redone["data"]["trade_count"], redone["data"]["source"]) == (7, "revised")
    assert market.drained() == []
    market.minutes(*[100.0] * 8, first=7)
    found = by_window(market.drained())
    assert {w: i["data"]["high"] for w, i in found.items()} == {"15m": 150.0}
    market.send(market.bar(2, [102.0], T="u"))
    found = by_window(market.drained())
    assert {w: (i["revision"], i["data"]["high"]) for w, i in found.items()} == {
        "5m": (REDONE + 2, 104.0), "15m": (REDONE + 2, 106.0),
    }  # fmt: skip


def test_roll_ups_of_days_far_apart_are_made_day_by_day(market):
    market.minutes(*[100.0] * 6)
    redone = Redone(LakeQuery(market.uri))
    minute = OPEN_NS // MINUTE_NS
    for symbol, day in (("OLD", -100), ("AAPL", 0), ("SPY", 0)):
        redone.touch(symbol, [minute + day * 1440])
    redone.look(dict.fromkeys(("OLD", "AAPL", "SPY"), minute + 5000))
    groups = []
    while spans := redone.due():
        groups.append(sorted({span.symbol for span in spans}))
        found = redone.payloads(spans)
        assert [payload["symbol"] for payload in found] == ["SPY"] * (len(groups) == 1)
        redone.published(spans)
    assert (groups[0], groups[-1]) == (["AAPL", "SPY"], ["OLD"])
    assert redone.settled


def test_roll_ups_that_were_due_are_published_after_a_restart_with_the_same_ids(market):
    market.minutes(*[100.0] * 6)
    market.send(market.bar(2, [105.0], T="u"))
    market.revisions.run()  # the bar is out, its roll-up is not
    assert by_window(market.sink.items) == {}
    market.revisions = market.new_revisions()
    again = by_window(market.drained())
    assert again["5m"]["data"]["high"] == 105.0
    market.revisions = market.new_revisions()
    assert by_window(market.drained()) == again


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_revision_says_what_was_published_first_where_nothing_that_counts_changed(
    tmp_path, tape, rows_of, spec
):
    market = Market(str(tmp_path), tape, rows_of, past=250, spec=spec)
    market.minutes(*(100.0 + minute % 3 for minute in range(9)))
    before = next(p for p in market.published if p["event_time"].startswith("2011-01-03T14:35"))
    market.send(market.bar(5, [102.0], T="u", n=9))  # of the same prices: only the count differs
    (revised,) = [i for i in market.drained() if i["kind"] == "features"]
    assert list(before["indicators"]) == list(indicators.NAMES)
    assert revised["data"]["indicators"] == pytest.approx(before["indicators"], rel=1e-12)
    values = dict(zip(spec.names, before["values"], strict=True))
    assert revised["data"]["values"] == pytest.approx(values, rel=1e-12)
    assert revised["data"]["fingerprint"] == spec.fingerprint
    market.sink.items.clear()
    market.new_revisions().run()  # of a driver that may not have published
    assert [i for i in market.sink.items if i["kind"] == "features"] == [revised]
