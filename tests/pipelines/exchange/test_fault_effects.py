"""Scripted faults at a running exchange; the tape stays the record of what was published."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest

from pipelines.events import Message, parse_time_ns
from pipelines.tape import read_entries, read_tape
from tests.pipelines.exchange.talking import ENDED, EVERYTHING, Feed, talk

Exchange = Callable[..., Any]


def _listen(
    running: Any, *entries: Any, until: Callable[[list[Message]], bool] = lambda _: False,
    codec: str = "json", symbols: str = "*",
) -> list[Message]:  # fmt: skip
    """Subscribe, add faults, and read until something is there or the connection ends."""

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", **{channel: [symbols] for channel in EVERYTHING})
        await feed.read(lambda got: {m["T"] for m in got} >= {"t", "q"})
        await asyncio.to_thread(running.post, "/raytape/faults", list(entries))
        with contextlib.suppress(ENDED):
            await feed.read(until)
        return feed.got

    return talk(running.ws + "/v2/iex", body, codec=codec)


def _taped(running: Any, folder: Path) -> list[Message]:
    running.end(wait=True)
    return list(read_tape(folder))


def _finished(n_bars: int = 15) -> Callable[[list[Message]], bool]:
    return lambda got: sum(m["T"] == "b" for m in got) >= n_bars


@pytest.mark.parametrize("do", ["drop", "half_frame"])
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_cut_client_has_a_beginning_of_the_tape(
    exchange: Exchange, tmp_path: Path, do: str, codec: str
) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0)
    got = _listen(running, {"do": do}, codec=codec)
    running.wait(lambda: running.get("/raytape/stats")["clients"] == [])
    taped = _taped(running, tmp_path)
    assert got == taped[: len(got)]
    assert len(taped) > len(got)


def test_half_frame_arrives_by_half(exchange: Exchange) -> None:
    running = exchange(speed=0.001)
    message = {"T": "t", "S": "SPY", "x": "x" * 1000}

    async def talk_raw() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.config.port)
        writer.write(
            b"GET /v2/iex HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            b"APCA-API-KEY-ID: k\r\nAPCA-API-SECRET-KEY: s\r\n\r\n"
        )
        ask = orjson.dumps({"action": "subscribe", "trades": ["SPY"]})
        writer.write(bytes([0x81, 0x80 | len(ask)]) + bytes(4) + ask)
        await reader.readuntil(b'"cancelErrors":["SPY"]}]')
        async with aiohttp.ClientSession() as http:
            await http.post(running.http + "/raytape/faults", json={"do": "half_frame"})
            await http.post(running.http + "/raytape/inject", json={"messages": [message]})
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return rest

    rest = asyncio.run(talk_raw())
    whole = orjson.dumps([message])
    assert rest == b"\x81\x7e" + len(whole).to_bytes(2, "big") + whole[: len(whole) // 2]


def test_drop_with_a_code_says_goodbye(exchange: Exchange) -> None:
    running = exchange(speed=60.0)

    async def body(feed: Feed) -> Any:
        await feed.ask("subscribe", **EVERYTHING)
        await asyncio.to_thread(
            running.post, "/raytape/faults", {"do": "drop", "close_code": 1001, "feed": "iex"}
        )
        while True:
            frame = await feed.socket.receive(timeout=5)
            if frame.type == aiohttp.WSMsgType.CLOSE:
                return frame.data

    assert talk(running.ws + "/v2/iex", body) == 1001


def test_muted_client_misses_what_the_tape_has(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=240.0)
    got = _listen(running, {"do": "mute", "for_s": 0.3, "symbols": ["SPY"]}, until=_finished(12))
    taped = _taped(running, tmp_path)
    missed = Counter(map(orjson.dumps, taped))
    missed.subtract(map(orjson.dumps, got))
    lost = [orjson.loads(text) for text, n in missed.items() if n > 0]
    assert min(missed.values()) == 0
    assert any(m["S"] == "SPY" and m["t"] < got[-1]["t"] for m in lost)
    early = [m for m in lost if m["S"] != "SPY"]
    assert all(m["t"] >= got[-1]["t"] for m in early)  # after the client went


def test_delayed_messages_come_late_and_in_order(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=240.0)
    got = _listen(running, {"do": "delay", "delay_s": 0.4, "for_s": 0.3}, until=_finished())
    assert got == _taped(running, tmp_path)[: len(got)]


def test_duplicates_and_disorder_are_on_the_wire_alone(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=240.0)
    got = _listen(
        running, {"do": "duplicate", "for_s": 60}, {"do": "disorder", "for_s": 60},
        until=_finished(20),
    )  # fmt: skip
    taped = Counter(map(orjson.dumps, _taped(running, tmp_path)))
    seen = Counter(map(orjson.dumps, got))
    assert set(taped.values()) == {1}
    assert set(seen) <= set(taped)
    assert set(seen.values()) == {1, 2}


def test_slow_link_ends_as_a_slow_client(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=600.0, client_queue=50, frame_messages=5)
    got = _listen(running, {"do": "slow", "messages_per_s": 20, "for_s": 30})
    assert got[-1] == {"T": "error", "code": 407, "msg": "slow client"}
    assert running.get("/raytape/stats")["slow_clients"] == 1
    running.wait_finished()
    assert len(_taped(running, tmp_path)) > len(got)


@pytest.mark.parametrize(("code", "closed"), [(407, True), (500, True), (400, False)])
def test_error_out_of_the_blue(exchange: Exchange, code: int, closed: bool) -> None:
    running = exchange(speed=0.001)

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", **EVERYTHING)
        await asyncio.to_thread(running.post, "/raytape/faults", {"do": "error", "code": code})
        assert (await feed.next())[0]["code"] == code
        if closed:
            with pytest.raises(ENDED):
                await feed.next()
        else:
            assert (await feed.ask("subscribe", bars=["A"]))[0]["T"] == "subscription"

    talk(running.ws + "/v2/iex", body)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_garbage_is_on_the_tape_as_it_was(exchange: Exchange, tmp_path: Path, codec: str) -> None:
    running = exchange(record_dir=tmp_path, speed=0.001)

    async def body(feed: Feed) -> bytes:
        await feed.ask("subscribe", **EVERYTHING)
        entry = {"do": "garbage", "frames": 1, "b64": "W3s="}
        await asyncio.to_thread(running.post, "/raytape/faults", entry)
        data = (await feed.socket.receive(timeout=5)).data
        return data if isinstance(data, bytes) else data.encode()

    assert talk(running.ws + "/v2/iex", body, codec=codec) == b"[{"
    running.end(wait=True)
    assert [e["b64"] for e in read_entries(tmp_path)] == ["W3s="]


@pytest.mark.parametrize("code", [402, 404, 406, 409])
def test_refused_authentication_for_a_while(exchange: Exchange, code: int) -> None:
    running = exchange()
    running.post("/raytape/faults", {"do": "refuse", "code": code, "for_s": 0.4, "feed": "iex"})

    def ask(path: str) -> Any:
        async def body(feed: Feed) -> Any:
            return (await feed.ask("auth", key="k", secret="s"))[0].get("code")

        return talk(running.ws + path, body, login=False)

    assert ask("/v2/iex") == code
    assert ask("/v2/sip") is None
    running.wait(lambda: ask("/v2/iex") is None)


@pytest.mark.parametrize("code", [401, 429, 503])
def test_refused_handshake_answers_over_http(exchange: Exchange, code: int) -> None:
    running = exchange()
    running.post("/raytape/faults", {"do": "refuse", "code": code, "where": "handshake"})
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        talk(running.ws + "/v2/iex", lambda _: None)
    assert refused.value.status == code
    assert ("Retry-After" in refused.value.headers) == (code != 401)  # type: ignore[operator]
    httpx.delete(running.http + "/raytape/faults").raise_for_status()

    async def nothing(_: Feed) -> None:
        pass

    talk(running.ws + "/v2/iex", nothing)


def test_refused_subscription_leaves_the_connection(exchange: Exchange) -> None:
    running = exchange(speed=0.001)
    running.post("/raytape/faults", {"do": "refuse", "code": 405})

    async def body(feed: Feed) -> None:
        assert (await feed.ask("subscribe", bars=["A"]))[0]["code"] == 405
        await asyncio.to_thread(httpx.delete, running.http + "/raytape/faults")
        assert (await feed.ask("subscribe", bars=["A"]))[0]["bars"] == ["A"]

    talk(running.ws + "/v2/iex", body)


def test_corrections_of_the_market_name_what_they_correct(
    exchange: Exchange, tmp_path: Path
) -> None:
    running = exchange(record_dir=tmp_path, speed=600.0)

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", trades=["*"], quotes=["*"], bars=["*"], updatedBars=["*"])
        await feed.read(_finished(3))
        entries = [{"do": do} for do in ("correction", "cancel", "updated_bar", "unknown_type")]
        await asyncio.to_thread(running.post, "/raytape/faults", entries)
        await feed.read(lambda got: {m["T"] for m in got} >= {"c", "x", "u", "zz"})
        return feed.got

    got = talk(running.ws + "/v2/iex", body)
    by_type = {m["T"]: m for m in got}
    before = [m for m in got if m["T"] == "t" and m["S"] == by_type["c"]["S"]]
    corrected = next(m for m in before if m["i"] == by_type["c"]["oi"])
    assert by_type["c"]["op"] == corrected["p"] != by_type["c"]["cp"]
    assert by_type["x"]["i"] in {m["i"] for m in before}
    bar = next(m for m in got if m["T"] == "b" and m["t"] == by_type["u"]["t"])
    assert by_type["u"]["v"] == bar["v"] + 100
    times = [parse_time_ns(m["t"]) for m in got if m["T"] in "tqcx"]
    assert times == sorted(times)
    assert got == _taped(running, tmp_path)[: len(got)]


def test_halted_symbol_is_silent_between_its_statuses(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0, max_minutes=None)

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", statuses=["SPY"], **EVERYTHING)
        await asyncio.to_thread(
            running.post, "/raytape/faults", {"do": "halt", "symbols": ["SPY"], "for_s": 0.3}
        )
        await feed.read(lambda got: sum(m["T"] == "s" for m in got) == 2)
        await feed.read(lambda got: got[-1]["T"] == "t" and got[-1]["S"] == "SPY")
        return feed.got

    spy = [m for m in talk(running.ws + "/v2/iex", body) if m["S"] == "SPY"]
    codes = [m["sc"] for m in spy if m["T"] == "s"]
    first, second = (i for i, m in enumerate(spy) if m["T"] == "s")
    assert codes == ["H", "T"]
    assert second == first + 1


def test_burst_and_bad_prices_are_published(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0)
    entries = [{"do": "burst", "messages": 3000}, {"do": "bad_price", "values": ["nan", -1]}]
    bad = lambda got: sum(m["T"] == "t" and m["p"] == -1 for m in got) == 1  # noqa: E731
    got = _listen(running, *entries, until=bad, codec="msgpack")
    assert len(got) > 3000
    nan = next(m for m in reversed(got) if m["T"] == "t" and m["p"] != -1)
    assert nan["p"] != nan["p"]
    taped = _taped(running, tmp_path)
    assert len(taped) >= len(got)
    assert isnan(taped[len(got) - 2]["p"])


def test_fault_on_top_of_a_fault_does_not_stop_the_market(exchange: Exchange) -> None:
    running = exchange(speed=60.0)
    entries = [
        {"do": "bad_price", "symbols": ["SPY"], "values": [None]},
        {"do": "correction", "symbols": ["SPY"]},
        {"do": "cancel", "symbols": ["SPY"]},
    ]
    got = _listen(running, *entries, until=_finished(5), symbols="SPY")
    assert any(m["T"] == "t" and m["p"] is None for m in got)
    assert sum(m["T"] == "b" for m in got) == 5


def test_skewed_ticks_are_on_the_tape_as_they_were_sent(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0)
    early = lambda got: any(m["T"] != "b" and m["t"] < "2024-07-02T13:00:00Z" for m in got)  # noqa: E731
    got = _listen(running, {"do": "skew", "skew_s": -3600, "for_s": 30}, until=early)
    assert got == _taped(running, tmp_path)[: len(got)]


def test_faults_of_a_file_are_listed_and_happen(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_bytes(orjson.dumps([{"at": "open+2m", "do": "drop"}, {"at": "+1h", "do": "mute"}]))
    running = exchange(faults=path, speed=600.0)
    assert [f["fired"] for f in running.get("/raytape/faults")] == [0, 0]

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", **EVERYTHING)
        with pytest.raises(ENDED):
            await feed.read(lambda _: False)

    talk(running.ws + "/v2/iex", body)
    assert [f["fired"] for f in running.get("/raytape/faults")] == [1, 0]


@pytest.mark.parametrize("body", [b"{", b'[{"do":"explode"}]', b"3"])
def test_posted_fault_that_is_wrong_is_refused(exchange: Exchange, body: bytes) -> None:
    running = exchange()
    answer = httpx.post(running.http + "/raytape/faults", content=body)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert running.get("/raytape/faults") == []


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_cut_a_hundred_times_in_mid_frame_every_piece_is_of_the_tape(
    exchange: Exchange, tmp_path: Path, codec: str
) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0, max_minutes=None)
    running.post("/raytape/faults", {"do": "half_frame", "every": "100ms", "times": 100})

    async def body(feed: Feed) -> list[Message]:
        try:
            await feed.ask("subscribe", **EVERYTHING)
            await feed.read(lambda _: False)
        except ENDED:
            pass
        return feed.got

    pieces: list[list[Message]] = []
    while running.get("/raytape/faults")[0]["fired"] < 100:
        pieces.append(talk(running.ws + "/v2/iex", body, codec=codec))
    taped = [orjson.dumps(m) for m in _taped(running, tmp_path)]
    place = {text: n for n, text in enumerate(taped)}
    assert len(place) == len(taped)
    last = -1
    for piece in pieces:
        at = [place[orjson.dumps(m)] for m in piece]
        assert at == list(range(at[0], at[0] + len(at))) if at else True
        assert all(n > last for n in at)
        last = at[-1] if at else last
    assert len(pieces) > 50
