"""Listings of the lake: anomalies, gaps, paper fills and alerts, newest first.

The lake is asked in threads; a listing is read on by a cursor that names its last row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import Response

from pipelines.events import parse_time_ns
from serve import bars as barlib
from serve.api.errors import ERRORS, unavailable, unknown_symbol
from serve.api.paging import (
    AlertsWanted,
    AnomaliesWanted,
    FillsWanted,
    GapWanted,
    alerts_of,
    anomalies_of,
    fills_of,
    gap_page_of,
)
from serve.api.parts import GatewayParts, Lake, Threads, answer
from serve.listings import RowKey, write_cursor
from serve.platform_schemas import AlertPage, GapPage
from serve.schemas import AnomalyPage, FillPage

Rows = Sequence[Mapping[str, Any]]


def add(app: FastAPI, held: list[GatewayParts], threads: Threads) -> None:
    """Add the routes."""

    @app.get("/v1/anomalies", response_model=AnomalyPage, responses=ERRORS, tags=["market"])
    async def anomalies(wanted: Annotated[AnomaliesWanted, Depends(anomalies_of)]) -> Response:
        """What was unusual about closed minute bars, newest first, then by symbol and kind."""
        lake, page = _lake(held, wanted.symbol), wanted.page
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
        return _paged(rows, page.limit, "anomalies", _by("event_time", "symbol", "kind"))

    @app.get("/v1/fills", response_model=FillPage, responses=ERRORS, tags=["signals"])
    async def fills(wanted: Annotated[FillsWanted, Depends(fills_of)]) -> Response:
        """Paper fills of the models' accounts, newest first, then by symbol and model."""
        lake, page = _lake(held, wanted.symbol), wanted.page
        rows = await threads.run(
            lambda: lake.fills(
                limit=page.limit + 1,
                symbol=wanted.symbol,
                model=wanted.model,
                start_ns=page.start_ns,
                end_ns=page.end_ns,
                after=wanted.after,
            )
        )
        return _paged(rows, page.limit, "fills", _by("event_time", "symbol", "model"))

    @app.get("/v1/alerts", response_model=AlertPage, responses=ERRORS, tags=["platform"])
    async def alerts(wanted: Annotated[AlertsWanted, Depends(alerts_of)]) -> Response:
        """What was wrong with the platform, from when to when; newest first, then by id.

        One that concerns the part that writes alerts down stands first until it can.
        """
        lake, page = _lake(held), wanted.page
        rows = await threads.run(
            lambda: lake.alerts(
                limit=page.limit + 1,
                severities=wanted.severities,
                standing=wanted.standing,
                start_ns=page.start_ns,
                end_ns=page.end_ns,
                after=wanted.after,
            )
        )
        if wanted.after is None and page.start_ns is None and page.end_ns is None:
            told = (held[0].mirror.data("system") or {}).get("unwritten_alerts") or ()
            rows = [*(a for a in told if a["severity"] in wanted.severities), *rows]
        return _paged(rows, page.limit, "alerts", lambda row: (_at(row["began_at"]), row["id"], ""))

    @app.get("/v1/gaps", response_model=GapPage, responses=ERRORS, tags=["platform"])
    async def gaps(wanted: Annotated[GapWanted, Depends(gap_page_of)]) -> Response:
        """Declared interruptions of the feed, newest first by their end, then by symbol."""
        lake = _lake(held)
        page, after = wanted
        rows = await threads.run(
            lambda: lake.gaps(
                limit=page.limit + 1, start_ns=page.start_ns, end_ns=page.end_ns, after=after
            )
        )
        items = list(rows[: page.limit])
        more = len(rows) > page.limit
        return answer(
            {"items": items, "next": barlib.write_gap_cursor(items[-1]) if more else None}
        )


def _lake(held: list[GatewayParts], symbol: str | None = None) -> Lake:
    parts = held[0]
    if symbol is not None and symbol not in parts.mirror.symbols:
        raise unknown_symbol(symbol)
    if parts.lake is None:
        raise unavailable("There is no lake.")
    return parts.lake


def _paged(
    rows: Rows, limit: int, listing: str, key: Callable[[Mapping[str, Any]], RowKey]
) -> Response:
    items = list(rows[:limit])
    cursor = write_cursor(listing, key(items[-1])) if len(rows) > limit else None
    return answer({"items": items, "next": cursor})


def _by(time: str, first: str, second: str) -> Callable[[Mapping[str, Any]], RowKey]:
    return lambda row: (_at(row[time]), row[first], row[second])


def _at(text: str) -> int:
    return parse_time_ns(text)
