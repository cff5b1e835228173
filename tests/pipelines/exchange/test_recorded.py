"""A recorded session, played again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import orjson
import pytest

from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, Message, effective_ns, format_time_ns, parse_time_ns
from pipelines.exchange.asked import Range
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.floor import Floor
from pipelines.exchange.news_history import NewsHistory
from pipelines.exchange.recorded import RecordedMarket, RecordedPlayback
from pipelines.exchange.tick_history import TickHistory, TickQuery
from pipelines.tape import TapeHeader, TapeWriter, read_tape
from tests.pipelines.exchange.conftest import Running
from tests.pipelines.exchange.talking import EVERYTHING, Feed, talk

HEADER = TapeHeader(feed="iex", source="test", started_ns=1)
OPENS = parse_time_ns("2024-07-02T13:30:00Z")
WALL = 1_800_000_000 * 10**9
CONFIG = ExchangeConfig(
    symbols=("AAPL", "MSFT"), start_date=date(2024, 7, 2), messages_per_minute=30, max_minutes=3,
    correction_rate=0.2, open_on="start",
)  # fmt: skip


def _tape(folder: Path, messages: Sequence[Message | bytes]) -> Path:
    tape = TapeWriter(folder, header=HEADER, max_mb=8)
    for message in messages:
        if isinstance(message, bytes):
            tape.write_raw(message, wall_ns=5)
        else:
            tape.write_messages([message], wall_ns=5)
    tape.write_gap(since_ns=1, reason="reconnect", wall_ns=6)
    tape.close()
    return folder


def _trade(offset_ns: int, *, symbol: str = "SPY", price: float = 10.0, **more: object) -> Message:
    at = format_time_ns(OPENS + offset_ns)
    return {"T": "t", "S": symbol, "i": offset_ns, "x": "V", "p": price, "s": 100, "c": ["@"],
            "t": at, "z": "B", **more}  # fmt: skip


def _recorded(folder: Path) -> list[Message]:
    """Runs a floor to its end; answers what its tape holds."""
    now = [WALL]
    floor = Floor(replace(CONFIG, record_dir=folder), wall_ns=lambda: now[0])
    for _ in range(200):
        now[0] += 10**8
        while floor.publish_due():
            pass
    floor.close()
    assert floor.state == "finished"
    return list(read_tape(folder))


def _play(playback: RecordedPlayback, now_ns: int = 2**62, limit: int = 2000) -> list[Message]:
    out: list[Message] = []
    while (batch := playback.due(now_ns, limit=limit)) is not None:
        out += [orjson.loads(text) for text in batch.json()]
    return out


def test_recorded_session_plays_what_was_published(tmp_path: Path) -> None:
    sent = _recorded(tmp_path)
    assert {m["T"] for m in sent} >= set("tqbdlc")
    market = RecordedMarket(tmp_path)
    assert market.symbols == ("AAPL", "MSFT")
    assert market.playable() == ((OPENS, OPENS + 3 * MINUTE_NS),)
    assert _play(RecordedPlayback(tmp_path, market.playable())) == sent


def test_recorded_bars_are_those_of_the_tape(tmp_path: Path) -> None:
    sent = _recorded(tmp_path)
    block = RecordedMarket(tmp_path).block((OPENS, OPENS + 3 * MINUTE_NS))
    bars = [m for m in sent if m["T"] == "b" and m["S"] == "MSFT"]
    assert block.close[1].tolist() == [m["c"] for m in bars]
    assert block.trades[1].tolist() == [m["n"] for m in bars]
    assert block.vwap is not None
    assert block.vwap[1].tolist() == pytest.approx([m["vw"] for m in bars], abs=1e-5)


def test_recorded_minute_without_a_bar_is_made_of_its_trades(tmp_path: Path) -> None:
    trades = [_trade(1, price=10.0), _trade(2, price=12.0), _trade(3, price=99.0, c=["@", "I"]),
              _trade(4, price=11.0)]  # fmt: skip
    market = RecordedMarket(_tape(tmp_path, trades))
    block = market.block(market.playable()[0])
    bar = [float(x[0, 0]) for x in (block.open, block.high, block.low, block.close)]
    assert bar == [10.0, 12.0, 10.0, 11.0]
    assert (block.volume[0, 0], block.trades[0, 0]) == (400, 4)


def test_recorded_order_is_that_of_the_tape_whatever_the_times_say(tmp_path: Path) -> None:
    messages = [
        _trade(5), _trade(2), {"T": "zz", "t": "never"}, _trade(10**18), _trade(7),
        {"T": "b", "S": "SPY", "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1,
         "t": format_time_ns(OPENS)},
        {"T": "d", "S": "SPY", "t": "2024-07-02T04:00:00Z"},
        _trade(MINUTE_NS),
    ]  # fmt: skip
    market = RecordedMarket(_tape(tmp_path, messages))
    assert market.playable() == ((OPENS, OPENS + 2 * MINUTE_NS),)
    first = ((OPENS, OPENS + MINUTE_NS),)
    assert _play(RecordedPlayback(tmp_path, first)) == messages[:-1]
    playback = RecordedPlayback(tmp_path, market.playable())
    assert _play(playback, OPENS + 6) == messages[:4]
    assert _play(playback, OPENS + MINUTE_NS - 1) == messages[4:5]
    assert _play(playback, OPENS + MINUTE_NS) == messages[5:]


def test_recorded_news_of_several_symbols_is_found_by_each_of_them(tmp_path: Path) -> None:
    news = {"T": "n", "symbols": ["KO", "A"], "id": 1, "updated_at": format_time_ns(OPENS + 3)}
    _tape(tmp_path, [_trade(1), news])
    history = NewsHistory(RecordedMarket(tmp_path))

    def ids(*symbols: str, only_with_content: bool = False) -> list[int]:
        span = Range(symbols, OPENS, OPENS + MINUTE_NS, limit=5, descending=True, token=None)
        found, _ = history.page(span, content=True, only_with_content=only_with_content)
        return [message["id"] for message in found]

    assert [ids(), ids("A"), ids("SPY", "KO"), ids("SPY")] == [[1], [1], [1], []]
    assert ids("A", only_with_content=True) == []


def test_recorded_raw_frames_stand_in_their_place(tmp_path: Path) -> None:
    _tape(tmp_path, [b"before any time", _trade(1), b"\xff", _trade(2)])
    playback = RecordedPlayback(tmp_path, ((OPENS, OPENS + MINUTE_NS),))
    assert playback.raw(2**62) is None
    assert len(_play(playback)) == 1
    assert playback.raw(OPENS) is None
    assert playback.raw(OPENS + 1) == b"\xff"
    assert len(_play(playback)) == 1
    assert playback.finished


def test_recorded_chosen_symbols_and_sessions_alone_are_played(tmp_path: Path) -> None:
    day = 24 * 60 * MINUTE_NS
    _tape(
        tmp_path,
        [_trade(1), _trade(2, symbol="KO"), {"T": "n", "symbols": ["KO", "A"], "id": 1,
         "updated_at": format_time_ns(OPENS + 3)}, _trade(day)],
    )  # fmt: skip
    market = RecordedMarket(tmp_path, symbols=("KO",))
    assert market.symbols == ("KO",)
    played = _play(RecordedPlayback(tmp_path, market.playable(), symbols=("KO",)))
    assert [m["T"] for m in played] == ["t", "n"]
    assert [i.message()["id"] for i in market.news(market.playable()[0])] == [1]
    assert len(RecordedMarket(tmp_path).playable()) == 2
    assert len(RecordedMarket(tmp_path, max_sessions=1).playable()) == 1
    night = _tape(tmp_path / "night", [_trade(-3 * 60 * MINUTE_NS)])
    with pytest.raises(ConfigError, match="regular"):
        RecordedMarket(night, sessions="regular")


def test_recorded_restart_goes_on_after_the_minute_that_was_begun(tmp_path: Path) -> None:
    sent = _recorded(tmp_path)
    begun: list[int] = []
    sessions = RecordedMarket(tmp_path).playable()
    _play(RecordedPlayback(tmp_path, sessions, before_minute=begun.append))
    assert begun == [OPENS + i * MINUTE_NS for i in range(3)]
    rest = _play(RecordedPlayback(tmp_path, ((begun[1], sessions[0][1]),)))
    assert rest == sent[-len(rest) :]
    assert min(effective_ns(m) for m in rest if m["T"] in "tq") > begun[1]


def test_recorded_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tape"):
        RecordedMarket(tmp_path)
    with pytest.raises(ConfigError, match="no message"):
        RecordedMarket(_tape(tmp_path, [_trade(1)]), symbols=("NOPE",))


async def _all_of_it(feed: Feed) -> list[Message]:
    await feed.ask("subscribe", **EVERYTHING)
    await feed.read(lambda got: sum(m["T"] == "b" for m in got) >= 6)
    return feed.got


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_recorded_session_over_the_socket_is_the_same(
    exchange: Callable[..., Running], tmp_path: Path, codec: str
) -> None:
    sent = _recorded(tmp_path)
    running = exchange(replay=str(tmp_path), symbols=(), max_minutes=None, speed=6000.0)
    got = talk(running.ws + "/v2/iex", _all_of_it, codec=codec)
    assert got == [m for m in sent if m["T"] in "tqbc"]
    running.wait_finished()
    bars = running.get("/v2/stocks/bars", symbols="AAPL", start="2024-07-02")["bars"]["AAPL"]
    assert [b["c"] for b in bars] == [m["c"] for m in sent if m["T"] == "b" and m["S"] == "AAPL"]
    trades = running.get("/v2/stocks/trades", symbols="AAPL", start="2024-07-02")["trades"]["AAPL"]
    assert [t["i"] for t in trades] == [m["i"] for m in sent if m["T"] == "t" and m["S"] == "AAPL"]


def test_market_at_the_clients_pace_drops_nobody_and_loses_nothing(
    exchange: Callable[..., Running], tmp_path: Path
) -> None:
    running = exchange(
        pace="clients", record_dir=tmp_path, max_minutes=None, max_sessions=1, open_on="start",
        messages_per_minute=120,
    )  # fmt: skip
    assert running.get("/raytape/stats")["published"] == 0

    async def slow(feed: Feed) -> list[Message]:
        await feed.ask("subscribe", **EVERYTHING)
        await asyncio.sleep(0.3)  # it does not read meanwhile
        assert running.get("/raytape/stats")["state"] == "open"
        await feed.read(lambda got: bool(got) and got[-1]["t"] == "2024-07-02T19:59:00Z")
        return feed.got

    got = talk(running.ws + "/v2/iex", slow)
    assert running.get("/raytape/stats")["slow_clients"] == 0
    assert len(got) > 120_000
    running.wait_finished()
    running.end(wait=True)
    assert got == list(read_tape(tmp_path))


def test_recorded_history_goes_on_behind_raw_frames_and_times_that_are_none(
    tmp_path: Path,
) -> None:
    broken = _trade(2, t="yesterday")
    tape = _tape(tmp_path / "tape", [_trade(1), b"garbage", b"more", broken, _trade(3)])
    market = RecordedMarket(tape)
    history = TickHistory(market, ticks=market.ticks, together=True)
    query = TickQuery("trades", ("SPY",), OPENS, OPENS + MINUTE_NS)
    found, _ = history.page(query, now_ns=OPENS + MINUTE_NS)
    assert [trade["i"] for trade in found["SPY"]] == [1, 3]
