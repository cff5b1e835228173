"""Mounts the vendor's REST interfaces and its trading stream on the application of the exchange."""

from __future__ import annotations

import asyncio

from aiohttp import web

from pipelines.exchange import market_data, market_days, trading_rest
from pipelines.exchange.desk import Desk
from pipelines.exchange.gate import LIMIT, RateLimit
from pipelines.exchange.market_data import ARCHIVE, Archive
from pipelines.exchange.sockets import FLOOR
from pipelines.exchange.trading_rest import DESK
from pipelines.exchange.trading_stream import OPEN, close_streams, trading_stream

TIME = web.AppKey("time_at_the_desk", asyncio.Task[None])
_LOOK_S = 0.5
"""How often the desk lets time pass, wall seconds."""


def mount(app: web.Application) -> None:
    """Add market data and trading to an application that has its floor.

    Raises:
        ConfigError: The file of the paper accounts is not ours.
    """
    floor = app[FLOOR]
    if floor.config.rate_limit is not None:
        app[LIMIT] = RateLimit(floor.config.rate_limit)
    app[ARCHIVE] = Archive(floor)
    state = floor.config.state_path
    app[DESK] = Desk(floor, path=None if state is None else state.with_name("paper.json"))
    app[OPEN] = set()
    app.add_routes(market_data.ROUTES)
    app.add_routes(market_days.ROUTES)
    app.add_routes(trading_rest.ROUTES)
    app.router.add_get("/stream", trading_stream)
    app.on_startup.append(_start)
    app.on_shutdown.append(close_streams)
    app.on_cleanup.append(_stop)


async def _start(app: web.Application) -> None:
    app[TIME] = asyncio.create_task(_pass_time(app[DESK]))


async def _pass_time(desk: Desk) -> None:
    while True:
        desk.advance()
        if (save := desk.saving()) is not None:
            await asyncio.to_thread(save)
        await asyncio.sleep(_LOOK_S)


async def _stop(app: web.Application) -> None:
    app[TIME].cancel()
    await asyncio.wait([app[TIME]])
    app[DESK].close()
