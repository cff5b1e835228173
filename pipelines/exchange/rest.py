"""The exchange's own controls over HTTP: clock, statistics, injected messages, cut connections."""

from __future__ import annotations

import base64
import binascii

import orjson
from aiohttp import web

from pipelines.exchange.gate import answer
from pipelines.exchange.refusals import Refused
from pipelines.exchange.sockets import FLOOR, Client


async def market_clock(request: web.Request) -> web.Response:
    """``GET /raytape/clock``: the market clock's announcement."""
    return answer(request.app[FLOOR].announcement())


async def stats(request: web.Request) -> web.Response:
    """``GET /raytape/stats``: what was published and who listens."""
    return answer(request.app[FLOOR].stats())


async def inject(request: web.Request) -> web.Response:
    """``POST /raytape/inject``: publish messages, and raw frames in base64, as they are."""
    try:
        body = orjson.loads(await request.read())
        messages = list(body.get("messages", ()))
        frames = [base64.b64decode(f, validate=True) for f in body.get("frames_b64", ())]
        if not all(isinstance(m, dict) for m in messages):
            return _refused("each message must be an object")
    except (orjson.JSONDecodeError, AttributeError, TypeError, binascii.Error) as wrong:
        return _refused(f'expected {{"messages": […], "frames_b64": […]}}: {wrong}')
    request.app[FLOOR].inject(messages, frames)
    return answer({"messages": len(messages), "frames": len(frames)})


async def drop(request: web.Request) -> web.Response:
    """``POST /raytape/drop``: cut every connection."""
    clients = [c for c in request.app[FLOOR].all_listeners() if isinstance(c, Client)]
    for client in clients:
        client.abort()
    return answer({"dropped": len(clients)})


def _refused(message: str) -> web.Response:
    return answer(Refused(400, message).body(), 400)


ROUTES = (
    web.get("/raytape/clock", market_clock),
    web.get("/raytape/stats", stats),
    web.post("/raytape/inject", inject),
    web.post("/raytape/drop", drop),
)
