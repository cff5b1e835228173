"""The exchange as a server: one port for websockets and REST, one task that moves the market."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

from aiohttp import web

from pipelines.clock import wall_ns
from pipelines.errors import PartFailed
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.controls import EFFECTS, FAULT_ROUTES
from pipelines.exchange.fault_effects import FaultEffects
from pipelines.exchange.floor import Floor
from pipelines.exchange.gate import gate
from pipelines.exchange.rest import ROUTES
from pipelines.exchange.sockets import FLOOR, stock_socket
from pipelines.exchange.vendor_rest import mount

_LOG = logging.getLogger(__name__)

PUMP = web.AppKey("pump", asyncio.Task[None])
PUMP_S = 0.01
"""Interval at which the exchange looks for messages that are due, wall seconds."""

CLOSE_S = 2.0
"""How long the clients may take for what waits for them when the exchange ends."""


def build_app(config: ExchangeConfig, *, clock: Callable[[], int] = wall_ns) -> web.Application:
    """The whole exchange as an application; its market moves while the application runs.

    Args:
        config: What to play.
        clock: The wall clock, ns.

    Raises:
        ConfigError: The market cannot be played.
    """
    floor = Floor(config, wall_ns=clock)
    app = web.Application(middlewares=[gate], client_max_size=16 * 1024 * 1024)
    app[FLOOR] = floor
    mount(app)
    app.add_routes(ROUTES)
    app[EFFECTS] = FaultEffects(floor)
    app.add_routes(FAULT_ROUTES)
    app.router.add_get("/v2/{feed:iex|sip|test}", stock_socket)
    app.on_startup.append(_start_pump)
    app.on_shutdown.append(_close)
    return app


async def _start_pump(app: web.Application) -> None:
    app[PUMP] = asyncio.create_task(_pump(app[FLOOR], app[EFFECTS]))
    app[PUMP].add_done_callback(_tell_failure)


async def _pump(floor: Floor, effects: FaultEffects) -> None:
    while True:
        effects.step(wall_ns=wall_ns())
        # After a pause a lot may be due: the sockets get a turn after each batch.
        while floor.publish_due():
            await asyncio.sleep(0)
            effects.step(wall_ns=wall_ns())
        await asyncio.sleep(PUMP_S)


def _tell_failure(pump: asyncio.Task[None]) -> None:
    if not pump.cancelled() and pump.exception() is not None:
        _LOG.critical("the market stopped", exc_info=pump.exception())


async def _close(app: web.Application) -> None:
    """Stop the market, let the clients have what was published, end the tape."""
    app[PUMP].cancel()
    await asyncio.wait([app[PUMP]])
    clients = app[EFFECTS].clients()
    for client in clients:
        client.finish()
    deadline = asyncio.get_running_loop().time() + CLOSE_S
    while app[EFFECTS].clients() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(PUMP_S)
    for client in clients:
        client.abort()
    app[FLOOR].close()


def _spare_the_collector() -> None:
    """Leave what is loaded alone, and look for cycles seldom: messages have none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def serve(config: ExchangeConfig) -> None:
    """Run the exchange until SIGTERM or SIGINT; then end the tape and return.

    Raises:
        ConfigError: The market cannot be played.
        PartFailed: The address cannot be listened on, or the market broke.
    """
    app = build_app(config)
    _spare_the_collector()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.host, config.port, reuse_address=True).start()
        except OSError as error:
            raise PartFailed(
                f"exchange: cannot listen on {config.host}:{config.port}: {error.strerror}"
            ) from error
        _LOG.info("exchange listens on %s:%d", config.host, config.port)
        if await _ended(app[PUMP]):
            broken = app[PUMP].exception()
            raise PartFailed(f"exchange: the market stopped: {broken!r}") from broken
    finally:
        await runner.cleanup()
        gc.unfreeze()  # else an interpreter that ends takes what is frozen for leaks


async def _ended(pump: asyncio.Task[None]) -> bool:
    """Wait for SIGTERM, SIGINT, or the end of the pump, which only an error ends; was it that?"""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    asked = asyncio.create_task(stopped.wait())
    await asyncio.wait((asked, pump), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    return pump.done()
