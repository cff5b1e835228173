from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgpack
import pyarrow.parquet as pq
import pytest

from pipelines.clock import MarketClock
from pipelines.events import Message, effective_ns
from pipelines.exchange.state import PlayedMinutes
from pipelines.tape import read_entries, read_tape
from tests.pipelines.exchange.talking import ENDED, EVERYTHING, Feed, talk

Exchange = Callable[..., Any]
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


def bars(n: int) -> Callable[[list[Message]], bool]:
    return lambda got: sum(m["T"] == "b" for m in got) >= n


async def _whole_session(feed: Feed) -> list[Message]:
    ack = await feed.ask("subscribe", **EVERYTHING)
    assert ack[0]["T"] == "subscription"
    await feed.read(bars(15))
    return feed.got


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("compress", [False, True])
def test_feed_whole_market_is_what_the_tape_says(
    exchange: Exchange, tmp_path: Path, codec: str, compress: bool
) -> None:
    running = exchange(record_dir=tmp_path, compress=compress)
    got = talk(running.ws + "/v2/iex", _whole_session, codec=codec, compress=15 * compress)
    running.wait_finished()
    assert len(got) > 300
    running.wait(lambda: len(list(read_tape(tmp_path))) == len(got))
    assert list(read_tape(tmp_path)) == got
    times = [effective_ns(m) for m in got]
    assert times == sorted(times)


def test_feed_frames_are_bounded(exchange: Exchange) -> None:
    running = exchange(frame_messages=7, speed=6000.0)

    async def body(feed: Feed) -> list[int]:
        await _whole_session(feed)
        return feed.sizes

    sizes = talk(running.ws + "/v2/iex", body)
    assert max(sizes) == 7


def test_feed_chosen_symbols_get_only_theirs(exchange: Exchange) -> None:
    running = exchange()

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", trades=["SPY"], bars=["AAPL"])
        await feed.read(bars(5))
        return feed.got

    got = talk(running.ws + "/v2/iex", body)
    assert {(m["T"], m["S"]) for m in got} == {("t", "SPY"), ("b", "AAPL")}


def test_feed_market_waits_for_the_first_subscription(exchange: Exchange) -> None:
    running = exchange()
    assert running.get("/raytape/clock")["state"] == "waiting"
    assert running.get("/raytape/clock")["clock"] is None

    async def body(feed: Feed) -> None:
        assert running.get("/raytape/clock")["state"] == "waiting"
        await feed.ask("subscribe", bars=["*"])
        told = running.get("/raytape/clock")
        assert told["state"] == "open"
        clock = MarketClock.from_dict(told["clock"])
        assert clock.rate == told["rate"] == 600
        await feed.read(bars(15))
        last = clock.sessions[-1]
        assert effective_ns(feed.got[-1]) == last[1]

    talk(running.ws + "/v2/iex", body)
    running.wait_finished()


def test_feed_opened_at_the_start_runs_by_itself(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(open_on="start", record_dir=tmp_path)
    running.wait_finished()
    running.wait(lambda: bars(15)(list(read_tape(tmp_path))))
    assert running.get("/raytape/stats")["by_channel"]["bars"] == 15


def test_feed_restart_goes_on_and_repeats_nothing(exchange: Exchange, tmp_path: Path) -> None:
    for _ in range(2):
        exchange(
            open_on="start", record_dir=tmp_path, state_path=tmp_path / "state.json"
        ).wait_finished()
    read = lambda: [m["t"] for m in read_tape(tmp_path) if m["T"] == "b" and m["S"] == "SPY"]  # noqa: E731
    running = exchange()
    running.wait(lambda: len(read()) == 10)
    assert read() == [f"2024-07-02T13:{30 + i}:00Z" for i in range(10)]


def test_feed_exchange_that_ends_sends_what_it_published(
    exchange: Exchange, tmp_path: Path
) -> None:
    running = exchange(record_dir=tmp_path, speed=60.0, max_minutes=60)

    async def body(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", **EVERYTHING)
        await feed.read(bars(3))
        running.end()
        with pytest.raises(ConnectionResetError):
            await feed.read(lambda _: False)
        return feed.got

    got = talk(running.ws + "/v2/iex", body)
    running.end(wait=True)
    assert got == list(read_tape(tmp_path))


def test_feed_finished_market_stays_finished(
    exchange: Exchange, tmp_path: Path, shared_data: Path
) -> None:
    path = shared_data / "bars_1min_spy_2011_01.parquet"
    state = tmp_path / "state.json"
    PlayedMinutes(state).begin(f"replay:{path.name}:all", 2_000_000_000 * 10**9)
    running = exchange(replay=str(path), symbols=(), state_path=state)
    assert running.get("/raytape/clock")["state"] == "finished"


def test_feed_replayed_bars_equal_the_file(
    exchange: Exchange, tmp_path: Path, shared_data: Path
) -> None:
    path = shared_data / "bars_1min_spy_2011_01.parquet"
    running = exchange(
        replay=str(path), symbols=(), max_sessions=1, max_minutes=None, speed=60_000.0,
        open_on="start", record_dir=tmp_path,
    )  # fmt: skip
    running.wait_finished()
    table = pq.read_table(path)
    want = [
        (t.strftime("%Y-%m-%dT%H:%M:%SZ"), o, h, low, c, v)
        for t, o, h, low, c, v in zip(
            *(table[n].to_pylist() for n in COLUMNS),
            strict=True,
        )
        if t.isoformat() < "2011-01-04T05"
    ]
    read = lambda: [  # noqa: E731
        tuple(m[k] for k in "tohlcv") for m in read_tape(tmp_path) if m["T"] == "b"
    ]
    running.wait(lambda: len(read()) == len(want))
    assert read() == want
    answer = running.get("/v2/stocks/bars", symbols="SPY", start="2011-01-03", limit=10_000)
    assert [tuple(b[k] for k in "tohlcv") for b in answer["bars"]["SPY"]] == want


def test_feed_silent_client_is_closed_with_404(exchange: Exchange) -> None:
    running = exchange(auth_timeout_s=0.2)

    async def body(feed: Feed) -> None:
        assert (await feed.next())[0]["code"] == 404
        assert (await feed.socket.receive(timeout=5)).type == aiohttp.WSMsgType.CLOSE

    talk(running.ws + "/v2/iex", body, login=False)


def test_feed_not_in_the_plan_is_refused(exchange: Exchange) -> None:
    running = exchange(feeds=("iex",))

    async def body(feed: Feed) -> int:
        return (await feed.ask("auth", key="k", secret="s"))[0]["code"]

    assert talk(running.ws + "/v2/sip", body, login=False) == 409


def test_feed_second_connection_over_the_limit_is_refused(exchange: Exchange) -> None:
    running = exchange(connection_limit=1)

    async def body(_: Feed) -> int:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(running.ws + "/v2/iex") as socket,
        ):
            second = Feed(socket)
            await second.next()
            code = (await second.ask("auth", key="k", secret="s"))[0]["code"]
            with pytest.raises(ENDED):
                await second.next()
            return code

    assert talk(running.ws + "/v2/iex", body) == 406


def test_feed_garbage_is_answered_and_survived(exchange: Exchange) -> None:
    running = exchange()

    async def body(feed: Feed) -> None:
        await feed.socket.send_str("{")
        assert (await feed.next())[0]["code"] == 400
        await feed.socket.send_bytes(msgpack.packb({"action": "subscribe", "bars": ["*"]}))
        assert (await feed.next())[0]["bars"] == ["*"]

    talk(running.ws + "/v2/iex", body)


def test_feed_slow_client_is_dropped_and_counted(exchange: Exchange) -> None:
    running = exchange(client_queue=500, speed=60.0, max_minutes=50)
    noise = {"T": "t", "S": "SPY", "x": "x" * 22_000}

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", trades=["SPY"])
        async with aiohttp.ClientSession() as http:
            for _ in range(40):
                await http.post(running.http + "/raytape/inject", json={"messages": [noise] * 40})
        with pytest.raises(ENDED):
            await feed.read(lambda _: False)

    talk(running.ws + "/v2/iex", body, max_msg_size=0)
    stats = running.get("/raytape/stats")
    assert stats["slow_clients"] == 1
    assert stats["clients"] == []


def test_feed_dropped_clients_are_cut(exchange: Exchange) -> None:
    running = exchange(speed=1.0)

    async def body(feed: Feed) -> int:
        await feed.ask("subscribe", **EVERYTHING)
        async with aiohttp.ClientSession() as http:
            answer = await (await http.post(running.http + "/raytape/drop")).json()
        with pytest.raises(ENDED):
            await feed.read(lambda _: False)
        return answer["dropped"]

    assert talk(running.ws + "/v2/iex", body) == 1
    running.wait(lambda: running.get("/raytape/stats")["clients"] == [])


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_feed_injected_faults_arrive_as_they_are(
    exchange: Exchange, tmp_path: Path, codec: str
) -> None:
    running = exchange(speed=0.001, record_dir=tmp_path)
    odd = [{"T": "??"}, {"T": "t", "S": "A", "p": -1.0, "s": 1, "t": "2025-07-02T13:30:00Z"}]
    raw = b"[{"

    async def body(feed: Feed) -> None:
        await feed.ask("subscribe", **EVERYTHING)
        async with aiohttp.ClientSession() as http:
            frames = [base64.b64encode(raw).decode()]
            answer = await http.post(
                running.http + "/raytape/inject", json={"messages": odd, "frames_b64": frames}
            )
            assert await answer.json() == {"messages": 2, "frames": 1}
        assert await feed.next() == odd
        frame = await feed.socket.receive()
        assert (frame.data if codec == "msgpack" else frame.data.encode()) == raw

    talk(running.ws + "/v2/iex", body, codec=codec)
    running.wait(lambda: len(list(read_entries(tmp_path))) == 3)
    assert list(read_tape(tmp_path)) == odd


def test_inject_malformed_body_is_refused(exchange: Exchange) -> None:
    running = exchange()
    for body in (b"{", b"[]", b'{"messages":[1]}', b'{"frames_b64":["?"]}'):
        answer = httpx.post(running.http + "/raytape/inject", content=body)
        assert answer.status_code == 400
