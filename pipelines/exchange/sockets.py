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
from pipelines.exchange.distortions import on_the_way
from pipelines.exchange.faults import Fault
from pipelines.exchange.floor import Floor
from pipelines.exchange.frames import Batch, Codec, Frame, Key, encode_control, frames_of
from pipelines.exchange.session import CHANNELS, NEWS_CHANNELS, Session, error

_LOG = logging.getLogger(__name__)

FLOOR = web.AppKey("floor", Floor)
"""Where the application keeps its market."""

_GOODBYE_S = 1.0
"""How long a client that is being dropped may take for its last message."""

_RETRY_AFTER_S = 5

_ASIDE_BYTES = 4 * 1024 * 1024
"""What may wait for a client beside the market's messages: answers, raw frames."""

_FRAME_BYTES = 128
"""What a frame that waits costs beside its payload, about."""


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
        self._peers = floor.listeners_of(feed)
        self._queue: deque[Frame] = deque()
        self._queued = 0
        self._aside_bytes = 0
        self._held: deque[tuple[float, Frame]] = deque()
        self._wake = asyncio.Event()
        self._sent = 0
        self._close_code = 1000
        self._cut_next = False
        channels = NEWS_CHANNELS if feed == "news" else CHANNELS
        self.session = Session(admit=self._admit, channels=channels)

    def _admit(self, key: str, secret: str) -> int | None:
        refused = self._floor.faults.refusal(self.feed, "auth")
        if refused is not None:
            return refused
        account = self._floor.accounts.of(key, secret)
        if account is None:
            return 402
        if self.feed not in account.feeds:
            return 409
        others = sum(
            1
            for other in self._peers
            if isinstance(other, Client) and other.feed == self.feed and other.session.key == key
        )
        if account.connection_limit is not None and others >= account.connection_limit:
            return 406
        self.session.symbol_limit = account.symbol_limit
        return None

    async def serve(self) -> None:
        """Talk to the client until one side ends it."""
        writer = asyncio.create_task(self._write())
        timer = asyncio.get_running_loop().call_later(
            self._floor.config.auth_timeout_s, self._auth_expired
        )
        self._peers.add(self)
        try:
            self._control(self.session.opened(self._request.headers))
            async for frame in self._socket:
                if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                if not self.session.closing:
                    self._control(self._answer(_decode(frame.type, frame.data)))
                if self.session.subscribed:
                    self._floor.subscribed(self.feed)
        finally:
            self._peers.discard(self)
            timer.cancel()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    def _answer(self, message: object) -> list[Message]:
        refused = self._floor.faults.refusal(self.feed, "subscribe")
        if refused and isinstance(message, dict) and message.get("action") == "subscribe":
            return [self.session.refused(refused)]
        try:
            return self.session.received(message)
        except Exception:  # noqa: BLE001 (the end of this connection, not of the exchange)
            _LOG.exception("a message of a client of %s broke its session", self.feed)
            return [self.session.refused(500)]

    def offer(self, batch: Batch) -> None:
        """Queue what the client wants of a batch; too much waiting makes it a slow client."""
        if self.session.closing or not self.session.subscribed:
            return
        wants = self.session.wants
        wanted = frozenset(key for key in batch.audience if wants(*key))
        if not wanted:
            return
        if self._floor.faults.windows or self._held:
            self._distort(batch, wanted)
        else:
            self._enqueue(batch.frames(self._codec, wanted, size=self._floor.config.frame_messages))

    def _enqueue(self, frames: Sequence[Frame]) -> None:
        self._queue.extend(frames)
        self._queued += sum(frame.count for frame in frames)
        if self._queued > self._floor.config.client_queue:
            self._drop_as_slow()
        self._wake.set()

    def _distort(self, batch: Batch, wanted: frozenset[Key]) -> None:
        """Queue a batch as the faults that last make it; held messages are not overtaken."""
        windows = [f for f in self._floor.faults.windows if f.concerns(self.feed)]
        parts = batch.parts(self._codec, wanted)
        now, later, delay_s = on_the_way(parts, windows, self._floor.rng)
        size = self._floor.config.frame_messages
        if self._held and not delay_s:
            now, later = [], now
        if later:
            loop = asyncio.get_running_loop()
            due = loop.time() + delay_s
            if self._held:
                due = max(due, self._held[-1][0])
            frames = frames_of(later, self._codec, size=size)
            self._held.extend((due, frame) for frame in frames)
            self._queued += sum(frame.count for frame in frames)
            loop.call_at(due, self._release)
        self._enqueue(frames_of(now, self._codec, size=size))

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] <= now + 1e-3:
            self._queue.append(self._held.popleft()[1])
        self._wake.set()

    def offer_raw(self, frame: bytes) -> None:
        """Queue a frame as it is."""
        if not self.session.closing and self.session.subscribed:
            self._set_aside([Frame(frame, 0)])

    def tell(self, code: int) -> None:
        """Send an error out of the blue; some of them end the connection."""
        self._control([self.session.refused(code)])

    def finish(self, close_code: int = 1000) -> None:
        """Send what waits, then close; nothing new is taken."""
        self._close_code = close_code
        self.session.closing = True
        self._wake.set()

    def cut_next_frame(self) -> None:
        """Send half of the next frame with messages, then cut the connection."""
        self._cut_next = True

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
        self._set_aside([encode_control(message, self._codec) for message in messages])

    def _set_aside(self, frames: Sequence[Frame]) -> None:
        """Queue frames that are no messages of the market; one alone may be of any size."""
        if self._aside_bytes > _ASIDE_BYTES:
            self._drop_as_slow()  # it asks and asks, and never reads
            return
        self._queue.extend(frames)
        self._aside_bytes += sum(len(frame.payload) + _FRAME_BYTES for frame in frames)
        self._wake.set()

    def _auth_expired(self) -> None:
        self._control(self.session.auth_expired())

    def _drop_as_slow(self) -> None:
        _LOG.warning(
            "slow client on %s: %d messages and %d bytes of answers waiting, dropped",
            self.feed, self._queued, self._aside_bytes,
        )  # fmt: skip
        self._floor.slow_clients += 1
        self._peers.discard(self)
        self._queue.clear()
        self._held.clear()
        self._queued = self._aside_bytes = 0
        self.session.closing = True
        self._control([error(407)])
        # Its socket is full, most likely: do not wait for it for ever.
        asyncio.get_running_loop().call_later(_GOODBYE_S, self.abort)

    async def _write(self) -> None:
        send, queue, faults = self._socket.send_frame, self._queue, self._floor.faults
        try:
            while True:
                while queue:
                    frame = queue.popleft()
                    if frame.count:
                        self._queued -= min(frame.count, self._queued)
                    else:
                        self._aside_bytes -= len(frame.payload) + _FRAME_BYTES
                    if self._cut_next and frame.count:
                        await self._cut(frame)
                        return
                    await send(frame.payload, self._opcode)
                    self._sent += frame.count
                    if faults.windows and frame.count:
                        for slow in faults.lasting("slow", self.feed):
                            await self._crawl(frame, slow)
                if self.session.closing:
                    await self._socket.close(code=self._close_code)
                    return
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, RuntimeError) as closed:
            _LOG.debug("client of %s is gone: %s", self.feed, closed)

    async def _crawl(self, frame: Frame, slow: Fault) -> None:
        await asyncio.sleep(frame.count / float(slow.parameters["messages_per_s"]))

    async def _cut(self, frame: Frame) -> None:
        transport = self._request.transport
        if transport is None:
            return
        deadline = asyncio.get_running_loop().time() + _GOODBYE_S
        while transport.get_write_buffer_size() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.001)  # an abort throws away what the kernel has not taken
        transport.write(half_of(frame.payload, self._opcode))
        transport.abort()


def half_of(payload: bytes, opcode: int) -> bytes:
    """The first half of a websocket frame as it is on the wire, its header whole.

    >>> half_of(b"abcd", 1).hex(" ")
    '81 04 61 62'
    """
    n = len(payload)
    if n < 126:
        length = bytes([n])
    elif n < 1 << 16:
        length = b"\x7e" + n.to_bytes(2, "big")
    else:
        length = b"\x7f" + n.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload[: n // 2]


def _decode(kind: WSMsgType, data: str | bytes) -> object:
    """A client's message; ``None`` when it is none."""
    try:
        return orjson.loads(data) if kind == WSMsgType.TEXT else _unpacked(data)
    except Exception:  # noqa: BLE001 (msgpack raises unrelated types)
        return None


def _unpacked(data: str | bytes) -> object:
    """A binary frame: msgpack, or JSON from a client that sends all as bytes."""
    try:
        return msgpack.unpackb(data)
    except Exception:  # noqa: BLE001
        return orjson.loads(data)


async def stock_socket(request: web.Request) -> web.StreamResponse:
    """Handler of ``/v2/iex``, ``/v2/sip`` and ``/v2/test``."""
    return await _talk(request, request.match_info["feed"])


async def news_socket(request: web.Request) -> web.StreamResponse:
    """Handler of ``/v1beta1/news`` for whoever asks for a websocket there."""
    return await _talk(request, "news")


async def _talk(request: web.Request, feed: str) -> web.StreamResponse:
    floor = request.app[FLOOR]
    refused = floor.faults.refusal(feed, "handshake")
    if refused is not None:
        headers = {"Retry-After": str(_RETRY_AFTER_S)} if refused in (429, 503) else None
        return web.json_response({"message": "refused"}, status=refused, headers=headers)
    codec: Codec = "msgpack" if "msgpack" in request.headers.get("Content-Type", "") else "json"
    socket = web.WebSocketResponse(compress=floor.config.compress)
    await socket.prepare(request)
    await Client(floor, feed=feed, codec=codec, request=request, socket=socket).serve()
    return socket
