"""Each paper fill once in the lake and on the stream, whatever is late, killed or asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import LakeError, StreamError
from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.bars import Decidable
from pipelines.streaming.fills import Fills
from pipelines.streaming.outbox import Outbox, signals_table
from pipelines.streaming.signals import payload_of
from serve.portfolio import Portfolio

T0 = parse_time_ns("2011-01-03T14:30:00Z")
MODEL = {"id": "ppo-1", "version": 3, "fingerprint": "f"}
HOLD, BUY, SELL = 0, 1, 2


class Service:
    """The account of one symbol, as serving keeps it."""

    def __init__(self) -> None:
        self.book = Portfolio()
        self.made: list[str] = []

    def answer(self, minute: int, action: int) -> dict[str, Any]:
        bar_ns = T0 + minute * MINUTE_NS
        position, cash = self.book.at_bar(
            "ppo-1:3", "SPY", bar_ns=bar_ns, open_usd=10 + minute, close_usd=11, spread_bps=2
        )
        self.book.decide("ppo-1:3", "SPY", bar_ns=bar_ns, action=action)
        said = self.book.report("ppo-1:3", "SPY")
        self.made += [f["event_time"] for f in said["fills"] if f["event_time"] not in self.made]
        return signal(minute, action, position_fraction=position, cash_fraction=cash, **said)

    def published(self, answer: dict[str, Any]) -> None:
        bar_ns = parse_time_ns(answer["event_time"])
        self.book.follow("ppo-1:3", "SPY", answer, bar_ns=bar_ns)


def signal(minute: int, action: int, **said: Any) -> dict[str, Any]:
    return {
        "symbol": "SPY", "action": "HOLD", "action_id": action, "confidence": None,
        "probabilities": None, "value": None, "q_values": None, "position_fraction": 0.0,
        "cash_fraction": 1.0, "model": MODEL, "event_time": format_time_ns(T0 + minute * MINUTE_NS),
        "decided_at": "2026-01-01T00:00:00.5Z", "data_age_ms": 1.0, "reason": None,
    } | said  # fmt: skip


def unavailable(minute: int) -> dict[str, Any]:
    return signal(minute, HOLD, model=None, reason="unavailable")


class Sink:
    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.broken = False

    def put_items(self, items: Any) -> None:
        if self.broken:
            raise StreamError("down")
        self.items += orjson.loads(orjson.dumps(items))


class Kept:
    """A lake that only counts."""

    uri, storage_options = "", {}

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def commit(self, name: str, rows: Any, **_: Any) -> bool:
        self.rows += rows.to_pylist()
        return True


class Step:
    """What becomes of one bar: the action, whether its answer came in time, and when it is seen."""

    def __init__(self, action: int, late: bool, seen: bool) -> None:
        self.action, self.late, self.seen = action, late, seen


steps = st.lists(
    st.builds(Step, st.sampled_from([HOLD, BUY, SELL]), st.booleans(), st.booleans()), max_size=30
)


@given(steps)
def test_every_fill_of_an_account_is_stored_once_in_order_though_answers_are_late(bars) -> None:
    service, lake, sink = Service(), Kept(), Sink()
    fills = Fills(lake, sink, clock=lambda: 0)  # type: ignore[arg-type]
    unseen: list[dict[str, Any]] = []
    for minute, bar in enumerate([*bars, Step(HOLD, False, True)]):
        answer = service.answer(minute, bar.action)
        told = unavailable(minute) if bar.late else answer
        rows = signals_table([told], known_ns=0)
        fills.take(rows, known_ns=0, query_id="q", batch_id=minute)
        unseen.append(told)
        if bar.seen:
            for one in unseen:
                service.published(one)
            unseen.clear()
    stored = [row["event_time_ns"] for row in lake.rows]
    assert stored == [parse_time_ns(time) for time in service.made]
    assert [row["side"] for row in lake.rows] == (["BUY", "SELL"] * len(stored))[: len(stored)]
    assert len({item["id"] for item in sink.items}) == len(sink.items) == len(stored)


class World:
    """A real lake with the outbox, whose batches are the bars of SPY."""

    def __init__(self, uri: Path) -> None:
        self.uri, self.sink, self.service = str(uri), Sink(), Service()
        self.answers: dict[int, dict[str, Any]] = {}
        self.batch = 0

    def outbox(self) -> Outbox:
        outbox = Outbox(LakeWriter(self.uri, sleep=lambda _: None), self.sink)
        outbox.open()
        return outbox

    def take(self, outbox: Outbox, minute: int, action: int) -> None:
        bar = ClosedBar(T0 + minute * MINUTE_NS, 10, 10, 10, 10, 10, 3, 10, 0.7)
        payload = payload_of("SPY", Decidable(bar, FeatureBuilder().update(bar), False, T0, False))
        if minute not in self.answers:
            self.answers[minute] = self.service.answer(minute, action)
        row = {
            "symbol": "SPY", "payload": orjson.dumps(payload).decode(),
            "signal": orjson.dumps(self.answers[minute]).decode(),
        }  # fmt: skip

        def run(ask: bool) -> list[dict[str, Any]]:
            return [row | ({} if ask else {"signal": None})]

        outbox.take(run, query_id="5c6f", batch_id=minute)

    def stored(self) -> list[tuple[str, str]]:
        sql = "SELECT side, strftime(event_time, '%H:%M') AS at FROM fills ORDER BY event_time"
        return [(row["side"], row["at"]) for row in LakeQuery(self.uri).sql(sql).to_pylist()]

    def told(self) -> set[str]:
        return {item["id"] for item in self.sink.items if item["kind"] == "fill"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "lake")


def test_fill_is_stored_with_everything_about_it_and_published(world: World) -> None:
    outbox = world.outbox()
    for minute, action in enumerate((BUY, HOLD, SELL, HOLD)):
        world.take(outbox, minute, action)
    assert world.stored() == [("BUY", "14:31"), ("SELL", "14:33")]
    assert world.told() == {
        "fill:SPY:2011-01-03T14:31:00Z:0:ppo-1:3", "fill:SPY:2011-01-03T14:33:00Z:0:ppo-1:3",
    }  # fmt: skip
    (row,) = LakeQuery(world.uri).sql("SELECT * FROM fills WHERE side = 'BUY'").to_pylist()
    assert all(row[name] is not None for name in row if name != "reason")
    assert row["signal_id"] == "signal:SPY:2011-01-03T14:30:00Z:0:ppo-1:3"
    assert row["open"] == 11
    assert row["notional"] + row["commission"] == pytest.approx(100_000)
    assert outbox.stats()["fills"] == 2


def test_fill_of_a_batch_that_died_before_it_was_stored_is_added_by_the_next_driver(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = world.outbox()
    world.take(outbox, 0, BUY)

    def die(*_: Any, **__: Any) -> int:
        raise LakeError("killed")

    monkeypatch.setattr(Fills, "take", die)
    with pytest.raises(LakeError):
        world.take(outbox, 1, HOLD)
    monkeypatch.undo()
    assert world.stored() == []
    again = world.outbox()
    assert world.stored() == [("BUY", "14:31")]
    assert len(world.told()) == 1
    world.take(again, 1, HOLD)  # Spark replays the batch
    world.take(world.outbox(), 2, HOLD)
    assert world.stored() == [("BUY", "14:31")]


def test_fill_that_was_stored_and_not_published_is_published_by_the_next_driver(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = world.outbox()
    world.take(outbox, 0, BUY)
    put = Sink.put_items

    def no_fills(sink: Sink, items: Any) -> None:
        if any(item["kind"] == "fill" for item in items):
            raise StreamError("down")
        put(sink, items)

    monkeypatch.setattr(Sink, "put_items", no_fills)
    with pytest.raises(StreamError):
        world.take(outbox, 1, HOLD)
    assert (len(world.stored()), world.told()) == (1, set())
    monkeypatch.undo()
    world.outbox()
    assert (len(world.stored()), len(world.told())) == (1, 1)
