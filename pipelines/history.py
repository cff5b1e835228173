"""The past over the vendor's REST interface. The home of alpaca-py.

In: symbols and a time. Out: minute bars for warming up (``t o h l c v n vw``), or trades, quotes
and bars as the messages that the feed sent, for filling gaps; times as RFC 3339 text. A request
that fails raises :class:`~pipelines.errors.FeedFatal` (keys, plan) or
:class:`~pipelines.errors.FeedTransient`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, cast

from alpaca.common.exceptions import APIError
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame

from pipelines import calendar
from pipelines.errors import FeedFatal, FeedTransient
from pipelines.events import (
    BAR,
    MINUTE_NS,
    QUOTE,
    SECOND_NS,
    TRADE,
    Message,
    format_time_ns,
    parse_time_ns,
)

_SESSION_MINUTES = 390
_WIDENINGS = 3
"""How often the range is doubled for symbols that trade too rarely to fill it."""

_NAMES = {TRADE: "trades", QUOTE: "quotes", BAR: "bars"}
_PAGE = 10_000
_MINUTE_S = 60.0
_FATAL_STATUS = frozenset({400, 401, 402, 403, 422})


class RestHistory:
    """Bars of the past from Alpaca, or from an exchange that stands in for it.

    Args:
        base_url: Server without path, or ``None`` for Alpaca's own.
        key: Key id.
        secret: Its secret.
        feed: ``iex`` or ``sip``; the test feed has its bars where IEX has.
        timeout_s: Longest wait for one answer.
        per_minute: Most pages of :meth:`pages` in a minute (the free plan allows 200 requests);
            ``None`` for no limit.
        now_s: A steady clock.
        sleep: How to wait for the next minute.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        key: str,
        secret: str,
        feed: str = "iex",
        timeout_s: float = 30.0,
        per_minute: int | None = None,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._made_by = partial(
            RestHistory, base_url=base_url, key=key, secret=secret, feed=feed,
            timeout_s=timeout_s, per_minute=per_minute,
        )  # fmt: skip
        self._per_minute = per_minute
        self._now_s, self._sleep = now_s, sleep
        self._asked_s: deque[float] = deque()
        self._feed = DataFeed.SIP if feed == "sip" else DataFeed.IEX
        self._client = StockHistoricalDataClient(
            api_key=key, secret_key=secret, raw_data=True, url_override=base_url
        )
        # The client waits for ever by itself.
        session = self._client._session
        session.request = partial(  # type: ignore[method-assign]
            session.request, timeout=timeout_s
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels to Spark's workers; a session would arrive there without its timeout.
        return self._made_by, ()

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last ``limit`` minute bars that ended at or before a market time, oldest first."""
        return self.bars_many([symbol], before_ns=before_ns, limit=limit)[symbol]

    def bars_many(
        self, symbols: Sequence[str], *, before_ns: int, limit: int
    ) -> dict[str, list[Mapping[str, Any]]]:
        """The last bars of many symbols, in few requests.

        Args:
            symbols: Whose bars.
            before_ns: Market time; the last bar ended then or earlier.
            limit: Most bars per symbol.

        Returns:
            Per symbol its bars, oldest first; fewer than ``limit`` where there are no more.

        Raises:
            FeedFatal: Wrong keys, or a plan without this feed.
            FeedTransient: The server failed or was not reached.
        """
        found: dict[str, list[Mapping[str, Any]]] = {symbol: [] for symbol in symbols}
        missing = list(symbols)
        sessions = math.ceil(limit / _SESSION_MINUTES) + 1
        for _ in range(1 + _WIDENINGS):
            if not missing or limit <= 0:
                break
            start_ns = _lookback_ns(before_ns, sessions)
            fresh = self._ask(missing, start_ns=start_ns, end_ns=before_ns - MINUTE_NS)
            grown = [s for s in missing if len(fresh.get(s, ())) > len(found[s])]
            for symbol in grown:
                found[symbol] = fresh[symbol]
            missing = [s for s in grown if len(found[s]) < limit]
            sessions *= 2
        return {symbol: bars[-limit:] if limit > 0 else [] for symbol, bars in found.items()}

    def pages(
        self, kind: str, symbols: Sequence[str], *, start_ns: int, end_ns: int
    ) -> Iterator[list[Message]]:
        """What the feed published in a time, as its messages, page by page.

        Args:
            kind: ``t``, ``q`` or ``b`` (minute bars, whose time is their start).
            symbols: Whose.
            start_ns: First market time.
            end_ns: Last market time, included.

        Yields:
            At most 10,000 messages; each symbol's in order of time.

        Raises:
            FeedFatal: Wrong keys, or a plan that does not allow it (now).
            FeedTransient: The server failed, was not reached, or allows no more for a while.
        """
        name = _NAMES[kind]
        asked: dict[str, Any] = {
            "symbols": ",".join(symbols),
            "start": format_time_ns(start_ns),
            "end": format_time_ns(end_ns),
            "limit": _PAGE,
            "sort": "asc",
            "feed": self._feed.value,
        }
        if kind == BAR:
            asked |= {"timeframe": "1Min", "adjustment": "raw"}
        while True:
            self._wait_my_turn()
            answer = _answer_of(lambda: self._client.get(f"/stocks/{name}", asked), what=name)
            try:
                yield [
                    {"T": kind, "S": symbol, **row, "t": format_time_ns(parse_time_ns(row["t"]))}
                    for symbol, rows in (answer.get(name) or {}).items()
                    for row in rows
                ]
                token = answer.get("next_page_token")
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise FeedTransient(f"{name} over REST make no sense: {error!r}") from error
            if not token:
                return
            if token == asked.get("page_token"):
                raise FeedTransient(f"{name} over REST: the same page again and again")
            asked["page_token"] = token

    def _wait_my_turn(self) -> None:
        if self._per_minute is None:
            return
        while self._asked_s and self._now_s() - self._asked_s[0] >= _MINUTE_S:
            self._asked_s.popleft()
        if len(self._asked_s) >= self._per_minute:
            self._sleep(_MINUTE_S - (self._now_s() - self._asked_s.popleft()))
        self._asked_s.append(self._now_s())

    def _ask(
        self, symbols: Sequence[str], *, start_ns: int, end_ns: int
    ) -> Mapping[str, list[Mapping[str, Any]]]:
        request = StockBarsRequest(
            symbol_or_symbols=list(symbols),
            timeframe=TimeFrame.Minute,
            start=_moment(start_ns),
            end=_moment(end_ns),
            feed=self._feed,
        )
        answer = _answer_of(lambda: self._client.get_stock_bars(request), what="bars")
        return cast("Mapping[str, list[Mapping[str, Any]]]", answer)  # raw_data, see above


def _answer_of(ask: Callable[[], Any], *, what: str) -> Any:
    """The answer of a request; its failure as one of our errors."""
    try:
        return ask()
    except APIError as error:
        status = error.status_code
        kind = FeedFatal if status in _FATAL_STATUS else FeedTransient
        raise kind(f"{what} over REST refused: HTTP {status}", code=status) from error
    except (OSError, ValueError) as error:  # what the HTTP library raises is an OSError
        raise FeedTransient(f"{what} over REST not reached: {type(error).__name__}") from error


def _lookback_ns(before_ns: int, sessions: int) -> int:
    """Opening of the session that lies so many sessions before a moment."""
    year = _moment(before_ns).year
    years = 1 + sessions // 250
    days = calendar.sessions(date(year - years, 1, 1), date(year, 12, 31))
    opened = [opens for opens, _ in days if opens < before_ns]
    return opened[-min(sessions, len(opened))]


def _moment(ns: int) -> datetime:
    seconds, rest = divmod(ns, SECOND_NS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
