"""The websocket side of the exchange: one task that reads a client, one that writes to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgpack
import orjson
from aiohttp import WSMsgType, web

from pipelines.events import Message
from pipelines.exchange.floor import Floor
from pipelines.exchange.frames import Batch, Codec, Frame, encode_control
from pipelines.exchange.session import Session, error

_LOG = logging.getLogger(__name__)

FLOOR = web.AppKey("floor", Floor)
"""Where the application keeps its market."""

_GOODBYE_S = 1.0
"""How long a client that is being dropped may take for its last message."""


class Client:
    """One connection: its protocol state and the bounded queue of what waits for it.

    Args:
        floor: The market.
        feed: Feed of its path.
        codec: What its ``Content-Type`` asked for.
        request: The handshake.
        socket: The open websocket.
    """

    def __init__(
        self,
        floor: Floor,
        *,
        feed: str,
        codec: Codec,
        request: web.Request,
        socket: web.WebSocketResponse,
    ) -> None:
        self._floor = floor
        self.feed = feed
        self._codec = codec
        self._request = request
        self._socket = socket
        self._opcode = WSMsgType.TEXT if codec == "json" else WSMsgType.BINARY
        self._queue: deque[Frame] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._sent = 0
        self.session = Session(admit=self._admit, symbol_limit=floor.config.symbol_limit)

    def _admit(self, key: str) -> int | None:
        config = self._floor.config
        if self.feed not in config.feeds:
            return 409
        others = sum(
            1
            for other in self._floor.listeners
            if isinstance(other, Client) and other.feed == self.feed and other.session.key == key
        )
        if config.connection_limit is not None and others >= config.connection_limit:
            return 406
        return None

    async def serve(self) -> None:
        """Talk to the client until one side ends it."""
        writer = asyncio.create_task(self._write())
        timer = asyncio.get_running_loop().call_later(
            self._floor.config.auth_timeout_s, self._auth_expired
        )
        self._floor.listeners.add(self)
        try:
            self._control(self.session.opened(self._request.headers))
            async for frame in self._socket:
                if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                self._control(self.session.received(_decode(frame.type, frame.data)))
                if self.session.subscribed:
                    self._floor.open()
        finally:
            self._floor.listeners.discard(self)
            timer.cancel()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    def offer(self, batch: Batch) -> None:
        """Queue what the client wants of a batch; too much waiting makes it a slow client."""
        if self.session.closing or not self.session.subscribed:
            return
        wants = self.session.wants
        wanted = frozenset(key for key in batch.audience if wants(*key))
        if not wanted:
            return
        frames = batch.frames(self._codec, wanted, size=self._floor.config.frame_messages)
        self._queue.extend(frames)
        self._queued += sum(frame.count for frame in frames)
        if self._queued > self._floor.config.client_queue:
            self._drop_as_slow()
        self._wake.set()

    def offer_raw(self, frame: bytes) -> None:
        """Queue a frame as it is."""
        if not self.session.closing and self.session.subscribed:
            self._queue.append(Frame(frame, 0))
            self._wake.set()

    def finish(self) -> None:
        """Send what waits, then close; nothing new is taken."""
        self.session.closing = True
        self._wake.set()

    def abort(self) -> None:
        """Cut the connection without a close frame, as a broken network does."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def stats(self) -> dict[str, Any]:
        """What it got and what waits for it."""
        return {
            "feed": self.feed,
            "codec": self._codec,
            "authenticated": self.session.authenticated,
            "subscribed": self.session.subscribed,
            "sent": self._sent,
            "queued": self._queued,
        }

    def _control(self, messages: Sequence[Message]) -> None:
        self._queue.extend(encode_control(m, self._codec) for m in messages)
        self._wake.set()

    def _auth_expired(self) -> None:
        self._control(self.session.auth_expired())

    def _drop_as_slow(self) -> None:
        _LOG.warning("slow client on %s: %d messages waiting, dropped", self.feed, self._queued)
        self._floor.slow_clients += 1
        self._floor.listeners.discard(self)
        self._queue.clear()
        self._queued = 0
        self.session.closing = True
        self._control([error(407)])
        # Its socket is full, most likely: do not wait for it for ever.
        asyncio.get_running_loop().call_later(_GOODBYE_S, self.abort)

    async def _write(self) -> None:
        send, queue = self._socket.send_frame, self._queue
        try:
            while True:
                while queue:
                    frame = queue.popleft()
                    self._queued -= min(frame.count, self._queued)
                    await send(frame.payload, self._opcode)
                    self._sent += frame.count
                if self.session.closing:
                    await self._socket.close()
                    return
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, RuntimeError) as closed:
            _LOG.debug("client of %s is gone: %s", self.feed, closed)


def _decode(kind: WSMsgType, data: str | bytes) -> object:
    """A client's message; ``None`` when it is none."""
    try:
        return orjson.loads(data) if kind == WSMsgType.TEXT else msgpack.unpackb(data)
    except Exception:  # noqa: BLE001 (msgpack raises unrelated types)
        return None


async def websocket(request: web.Request) -> web.StreamResponse:
    """Handler of ``/v2/{feed}``."""
    floor = request.app[FLOOR]
    feed = request.match_info["feed"]
    if feed not in ("iex", "sip", "test"):
        raise web.HTTPNotFound
    codec: Codec = "msgpack" if "msgpack" in request.headers.get("Content-Type", "") else "json"
    socket = web.WebSocketResponse(compress=floor.config.compress)
    await socket.prepare(request)
    await Client(floor, feed=feed, codec=codec, request=request, socket=socket).serve()
    return socket
