"""Feeds, accounts and limits as a client of the sockets sees them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgpack
import orjson
import pytest

from pipelines.events import Message
from pipelines.tape import read_tape
from tests.pipelines.exchange.talking import ENDED, EVERYTHING, Feed, talk

Exchange = Callable[..., Any]
NEWS: Message = {
    "T": "n", "id": 7, "headline": "h", "summary": "s", "author": "a", "content": "c",
    "url": "http://x", "symbols": ["AAPL", "MSFT"], "source": "wire",
    "created_at": "2024-07-02T13:30:00.5Z", "updated_at": "2024-07-02T13:30:01Z",
}  # fmt: skip


async def _post(url: str, body: Any) -> Any:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as answer:
        return await answer.json()


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_news_socket_client_gets_an_item_of_several_of_its_symbols_once(
    exchange: Exchange, codec: str
) -> None:
    running = exchange()
    other = {**NEWS, "id": 8, "symbols": ["SPY"]}
    last = {**NEWS, "id": 9, "symbols": ["MSFT", "SPY"]}

    async def body(feed: Feed) -> list[Message]:
        (ack,) = await feed.ask("subscribe", news=["AAPL", "MSFT"])
        assert ack == {"T": "subscription", "news": ["AAPL", "MSFT"]}
        await _post(running.http + "/raytape/inject", {"messages": [NEWS, other, last]})
        await feed.read(lambda got: bool(got) and got[-1]["id"] == 9)
        return feed.got

    assert talk(running.ws + "/v1beta1/news", body, codec=codec) == [NEWS, last]


def test_news_socket_other_channels_are_refused(exchange: Exchange) -> None:
    running = exchange()

    async def body(feed: Feed) -> None:
        assert (await feed.ask("subscribe", trades=["AAPL"]))[0]["code"] == 410
        assert (await feed.ask("subscribe", news=["*"]))[0]["news"] == ["*"]

    talk(running.ws + "/v1beta1/news", body)
    assert running.get("/raytape/clock")["state"] == "waiting"


def test_stock_socket_gets_no_news(exchange: Exchange) -> None:
    running = exchange(speed=0.001)
    trade = {"T": "t", "S": "SPY"}

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", **EVERYTHING)
        await _post(running.http + "/raytape/inject", {"messages": [NEWS, trade]})
        assert await feed.next() == [trade]

    talk(running.ws + "/v2/iex", body)


def test_msgpack_frame_has_its_type_first_and_timestamps(exchange: Exchange) -> None:
    running = exchange()
    turned = dict(reversed(NEWS.items()))

    async def body(feed: Feed) -> Any:
        await feed.ask("subscribe", news=["*"])
        await _post(running.http + "/raytape/inject", {"messages": [turned]})
        return msgpack.unpackb((await feed.socket.receive(timeout=5)).data)

    (item,) = talk(running.ws + "/v1beta1/news", body, codec="msgpack")
    assert next(iter(item)) == "T"
    assert item["created_at"] == msgpack.Timestamp(1719927000, 500_000_000)
    assert item["updated_at"] == msgpack.Timestamp(1719927001, 0)


def test_test_stream_works_whatever_the_market_does(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(test_interval_s=0.05, record_dir=tmp_path)

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", **EVERYTHING)
        await feed.read(lambda got: {m["T"] for m in got} >= {"t", "q"})
        return feed.got

    got = talk(running.ws + "/v2/test", body)
    assert {m["S"] for m in got} == {"FAKEPACA"}
    assert running.get("/raytape/clock")["state"] == "waiting"
    running.end(wait=True)
    assert list(read_tape(tmp_path))[: len(got)] == got


def test_other_path_than_a_feed_is_not_found(exchange: Exchange) -> None:
    running = exchange()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        talk(running.ws + "/v2/otc", lambda _: None)
    assert refused.value.status == 404


def _accounts(folder: Path) -> Path:
    path = folder / "accounts.json"
    path.write_bytes(
        orjson.dumps(
            {
                "FREE": {"secret": "s", "plan": "basic", "symbol_limit": 2},
                "PAID": {"secret": "t", "plan": "plus"},
            }
        )
    )
    return path


def test_accounts_let_in_by_plan(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(accounts=_accounts(tmp_path))

    def code(path: str, key: str, secret: str) -> Any:
        async def body(feed: Feed) -> Any:
            (answer,) = await feed.ask("auth", key=key, secret=secret)
            return answer.get("code", answer["msg"])

        return talk(running.ws + path, body, login=False)

    assert code("/v2/iex", "FREE", "s") == "authenticated"
    assert code("/v2/sip", "FREE", "s") == 409
    assert code("/v2/sip", "PAID", "t") == "authenticated"
    assert code("/v2/iex", "FREE", "t") == 402
    assert code("/v2/iex", "NOBODY", "s") == 402


def test_account_over_its_symbol_limit_is_refused_whole(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(accounts=_accounts(tmp_path))

    async def body(feed: Feed) -> None:
        await feed.ask("auth", key="FREE", secret="s")
        many = [f"B{i}" for i in range(100)]
        answer = await feed.ask("subscribe", trades=["A", "B"], quotes=["A"], bars=many)
        assert len(answer[0]["bars"]) == 100
        assert (await feed.ask("subscribe", quotes=["C"], statuses=["A"]))[0]["code"] == 405
        assert (await feed.ask("unsubscribe", trades=["B"]))[0]["statuses"] == []

    talk(running.ws + "/v2/iex", body, login=False)


@pytest.mark.parametrize("headers", [
    {"APCA-API-KEY-ID": "FREE", "APCA-API-SECRET-KEY": "s"},
    {"Authorization": "Basic " + "RlJFRTpz"},
])  # fmt: skip
def test_keys_in_the_handshake_authenticate(
    exchange: Exchange, tmp_path: Path, headers: dict[str, str]
) -> None:
    running = exchange(accounts=_accounts(tmp_path))

    async def connect() -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(running.ws + "/v2/iex", headers=headers) as socket,
        ):
            feed = Feed(socket)
            assert (await feed.next())[0]["msg"] == "connected"
            assert (await feed.next())[0]["msg"] == "authenticated"

    asyncio.run(connect())


def test_wrong_key_closes_the_socket(exchange: Exchange) -> None:
    running = exchange()

    async def body(feed: Feed) -> None:
        assert (await feed.ask("auth", key="", secret="s"))[0]["code"] == 402
        with pytest.raises(ENDED):
            await feed.next()

    talk(running.ws + "/v2/iex", body, login=False)


def test_connection_limit_is_per_feed_and_free_again_after_an_end(exchange: Exchange) -> None:
    running = exchange(connection_limit=1)

    async def nothing(_: Feed) -> None:
        pass

    async def another_feed(_: Feed) -> None:
        await asyncio.to_thread(talk, running.ws + "/v2/sip", nothing)

    for _ in range(3):
        talk(running.ws + "/v2/iex", another_feed)
        running.wait(lambda: running.get("/raytape/stats")["clients"] == [])


def test_fragmented_subscription_is_put_together(exchange: Exchange) -> None:
    """As the vendor's client sends it: frames of 32 KiB, an empty one at the end."""
    running = exchange()
    symbols = [f"S{i}" for i in range(5000)]

    async def body(feed: Feed) -> Message:
        data = msgpack.packb({"action": "subscribe", "trades": symbols})
        sock = feed.socket._writer.transport
        pieces = [data[i : i + 32_768] for i in range(0, len(data), 32_768)]
        for n, piece in enumerate([*pieces, b""]):
            opcode = 0 if n else 2
            final = 0x80 if n == len(pieces) else 0
            size = len(piece)
            length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
            sock.write(bytes([final | opcode]) + length + bytes(4) + piece)
        return (await feed.next())[0]

    ack = talk(running.ws + "/v2/iex", body, codec="msgpack", max_msg_size=0)
    assert ack["trades"] == sorted(symbols)


def test_compressed_frames_are_smaller_on_the_wire(exchange: Exchange) -> None:
    running = exchange(compress=True, speed=0.001)
    message = {"T": "t", "S": "SPY", "x": "x" * 10_000}

    async def body(feed: Feed) -> None:
        assert feed.socket.compress
        await feed.ask("subscribe", trades=["SPY"])
        await _post(running.http + "/raytape/inject", {"messages": [message]})
        assert await feed.next() == [message]

    talk(running.ws + "/v2/iex", body, compress=15)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_binary_json_of_a_client_is_understood(exchange: Exchange, codec: str) -> None:
    running = exchange()

    async def body(feed: Feed) -> Message:
        await feed.socket.send_bytes(orjson.dumps({"action": "subscribe", "bars": ["A"]}))
        return (await feed.next())[0]

    assert talk(running.ws + "/v2/iex", body, codec=codec)["bars"] == ["A"]


def test_socket_path_without_an_upgrade_is_refused(exchange: Exchange) -> None:
    assert httpx.get(exchange().http + "/v2/iex").status_code == 400


def test_client_that_asks_and_never_reads_is_dropped_as_slow(exchange: Exchange) -> None:
    running = exchange()
    symbols = [f"SYMBOL{i}" for i in range(2000)]
    request = orjson.dumps({"action": "subscribe", "trades": symbols}).decode()

    def dropped() -> bool:
        stats = running.get("/raytape/stats")
        return stats["slow_clients"] == 1 and not stats["clients"]

    async def body(feed: Feed) -> None:
        with contextlib.suppress(*ENDED):
            for _ in range(400):
                await feed.socket.send_str(request)
        await asyncio.to_thread(running.wait, dropped)

    talk(running.ws + "/v2/iex", body)


def test_raw_frames_that_nobody_reads_are_bounded(exchange: Exchange) -> None:
    running = exchange(speed=0.001)
    frame = base64.b64encode(bytes(700_000)).decode()

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", trades=["SPY"])
        for _ in range(40):
            await _post(running.http + "/raytape/inject", {"frames_b64": [frame]})
        stats = await asyncio.to_thread(running.get, "/raytape/stats")
        assert stats["slow_clients"] == 1

    talk(running.ws + "/v2/iex", body)
