"""The vendor's market data over REST: bars, trades, quotes, the latest of each, snapshots, news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from pipelines.events import Message
from pipelines.exchange import tables
from pipelines.exchange.asked import Range, check_stock_parameters, flag, symbols_of
from pipelines.exchange.bars import BarHistory, Query
from pipelines.exchange.floor import Floor, playback_of
from pipelines.exchange.gate import answer, feeds_of
from pipelines.exchange.news_history import NewsHistory
from pipelines.exchange.played_ticks import played_ticks
from pipelines.exchange.recorded import RecordedMarket
from pipelines.exchange.refusals import Refused
from pipelines.exchange.sockets import FLOOR, news_socket
from pipelines.exchange.tick_history import TickHistory, TickQuery
from pipelines.exchange.timeframes import TimeFrame

T = TypeVar("T")
_MINUTE, _DAY = TimeFrame(1, "Min"), TimeFrame(1, "Day")
_NEWS_LIMIT, _MOST_NEWS = 10, 50


class Archive:
    """The history of one exchange; it is asked off the event loop, one question at a time.

    Args:
        floor: The market.
    """

    def __init__(self, floor: Floor) -> None:
        config = floor.config
        self.bars = BarHistory(
            floor.source, seed=config.seed, messages_per_minute=config.messages_per_minute
        )
        self.ticks = _tick_history(floor)
        self.news = NewsHistory(floor.source)
        self._lock = asyncio.Lock()

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer of a question that may take a while: the market goes on meanwhile."""
        async with self._lock:
            return await asyncio.to_thread(question)


def _tick_history(floor: Floor) -> TickHistory:
    source, config = floor.source, floor.config
    if isinstance(source, RecordedMarket):
        return TickHistory(source, ticks=source.ticks, together=True)
    return TickHistory(
        source, ticks=played_ticks(source, lambda part, of: playback_of(part, of, config))
    )


ARCHIVE = web.AppKey("archive", Archive)


async def history(request: web.Request) -> web.Response:
    """``GET /v2/stocks/{bars,trades,quotes}`` and ``/v2/stocks/{symbol}/{…}``: a page of each."""
    kind, symbols, single = _what(request)
    floor, archive, asked = request.app[FLOOR], request.app[ARCHIVE], request.query
    check_stock_parameters(asked, feeds=feeds_of(request))
    now_ns = floor.market_ns()
    span = Range.of(asked, symbols=symbols, now_ns=now_ns)
    found: Mapping[str, list[Message]]
    if kind == "bars":
        frame = TimeFrame.parse(asked.get("timeframe", "1Min"))
        query = Query(
            symbols, span.start_ns, span.end_ns, frame, span.limit, span.descending, span.token
        )
        found, token = await archive.ask(lambda: archive.bars.page(query, now_ns=now_ns))
    else:
        ticks = TickQuery(
            kind, symbols, span.start_ns, span.end_ns, span.limit, span.descending, span.token
        )
        found, token = await archive.ask(lambda: archive.ticks.page(ticks, now_ns=now_ns))
    if single:
        rows = found.get(symbols[0], [])
        return answer({kind: rows, "symbol": symbols[0], "next_page_token": token})
    return answer({kind: found, "next_page_token": token})


async def latest(request: web.Request) -> web.Response:
    """``GET /v2/stocks/{bars,trades,quotes}/latest`` and ``/v2/stocks/{symbol}/{…}/latest``."""
    kind, symbols, single = _what(request)
    check_stock_parameters(request.query, feeds=feeds_of(request))
    archive, now_ns = request.app[ARCHIVE], request.app[FLOOR].market_ns()
    if kind == "bars":
        bars = await archive.ask(lambda: archive.bars.latest(symbols, _MINUTE, now_ns=now_ns))
        found = {symbol: rows[0] for symbol, rows in bars.items()}
    else:
        found = await archive.ask(lambda: archive.ticks.latest(kind, symbols, now_ns=now_ns))
    if not single:
        return answer({kind: found})
    if symbols[0] not in found:
        raise Refused(404, f"no {kind[:-1]} found for {symbols[0]}")
    return answer({"symbol": symbols[0], kind[:-1]: found[symbols[0]]})


async def snapshots(request: web.Request) -> web.Response:
    """``GET /v2/stocks/snapshots`` and ``/v2/stocks/{symbol}/snapshot``."""
    single = "symbol" in request.match_info
    symbols = (request.match_info["symbol"].upper(),) if single else symbols_of(request.query)
    check_stock_parameters(request.query, feeds=feeds_of(request))
    archive, now_ns = request.app[ARCHIVE], request.app[FLOOR].market_ns()
    found = await archive.ask(lambda: _snapshots(archive, symbols, now_ns))
    if not single:
        return answer(found)
    if symbols[0] not in found:
        raise Refused(404, f"no snapshot found for {symbols[0]}")
    return answer({"symbol": symbols[0], **found[symbols[0]]})


def _snapshots(
    archive: Archive, symbols: tuple[str, ...], now_ns: int
) -> dict[str, dict[str, Message | None]]:
    trades = archive.ticks.latest("trades", symbols, now_ns=now_ns)
    quotes = archive.ticks.latest("quotes", symbols, now_ns=now_ns)
    minutes = archive.bars.latest(symbols, _MINUTE, now_ns=now_ns)
    days = archive.bars.latest(symbols, _DAY, now_ns=now_ns, count=2)
    found: dict[str, dict[str, Message | None]] = {}
    for symbol in symbols:
        if symbol in trades or symbol in minutes:
            of_days = [*days.get(symbol, ()), None, None]
            found[symbol] = {
                "latestTrade": trades.get(symbol),
                "latestQuote": quotes.get(symbol),
                "minuteBar": minutes.get(symbol, [None])[0],
                "dailyBar": of_days[0],
                "prevDailyBar": of_days[1],
            }
    return found


async def news(request: web.Request) -> web.StreamResponse:
    """``GET /v1beta1/news``: a page of articles, newest first; or the news stream's handshake."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await news_socket(request)
    asked = {"sort": "desc", **request.query}
    floor, archive = request.app[FLOOR], request.app[ARCHIVE]
    now_ns = floor.market_ns()
    span = Range.of(
        asked, symbols=symbols_of(asked, required=False), now_ns=now_ns,
        limit=_NEWS_LIMIT, most=_MOST_NEWS,
    )  # fmt: skip
    content, only_with_content = flag(asked, "include_content"), flag(asked, "exclude_contentless")
    found, token = await archive.ask(
        lambda: archive.news.page(span, content=content, only_with_content=only_with_content)
    )
    return answer({"news": found, "next_page_token": token})


async def conditions(request: web.Request) -> web.Response:
    """``GET /v2/stocks/meta/conditions/{trade,quote}``: what the condition codes mean."""
    kind, tape = request.match_info["kind"], request.query.get("tape", "A")
    if kind not in ("trade", "quote"):
        raise Refused(400, f"invalid ticktype: {kind}")
    if tape not in ("A", "B", "C"):
        raise Refused(400, f"invalid tape: {tape}")
    return answer(tables.conditions(kind, tape))


async def exchanges(_: web.Request) -> web.Response:
    """``GET /v2/stocks/meta/exchanges``: what the exchange letters mean."""
    return answer(tables.EXCHANGES)


def _what(request: web.Request) -> tuple[Any, tuple[str, ...], bool]:
    """Kind of data, symbols, and whether one symbol was named in the path."""
    kind = request.match_info["kind"]
    if "symbol" in request.match_info:
        return kind, symbols_of({"symbols": request.match_info["symbol"]}), True
    return kind, symbols_of(request.query), False


_KIND = "{kind:bars|trades|quotes}"
ROUTES = (
    web.get(f"/v2/stocks/{_KIND}", history),
    web.get(f"/v2/stocks/{_KIND}/latest", latest),
    web.get("/v2/stocks/snapshots", snapshots),
    web.get("/v2/stocks/meta/conditions/{kind}", conditions),
    web.get("/v2/stocks/meta/exchanges", exchanges),
    web.get(f"/v2/stocks/{{symbol}}/{_KIND}", history),
    web.get(f"/v2/stocks/{{symbol}}/{_KIND}/latest", latest),
    web.get("/v2/stocks/{symbol}/snapshot", snapshots),
    web.get("/v1beta1/news", news),
)
