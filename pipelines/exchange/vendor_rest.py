"""Mounts the vendor's REST interfaces on the application of the exchange."""

from __future__ import annotations

from aiohttp import web

from pipelines.exchange import market_data, market_days
from pipelines.exchange.gate import LIMIT, RateLimit
from pipelines.exchange.market_data import ARCHIVE, Archive
from pipelines.exchange.sockets import FLOOR


def mount(app: web.Application) -> None:
    """Add market data and trading to an application that has its floor."""
    floor = app[FLOOR]
    if floor.config.rate_limit is not None:
        app[LIMIT] = RateLimit(floor.config.rate_limit)
    app[ARCHIVE] = Archive(floor)
    app.add_routes(market_data.ROUTES)
    app.add_routes(market_days.ROUTES)
