"""The HTTP side of the exchange: the vendor's bars and clock, and our own ``/raytape`` controls."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from pipelines.events import SECOND_NS, parse_time_ns
from pipelines.exchange.bars import NEW_YORK, BadRequest, BarHistory, Query, frame_minutes
from pipelines.exchange.sockets import FLOOR, Client

HISTORY = web.AppKey("history", BarHistory)
HISTORY_LOCK = web.AppKey("history_lock", asyncio.Lock)

_MAX_LIMIT = 10_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers={"Content-Type": "application/json"}
    )


def _refuse(status: int, message: str) -> web.Response:
    return _answer({"code": status * 100_000, "message": message}, status)


@web.middleware
async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets only requests with some key pair into the vendor's REST (any pair is right)."""
    rest = request.path.startswith("/v2/stocks") or request.path == "/v2/clock"
    keys = (request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY"))
    if rest and not all(keys) and not request.headers.get("Authorization"):
        return _refuse(401, "unauthorized.")
    return await handler(request)


async def bars(request: web.Request) -> web.Response:
    """``GET /v2/stocks/bars``."""
    symbols = tuple(s for s in request.query.get("symbols", "").split(",") if s)
    if not symbols:
        return _refuse(400, "symbols is required")
    return await _page(request, symbols, single=False)


async def symbol_bars(request: web.Request) -> web.Response:
    """``GET /v2/stocks/{symbol}/bars``."""
    return await _page(request, (request.match_info["symbol"],), single=True)


async def _page(request: web.Request, symbols: tuple[str, ...], *, single: bool) -> web.Response:
    floor = request.app[FLOOR]
    now_ns = floor.market_ns()
    try:
        query = _query(request, symbols, now_ns)
        # One query at a time, off the loop: the market must go on meanwhile.
        async with request.app[HISTORY_LOCK]:
            found, token = await asyncio.to_thread(request.app[HISTORY].page, query, now_ns=now_ns)
    except BadRequest as wrong:
        return _refuse(400, str(wrong))
    if single:
        symbol = symbols[0]
        return _answer({"bars": found.get(symbol, []), "symbol": symbol, "next_page_token": token})
    return _answer({"bars": found, "next_page_token": token})


def _query(request: web.Request, symbols: tuple[str, ...], now_ns: int) -> Query:
    asked = request.query
    try:
        limit = int(asked.get("limit", 1000))
    except ValueError as wrong:
        raise BadRequest("limit must be a number") from wrong
    if not 1 <= limit <= _MAX_LIMIT:
        raise BadRequest(f"limit must be between 1 and {_MAX_LIMIT}")
    sort = asked.get("sort", "asc")
    if sort not in ("asc", "desc"):
        raise BadRequest(f"invalid sort: {sort}")
    today = datetime.fromtimestamp(now_ns // SECOND_NS, NEW_YORK).replace(
        hour=0, minute=0, second=0
    )
    return Query(
        symbols=symbols,
        start_ns=_time(asked.get("start"), default=int(today.timestamp()) * SECOND_NS),
        end_ns=_time(asked.get("end"), default=now_ns),
        minutes=frame_minutes(asked.get("timeframe", "1Min")),
        limit=limit,
        descending=sort == "desc",
        token=asked.get("page_token"),
    )


def _time(text: str | None, *, default: int) -> int:
    if not text:
        return default
    try:
        return parse_time_ns(f"{text}T00:00:00Z" if len(text) == 10 else text.replace(" ", "+"))
    except ValueError as wrong:
        raise BadRequest(f"invalid time: {text}") from wrong


async def trading_clock(request: web.Request) -> web.Response:
    """``GET /v2/clock``: the vendor's clock, in the market's time."""
    floor = request.app[FLOOR]
    now_ns = floor.market_ns()
    ahead = floor.source.sessions(now_ns, now_ns + 15 * 86_400 * SECOND_NS)
    running = [s for s in ahead if s[0] <= now_ns < s[1]]
    opens = next((s[0] for s in ahead if s[0] > now_ns), now_ns)
    closes = next((s[1] for s in ahead if s[1] > now_ns), now_ns)
    return _answer(
        {
            "timestamp": _new_york(now_ns),
            "is_open": bool(running) and floor.is_open(),
            "next_open": _new_york(opens),
            "next_close": _new_york(closes),
        }
    )


def _new_york(ns: int) -> str:
    seconds, nanos = divmod(ns, SECOND_NS)
    moment = datetime.fromtimestamp(seconds, NEW_YORK)
    text, offset = moment.strftime("%Y-%m-%dT%H:%M:%S"), moment.strftime("%z")
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{text}{fraction}{offset[:3]}:{offset[3:]}"


async def market_clock(request: web.Request) -> web.Response:
    """``GET /raytape/clock``: the market clock's announcement."""
    return _answer(request.app[FLOOR].announcement())


async def stats(request: web.Request) -> web.Response:
    """``GET /raytape/stats``: what was published and who listens."""
    return _answer(request.app[FLOOR].stats())


async def inject(request: web.Request) -> web.Response:
    """``POST /raytape/inject``: publish messages, and raw frames in base64, as they are."""
    try:
        body = orjson.loads(await request.read())
        messages = list(body.get("messages", ()))
        frames = [base64.b64decode(f, validate=True) for f in body.get("frames_b64", ())]
        if not all(isinstance(m, dict) for m in messages):
            return _refuse(400, "each message must be an object")
    except (orjson.JSONDecodeError, AttributeError, TypeError, binascii.Error) as wrong:
        return _refuse(400, f'expected {{"messages": […], "frames_b64": […]}}: {wrong}')
    request.app[FLOOR].inject(messages, frames)
    return _answer({"messages": len(messages), "frames": len(frames)})


async def drop(request: web.Request) -> web.Response:
    """``POST /raytape/drop``: cut every connection."""
    clients = [c for c in request.app[FLOOR].listeners if isinstance(c, Client)]
    for client in clients:
        client.abort()
    return _answer({"dropped": len(clients)})


ROUTES = (
    web.get("/v2/stocks/bars", bars),
    web.get("/v2/stocks/{symbol}/bars", symbol_bars),
    web.get("/v2/clock", trading_clock),
    web.get("/raytape/clock", market_clock),
    web.get("/raytape/stats", stats),
    web.post("/raytape/inject", inject),
    web.post("/raytape/drop", drop),
)
