"""The vendor's own streaming clients talk to the exchange, without special cases."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alpaca.data.live import NewsDataStream, StockDataStream
from alpaca.data.live.websocket import DataStream
from alpaca.data.models import Bar, News, Quote, Trade, TradeCancel, TradeCorrection, TradingStatus

from tests.pipelines.exchange.test_sockets import NEWS

Exchange = Callable[..., Any]
AT = "2024-07-02T13:30:00.123456Z"
LULD = {"T": "l", "S": "SPY", "u": 2.0, "d": 1.0, "i": "B", "t": AT, "z": "B"}
IMBALANCE = {"T": "i", "S": "SPY", "p": 1.0, "z": "B", "t": AT}


class Got(list[Any]):
    """What the handlers of a client were given."""

    async def keep(self, data: Any) -> None:
        self.append(data)

    def of(self, kind: type, **more: Any) -> list[Any]:
        return [
            d
            for d in self
            if isinstance(d, kind) and all(getattr(d, k) == v for k, v in more.items())
        ]

    def wait(self, condition: Callable[[], Any], *, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"did not come: have {self[-3:]}"
            time.sleep(0.01)


@contextmanager
def _runs(running: Any, *streams: DataStream) -> Iterator[None]:
    threads = []
    for stream in streams:
        stream._reconnect_min_backoff = stream._reconnect_max_backoff = 0.05
        threads.append(threading.Thread(target=stream.run, daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        for stream, thread in zip(streams, threads, strict=True):
            if thread.is_alive():
                stream.stop()
        running.post("/raytape/drop")  # else a client waits 5 s for a frame before it ends
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def _stocks(running: Any, feed: str = "iex") -> StockDataStream:
    return StockDataStream("key", "secret", url_override=f"{running.ws}/v2/{feed}")


def _inject(running: Any, *messages: dict[str, Any]) -> None:
    running.post("/raytape/inject", {"messages": list(messages)})


def test_stock_data_stream_gets_every_kind_of_message_as_its_model(exchange: Exchange) -> None:
    running = exchange(speed=600.0)
    stream, got = _stocks(running), Got()
    stream.subscribe_trades(got.keep, "SPY")
    stream.subscribe_quotes(got.keep, "*")
    stream.subscribe_bars(got.keep, "*")
    stream.subscribe_updated_bars(got.keep, "*")
    stream.subscribe_daily_bars(got.keep, "SPY")
    stream.subscribe_trading_statuses(got.keep, "*")
    stream.register_trade_corrections(got.keep)
    stream.register_trade_cancels(got.keep)
    with _runs(running, stream):
        got.wait(lambda: got.of(Trade) and got.of(Quote) and got.of(Bar))
        bar = got.of(Bar)[0]
        prices = {"o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close}
        daily = {"T": "d", "S": "SPY", **prices, "v": 7, "n": 1, "vw": 1.0, "t": AT}
        faults = [{"do": do, "symbols": ["SPY"]} for do in ("correction", "cancel", "updated_bar")]
        running.post("/raytape/faults", [*faults, {"do": "halt", "symbols": ["SPY"], "for_s": 0.1}])
        _inject(running, daily, LULD, IMBALANCE)  # of the last two the client knows no model
        kinds = (TradeCorrection, TradeCancel, TradingStatus)
        got.wait(lambda: all(got.of(kind) for kind in kinds) and got.of(Bar, volume=7.0))
    correction, status = got.of(TradeCorrection)[0], got.of(TradingStatus)[0]
    assert correction.symbol == status.symbol == "SPY"
    assert correction.corrected_price != correction.original_price
    assert status.status_code == "H"
    assert {trade.symbol for trade in got.of(Trade)} == {"SPY"}
    assert len({quote.symbol for quote in got.of(Quote)}) == 3


def test_stock_data_stream_changes_its_subscriptions_while_it_runs(exchange: Exchange) -> None:
    running = exchange(speed=0.001)
    stream, got = _stocks(running), Got()
    stream.subscribe_trades(got.keep, "SPY")

    def trade(symbol: str, number: int) -> dict[str, Any]:
        return {"T": "t", "S": symbol, "i": number, "x": "V", "p": 1.0, "s": 1, "c": ["@"],
                "t": AT, "z": "C"}  # fmt: skip

    def ids() -> list[tuple[str, int]]:
        return [(t.symbol, t.id) for t in got.of(Trade) if t.timestamp.microsecond == 123456]

    def reached(symbol: str, number: int) -> bool:
        _inject(running, trade(symbol, number))
        return (symbol, number) in ids()

    with _runs(running, stream):
        got.wait(lambda: reached("SPY", 1))
        stream.subscribe_trades(got.keep, "AAPL")
        got.wait(lambda: reached("AAPL", 2))
        stream.unsubscribe_trades("SPY")
        got.wait(lambda: reached("AAPL", 3))
        before = [pair for pair in ids() if pair[0] == "SPY"]
        _inject(running, trade("SPY", 4), trade("MSFT", 5))
        got.wait(lambda: reached("AAPL", 6))
        assert [pair for pair in ids() if pair[0] == "SPY"] == before
        assert ("MSFT", 5) not in ids()


@pytest.mark.parametrize("do", ["drop", "half_frame"])
def test_stock_data_stream_comes_back_after_a_drop(exchange: Exchange, do: str) -> None:
    running = exchange(speed=60.0, connection_limit=1, max_minutes=None)
    stream, got = _stocks(running), Got()
    stream.subscribe_quotes(got.keep, "*")
    with _runs(running, stream):
        for _ in range(3):
            n = len(got)
            got.wait(lambda n=n: len(got) > n)
            running.post("/raytape/faults", {"do": do})
        n = len(got)
        got.wait(lambda: len(got) > n + 5)


@pytest.mark.parametrize("code", [402, 406, 429])
def test_stock_data_stream_comes_back_after_it_was_refused(exchange: Exchange, code: int) -> None:
    running = exchange(speed=60.0, max_minutes=None)
    running.post("/raytape/faults", {"do": "refuse", "code": code, "for_s": 0.5})
    stream, got = _stocks(running), Got()
    stream.subscribe_quotes(got.keep, "*")
    with _runs(running, stream):
        got.wait(lambda: len(got) > 3)


def test_stock_data_stream_survives_garbage_and_what_it_does_not_know(exchange: Exchange) -> None:
    running = exchange(speed=60.0, max_minutes=None)
    stream, got = _stocks(running), Got()
    stream.subscribe_quotes(got.keep, "*")
    with _runs(running, stream):
        got.wait(lambda: len(got) > 3)
        running.post("/raytape/faults", [{"do": "garbage"}, {"do": "unknown_type"}])
        n = len(got)
        got.wait(lambda: len(got) > n + 5)


def test_stock_data_stream_without_the_plan_stops(exchange: Exchange) -> None:
    running = exchange(feeds=("iex",))
    stream = _stocks(running, "sip")
    stream.subscribe_quotes(Got().keep, "*")
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_stock_data_stream_over_the_symbol_limit_is_told(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    running = exchange(symbol_limit=2)
    stream = _stocks(running)
    stream.subscribe_trades(Got().keep, "AAPL", "MSFT", "SPY")
    with caplog.at_level(logging.ERROR), _runs(running, stream):
        Got().wait(lambda: "symbol limit exceeded (405)" in caplog.text)


def test_stock_data_stream_reaches_the_test_stream(exchange: Exchange) -> None:
    running = exchange(test_interval_s=0.05)
    stream, got = _stocks(running, "test"), Got()
    stream.subscribe_trades(got.keep, "FAKEPACA")
    stream.subscribe_quotes(got.keep, "FAKEPACA")
    with _runs(running, stream):
        got.wait(lambda: got.of(Trade) and got.of(Quote))
    assert abs(got.of(Trade)[-1].timestamp.timestamp() - time.time()) < 30


def test_news_data_stream_gets_news_by_symbol_and_by_wildcard(exchange: Exchange) -> None:
    running = exchange()
    one, every = Got(), Got()
    first = NewsDataStream("key", "secret", url_override=running.ws + "/v1beta1/news")
    second = NewsDataStream("key", "secret", url_override=running.ws + "/v1beta1/news")
    first.subscribe_news(one.keep, "AAPL")
    second.subscribe_news(every.keep, "*")
    with _runs(running, first, second):
        one.wait(
            lambda: sum(c["subscribed"] for c in running.get("/raytape/stats")["clients"]) == 2
        )
        other = {**NEWS, "id": 8, "symbols": ["SPY"]}
        _inject(running, other, NEWS)
        one.wait(lambda: one and len(every) == 2)
    assert [item.id for item in one.of(News)] == [7]
    assert [item.id for item in every.of(News)] == [8, 7]
    assert one[0].created_at.microsecond == 500_000
    assert one[0].symbols == ["AAPL", "MSFT"]


def test_news_data_stream_cleanly_run_twice(exchange: Exchange) -> None:
    """A client that ends leaves its place free at once."""
    running = exchange(connection_limit=1)
    for _ in range(2):
        got = Got()
        stream = NewsDataStream("key", "secret", url_override=running.ws + "/v1beta1/news")
        stream.subscribe_news(got.keep, "AAPL")
        with _runs(running, stream):

            def came(got: Got = got) -> bool:
                _inject(running, NEWS)
                return bool(got)

            got.wait(came)
