"""``/raytape/faults``: list the scripted faults, add some, end them all."""

from __future__ import annotations

import orjson
from aiohttp import web

from pipelines.clock import wall_ns
from pipelines.errors import ConfigError
from pipelines.exchange.fault_effects import FaultEffects
from pipelines.exchange.fault_entries import parse_faults
from pipelines.exchange.sockets import FLOOR

EFFECTS = web.AppKey("effects", FaultEffects)


async def list_faults(request: web.Request) -> web.Response:
    """``GET``: every entry, how often it began, and until when (wall ns) it lasts."""
    return _answer(request)


async def add_faults(request: web.Request) -> web.Response:
    """``POST``: an entry or an array of them; ``+30s`` counts from now. Answers the list."""
    floor = request.app[FLOOR]
    try:
        document = orjson.loads(await request.read())
        faults = parse_faults(
            [document] if isinstance(document, dict) else document, source="POST /raytape/faults"
        )
    except (orjson.JSONDecodeError, ConfigError) as error:
        return web.json_response({"code": 40000000, "message": str(error)}, status=400)
    floor.faults.add(faults, wall_ns=wall_ns())
    request.app[EFFECTS].step(wall_ns=wall_ns())
    return _answer(request)


async def end_faults(request: web.Request) -> web.Response:
    """``DELETE``: end all that last, forget all that would come."""
    request.app[EFFECTS].clear()
    return _answer(request)


def _answer(request: web.Request) -> web.Response:
    body = orjson.dumps(request.app[FLOOR].faults.to_list())
    return web.Response(body=body, content_type="application/json")


FAULT_ROUTES = (
    web.get("/raytape/faults", list_faults),
    web.post("/raytape/faults", add_faults),
    web.delete("/raytape/faults", end_faults),
)
