"""The gateway at ``/``: REST of everything but signals, the documents, the dashboard.

The lake and the registry are asked in threads; nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import orjson
from fastapi import Depends, FastAPI, Query
from starlette.responses import Response

from pipelines.events import bucket_of, parse_time_ns
from pipelines.features.rollup import window_end_ns, window_start_ns
from serve import bars as barlib
from serve.anomalies import AnomalyKey, write_cursor
from serve.api import docs, static
from serve.api.errors import ERRORS, add_error_handlers, unavailable, unknown_symbol
from serve.api.paging import (
    AnomaliesWanted,
    GapWanted,
    Page,
    SymbolPath,
    anomalies_of,
    gap_page_of,
    page_of,
)
from serve.mirror import FeedLost, Mirror
from serve.readiness import readiness
from serve.schemas import (
    AnomalyPage,
    BarPage,
    GapPage,
    Health,
    IndicatorPage,
    Latest,
    Ledger,
    ModelPage,
    StatsPage,
    SymbolPage,
    System,
    Window,
)

JSON = "application/json"
LAKE_THREADS = 3
T = TypeVar("T")


class Lake(Protocol):
    """What is asked of the lake; may block."""

    def bars(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Closed minute bars that ended at or before a market time, oldest first."""
        ...

    def rolled(
        self, symbol: str, window: str, *, limit: int, before_ns: int | None, start_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """The newest bars of a longer window, of minutes in a span, oldest first."""
        ...

    def indicators(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Indicators of the last bars that ended at or before a market time, oldest first."""
        ...

    def stats(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Statistics at the last bars that began before a market time, oldest first."""
        ...

    def anomalies(
        self,
        *,
        limit: int,
        severities: Sequence[str],
        symbol: str | None,
        start_ns: int | None,
        end_ns: int | None,
        after: AnomalyKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Anomalies with start ≤ time < end that follow one, newest first."""
        ...

    def gaps(
        self,
        *,
        limit: int,
        start_ns: int | None,
        end_ns: int | None,
        after: barlib.GapKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Declared gaps with start ≤ to < end that follow one, newest first, then by symbol."""
        ...


@dataclass(slots=True)
class GatewayParts:
    """What the application needs.

    Args:
        mirror: What is known of the market.
        symbols: The watch-list, in order.
        lake: Older bars and gaps; ``None`` for none.
        models: Lists the models; may block.
        dashboard_dir: The exported dashboard.
        links: Addresses of other consoles.
    """

    mirror: Mirror
    symbols: tuple[str, ...] = ()
    lake: Lake | None = None
    models: Callable[[], Sequence[Mapping[str, Any]]] | None = None
    dashboard_dir: Path | None = None
    links: Mapping[str, str] = field(default_factory=dict)


class _Threads:
    """Runs what blocks, a few at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(LAKE_THREADS, thread_name_prefix="gateway")

    async def run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _answer(value: Any, status: int = 200) -> Response:
    return Response(
        orjson.dumps(value),
        status_code=status,
        media_type=JSON,
        headers={"Cache-Control": "no-store"},
    )


def build(open_parts: Callable[[], GatewayParts] | None = None) -> FastAPI:
    """The application; without parts only its description is of use."""
    held: list[GatewayParts] = []
    threads = _Threads()

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
    docs.add(app)
    static.add(app, lambda: held[0].dashboard_dir if held else None)
    return app


def _add_market(app: FastAPI, held: list[GatewayParts], threads: _Threads) -> None:
    @app.get("/v1/symbols", response_model=SymbolPage, tags=["market"])
    async def symbols() -> Response:
        """The watch-list: the configured symbols in order, then others that were seen."""
        parts = held[0]
        extra = sorted(parts.mirror.symbols - set(parts.symbols))
        rows = [{"symbol": s, "bucket": bucket_of(s)} for s in (*parts.symbols, *extra)]
        return _answer({"items": rows})

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
        return _answer(out)

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
        return _answer({"symbol": symbol, "window": window, "items": items, "next": cursor})

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
        return _answer({"symbol": symbol, "items": items, "next": cursor})

    @app.get("/v1/stats/{symbol}", response_model=StatsPage, responses=ERRORS, tags=["market"])
    async def stats(symbol: SymbolPath, wanted: Annotated[Page, Depends(page_of)]) -> Response:
        """Running statistics of the session at closed minute bars, newest first."""
        parts = held[0]
        rows = await _remembered(parts, "stats", symbol)
        ask = None if parts.lake is None else parts.lake.stats
        rows = await _with_older(threads, rows, wanted, symbol, ask, ends=False)
        items, cursor = barlib.page(rows, limit=wanted.limit)
        return _answer({"symbol": symbol, "items": items, "next": cursor})

    @app.get("/v1/anomalies", response_model=AnomalyPage, responses=ERRORS, tags=["market"])
    async def anomalies(
        wanted: Annotated[AnomaliesWanted, Depends(anomalies_of)],
    ) -> Response:
        """What was unusual about closed minute bars, newest first, then by symbol and kind."""
        parts = held[0]
        if wanted.symbol is not None and wanted.symbol not in parts.mirror.symbols:
            raise unknown_symbol(wanted.symbol)
        lake, page = parts.lake, wanted.page
        if lake is None:
            raise unavailable("There is no lake.")
        rows = await threads.run(
            lambda: lake.anomalies(
                limit=page.limit + 1,
                severities=wanted.severities,
                symbol=wanted.symbol,
                start_ns=page.start_ns,
                end_ns=page.end_ns,
                after=wanted.after,
            )
        )
        items = list(rows[: page.limit])
        more = len(rows) > page.limit
        return _answer({"items": items, "next": write_cursor(items[-1]) if more else None})

    @app.get("/v1/gaps", response_model=GapPage, responses=ERRORS, tags=["platform"])
    async def gaps(wanted: Annotated[GapWanted, Depends(gap_page_of)]) -> Response:
        """Declared interruptions of the feed, newest first by their end, then by symbol."""
        lake = held[0].lake
        if lake is None:
            raise unavailable("There is no lake.")
        page, after = wanted
        rows = await threads.run(
            lambda: lake.gaps(
                limit=page.limit + 1, start_ns=page.start_ns, end_ns=page.end_ns, after=after
            )
        )
        items = list(rows[: page.limit])
        more = len(rows) > page.limit
        return _answer(
            {"items": items, "next": barlib.write_gap_cursor(items[-1]) if more else None}
        )


async def _bars(
    parts: GatewayParts, threads: _Threads, symbol: str, wanted: Page, window: str
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
    threads: _Threads,
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


def _add_platform(app: FastAPI, held: list[GatewayParts], threads: _Threads) -> None:
    def system_data() -> dict[str, Any]:
        data = held[0].mirror.data("system")
        if data is None:
            raise unavailable("The feed has not told the state of the platform yet.")
        return data

    @app.get("/v1/system", response_model=System, responses=ERRORS, tags=["platform"])
    async def system() -> Response:
        """Market, ledger, stages, latency and addresses."""
        return _answer({**system_data(), "links": dict(held[0].links)})

    @app.get("/v1/ledger", response_model=Ledger, responses=ERRORS, tags=["platform"])
    async def ledger() -> Response:
        """Where every received message is, per stage."""
        return _answer(system_data()["ledger"])

    @app.get("/v1/models", response_model=ModelPage, responses=ERRORS, tags=["platform"])
    async def models() -> Response:
        """Registered models, newest first, and which is promoted."""
        rows = held[0].models
        if rows is None:
            raise unavailable("There is no registry.")
        found = await threads.run(rows)
        newest = sorted(found, key=lambda row: str(row.get("created_at", "")), reverse=True)
        return _answer({"items": newest})

    @app.get("/healthz", response_model=Health, tags=["platform"])
    async def healthz() -> Response:
        """Whether this process lives."""
        return _answer({"status": "ok", "parts": {}, "reasons": []})

    @app.get("/readyz", response_model=Health, tags=["platform"])
    async def readyz() -> Response:
        """Whether every part does its work: 200, or 503 with those that do not and why."""
        mirror = held[0].mirror
        body = readiness(
            mirror.data("system") or {}, synced=mirror.synced, age_s=mirror.system_age_s()
        )
        return _answer(body, 200 if body["status"] == "ok" else 503)
