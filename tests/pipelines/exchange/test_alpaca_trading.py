"""The vendor's own trading clients trade on the exchange, without special cases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import httpx
import msgpack
import orjson
import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import (
    AssetStatus,
    OrderSide,
    OrderStatus,
    QueryOrderStatus,
    TimeInForce,
)  # fmt: skip
from alpaca.trading.models import Order, TradeUpdate
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    GetPortfolioHistoryRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopOrderRequest,
    TrailingStopOrderRequest,
)  # fmt: skip
from alpaca.trading.stream import TradingStream

from pipelines.events import parse_time_ns
from pipelines.tape import read_tape

Exchange = Callable[..., Any]
OPEN = {"open_on": "start", "speed": 60.0, "max_minutes": 120}
BUY, SELL, DAY, GTC = OrderSide.BUY, OrderSide.SELL, TimeInForce.DAY, TimeInForce.GTC


def _client(running: Any, key: str = "key") -> TradingClient:
    return TradingClient(key, "secret", url_override=running.http)


def _market(qty: float, side: OrderSide = BUY, **more: Any) -> MarketOrderRequest:
    return MarketOrderRequest(symbol="SPY", qty=qty, side=side, time_in_force=DAY, **more)


def _limit(qty: float, price: float, side: OrderSide = BUY, **more: Any) -> LimitOrderRequest:
    more = {"time_in_force": DAY} | more
    return LimitOrderRequest(symbol="SPY", qty=qty, side=side, limit_price=price, **more)


class Traded:
    """An exchange whose market is open, and a client of it."""

    def __init__(self, running: Any) -> None:
        self.running = running
        self.client = _client(running)
        running.wait(lambda: running.get("/raytape/stats")["by_channel"].get("quotes", 0) > 10)

    def done(self, order: Any, *statuses: OrderStatus) -> Order:
        wanted = statuses or (OrderStatus.FILLED,)
        self.running.wait(lambda: self.client.get_order_by_id(order.id).status in wanted)
        found = self.client.get_order_by_id(order.id)
        assert isinstance(found, Order)
        return found


@pytest.fixture
def traded(exchange: Exchange) -> Traded:
    return Traded(exchange(**OPEN))


def test_market_order_fills_and_moves_cash_and_position(traded: Traded) -> None:
    client = traded.client
    before = client.get_account()
    assert before.status == "ACTIVE"
    assert before.cash == "100000"
    placed = client.submit_order(_market(10, client_order_id="first"))
    assert placed.status == OrderStatus.ACCEPTED
    order = traded.done(placed)
    assert order.filled_qty == "10"
    position = client.get_open_position("SPY")
    assert position.qty == "10"
    assert position.exchange == "ARCA"
    assert float(position.avg_entry_price) == pytest.approx(float(order.filled_avg_price))
    assert client.get_open_position(position.asset_id).symbol == "SPY"
    after = client.get_account()
    spent = 10 * float(order.filled_avg_price)
    assert float(after.cash) == pytest.approx(100_000 - spent, abs=0.01)
    assert float(after.equity) == pytest.approx(100_000, rel=1e-3)
    assert float(after.long_market_value) == pytest.approx(spent, rel=1e-3)
    assert client.get_order_by_client_id("first").id == placed.id
    quote = traded.running.get("/v2/stocks/quotes/latest", symbols="SPY")["quotes"]["SPY"]
    assert float(order.filled_avg_price) == pytest.approx(quote["ap"], rel=1e-2)


def test_notional_and_fractional_orders_fill_in_parts_of_shares(traded: Traded) -> None:
    request = MarketOrderRequest(symbol="AAPL", notional=1000, side=BUY, time_in_force=DAY)
    order = traded.done(traded.client.submit_order(request))
    assert order.notional == "1000"
    assert order.qty is None
    spent = float(order.filled_qty) * float(order.filled_avg_price)
    assert spent == pytest.approx(1000, abs=0.01)
    assert traded.done(traded.client.submit_order(_market(0.5))).filled_qty == "0.5"


def test_resting_orders_are_listed_replaced_and_canceled(traded: Traded) -> None:
    client = traded.client
    low = client.submit_order(_limit(5, 10.0))
    stop = client.submit_order(
        StopOrderRequest(symbol="SPY", qty=1, side=BUY, time_in_force=GTC, stop_price=9000)
    )
    both = client.submit_order(
        StopLimitOrderRequest(
            symbol="MSFT", qty=1, side=BUY, time_in_force=GTC, stop_price=9000, limit_price=9001
        )
    )
    listed = client.get_orders()
    assert [o.id for o in listed] == [both.id, stop.id, low.id]
    assert {o.status for o in listed} == {OrderStatus.NEW}
    only = GetOrdersRequest(symbols=["SPY"], side=BUY, limit=1, direction="asc")
    assert [o.id for o in client.get_orders(only)] == [low.id]
    fresh = client.replace_order_by_id(low.id, ReplaceOrderRequest(qty=7, limit_price=11.5))
    assert (fresh.qty, fresh.limit_price, fresh.replaces) == ("7", "11.5", low.id)
    old = client.get_order_by_id(low.id)
    assert (old.status, old.replaced_by) == (OrderStatus.REPLACED, fresh.id)
    client.cancel_order_by_id(fresh.id)
    assert client.get_order_by_id(fresh.id).canceled_at is not None
    answers = client.cancel_orders()
    assert {a.id: a.status for a in answers} == {stop.id: 200, both.id: 200}
    assert client.get_orders() == []
    closed = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.CLOSED))
    assert {o.id for o in closed} == {low.id, stop.id, both.id, fresh.id}


def test_marketable_limit_and_trailing_stop_fill(traded: Traded) -> None:
    client = traded.client
    traded.done(client.submit_order(_limit(3, 2000.0)))
    trailing = TrailingStopOrderRequest(
        symbol="SPY", qty=3, side=SELL, time_in_force=GTC, trail_percent=0.01
    )
    order = traded.done(client.submit_order(trailing))
    assert float(order.hwm) > 0
    with pytest.raises(APIError, match="position does not exist"):
        client.get_open_position("SPY")


def test_positions_are_closed_in_part_and_all(traded: Traded) -> None:
    client = traded.client
    traded.done(client.submit_order(_market(10)))
    traded.done(client.close_position("SPY", ClosePositionRequest(percentage="50")))
    traded.done(client.close_position("SPY", ClosePositionRequest(qty="1")))
    assert client.get_open_position("SPY").qty == "4"
    nothing, too_much = {"percentage": "0.000000001"}, {"qty": "9"}
    for part, words in ((nothing, "smallest part"), (too_much, "insufficient")):
        with pytest.raises(APIError, match=words):
            client.close_position("SPY", ClosePositionRequest(**part))
    assert client.get_open_position("SPY").qty == "4"
    held = client.submit_order(_limit(4, 5000.0, SELL))
    failed = client.close_all_positions()
    assert [(r.status, r.body.code) for r in failed] == [(403, 40310000)]
    assert failed[0].body.held_for_orders == 4
    closed = client.close_all_positions(cancel_orders=True)
    assert [(r.status, r.symbol) for r in closed] == [(200, "SPY")]
    traded.running.wait(lambda: client.get_all_positions() == [])
    assert client.get_order_by_id(held.id).status == OrderStatus.CANCELED


def test_refusals_have_the_status_and_shape_of_the_vendor(traded: Traded) -> None:
    client = traded.client

    def refused(call: Callable[[], Any]) -> tuple[int, int, str]:
        with pytest.raises(APIError) as error:
            call()
        return error.value.status_code, error.value.code, error.value.message

    assert refused(lambda: client.submit_order(_market(10_000_000)))[:2] == (403, 40310000)
    assert refused(lambda: client.submit_order(_market(1, SELL))) == (
        403, 40310000, "insufficient qty available for order (requested: 1, available: 0)",
    )  # fmt: skip
    assert refused(lambda: client.submit_order(_limit(1, 1.001)))[:2] == (422, 42210000)
    unknown = UUID(int=7)
    assert refused(lambda: client.get_order_by_id(unknown))[:2] == (404, 40410000)
    assert refused(lambda: client.cancel_order_by_id(unknown))[0] == 404
    assert refused(lambda: client.get_asset("NOPE"))[0] == 404
    assert refused(lambda: client.get_open_position("SPY"))[0] == 404
    assert refused(client.get_watchlists)[0] == 404
    order = traded.done(client.submit_order(_market(1)))
    assert refused(lambda: client.cancel_order_by_id(order.id)) == (
        422, 42210000, 'order is already in "filled" state',
    )  # fmt: skip


def test_clock_calendar_and_assets(traded: Traded) -> None:
    client = traded.client
    clock = client.get_clock()
    assert clock.is_open
    assert clock.timestamp.date() == date(2024, 7, 2)
    assert clock.next_close.isoformat() == "2024-07-02T16:00:00-04:00"
    week = GetCalendarRequest(start=date(2024, 7, 1), end=date(2024, 7, 5))
    days = [(d.date.day, d.close.hour) for d in client.get_calendar(week)]
    assert days == [(1, 16), (2, 16), (3, 13), (5, 16)]
    assert len(client.get_calendar()) > 15_000
    assets = client.get_all_assets(GetAssetsRequest(status=AssetStatus.ACTIVE))
    assert [a.symbol for a in assets] == ["AAPL", "MSFT", "SPY"]
    assert client.get_asset("SPY") == client.get_asset(assets[2].id) == assets[2]
    assert client.get_account_configurations().no_shorting


def test_activities_and_worth_over_time_tell_of_the_fills(traded: Traded) -> None:
    order = traded.done(traded.client.submit_order(_market(10)))
    rows = traded.running.get("/v2/account/activities/FILL")
    assert sum(float(row["qty"]) for row in rows) == 10
    assert {row["order_id"] for row in rows} == {str(order.id)}
    assert rows[0]["type"] == "fill"
    assert traded.running.get("/v2/account/activities", activity_types="DIV") == []
    older = traded.running.get("/v2/account/activities", page_token=rows[-1]["id"])
    assert older == []
    request = GetPortfolioHistoryRequest(period="1D", timeframe="1Min")
    history = traded.client.get_portfolio_history(request)
    assert history.base_value == 100_000
    assert len(history.timestamp) == len(history.equity) >= 1


def test_fills_are_at_published_quotes_within_their_size(
    exchange: Exchange, tmp_path: Path
) -> None:
    traded = Traded(exchange(record_dir=tmp_path, cash_usd=1e7, **OPEN))
    order = traded.done(traded.client.submit_order(_market(9000)))
    rows = traded.running.get("/v2/account/activities", direction="asc")
    assert len(rows) > 3
    assert sum(float(row["qty"]) for row in rows) == 9000
    assert {row["order_id"] for row in rows} == {str(order.id)}
    last = parse_time_ns(rows[-1]["transaction_time"])
    traded.running.wait(lambda: any(_time(m) > last for m in read_tape(tmp_path)))
    quotes = [m for m in read_tape(tmp_path) if m["T"] == "q" and m["S"] == "SPY"]
    asks = {_time(q): (q["ap"], q["as"]) for q in quotes}
    later = [row for row in rows if parse_time_ns(row["transaction_time"]) in asks]
    assert len(later) >= len(rows) - 3  # the first ones bear the time at which the order came
    for row in later:
        price, size = asks[parse_time_ns(row["transaction_time"])]
        assert float(row["price"]) == price
        assert float(row["qty"]) <= size


def _time(message: dict[str, Any]) -> int:
    return parse_time_ns(message["t"])


def test_accounts_of_two_keys_are_apart(traded: Traded) -> None:
    other = _client(traded.running, "another")
    traded.done(traded.client.submit_order(_market(10)))
    assert other.get_all_positions() == []
    assert other.get_account().id != traded.client.get_account().id


def test_short_sale_where_it_is_allowed(exchange: Exchange) -> None:
    traded = Traded(exchange(shorting=True, **OPEN))
    traded.done(traded.client.submit_order(_market(10, SELL)))
    position = traded.client.get_open_position("SPY")
    assert (position.side, position.qty) == ("short", "-10")
    assert float(traded.client.get_account().short_market_value) < 0
    traded.done(traded.client.close_position("SPY"))
    assert traded.client.get_all_positions() == []


def test_order_before_the_opening_waits_for_it(exchange: Exchange) -> None:
    running = exchange(speed=60.0, max_minutes=60)
    client = _client(running)
    order = client.submit_order(_market(5))
    opening = MarketOrderRequest(symbol="AAPL", qty=5, side=BUY, time_in_force=TimeInForce.OPG)
    at_open = client.submit_order(opening)
    assert {o.status for o in client.get_orders()} == {OrderStatus.ACCEPTED}
    asyncio.run(_subscribe(running))  # opens the market
    running.wait(lambda: client.get_orders() == [])
    assert client.get_order_by_id(order.id).status == OrderStatus.FILLED
    found = client.get_order_by_id(at_open.id)
    first = running.get("/v2/stocks/AAPL/trades", start="2024-07-02T13:30:00Z", limit=1)["trades"]
    assert first[0]["c"] == ["@", "O", "X"]
    assert (found.filled_qty, float(found.filled_avg_price)) == ("5", first[0]["p"])


async def _subscribe(running: Any) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(running.ws + "/v2/iex") as socket,
    ):
        await socket.send_str('{"action":"auth","key":"k","secret":"s"}')
        await socket.send_str('{"action":"subscribe","bars":["SPY"]}')
        for _ in range(3):
            await socket.receive(timeout=10)


def test_day_order_expires_at_the_close(exchange: Exchange) -> None:
    traded = Traded(exchange(open_on="start", speed=12_000.0, max_minutes=None))
    order = traded.client.submit_order(_limit(1, 5.0))
    assert traded.done(order, OrderStatus.EXPIRED).expired_at is not None


def test_accounts_survive_a_restart(exchange: Exchange, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    traded = Traded(exchange(state_path=state, **OPEN))
    order = traded.done(traded.client.submit_order(_market(10)))
    waiting = traded.client.submit_order(_limit(1, 5.0, time_in_force=GTC))
    before = traded.client.get_account()
    traded.running.end(wait=True)
    assert b"key" not in (tmp_path / "paper.json").read_bytes().replace(b"key_id", b"")
    again = _client(exchange(state_path=state, **OPEN))
    after = again.get_account()
    assert (after.id, after.cash) == (before.id, before.cash)
    assert again.get_order_by_id(order.id).filled_avg_price == order.filled_avg_price
    assert [o.id for o in again.get_orders()] == [waiting.id]
    assert again.get_open_position("SPY").qty == "10"


@pytest.fixture
def updates(traded: Traded) -> Iterator[list[TradeUpdate]]:
    got: list[TradeUpdate] = []
    stream = TradingStream("key", "secret", url_override=traded.running.ws + "/stream")

    async def keep(update: Any) -> None:
        got.append(update)

    stream.subscribe_trade_updates(keep)
    thread = threading.Thread(target=lambda: asyncio.run(stream._run_forever()), daemon=True)
    thread.start()
    traded.running.wait(lambda: stream._running)
    # It listens once an order of its own is heard of.
    client = traded.client

    def heard() -> bool:
        client.cancel_order_by_id(client.submit_order(_limit(1, 1.0)).id)
        return bool(got)

    traded.running.wait(heard)
    traded.running.wait(lambda: bool(got) and got[-1].event == "canceled")
    got.clear()
    yield got
    stream.stop()
    client.cancel_order_by_id(client.submit_order(_limit(1, 1.0)).id)  # wakes its receive
    thread.join(15)
    assert not thread.is_alive()


def test_trading_stream_tells_every_step_of_an_order(
    traded: Traded, updates: list[TradeUpdate]
) -> None:
    client = traded.client
    order = traded.done(client.submit_order(_market(10)))
    resting = client.submit_order(_limit(5, 10.0))
    fresh = client.replace_order_by_id(resting.id, ReplaceOrderRequest(qty=6))
    client.cancel_order_by_id(fresh.id)
    traded.running.wait(lambda: bool(updates) and updates[-1].event == "canceled")
    mine = [u for u in updates if u.order.id == order.id]
    assert mine[0].event == "new"
    assert mine[-1].event == "fill"
    assert {u.event for u in mine[1:-1]} <= {"partial_fill"}
    assert mine[-1].position_qty == 10
    assert sum(u.qty for u in mine if u.qty) == 10
    rest = [(u.event, u.order.id) for u in updates if u.order.id in (resting.id, fresh.id)]
    assert rest == [
        ("new", resting.id), ("replaced", resting.id), ("new", fresh.id), ("canceled", fresh.id),
    ]  # fmt: skip
    assert all(a.timestamp <= b.timestamp for a, b in pairwise(mine))


LISTEN = {"action": "listen", "data": {"streams": ["trade_updates", "weather"]}}
FORM_A = {"action": "authenticate", "data": {"key_id": "key", "secret_key": "secret"}}
FORM_B = {"action": "auth", "key": "key", "secret": "secret"}
AUTHORIZED = {"stream": "authorization", "data": {"status": "authorized",
              "action": "authenticate"}}  # fmt: skip
LISTENING = {"stream": "listening", "data": {"streams": ["trade_updates"]}}


async def _talk(running: Any, messages: list[Any], *, packed: bool = False) -> list[Any]:
    headers = {"Content-Type": "application/msgpack"} if packed else {}
    out = []
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(running.ws + "/stream", headers=headers) as socket,
    ):
        for message in messages:
            if packed:
                await socket.send_bytes(msgpack.packb(message))
            else:
                await socket.send_str(orjson.dumps(message).decode())
            frame = await socket.receive(timeout=10)
            assert frame.type == aiohttp.WSMsgType.BINARY
            out.append(msgpack.unpackb(frame.data) if packed else orjson.loads(frame.data))
    return out


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", [FORM_A, FORM_B])
def test_trading_stream_both_forms_and_codecs(
    exchange: Exchange, form: dict[str, Any], packed: bool
) -> None:
    answers = asyncio.run(_talk(exchange(), [form, LISTEN], packed=packed))
    assert answers == [AUTHORIZED, LISTENING]


def test_trading_stream_refuses_strangers_and_stops_when_asked(exchange: Exchange) -> None:
    stop = {"action": "listen", "data": {"streams": []}}
    wrong = {"action": "authenticate", "data": {"key_id": "key", "secret_key": ""}}
    answers = asyncio.run(_talk(exchange(), [LISTEN, wrong, FORM_A, LISTEN, stop, "?"]))
    assert [a["data"].get("status") for a in answers[:3]] == [
        "unauthorized", "unauthorized", "authorized",
    ]  # fmt: skip
    assert answers[0]["data"]["action"] == "listen"
    assert answers[4] == {"stream": "listening", "data": {"streams": []}}
    assert answers[5]["stream"] == "error"


def test_rest_limit_of_requests_is_told_and_kept(exchange: Exchange) -> None:
    running = exchange(rate_limit=3)
    keys = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    answers = [httpx.get(running.http + "/v2/clock", headers=keys) for _ in range(8)]
    codes = [a.status_code for a in answers]
    assert codes.count(200) in (3, 6)  # a new minute may begin in between
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.headers["X-RateLimit-Limit"] == "3"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["X-RateLimit-Reset"]) % 60 == 0
    assert answers[0].headers["X-RateLimit-Remaining"] == "2"
    other = {**keys, "APCA-API-KEY-ID": "another"}
    assert httpx.get(running.http + "/v2/clock", headers=other).status_code == 200
