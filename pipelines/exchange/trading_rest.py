"""The vendor's trading REST interface: account, orders, positions, activities, worth over time."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import orjson
from aiohttp import web

from pipelines.events import DAY_NS, MINUTE_NS
from pipelines.exchange.asked import date_ns, flag, number, symbols_of, time_of
from pipelines.exchange.desk import Desk
from pipelines.exchange.gate import answer, key_of
from pipelines.exchange.holdings import plain
from pipelines.exchange.market_data import ARCHIVE
from pipelines.exchange.market_days import listed_on, symbol_of
from pipelines.exchange.member import Member
from pipelines.exchange.orders import SHARE, Order, Ticket, decimal_of
from pipelines.exchange.refusals import Refused
from pipelines.exchange.sockets import FLOOR
from pipelines.exchange.timeframes import TimeFrame
from pipelines.exchange.trading_json import (
    account_json,
    activity_json,
    history_json,
    order_json,
    position_json,
)  # fmt: skip

DESK = web.AppKey("desk", Desk)

_DAY = TimeFrame(1, "Day")
_CHANGES = ("qty", "time_in_force", "limit_price", "stop_price", "client_order_id")
_WINDOWS = {"1Min": 1, "5Min": 5, "15Min": 15, "1H": 60, "1D": 1440}
_PERIODS = {"D": 1, "W": 7, "M": 31, "A": 366}


async def _learn(request: web.Request, symbols: Iterable[str]) -> None:
    """Have the desk know a price of each symbol."""
    desk, archive = request.app[DESK], request.app[ARCHIVE]
    unknown = desk.unknown(symbols)
    if unknown:
        now_ns = request.app[FLOOR].market_ns()
        trades, quotes = await archive.ask(
            lambda: (
                archive.ticks.latest("trades", unknown, now_ns=now_ns),
                archive.ticks.latest("quotes", unknown, now_ns=now_ns),
            )
        )
        desk.learn(trades, quotes)


async def _member(request: web.Request) -> Member:
    """The trader who asks, valued at the last prices."""
    desk, key = request.app[DESK], key_of(request)
    desk.advance()
    await _learn(request, desk.member(key).account.positions)
    return desk.member(key)


async def account(request: web.Request) -> web.Response:
    """``GET /v2/account``."""
    return answer(account_json(await _member(request)))


async def configurations(request: web.Request) -> web.Response:
    """``GET /v2/account/configurations``: they are settings of the exchange, and cannot change."""
    shorting = request.app[FLOOR].config.shorting
    return answer(
        {
            "fractional_trading": True,
            "max_margin_multiplier": "1",
            "no_shorting": not shorting,
            "suspend_trade": False,
            "trade_confirm_email": "none",
            "ptp_no_exception_entry": False,
            "max_options_trading_level": None,
        }
    )


async def submit(request: web.Request) -> web.Response:
    """``POST /v2/orders``."""
    ticket = Ticket.of(await _body(request), symbols=request.app[FLOOR].source.symbols)
    await _learn(request, [ticket.symbol])
    return answer(order_json(request.app[DESK].submit(key_of(request), ticket)))


async def change(request: web.Request) -> web.Response:
    """``PATCH /v2/orders/{id}``: another order takes the place; answers that one.

    ``qty`` counts the shares that the old one has filled; the new one works for the rest.
    """
    desk, key = request.app[DESK], key_of(request)
    asked = await _body(request)
    if not isinstance(asked, dict):
        raise Refused(400, "request body format is invalid", code=40010000)
    await _learn(request, [_order(desk.member(key), request.match_info["id"]).ticket.symbol])
    # Nothing is awaited between this look at the order and its end: it may fill at any time.
    old = _order(desk.member(key), request.match_info["id"])
    ticket = Ticket.of(_changed(old, asked), symbols=request.app[FLOOR].source.symbols)
    return answer(order_json(desk.replace(key, old.id, ticket)))


def _changed(old: Order, asked: dict[str, Any]) -> dict[str, Any]:
    ticket = old.ticket
    if ticket.notional is not None:
        raise Refused(422, "notional orders cannot be replaced", code=42210000)
    body: dict[str, Any] = {
        "symbol": ticket.symbol, "side": ticket.side, "type": ticket.kind,
        "time_in_force": ticket.force, "extended_hours": ticket.extended_hours,
    }  # fmt: skip
    for name in ("qty", "limit_price", "stop_price", "trail_price", "trail_percent"):
        value = getattr(ticket, name)
        body[name] = None if value is None else str(value)
    body |= {name: asked[name] for name in _CHANGES if asked.get(name) is not None}
    if asked.get("trail") is not None:
        body["trail_price" if ticket.trail_price is not None else "trail_percent"] = asked["trail"]
    qty = decimal_of(body, "qty", most=Decimal(10**9), places=9)
    if qty is not None and old.filled_qty:
        if qty <= old.filled_qty:
            raise Refused(422, f"qty must be > filled_qty {plain(old.filled_qty)}", code=42210000)
        body["qty"] = str(qty - old.filled_qty)
    return body


async def orders(request: web.Request) -> web.Response:
    """``GET /v2/orders``: by default the open ones, newest first."""
    asked = request.query
    member = await _member(request)
    status, direction = asked.get("status", "open"), asked.get("direction", "desc")
    if status not in ("open", "closed", "all"):
        raise Refused(422, f"invalid status: {status}", code=42210000)
    if direction not in ("asc", "desc"):
        raise Refused(422, f"invalid direction: {direction}", code=42210000)
    after, until = time_of(asked, "after", default=-1), time_of(asked, "until", default=2**62)
    symbols, side = symbols_of(asked, required=False), asked.get("side")
    found = [
        o for o in member.account.orders.values()
        if (status == "all" or o.is_open == (status == "open"))
        and after < o.submitted_ns <= until
        and (not symbols or o.ticket.symbol in symbols)
        and (not side or o.ticket.side == side)
    ]  # fmt: skip
    found.sort(key=lambda o: o.submitted_ns, reverse=direction == "desc")
    return answer([order_json(o) for o in found[: number(asked, "limit", default=50, most=500)]])


async def one_order(request: web.Request) -> web.Response:
    """``GET /v2/orders/{id}``."""
    return answer(order_json(_order(await _member(request), request.match_info["id"])))


async def by_client_id(request: web.Request) -> web.Response:
    """``GET /v2/orders:by_client_order_id``."""
    name = request.query.get("client_order_id", "")
    found = (await _member(request)).account.by_client_id(name)
    if found is None:
        raise Refused(404, f"order not found for {name}", code=40410000)
    return answer(order_json(found))


async def cancel(request: web.Request) -> web.Response:
    """``DELETE /v2/orders/{id}``."""
    request.app[DESK].cancel(key_of(request), request.match_info["id"])
    return web.Response(status=204)


async def cancel_all(request: web.Request) -> web.Response:
    """``DELETE /v2/orders``."""
    return answer(_cancel_all(request), 207)


def _cancel_all(request: web.Request) -> list[dict[str, Any]]:
    desk, key = request.app[DESK], key_of(request)
    found = []
    for order in list(desk.member(key).account.open_orders):
        desk.cancel(key, order.id)
        body = order_json(desk.member(key).account.orders[order.id])
        found.append({"id": order.id, "status": 200, "body": body})
    return found


async def positions(request: web.Request) -> web.Response:
    """``GET /v2/positions``."""
    member = await _member(request)
    closes = await _lastday(request, member)
    return answer([_position(request, member, s, closes) for s in sorted(closes)])


async def one_position(request: web.Request) -> web.Response:
    """``GET /v2/positions/{symbol or asset id}``."""
    member = await _member(request)
    symbol = _held_symbol(request, member)
    return answer(_position(request, member, symbol, await _lastday(request, member)))


def _position(
    request: web.Request, member: Member, symbol: str, closes: dict[str, Decimal | None]
) -> dict[str, Any]:
    where = listed_on(request.app[FLOOR].source, symbol)
    return position_json(member, symbol, listed_on=where, lastday=closes.get(symbol))


async def _lastday(request: web.Request, member: Member) -> dict[str, Decimal | None]:
    """Close of the day before, for each position."""
    symbols, archive = tuple(member.account.positions), request.app[ARCHIVE]
    now_ns = member.day_ns - 1
    found = await archive.ask(lambda: archive.bars.latest(symbols, _DAY, now_ns=now_ns))
    closes: dict[str, Decimal | None] = dict.fromkeys(member.account.positions)
    closes.update({s: Decimal(str(bars[0]["c"])) for s, bars in found.items() if s in closes})
    return closes


async def close_position(request: web.Request) -> web.Response:
    """``DELETE /v2/positions/{symbol or asset id}``: a market order that closes it or a part."""
    member = await _member(request)
    symbol, asked = _held_symbol(request, member), request.query
    have = abs(member.account.position_qty(symbol))
    qty = decimal_of(asked, "qty", most=Decimal(10**9), places=9)
    percentage = decimal_of(asked, "percentage", most=Decimal(100), places=9)
    if qty is not None and percentage is not None:
        raise Refused(422, "only one of qty or percentage is accepted", code=42210000)
    if percentage is not None:
        qty = have * percentage / 100 // SHARE * SHARE
        if not qty:
            raise Refused(
                422, f"percentage {plain(percentage)} of {plain(have)} shares is less than the "
                f"smallest part of a share, {plain(SHARE)}", code=42210000,
            )  # fmt: skip
    if qty is not None and qty > have:
        raise Refused(
            403, f"insufficient qty available for order (requested: {plain(qty)}, available: "
            f"{plain(have)})", code=40310000, existing_qty=plain(have), symbol=symbol,
        )  # fmt: skip
    return answer(order_json(await _close(request, member, symbol, qty or have)))


async def close_all(request: web.Request) -> web.Response:
    """``DELETE /v2/positions``: a market order for each."""
    if flag(request.query, "cancel_orders"):
        _cancel_all(request)
    member = await _member(request)
    found = []
    for symbol in list(member.account.positions):
        try:
            have = abs(member.account.position_qty(symbol))
            order = await _close(request, member, symbol, have)
            found.append({"symbol": symbol, "status": 200, "body": order_json(order)})
        except Refused as refusal:
            found.append({"symbol": symbol, "status": refusal.status, "body": refusal.body()})
    return answer(found, 207)


async def _close(request: web.Request, member: Member, symbol: str, qty: Decimal) -> Order:
    side = "sell" if member.account.position_qty(symbol) > 0 else "buy"
    body = {"symbol": symbol, "qty": str(qty), "side": side, "type": "market",
            "time_in_force": "day"}  # fmt: skip
    ticket = Ticket.of(body, symbols=request.app[FLOOR].source.symbols)
    await _learn(request, [symbol])
    return request.app[DESK].submit(key_of(request), ticket)


async def activities(request: web.Request) -> web.Response:
    """``GET /v2/account/activities`` and ``/v2/account/activities/{type}``: the fills."""
    asked = request.query
    member = await _member(request)
    kinds = request.match_info.get("kind") or asked.get("activity_types") or "FILL"
    direction = asked.get("direction", "desc")
    if direction not in ("asc", "desc"):
        raise Refused(422, f"invalid direction: {direction}", code=42210000)
    if "FILL" not in kinds.upper().split(","):
        return answer([])
    after, until = time_of(asked, "after", default=-1), time_of(asked, "until", default=2**62)
    if asked.get("date"):
        after = date_ns(asked["date"], "date") - 1
        until = date_ns(asked["date"], "date", last=True)
    found = [f for f in member.fills if after < f.at_ns <= until]
    rows = [activity_json(member, f) for f in (found if direction == "asc" else found[::-1])]
    if token := asked.get("page_token"):
        ids = [row["id"] for row in rows]
        if token not in ids:
            raise Refused(422, "invalid page_token", code=42210000)
        rows = rows[ids.index(token) + 1 :]
    return answer(rows[: number(asked, "page_size", default=100, most=100)])


async def portfolio_history(request: web.Request) -> web.Response:
    """``GET /v2/account/portfolio/history``: the last worth of each window of time."""
    asked = request.query
    member = await _member(request)
    period = asked.get("period", "1M")
    if not period.isascii() or not period[:-1].isdigit() or period[-1] not in _PERIODS:
        raise Refused(422, f"invalid period: {period}; a number and D, W, M or A", code=42210000)
    days = int(period[:-1]) * _PERIODS[period[-1]]
    timeframe = asked.get("timeframe") or ("1Min" if days < 7 else "15Min" if days < 30 else "1D")
    if timeframe not in _WINDOWS:
        raise Refused(422, f"invalid timeframe: {timeframe}; one of {', '.join(_WINDOWS)}",
                      code=42210000)  # fmt: skip
    now_ns = request.app[FLOOR].market_ns()
    end = time_of(asked, "end", default=time_of(asked, "date_end", default=now_ns))
    start = time_of(asked, "start", default=end - days * DAY_NS)
    window_ns = _WINDOWS[timeframe] * MINUTE_NS
    last = {ns // window_ns: (ns, usd) for ns, usd in member.points if start <= ns <= end}
    before = [usd for ns, usd in member.points if ns < start]
    base = before[-1] if before else member.begin_usd
    return answer(history_json(last.values(), base=base, timeframe=timeframe))


def _order(member: Member, order_id: str) -> Order:
    order = member.account.orders.get(order_id)
    if order is None:
        raise Refused(404, f"order not found for {order_id}", code=40410000)
    return order


def _held_symbol(request: web.Request, member: Member) -> str:
    name = request.match_info["asset"]
    symbol = symbol_of(request.app[FLOOR].source, name)
    if symbol is None or symbol not in member.account.positions:
        raise Refused(404, "position does not exist", code=40410000)
    return symbol


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as wrong:
        raise Refused(400, "request body format is invalid", code=40010000) from wrong


ROUTES = (
    web.get("/v2/account", account),
    web.get("/v2/account/configurations", configurations),
    web.get("/v2/account/activities", activities),
    web.get("/v2/account/activities/{kind}", activities),
    web.get("/v2/account/portfolio/history", portfolio_history),
    web.post("/v2/orders", submit),
    web.get("/v2/orders", orders),
    web.delete("/v2/orders", cancel_all),
    web.get("/v2/orders:by_client_order_id", by_client_id),
    web.get("/v2/orders/{id}", one_order),
    web.patch("/v2/orders/{id}", change),
    web.delete("/v2/orders/{id}", cancel),
    web.get("/v2/positions", positions),
    web.delete("/v2/positions", close_all),
    web.get("/v2/positions/{asset}", one_position),
    web.delete("/v2/positions/{asset}", close_position),
)
