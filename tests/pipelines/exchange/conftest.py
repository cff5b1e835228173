"""An exchange of the test's own, in a thread, on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import httpx
import pytest
from aiohttp import web

from cluster.processes import free_port
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.server import build_app

KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
SMALL = ExchangeConfig(
    symbols=("AAPL", "MSFT", "SPY"),
    start_date=date(2024, 7, 2),
    speed=600.0,
    messages_per_minute=30,
    max_minutes=5,
    events=False,
    correction_rate=0.0,
    cancel_rate=0.0,
)
"""Three symbols, five market minutes in half a second; it begins on the day before a half day.

Nothing but trades, quotes and bars."""


@dataclass
class Running:
    """An exchange that runs."""

    config: ExchangeConfig
    end: Callable[..., None]
    """Ends it soon; with ``wait`` when it returns."""

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.config.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.config.port}"

    def get(self, path: str, **params: Any) -> Any:
        return httpx.get(self.http + path, params=params, headers=KEYS).raise_for_status().json()

    def post(self, path: str, body: Any = None) -> Any:
        return httpx.post(self.http + path, json=body).raise_for_status().json()

    def wait(self, condition: Callable[[], bool], *, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)

    def wait_finished(self) -> None:
        self.wait(lambda: self.get("/raytape/clock")["state"] == "finished")


@pytest.fixture
def exchange() -> Iterator[Callable[..., Running]]:
    """Starts exchanges of a changed small configuration; all end with the test."""
    ends: list[Callable[..., None]] = []

    def start(**changes: Any) -> Running:
        config = replace(SMALL, port=free_port(), **changes)
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            runner = web.AppRunner(build_app(config), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, config.host, config.port).start()
            ready.set()
            await stop.wait()
            await runner.cleanup()

        def run() -> None:
            loop.run_until_complete(serve())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(10)

        def end(*, wait: bool = False) -> None:
            if thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
            if not wait:
                return
            thread.join(10)
            assert not thread.is_alive()

        ends.append(end)
        return Running(config, end)

    yield start
    for end in ends:
        end(wait=True)
