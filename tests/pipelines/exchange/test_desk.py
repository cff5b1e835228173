"""The desk beside a floor, without HTTP."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, format_time_ns
from pipelines.exchange.desk import Desk
from pipelines.exchange.floor import Floor
from pipelines.exchange.market_days import running
from pipelines.exchange.orders import Event, Ticket
from pipelines.exchange.refusals import Refused
from pipelines.exchange.trading_json import update_json
from tests.pipelines.exchange.conftest import SMALL

CONFIG = replace(SMALL, open_on="start", speed=1.0)


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000_000_000_000

    def __call__(self) -> int:
        return self.ns


class Place:
    """A floor with a desk, moved by hand."""

    def __init__(self, path: Path | None = None, **changes: Any) -> None:
        self.clock = Clock()
        self.floor = Floor(replace(CONFIG, **changes), wall_ns=self.clock)
        self.desk = Desk(self.floor, path=path)
        self.events: list[Event] = []
        self.desk.listen("key", self.events.append)

    def play(self, minutes: float) -> None:
        self.clock.ns += int(minutes * MINUTE_NS)
        while self.floor.publish_due():
            pass
        self.desk.advance()

    def save(self) -> None:
        if (save := self.desk.saving()) is not None:
            save()

    def order(self, **body: Any) -> Any:
        defaults = {"symbol": "SPY", "side": "buy", "type": "market", "time_in_force": "day"}
        ticket = Ticket.of(defaults | {"qty": 10} | body, symbols=self.floor.source.symbols)
        order = self.desk.submit("key", ticket)
        return self.desk.member("key").account.orders[order.id]

    def say(self, **message: Any) -> None:
        stamped = {**message, "t": format_time_ns(self.floor.market_ns())}
        self.floor.inject([stamped], [])

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


@pytest.fixture
def place() -> Place:
    made = Place()
    made.play(1)
    return made


def test_desk_without_open_orders_does_not_listen(place: Place) -> None:
    place.order()
    assert place.names == ["new", "fill"]
    place.order(type="limit", limit_price=5, time_in_force="gtc")
    assert place.desk in place.floor.listeners
    assert place.desk.stats()["open_orders"] == 1


def test_desk_quotes_that_are_garbage_fill_nothing_and_stop_nothing(place: Place) -> None:
    order = place.order(type="limit", limit_price=5)
    auction = place.order(time_in_force="cls")
    for ask in (None, "4", float("nan"), -1, 0, 10**400, True, [3]):
        place.say(T="q", S="SPY", bp=ask, bs=100, ap=ask, **{"as": 100}, c=["R"], z="B")
        place.say(T="t", S="SPY", p=ask, s=100, c=["6"], z="B", i=1, x="V")
    place.say(T="t", S="SPY", p=5, s=100, c=6, z="B", i=1, x="V")
    assert place.names == ["new", "accepted"]
    place.say(T="q", S="SPY", bp=4.0, bs=100, ap=4.5, **{"as": 4}, c=["R"], z="B")
    place.say(T="t", S="SPY", p=7.5, s=100, c=["@", "6", "X"], z="B", i=1, x="V")
    assert place.names == ["new", "accepted", "partial_fill", "new", "fill"]
    account = place.desk.member("key").account
    assert account.orders[order.id].filled_value == 4 * Decimal("4.5")
    assert account.orders[auction.id].filled_value == 75


def test_desk_fills_nothing_while_the_symbol_is_halted(place: Place) -> None:
    place.say(T="s", S="SPY", sc="H", sm="", rc="", rm="", z="B")
    assert place.order().status == "accepted"
    place.play(0.2)
    assert place.names == ["accepted"]
    place.say(T="s", S="SPY", sc="T", sm="", rc="", rm="", z="B")
    place.play(0.2)
    assert place.names[:2] == ["accepted", "new"]
    assert "fill" in place.names


def test_desk_auction_orders_are_taken_in_their_time_only(place: Place) -> None:
    with pytest.raises(Refused, match="before the open"):
        place.order(time_in_force="opg")
    late = Place(max_minutes=None)
    late.play(385)
    with pytest.raises(Refused, match="ten minutes before the close"):
        late.order(time_in_force="cls")


def test_desk_closing_auction_fills_and_day_orders_expire_at_the_close() -> None:
    place = Place(max_minutes=None)
    place.play(1)
    place.order(type="limit", limit_price=5)
    closing = place.order(time_in_force="cls")
    place.play(389.5)
    assert [e.name for e in place.events if e.order.id == closing.id] == ["accepted", "new", "fill"]
    assert place.names[-1] == "expired"
    assert place.events[-1].at_ns == place.floor.source.playable()[0][1]


def test_desk_without_a_price_refuses(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no price of SPY yet"):
        Place().order()


def test_desk_file_keeps_all_and_hides_the_key(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    place = Place(path)
    place.play(1)
    place.order()
    place.order(type="trailing_stop", side="sell", trail_percent=5, qty=4, time_in_force="gtc")
    place.play(1)
    place.desk.close()
    assert '"key"' not in path.read_text()
    again = Place(path)
    old, new = place.desk.member("key"), again.desk.member("key")
    assert new.to_dict() == old.to_dict()
    assert new.id == old.id
    assert again.desk in again.floor.listeners  # its open order is watched at once


def test_desk_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    path.write_text('{"synthetic": {"a": {"cash": "x"}}}')
    with pytest.raises(ConfigError, match="remove it to begin anew"):
        Place(path)


def test_desk_file_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "paper.json.new").mkdir()
    place = Place(tmp_path / "paper.json")
    place.play(1)
    place.order()
    place.save()
    place.save()
    assert caplog.text.count("are not written") == 1
    (tmp_path / "paper.json.new").rmdir()
    place.save()
    assert (tmp_path / "paper.json").is_file()


def test_desk_saves_the_accounts_that_changed_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    place = Place(path)
    place.play(1)
    place.order()
    place.desk.member("another")
    save = place.desk.saving()
    assert save is not None
    place.order()  # while it waits to be written
    save()
    assert place.desk.saving() is not None
    assert place.desk.saving() is None
    kept = orjson.loads(path.read_bytes())[place.floor.source.name]
    assert sorted(len(account["fills"]) for account in kept.values()) == [0, 1]
    other = Place(path, seed=8)
    other.desk.member("key")
    other.save()
    assert orjson.loads(path.read_bytes()).keys() == {place.floor.source.name,
                                                      other.floor.source.name}  # fmt: skip


def test_desk_order_at_the_open_waits_for_the_first_quote_of_the_session() -> None:
    place = Place(max_minutes=None)
    place.play(389.999)
    place.clock.ns += MINUTE_NS // 100  # the next session runs, nothing of it is published yet
    opens = place.floor.source.playable()[1][0]
    assert place.floor.latest_ns < opens
    assert running(place.floor) is not None
    order = place.order()
    assert place.names == ["accepted"]
    place.play(1)
    assert place.names == ["accepted", "new", "fill"]
    filled = place.desk.member("key").account.orders[order.id]
    assert opens < filled.updated_ns < opens + MINUTE_NS


def test_desk_order_after_a_halt_waits_for_the_first_quote_behind_it(place: Place) -> None:
    place.say(T="s", S="SPY", sc="H", sm="", rc="", rm="", z="B")
    place.play(0.01)
    place.say(T="s", S="SPY", sc="T", sm="", rc="", rm="", z="B")
    place.order()
    assert place.names == ["accepted"]


def test_desk_event_has_one_id_whoever_hears_of_it(place: Place) -> None:
    heard: list[Event] = []
    place.desk.listen("key", heard.append)
    place.order()
    first, second = (
        [update_json(e)["data"]["execution_id"] for e in ears] for ears in (heard, place.events)
    )
    assert first == second
    assert len(set(first)) == 2
    (fill,) = place.desk.member("key").fills
    assert fill.id == first[-1]
