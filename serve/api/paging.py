"""Query parameters of listings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Path, Query

from pipelines.events import parse_time_ns
from serve.api.errors import ApiError
from serve.bars import BadCursor, GapKey, read_cursor, read_gap_cursor
from serve.listings import RowKey, at_least
from serve.listings import read_cursor as read_row_cursor
from serve.schemas import Severity

T = TypeVar("T")
MAX_ROWS = 1000
SymbolPath = Annotated[str, Path(description="Ticker symbol.", max_length=32)]


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a listing is wanted.

    Args:
        limit: Rows.
        start_ns: No row before this market time.
        end_ns: Only rows before this market time.
    """

    limit: int
    start_ns: int | None
    end_ns: int | None


def page_of(
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows, newest first.")] = 100,
    start: Annotated[str | None, Query(description="First event time, RFC 3339.")] = None,
    end: Annotated[str | None, Query(description="Event time to stop before, RFC 3339.")] = None,
    next: Annotated[str | None, Query(description="Cursor of the page before.")] = None,  # noqa: A002
) -> Page:
    """The page of a request's parameters.

    Raises:
        ApiError: A time or the cursor cannot be read (422).
    """
    start_ns, end_ns = _time("start", start), _time("end", end)
    if next is not None:
        cursor_ns = _cursor(next, read_cursor)
        end_ns = cursor_ns if end_ns is None else min(end_ns, cursor_ns)
    return Page(limit=limit, start_ns=start_ns, end_ns=end_ns)


GapWanted = tuple[Page, GapKey | None]
"""A span of gaps, and the gap that the page before ended with."""


def gap_page_of(
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows, newest first.")] = 100,
    start: Annotated[str | None, Query(description="First end of a gap, RFC 3339.")] = None,
    end: Annotated[str | None, Query(description="End of a gap to stop before, RFC 3339.")] = None,
    next: Annotated[str | None, Query(description="Cursor of the page before.")] = None,  # noqa: A002
) -> GapWanted:
    """The page of gaps of a request's parameters.

    Raises:
        ApiError: A time or the cursor cannot be read (422).
    """
    after = None if next is None else _cursor(next, read_gap_cursor)
    return Page(limit=limit, start_ns=_time("start", start), end_ns=_time("end", end)), after


@dataclass(frozen=True, slots=True)
class AnomaliesWanted:
    """What part of the anomalies is wanted.

    Args:
        page: Rows and span of time.
        severities: Only of these.
        symbol: Only of it.
        after: The row that the page before ended with.
    """

    page: Page
    severities: tuple[str, ...]
    symbol: str | None
    after: RowKey | None


def anomalies_of(
    symbol: Annotated[str | None, Query(description="Only of this one.", max_length=32)] = None,
    severity: Annotated[Severity | None, Query(description="At least so bad.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows, newest first.")] = 100,
    start: Annotated[str | None, Query(description="First event time, RFC 3339.")] = None,
    end: Annotated[str | None, Query(description="Event time to stop before, RFC 3339.")] = None,
    next: Annotated[str | None, Query(description="Cursor of the page before.")] = None,  # noqa: A002
) -> AnomaliesWanted:
    """The page of anomalies of a request's parameters.

    Raises:
        ApiError: A time or the cursor cannot be read (422).
    """
    after = None if next is None else _row("anomalies", next)
    page = Page(limit=limit, start_ns=_time("start", start), end_ns=_time("end", end))
    return AnomaliesWanted(page, at_least(severity), symbol, after)


@dataclass(frozen=True, slots=True)
class FillsWanted:
    """What part of the paper fills is wanted.

    Args:
        page: Rows and span of market time.
        symbol: Only of it.
        model: Only of this one, ``id`` or ``id:version``.
        after: The row that the page before ended with.
    """

    page: Page
    symbol: str | None
    model: str | None
    after: RowKey | None


def fills_of(
    symbol: Annotated[str | None, Query(description="Only of this one.", max_length=32)] = None,
    model: Annotated[
        str | None, Query(description="Only of this model: `id` or `id:version`.", max_length=128)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows, newest first.")] = 100,
    start: Annotated[str | None, Query(description="First event time, RFC 3339.")] = None,
    end: Annotated[str | None, Query(description="Event time to stop before, RFC 3339.")] = None,
    next: Annotated[str | None, Query(description="Cursor of the page before.")] = None,  # noqa: A002
) -> FillsWanted:
    """The page of fills of a request's parameters.

    Raises:
        ApiError: A time or the cursor cannot be read (422).
    """
    page = Page(limit=limit, start_ns=_time("start", start), end_ns=_time("end", end))
    return FillsWanted(page, symbol, model, None if next is None else _row("fills", next))


@dataclass(frozen=True, slots=True)
class AlertsWanted:
    """What part of the alerts is wanted.

    Args:
        page: Rows and span of wall time in which they began.
        severities: Only of these.
        standing: Only those that have not ended.
        after: The row that the page before ended with.
    """

    page: Page
    severities: tuple[str, ...]
    standing: bool
    after: RowKey | None


def alerts_of(
    severity: Annotated[Severity | None, Query(description="At least so bad.")] = None,
    standing: Annotated[bool, Query(description="Only those that have not ended.")] = False,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows, newest first.")] = 100,
    start: Annotated[str | None, Query(description="First beginning, wall time, RFC 3339.")] = None,
    end: Annotated[str | None, Query(description="Beginning to stop before, RFC 3339.")] = None,
    next: Annotated[str | None, Query(description="Cursor of the page before.")] = None,  # noqa: A002
) -> AlertsWanted:
    """The page of alerts of a request's parameters.

    Raises:
        ApiError: A time or the cursor cannot be read (422).
    """
    page = Page(limit=limit, start_ns=_time("start", start), end_ns=_time("end", end))
    after = None if next is None else _row("alerts", next)
    return AlertsWanted(page, at_least(severity), standing, after)


def _row(listing: str, text: str) -> RowKey:
    return _cursor(text, lambda text: read_row_cursor(listing, text))


def _cursor(text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except BadCursor as error:
        raise _wrong("next", "is no cursor of this listing") from error


def _time(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        # "+" of a zone arrives as a space when nobody escaped it.
        return parse_time_ns(text.replace(" ", "+"))
    except (ValueError, IndexError) as error:
        raise _wrong(field, "is no RFC 3339 time, e.g. 2024-07-05T13:30:00Z") from error


def _wrong(field: str, why: str) -> ApiError:
    return ApiError(422, "invalid", f"{field}: {why}", [{"field": field, "message": why}])
