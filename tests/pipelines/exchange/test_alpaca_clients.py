"""The vendor's own clients talk to the exchange, without special cases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.models import Bar, Quote, Trade
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from pipelines.events import parse_time_ns

Exchange = Callable[..., Any]


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(parse_time_ns(text) / 1e9, UTC)


def test_stock_data_stream_receives_trades_quotes_and_bars(exchange: Exchange) -> None:
    running = exchange()
    got: dict[type, Any] = {}
    stream = StockDataStream("key", "secret", url_override=running.ws + "/v2/iex")
    complete = threading.Event()

    async def keep(data: Any) -> None:
        got.setdefault(type(data), data)
        if len(got) == 3:
            complete.set()
            await stream.stop_ws()

    many = [f"X{i}" for i in range(5000)]  # its subscription arrives in fragments
    stream.subscribe_trades(keep, "SPY", *many)
    stream.subscribe_quotes(keep, "*")
    stream.subscribe_bars(keep, "AAPL")
    thread = threading.Thread(target=lambda: asyncio.run(stream._run_forever()), daemon=True)
    thread.start()
    assert complete.wait(15)
    thread.join(15)
    assert not thread.is_alive()
    assert got[Trade].symbol == "SPY"
    assert got[Trade].price > 0
    assert got[Quote].ask_price > got[Quote].bid_price
    assert got[Bar].symbol == "AAPL"
    assert got[Bar].timestamp == _moment("2024-07-02T13:30:00Z")


@pytest.fixture
def rest(exchange: Exchange) -> StockHistoricalDataClient:
    return StockHistoricalDataClient("key", "secret", url_override=exchange().http)


def test_historical_client_pages_through_bars(rest: StockHistoricalDataClient) -> None:
    request = StockBarsRequest(
        symbol_or_symbols=["AAPL", "MSFT", "SPY"],
        timeframe=TimeFrame.Minute,
        start=_moment("2024-06-03T00:00:00Z"),
        end=_moment("2024-06-20T00:00:00Z"),
    )
    bars = rest.get_stock_bars(request).data  # 12 sessions of three symbols: two pages
    assert {symbol: len(rows) for symbol, rows in bars.items()} == dict.fromkeys(bars, 12 * 390)
    assert set(bars) == {"AAPL", "MSFT", "SPY"}
    times = [bar.timestamp for bar in bars["SPY"]]
    assert times == sorted(set(times))


def test_historical_client_limit_and_longer_bars(rest: StockHistoricalDataClient) -> None:
    request = StockBarsRequest(
        symbol_or_symbols="SPY",
        timeframe=TimeFrame(15, TimeFrameUnit.Minute),
        start=_moment("2024-06-27T00:00:00Z"),
        limit=30,
    )
    bars = rest.get_stock_bars(request).data["SPY"]
    assert len(bars) == 30
    assert bars[0].timestamp == _moment("2024-06-27T13:30:00Z")
    assert bars[26].timestamp == _moment("2024-06-28T13:30:00Z")


def test_historical_client_bad_request_is_an_api_error(rest: StockHistoricalDataClient) -> None:
    request = StockBarsRequest(
        symbol_or_symbols="SPY",
        timeframe=TimeFrame(1, TimeFrameUnit.Week),
        start=_moment("2024-06-27T00:00:00Z"),
        end=_moment("2024-06-26T00:00:00Z"),
    )
    with pytest.raises(APIError, match="end should not be before start"):
        rest.get_stock_bars(request)
