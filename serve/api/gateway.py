"""The gateway at ``/``: REST of everything but signals, the documents, the dashboard.

The lake and the registry are asked in threads; nothing here blocks the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Query
from starlette.responses import Response

from pipelines.events import bucket_of, parse_time_ns
from pipelines.features.rollup import window_end_ns, window_start_ns
from serve import bars as barlib
from serve.api import docs, listings, static
from serve.api.errors import ERRORS, add_error_handlers, unavailable, unknown_symbol
from serve.api.paging import Page, SymbolPath, page_of
from serve.api.parts import GatewayParts, Lake, Threads, answer
from serve.mirror import FeedLost
from serve.platform_schemas import Health, Ledger, ModelPage, System
from serve.readiness import readiness
from serve.schemas import BarPage, IndicatorPage, Latest, StatsPage, SymbolPage, Window

__all__ = ["GatewayParts", "Lake", "build"]


def build(open_parts: Callable[[], GatewayParts] | None = None) -> FastAPI:
    """The application; without parts only its description is of use."""
    held: list[GatewayParts] = []
    threads = Threads()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        assert open_parts is not None  # noqa: S101
        parts = open_parts()
        parts.mirror.start()
        held.append(parts)
        yield
        held.clear()
        await parts.mirror.stop()
        threads.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    add_error_handlers(app)
    _add_market(app, held, threads)
    _add_platform(app, held, threads)
    listings.add(app, held, threads)
    docs.add(app)
    static.add(app, lambda: held[0].dashboard_dir if held else None)
    return app


def _add_market(app: FastAPI, held: list[GatewayParts], threads: Threads) -> None:
    @app.get("/v1/symbols", response_model=SymbolPage, tags=["market"])
    async def symbols() -> Response:
        """The watch-list: the configured symbols in order, then others that were seen."""
        parts = held[0]
        extra = sorted(parts.mirror.symbols - set(parts.symbols))
        rows = [{"symbol": s, "bucket": bucket_of(s)} for s in (*parts.symbols, *extra)]
        return answer({"items": rows})

    @app.get("/v1/latest/{symbol}", response_model=Latest, responses=ERRORS, tags=["market"])
    async def latest(symbol: SymbolPath) -> Response:
        """The newest trade, quote, bar, features and signal."""
        mirror = held[0].mirror
        if symbol not in mirror.symbols:
            raise unknown_symbol(symbol)
        names = {"trade": "trades", "quote": "quotes", "bar": "bars"}
        names |= {"features": "features", "signal": "signals"}
        out: dict[str, Any] = {"symbol": symbol}
        for name, channel in names.items():
            update = mirror.latest(channel, symbol)
            out[name] = update and {
                "event_time": update.event_time,
                "seq": update.seq,
                "data": orjson.Fragment(update.data),
            }
        return answer(out)

    @app.get("/v1/bars/{symbol}", response_model=BarPage, responses=ERRORS, tags=["market"])
    async def bars(
        symbol: SymbolPath,
        wanted: Annotated[Page, Depends(page_of)],
        window: Annotated[Window, Query(description="Length of a bar.")] = "1m",
    ) -> Response:
        """Bars, newest first; the first may still be forming. Older ones come from the lake."""
        parts = held[0]
        if symbol not in parts.mirror.symbols:
            raise unknown_symbol(symbol)
        rows = await _bars(parts, threads, symbol, wanted, window)
        rows = barlib.between(rows, start_ns=wanted.start_ns, end_ns=wanted.end_ns)
        items, cursor = barlib.page(rows, limit=wanted.limit)
        return answer({"symbol": symbol, "window": window, "items": items, "next": cursor})

    @app.get(
        "/v1/indicators/{symbol}", response_model=IndicatorPage, responses=ERRORS, tags=["market"]
    )
    async def indicators(symbol: SymbolPath, wanted: Annotated[Page, Depends(page_of)]) -> Response:
        """Indicators at closed minute bars, newest first; `null` where too few bars came."""
        parts = held[0]
        found = await _remembered(parts, "features", symbol)
        rows = [
            {"event_time": row["event_time"], **row["indicators"]}
            for row in found
            if row.get("indicators") and not row.get("provisional")
        ]
        ask = None if parts.lake is None else parts.lake.indicators
        rows = await _with_older(threads, rows, wanted, symbol, ask, ends=True)
        items, cursor = barlib.page(rows, limit=wanted.limit)
        return answer({"symbol": symbol, "items": items, "next": cursor})

    @app.get("/v1/stats/{symbol}", response_model=StatsPage, responses=ERRORS, tags=["market"])
    async def stats(symbol: SymbolPath, wanted: Annotated[Page, Depends(page_of)]) -> Response:
        """Running statistics of the session at closed minute bars, newest first."""
        parts = held[0]
        rows = await _remembered(parts, "stats", symbol)
        ask = None if parts.lake is None else parts.lake.stats
        rows = await _with_older(threads, rows, wanted, symbol, ask, ends=False)
        items, cursor = barlib.page(rows, limit=wanted.limit)
        return answer({"symbol": symbol, "items": items, "next": cursor})


async def _bars(
    parts: GatewayParts, threads: Threads, symbol: str, wanted: Page, window: str
) -> list[dict[str, Any]]:
    """Bars that suffice for a page of a window and one row more, oldest first."""
    need = wanted.limit + 2
    # A bar that begins before the end is whole, also in the minutes that lie after it.
    end_ns = wanted.end_ns and window_end_ns(wanted.end_ns - 1, window)
    try:
        remembered = await parts.mirror.feed.bars(symbol)
    except FeedLost as error:
        if parts.lake is None:
            raise unavailable("The feed does not answer.") from error
        remembered = []
    minutes = barlib.between(remembered, start_ns=None, end_ns=end_ns)
    rows = barlib.roll_up(minutes, window)
    if len(rows) >= need or parts.lake is None:
        return rows
    lake, before_ns = parts.lake, end_ns
    if minutes:
        before_ns = window_start_ns(parse_time_ns(minutes[0]["event_time"]), "1m")
    start_ns = wanted.start_ns and window_start_ns(wanted.start_ns, window)
    if start_ns is not None and before_ns is not None and before_ns <= start_ns:
        return rows
    limit = need - len(rows)
    if window == "1m":
        minute_bars = await threads.run(lambda: lake.bars(symbol, limit=limit, before_ns=before_ns))
        return barlib.merge(minute_bars, rows)
    older = await threads.run(
        lambda: lake.rolled(symbol, window, limit=limit, before_ns=before_ns, start_ns=start_ns)
    )
    return barlib.join(older, rows)


async def _remembered(parts: GatewayParts, kind: str, symbol: str) -> list[dict[str, Any]]:
    """Rows of a kind that the feed remembers, oldest first; none while it does not answer."""
    if symbol not in parts.mirror.symbols:
        raise unknown_symbol(symbol)
    try:
        return await parts.mirror.feed.rows(kind, symbol)
    except FeedLost as error:
        if parts.lake is None:
            raise unavailable("The feed does not answer.") from error
        return []


async def _with_older(
    threads: Threads,
    known: Sequence[dict[str, Any]],
    wanted: Page,
    symbol: str,
    ask: Callable[..., Sequence[Mapping[str, Any]]] | None,
    *,
    ends: bool,
) -> list[dict[str, Any]]:
    """Rows of a page and one more, oldest first; what is not remembered comes from the lake.

    Args:
        threads: Where the lake is asked.
        known: Rows that are remembered, oldest first.
        wanted: The page.
        symbol: Whose.
        ask: Asks the lake for rows before a time.
        ends: Whether that time is an end of minutes, not a start.
    """
    rows = barlib.between(list(known), start_ns=wanted.start_ns, end_ns=wanted.end_ns)
    missing = wanted.limit + 1 - len(rows)
    before_ns = parse_time_ns(rows[0]["event_time"]) if rows else wanted.end_ns
    reached = wanted.start_ns is not None and before_ns is not None
    if ask is None or missing <= 0 or (reached and before_ns <= wanted.start_ns):  # type: ignore[operator]
        return rows
    if ends and not rows and before_ns is not None:  # a minute that begins before the end counts
        before_ns = window_end_ns(before_ns - 1, "1m")
    older = await threads.run(lambda: ask(symbol, limit=missing, before_ns=before_ns))
    found = barlib.between(
        [dict(row) for row in older], start_ns=wanted.start_ns, end_ns=wanted.end_ns
    )
    return [*found, *rows]


def _add_platform(app: FastAPI, held: list[GatewayParts], threads: Threads) -> None:
    def system_data() -> dict[str, Any]:
        data = held[0].mirror.data("system")
        if data is None:
            raise unavailable("The feed has not told the state of the platform yet.")
        return data

    @app.get("/v1/system", response_model=System, responses=ERRORS, tags=["platform"])
    async def system() -> Response:
        """Market, ledger, stages, latency and addresses."""
        return answer({**system_data(), "links": dict(held[0].links)})

    @app.get("/v1/ledger", response_model=Ledger, responses=ERRORS, tags=["platform"])
    async def ledger() -> Response:
        """Where every received message is, per stage."""
        return answer(system_data()["ledger"])

    @app.get("/v1/models", response_model=ModelPage, responses=ERRORS, tags=["platform"])
    async def models() -> Response:
        """Registered models, newest first, and which is promoted."""
        rows = held[0].models
        if rows is None:
            raise unavailable("There is no registry.")
        found = await threads.run(rows)
        newest = sorted(found, key=lambda row: str(row.get("created_at", "")), reverse=True)
        return answer({"items": newest})

    @app.get("/healthz", response_model=Health, tags=["platform"])
    async def healthz() -> Response:
        """Whether this process lives."""
        return answer({"status": "ok", "parts": {}, "reasons": []})

    @app.get(
        "/readyz",
        response_model=Health,
        responses={503: {"model": Health, "description": "Not ready; `reasons` says why."}},
        tags=["platform"],
    )
    async def readyz() -> Response:
        """Whether every part does its work: 200, or 503 with those that do not and why."""
        mirror = held[0].mirror
        body = readiness(
            mirror.data("system") or {}, synced=mirror.synced, age_s=mirror.system_age_s()
        )
        return answer(body, 200 if body["status"] == "ok" else 503)
