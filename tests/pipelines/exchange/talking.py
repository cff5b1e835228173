"""A client of the exchange's sockets that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from pipelines.codec import decode_json_frame, decode_msgpack_frame
from pipelines.events import Message

EVERYTHING = {"trades": ["*"], "quotes": ["*"], "bars": ["*"]}
ENDED = (ConnectionError, aiohttp.ClientError)  # while it waits to send, aiohttp says the former


class Feed:
    """A client that keeps what it gets."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.got: list[Message] = []
        self.sizes: list[int] = []

    async def next(self) -> list[Message]:
        frame = await self.socket.receive(timeout=10)
        if frame.type == aiohttp.WSMsgType.TEXT:
            return decode_json_frame(frame.data)
        if frame.type == aiohttp.WSMsgType.BINARY:
            return decode_msgpack_frame(frame.data)
        raise ConnectionResetError(frame.type)

    async def ask(self, action: str, **more: Any) -> list[Message]:
        await self.socket.send_str(orjson.dumps({"action": action, **more}).decode())
        return await self.next()

    async def read(self, done: Callable[[list[Message]], bool]) -> None:
        while not done(self.got):
            part = await self.next()
            self.sizes.append(len(part))
            self.got += part


def talk(
    url: str, body: Callable[[Feed], Any], *, codec: str = "json", login: bool = True, **more: Any
) -> Any:
    async def run() -> Any:
        headers = {"Content-Type": f"application/{codec}"}
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(url, headers=headers, **more) as socket,
        ):
            feed = Feed(socket)
            assert (await feed.next())[0]["msg"] == "connected"
            if login:
                assert (await feed.ask("auth", key="k", secret="s"))[0]["msg"] == "authenticated"
            return await body(feed)

    return asyncio.run(run())
