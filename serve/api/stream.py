"""``/v1/stream``: the WebSocket shell around the hub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from serve.api.errors import add_error_handlers
from serve.hub import Client, Hub, TooSlow
from serve.mirror import Mirror

PREFIX = "/v1/stream"
TRY_LATER, POLICY = 1013, 1008
MAX_MESSAGE = 1_000_000
PAUSE_S = 0.02
"""Between two sendings to a client: what comes meanwhile is conflated."""


def build(open_mirror: Callable[[], Mirror] | None = None) -> FastAPI:
    """The application; without a mirror only its description is of use."""
    held: list[Hub] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        assert open_mirror is not None  # noqa: S101
        mirror = open_mirror()
        mirror.start()
        held.append(Hub(mirror))
        yield
        held.clear()
        await mirror.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    add_error_handlers(app)

    @app.websocket(PREFIX)
    async def stream(socket: WebSocket) -> None:
        """Updates of what the client subscribes to."""
        if not same_origin(socket.headers.get("origin"), socket.headers.get("host")):
            await socket.close(POLICY)  # before it is accepted: 403
            return
        await socket.accept()
        hub = held[0]
        client = hub.join()
        if client is None:
            await socket.send_text(_error("too_many_clients", "try again later"))
            await socket.close(TRY_LATER)
            return
        sending = asyncio.create_task(_send(socket, client))
        try:
            await _receive(socket, client)
        finally:
            hub.leave(client)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending

    return app


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from our own page, or from no page at all.

    A browser lets any page open a socket to us, and says on every one of them which page it is.

    >>> same_origin("http://127.0.0.1:8000", "127.0.0.1:8000"), same_origin(None, "h:1")
    (True, True)
    >>> same_origin("https://evil.example", "127.0.0.1:8000"), same_origin("null", "h:1")
    (False, False)
    """
    if origin is None:
        return True
    return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()


async def _receive(socket: WebSocket, client: Client) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text") or message.get("bytes") or b""
            if len(text) > MAX_MESSAGE:
                await socket.close(POLICY)
                return
            client.handle(text)


async def _send(socket: WebSocket, client: Client) -> None:
    # A socket that closed while we were sending shows as RuntimeError or disconnect: the
    # receiving side ends the client in both cases.
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            try:
                messages = await client.take()
            except TooSlow:
                await socket.send_text(_error("too_slow", "updates were not taken in time"))
                await socket.close(TRY_LATER)
                return
            for message in messages:
                await socket.send_text(message.decode())
            await asyncio.sleep(PAUSE_S)


def _error(code: str, message: str) -> str:
    return orjson.dumps({"channel": "error", "code": code, "message": message}).decode()
