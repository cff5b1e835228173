"""``/stream``: the vendor's trading stream, which tells an account's owner of its orders.

Objects, not arrays, and no welcome. The client authenticates (``authenticate`` with ``key_id`` and
``secret_key`` inside ``data``, or ``auth`` with ``key`` and ``secret``), then says which streams it
listens to; there is one, ``trade_updates``. Frames are binary: JSON, or msgpack for a client whose
handshake asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgpack
import orjson
from aiohttp import WSMsgType, web

from pipelines.exchange.desk import Desk
from pipelines.exchange.floor import Floor
from pipelines.exchange.orders import Event
from pipelines.exchange.sockets import FLOOR
from pipelines.exchange.trading_json import update_json
from pipelines.exchange.trading_rest import DESK

_STREAMS = ("trade_updates",)
_QUEUE = 10_000
OPEN: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("open_trading_streams")
"""The streams that are open."""


class TradingSession:
    """What one client of the trading stream may hear. Pure but for the desk that it listens to.

    Args:
        floor: Knows the accounts.
        desk: Tells of their events.
        send: Takes what is to be sent.
    """

    def __init__(self, floor: Floor, desk: Desk, *, send: Any) -> None:
        self._floor = floor
        self._desk = desk
        self._send = send
        self._key: str | None = None
        self._end: Any = None

    def received(self, message: object) -> dict[str, Any]:
        """What to answer to a client's message (``None`` for one that nobody could decode)."""
        body = message if isinstance(message, dict) else {}
        action = body.get("action")
        data = body["data"] if isinstance(body.get("data"), dict) else {}
        if action == "authenticate":
            return self._authenticate(action, data.get("key_id"), data.get("secret_key"))
        if action == "auth":
            return self._authenticate("authenticate", body.get("key"), body.get("secret"))
        if action == "listen":
            if self._key is None:
                return _authorization("unauthorized", "listen")
            return self._listen(data.get("streams"))
        return {"stream": "error", "data": {"error": "invalid message"}}

    def close(self) -> None:
        """Hear nothing any more."""
        if self._end is not None:
            self._end()
            self._end = None

    def _authenticate(self, action: str, key: object, secret: object) -> dict[str, Any]:
        texts = isinstance(key, str) and isinstance(secret, str)
        if not texts or self._floor.accounts.of(str(key), str(secret)) is None:
            words = "access key verification failed"
            return _authorization("unauthorized", action, message=words)
        if key != self._key:
            self.close()
        self._key = str(key)
        return _authorization("authorized", action)

    def _listen(self, streams: object) -> dict[str, Any]:
        wanted = [s for s in _STREAMS if isinstance(streams, list) and s in streams]
        self.close()
        if wanted and self._key is not None:
            self._end = self._desk.listen(self._key, self._heard)
        return {"stream": "listening", "data": {"streams": wanted}}

    def _heard(self, event: Event) -> None:
        self._send(update_json(event))


def _authorization(status: str, action: str, **more: str) -> dict[str, Any]:
    return {"stream": "authorization", "data": {"status": status, "action": action, **more}}


async def trading_stream(request: web.Request) -> web.StreamResponse:
    """Handler of ``/stream``."""
    packed = "msgpack" in request.headers.get("Content-Type", "")
    encode = msgpack.packb if packed else orjson.dumps
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUE)

    def send(message: dict[str, Any]) -> None:
        try:
            waiting.put_nowait(message)
        except asyncio.QueueFull:  # it does not read: an update that is lost must not go unnoticed
            if request.transport is not None:
                request.transport.abort()

    async def write() -> None:
        while True:
            await socket.send_bytes(encode(await waiting.get()))

    session = TradingSession(request.app[FLOOR], request.app[DESK], send=send)
    writer = asyncio.create_task(write())
    request.app[OPEN].add(socket)
    try:
        async for frame in socket:
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            send(session.received(_decode(frame.data)))
    finally:
        request.app[OPEN].discard(socket)
        session.close()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await writer
    return socket


def _decode(data: str | bytes) -> object:
    """A client's message, JSON or msgpack; ``None`` when it is neither."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(data)
    try:
        return msgpack.unpackb(data)
    except Exception:  # noqa: BLE001 (msgpack raises unrelated types)
        return None


async def close_streams(app: web.Application) -> None:
    """End every stream."""
    sockets = app[OPEN]
    for socket in tuple(sockets):
        await socket.close(code=1001)
