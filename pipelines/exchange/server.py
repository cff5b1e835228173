"""The exchange as a server: one port for websockets and REST, one task that moves the market."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from pipelines.clock import wall_ns
from pipelines.errors import PartFailed
from pipelines.exchange.bars import BarHistory
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.floor import Floor
from pipelines.exchange.rest import HISTORY, HISTORY_LOCK, ROUTES, authorized
from pipelines.exchange.sockets import FLOOR, Client, websocket

_LOG = logging.getLogger(__name__)

PUMP_S = 0.01
"""Interval at which the exchange looks for messages that are due, wall seconds."""


def build_app(config: ExchangeConfig, *, clock: Callable[[], int] = wall_ns) -> web.Application:
    """The whole exchange as an application; its market moves while the application runs.

    Args:
        config: What to play.
        clock: The wall clock, ns.

    Raises:
        ConfigError: The market cannot be played.
    """
    floor = Floor(config, wall_ns=clock)
    app = web.Application(middlewares=[authorized], client_max_size=16 * 1024 * 1024)
    app[FLOOR] = floor
    app[HISTORY] = BarHistory(
        floor.source, seed=config.seed, messages_per_minute=config.messages_per_minute
    )
    app[HISTORY_LOCK] = asyncio.Lock()
    app.add_routes(ROUTES)
    app.router.add_get("/v2/{feed}", websocket)
    app.cleanup_ctx.append(_market)
    app.on_shutdown.append(_hang_up)
    return app


async def _market(app: web.Application) -> AsyncIterator[None]:
    floor = app[FLOOR]
    pump = asyncio.create_task(_pump(floor))
    pump.add_done_callback(_tell_failure)
    yield
    pump.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pump
    floor.close()


async def _pump(floor: Floor) -> None:
    while True:
        # After a pause a lot may be due: the sockets get a turn after each batch.
        while floor.publish_due():
            await asyncio.sleep(0)
        await asyncio.sleep(PUMP_S)


def _tell_failure(pump: asyncio.Task[None]) -> None:
    if not pump.cancelled() and pump.exception() is not None:
        _LOG.critical("the market stopped", exc_info=pump.exception())
        signal.raise_signal(signal.SIGTERM)


async def _hang_up(app: web.Application) -> None:
    for client in tuple(app[FLOOR].listeners):
        if isinstance(client, Client):
            client.abort()


async def serve(config: ExchangeConfig) -> None:
    """Run the exchange until SIGTERM or SIGINT; then end the tape and return.

    Raises:
        ConfigError: The market cannot be played.
        PartFailed: The address cannot be listened on.
    """
    runner = web.AppRunner(build_app(config), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.host, config.port, reuse_address=True).start()
        except OSError as error:
            raise PartFailed(
                f"exchange: cannot listen on {config.host}:{config.port}: {error.strerror}"
            ) from error
        _LOG.info("exchange listens on %s:%d", config.host, config.port)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
    finally:
        await runner.cleanup()
