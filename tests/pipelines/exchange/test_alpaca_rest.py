"""The vendor's own data clients read the history of the exchange, without special cases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical import NewsClient, StockHistoricalDataClient
from alpaca.data.requests import (
    NewsRequest,
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)  # fmt: skip
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from pipelines.events import parse_time_ns
from pipelines.tape import read_tape

Exchange = Callable[..., Any]
SYMBOLS = ["AAPL", "MSFT", "SPY"]
KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _client(running: Any, **more: Any) -> StockHistoricalDataClient:
    return StockHistoricalDataClient("key", "secret", url_override=running.http, **more)


@pytest.fixture
def client(exchange: Exchange) -> StockHistoricalDataClient:
    return _client(exchange())


@pytest.fixture
def played(exchange: Exchange, tmp_path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """An exchange whose market is over, and its tape."""
    running = exchange(open_on="start", record_dir=tmp_path / "tape")
    running.wait_finished()
    running.wait(lambda: running.get("/raytape/stats")["by_channel"].get("bars", 0) == 15)
    published = running.get("/raytape/stats")["published"]
    running.wait(lambda: len(list(read_tape(tmp_path / "tape"))) == published)
    return running, list(read_tape(tmp_path / "tape"))


@pytest.mark.parametrize(("kind", "letter"), [("trades", "t"), ("quotes", "q"), ("bars", "b")])
def test_history_over_rest_is_what_the_tape_says(played: Any, kind: str, letter: str) -> None:
    running, tape = played
    start = "2024-07-02T13:30:00Z"
    found = running.get(f"/v2/stocks/{kind}", symbols="AAPL,MSFT,SPY", start=start, limit=10_000)
    assert found["next_page_token"] is None
    live = [m for m in tape if m["T"] == letter]
    for symbol in SYMBOLS:
        mine = [{k: v for k, v in m.items() if k not in "TS"} for m in live if m["S"] == symbol]
        assert found[kind][symbol] == sorted(mine, key=lambda m: parse_time_ns(m["t"]))
    assert sum(len(rows) for rows in found[kind].values()) == len(live)


def test_latest_and_snapshots_are_the_last_of_the_tape(played: Any) -> None:
    running, tape = played
    client = _client(running, raw_data=True)

    def last(letter: str, symbol: str) -> dict[str, Any]:
        mine = [m for m in tape if m["T"] == letter and m["S"] == symbol]
        newest = max(mine, key=lambda m: parse_time_ns(m["t"]))
        return {k: v for k, v in newest.items() if k not in "TS"}

    trades = client.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols=SYMBOLS))
    quotes = client.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=SYMBOLS))
    bars = client.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=SYMBOLS))
    assert trades == {s: last("t", s) for s in SYMBOLS}
    assert quotes == {s: last("q", s) for s in SYMBOLS}
    assert bars == {s: last("b", s) for s in SYMBOLS}
    one = running.get("/v2/stocks/SPY/trades/latest")
    assert one == {"symbol": "SPY", "trade": trades["SPY"]}
    found = _client(running).get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=SYMBOLS))
    spy = found["SPY"]
    assert spy.latest_trade.id == trades["SPY"]["i"]
    assert spy.latest_quote.ask_price == quotes["SPY"]["ap"]
    assert spy.minute_bar.close == bars["SPY"]["c"]
    assert spy.daily_bar.timestamp == _moment("2024-07-02T04:00:00Z")
    assert spy.previous_daily_bar.timestamp == _moment("2024-07-01T04:00:00Z")
    assert running.get("/v2/stocks/SPY/snapshot")["symbol"] == "SPY"


def test_ticks_of_a_day_are_paged_through(client: StockHistoricalDataClient) -> None:
    request = StockQuotesRequest(
        symbol_or_symbols=SYMBOLS,
        start=_moment("2024-07-01T13:30:00Z"),
        end=_moment("2024-07-01T20:00:00Z"),
        feed=DataFeed.IEX,
    )
    found = client.get_stock_quotes(request).data
    assert set(found) == set(SYMBOLS)
    assert sum(len(rows) for rows in found.values()) > 20_000  # three pages
    for rows in found.values():
        times = [row.timestamp for row in rows]
        assert times == sorted(times)
        assert times[0] < _moment("2024-07-01T13:31:00Z")
        assert times[-1] > _moment("2024-07-01T19:59:00Z")


def test_trades_newest_first_with_a_limit(client: StockHistoricalDataClient) -> None:
    request = StockTradesRequest(
        symbol_or_symbols="SPY", start=_moment("2024-06-28T00:00:00Z"), limit=25, sort="desc"
    )
    rows = client.get_stock_trades(request).data["SPY"]
    assert len(rows) == len({row.id for row in rows}) == 25
    assert [r.timestamp for r in rows] == sorted((r.timestamp for r in rows), reverse=True)
    assert rows[0].timestamp > _moment("2024-07-01T19:59:00Z")


@pytest.mark.parametrize(
    ("amount", "unit", "count", "first"),
    [
        (59, TimeFrameUnit.Minute, None, None),
        (4, TimeFrameUnit.Hour, None, None),
        (1, TimeFrameUnit.Day, 19, "2024-06-03T04:00:00Z"),
        (1, TimeFrameUnit.Week, 4, "2024-06-03T04:00:00Z"),
        (1, TimeFrameUnit.Month, 1, "2024-06-01T04:00:00Z"),
    ],
)
def test_bars_of_every_length(
    client: StockHistoricalDataClient, amount: int, unit: Any, count: int | None, first: str | None
) -> None:
    request = StockBarsRequest(
        symbol_or_symbols=["SPY", "AAPL"],
        timeframe=TimeFrame(amount, unit),
        start=_moment("2024-06-01T04:00:00Z"),
        end=_moment("2024-06-28T23:00:00Z"),
        adjustment=Adjustment.ALL,
        asof="2024-06-28",
    )
    bars = client.get_stock_bars(request).data
    assert count is None or {len(rows) for rows in bars.values()} == {count}
    assert first is None or bars["SPY"][0].timestamp == _moment(first)
    total = sum(bar.volume for bar in bars["SPY"])
    minutes = request.model_copy(update={"timeframe": TimeFrame.Minute})
    assert total == sum(bar.volume for bar in client.get_stock_bars(minutes).data["SPY"])


def test_news_is_paged_newest_first_and_by_symbol(exchange: Exchange) -> None:
    running = exchange()
    client = NewsClient("key", "secret", url_override=running.http)
    month = {"start": _moment("2024-05-01T00:00:00Z"), "end": _moment("2024-07-01T23:00:00Z")}
    found = client.get_news(NewsRequest(**month)).data["news"]
    assert len(found) > 60  # more than a page of 50
    assert len({item.id for item in found}) == len(found)
    times = [item.updated_at for item in found]
    assert times == sorted(times, reverse=True)
    assert {item.content for item in found} == {""}
    mine = client.get_news(NewsRequest(symbols="SPY", include_content=True, **month)).data["news"]
    assert [i.id for i in mine] == [i.id for i in found if "SPY" in i.symbols]
    assert all(item.content for item in mine)
    assert len(client.get_news(NewsRequest(limit=7, **month)).data["news"]) == 7


def test_rest_of_the_tables_says_what_the_letters_mean(exchange: Exchange) -> None:
    running = exchange()
    assert running.get("/v2/stocks/meta/conditions/trade", tape="C")["6"] == "Closing Prints"
    assert running.get("/v2/stocks/meta/conditions/quote", tape="A")["R"]
    assert running.get("/v2/stocks/meta/exchanges")["V"] == "IEX"


def test_rest_day_as_a_time_is_a_day_of_new_york(exchange: Exchange) -> None:
    found = exchange().get(
        "/v2/stocks/bars", symbols="SPY", timeframe="1Hour", start="2024-06-28", end="2024-06-28"
    )["bars"]["SPY"]
    assert [bar["t"][11:16] for bar in found] == [
        "13:00", "14:00", "15:00", "16:00", "17:00", "18:00", "19:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/v2/stocks/trades", {}, 400),
        ("/v2/stocks/trades", {"symbols": "SPY", "limit": 10_001}, 400),
        ("/v2/stocks/trades", {"symbols": "SPY", "page_token": "x"}, 400),
        ("/v2/stocks/trades", {"symbols": "SPY;"}, 400),
        ("/v2/stocks/bars", {"symbols": "SPY", "start": "2024-07-01", "end": "2024-06-01"}, 400),
        ("/v2/stocks/bars", {"symbols": "SPY", "timeframe": "2Day"}, 400),
        ("/v2/stocks/bars", {"symbols": "SPY", "adjustment": "more"}, 400),
        ("/v2/stocks/bars", {"symbols": "SPY", "feed": "none"}, 400),
        ("/v2/stocks/bars", {"symbols": "SPY", "feed": "otc"}, 403),
        ("/v2/stocks/bars", {"symbols": "SPY", "currency": "EUR"}, 400),
        ("/v2/stocks/NOPE/trades/latest", {}, 404),
        ("/v2/stocks/NOPE/snapshot", {}, 404),
        ("/v2/stocks/meta/conditions/bar", {}, 400),
        ("/v2/stocks/nothing", {}, 404),
        ("/v1beta1/news", {"limit": 51}, 400),
        ("/v1beta1/news", {"include_content": "maybe"}, 400),
        ("/v2/calendar", {"start": "tomorrow"}, 400),
    ],
)
def test_rest_wrong_request_is_refused_in_the_vendors_shape(
    exchange: Exchange, path: str, params: dict[str, Any], status: int
) -> None:
    answer = httpx.get(exchange().http + path, params=params, headers=KEYS)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}
    assert answer.json()["message"]


def test_rest_feed_outside_of_the_plan_is_forbidden(exchange: Exchange) -> None:
    running = exchange(feeds=("iex", "test"))
    request = StockTradesRequest(symbol_or_symbols="SPY", feed=DataFeed.SIP)
    with pytest.raises(APIError, match="subscription does not permit") as refused:
        _client(running).get_stock_trades(request)
    assert refused.value.status_code == 403


def test_rest_basic_authorization_is_taken(exchange: Exchange) -> None:
    running = exchange()
    client = StockHistoricalDataClient(
        "key", "secret", use_basic_auth=True, url_override=running.http
    )
    assert client.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="SPY"))["SPY"]
    url = running.http + "/v2/stocks/trades/latest?symbols=SPY"
    assert httpx.get(url, headers={"Authorization": "Basic ???"}).status_code == 401
