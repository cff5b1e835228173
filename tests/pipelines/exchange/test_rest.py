from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.errors import FeedFatal, FeedTransient
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.history import RestHistory
from pipelines.tape import read_tape

Exchange = Callable[..., Any]
OPENS = parse_time_ns("2024-07-02T13:30:00Z")


def _history(url: str, **more: Any) -> RestHistory:
    return RestHistory(base_url=url, key="key", secret="secret", **more)


def test_rest_bars_equal_those_on_the_stream(exchange: Exchange, tmp_path: Path) -> None:
    running = exchange(open_on="start", record_dir=tmp_path)
    running.wait_finished()
    live = lambda: [m for m in read_tape(tmp_path) if m["T"] == "b" and m["S"] == "SPY"]  # noqa: E731
    running.wait(lambda: len(live()) == 5)
    answer = running.get("/v2/stocks/SPY/bars", start="2024-07-02T13:30:00+00:00")
    assert answer["symbol"] == "SPY"
    assert [{"T": "b", "S": "SPY"} | bar for bar in answer["bars"]] == live()


def test_rest_bars_before_the_opening_end_at_it(exchange: Exchange) -> None:
    running = exchange()
    answer = running.get("/v2/stocks/bars", symbols="SPY", start="2024-07-01", sort="desc", limit=2)
    assert [bar["t"] for bar in answer["bars"]["SPY"]] == [
        "2024-07-01T19:59:00Z",
        "2024-07-01T19:58:00Z",
    ]
    assert answer["next_page_token"]


def test_rest_nothing_found_is_an_empty_page(exchange: Exchange) -> None:
    answer = exchange().get("/v2/stocks/bars", symbols="SPY")
    assert answer == {"bars": {}, "next_page_token": None}


def test_rest_without_keys_is_unauthorized(exchange: Exchange) -> None:
    running = exchange()
    assert httpx.get(running.http + "/v2/stocks/bars?symbols=SPY").status_code == 401
    assert httpx.get(running.http + "/raytape/clock").status_code == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert httpx.get(running.http + "/v2/clock", headers=upgrade).status_code == 401


def test_rest_moments_at_the_ends_of_time_are_answered(exchange: Exchange) -> None:
    span = {"start": "0001-01-01T00:00:00+10:00", "end": "1800-01-01"}
    assert exchange().get("/v2/stocks/bars", symbols="SPY", **span)["bars"] == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": "x"},
        {"sort": "up"},
        {"start": "soon"},
        {"end": "9999-12-31"},
        {"timeframe": "1Eon"},
    ],
)
def test_rest_wrong_parameter_is_a_bad_request(exchange: Exchange, wrong: dict[str, Any]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        exchange().get("/v2/stocks/bars", symbols="SPY", **wrong)


def test_rest_clock_tells_the_market_time(exchange: Exchange) -> None:
    told = exchange().get("/v2/clock")
    assert told == {
        "timestamp": "2024-07-02T09:30:00-04:00",
        "is_open": False,
        "next_open": "2024-07-03T09:30:00-04:00",
        "next_close": "2024-07-02T16:00:00-04:00",
    }


def test_history_gives_the_last_bars_of_many_symbols(exchange: Exchange) -> None:
    history = _history(exchange().http)
    found = history.bars_many(["AAPL", "SPY", "NOPE"], before_ns=OPENS, limit=512)
    assert {s: len(bars) for s, bars in found.items()} == {"AAPL": 512, "SPY": 512, "NOPE": 0}
    times = [parse_time_ns(bar["t"]) for bar in found["SPY"]]
    assert times == sorted(times)
    assert times[-1] == parse_time_ns("2024-07-01T19:59:00Z")
    assert set(found["SPY"][0]) >= set("tohlcvn") | {"vw"}
    assert list(history.bars("SPY", before_ns=OPENS, limit=3)) == found["SPY"][-3:]


def test_history_last_bar_ended_by_the_moment(exchange: Exchange) -> None:
    history = _history(exchange().http)
    before = OPENS - 20 * 60 * MINUTE_NS
    for shift, last in ((0, "17:29"), (MINUTE_NS - 1, "17:29"), (MINUTE_NS, "17:30")):
        (bar,) = history.bars("SPY", before_ns=before + shift, limit=1)
        assert bar["t"] == f"2024-07-01T{last}:00Z"


def test_history_of_a_replay_has_what_the_file_has(exchange: Exchange, shared_data: Path) -> None:
    running = exchange(
        replay=str(shared_data / "bars_1min_spy_2011_01.parquet"), symbols=(), open_on="start",
        speed=60_000.0,
    )  # fmt: skip
    running.wait_finished()
    opened = parse_time_ns("2011-01-03T09:00:00Z")
    assert _history(running.http).bars("SPY", before_ns=opened, limit=10) == []
    found = _history(running.http).bars("SPY", before_ns=opened + 10 * MINUTE_NS, limit=512)
    assert [bar["t"][11:16] for bar in found] == ["09:00", "09:01"]


def test_history_server_that_is_not_there_is_transient() -> None:
    with pytest.raises(FeedTransient):
        _history("http://127.0.0.1:1").bars("SPY", before_ns=OPENS, limit=5)


def test_history_refused_request_is_fatal(exchange: Exchange, monkeypatch: Any) -> None:
    history = _history(exchange().http)
    monkeypatch.setattr(history._client, "_get_auth_headers", dict)
    with pytest.raises(FeedFatal, match="401"):
        history.bars("SPY", before_ns=OPENS, limit=5)
