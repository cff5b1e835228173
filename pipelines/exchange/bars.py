"""Bars of the past as the vendor's REST interface pages them. Pure but for a cache.

In: symbols, a range of market time, a time frame. Out: one page of bars and where the next
begins. The last minute that can be seen is the last one that is over.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from pipelines.events import DAY_NS, MINUTE_NS, SECOND_NS, format_time_ns
from pipelines.exchange import noise, ticks
from pipelines.exchange.market import BarSource, Block, Session
from pipelines.exchange.noise import Floats
from pipelines.exchange.playback import walk_width

NEW_YORK = ZoneInfo("America/New_York")
_FRAME = re.compile(r"(\d{1,2})(Min|T|Hour|H|Day|D)")
_CACHED_SESSIONS = 256
_WALKED_BARS = 4000
PAGE_SESSIONS = 48
"""Most sessions that one page looks into; a longer range takes more pages."""

Row = tuple[int, float, float, float, float, int, int, float]
"""Start ns, open, high, low, close, volume, trades, vwap."""


class BadRequest(ValueError):
    """A query that makes no sense; the text is the answer's message."""


@dataclass(frozen=True, slots=True)
class Query:
    """One request.

    Args:
        symbols: Whose bars.
        start_ns: First bar start.
        end_ns: Last bar start.
        minutes: Length of a bar; 1440 is a day of New York.
        limit: Most bars of the page, over all symbols.
        descending: Newest first, inside each symbol.
        token: Where the page begins, from the page before.
    """

    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    minutes: int = 1
    limit: int = 1000
    descending: bool = False
    token: str | None = None


def frame_minutes(text: str) -> int:
    """Minutes of a time frame.

    >>> [frame_minutes(f) for f in ("1Min", "15Min", "1Hour", "1Day")]
    [1, 15, 60, 1440]

    Raises:
        BadRequest: Not one of 1Min to 59Min, 1Hour to 23Hour, 1Day.
    """
    match = _FRAME.fullmatch(text)
    if match:
        number, unit = int(match[1]), match[2][0]
        if unit in "MT" and 1 <= number <= 59:
            return number
        if unit == "H" and 1 <= number <= 23:
            return number * 60
        if unit == "D" and number == 1:
            return 1440
    raise BadRequest(f"invalid timeframe: {text}")


class BarHistory:
    """Answers queries about the bars of a market.

    Args:
        source: The market.
        seed: Seed of its ticks (averages are those of the trades that were or would be played).
        messages_per_minute: As played.
    """

    def __init__(self, source: BarSource, *, seed: int, messages_per_minute: int) -> None:
        self._source = source
        self._index = {symbol: i for i, symbol in enumerate(source.symbols)}
        self._keys = noise.keys(seed, *(f"ticks:{s}" for s in source.symbols))
        self._width = walk_width(messages_per_minute)
        self._averages: OrderedDict[Session, Floats] = OrderedDict()

    def page(
        self, query: Query, *, now_ns: int
    ) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
        """One page of bars per symbol, and the token of the next page.

        Args:
            query: What is asked.
            now_ns: Market time.

        Raises:
            BadRequest: The token is none of ours.
        """
        symbols = sorted(s for s in set(query.symbols) if s in self._index)
        given = None if query.token is None else _read_token(query.token)
        found: dict[str, list[dict[str, Any]]] = {}
        last = ("", 0)
        left, fresh = query.limit, 0
        for symbol in symbols:
            if given is not None and symbol < given[0]:
                continue
            after_ns = given[1] if given is not None and symbol == given[0] else None
            for session in self._sessions(query, after_ns, now_ns):
                if session not in self._averages:
                    if fresh >= PAGE_SESSIONS:
                        return found, _token(symbol, _edge(session, query))
                    fresh += 1
                for row in self._rows(symbol, session, query, after_ns, now_ns):
                    if not left:
                        return found, _token(*last)
                    found.setdefault(symbol, []).append(_as_json(row))
                    last = (symbol, row[0])
                    left -= 1
        return found, None

    def _sessions(self, query: Query, after_ns: int | None, now_ns: int) -> Iterator[Session]:
        start, end = query.start_ns, min(query.end_ns + query.minutes * MINUTE_NS - 1, now_ns)
        if after_ns is not None:
            if query.descending:
                end = min(end, after_ns + DAY_NS)
            else:
                start = max(start, after_ns)
        sessions = self._source.sessions(start, end) if start <= end else ()
        yield from reversed(sessions) if query.descending else sessions

    def _rows(
        self, symbol: str, session: Session, query: Query, after_ns: int | None, now_ns: int
    ) -> Iterator[Row]:
        """Bars of one symbol and session inside the query, beyond ``after_ns`` in its order."""
        rows = self._minutes(symbol, session, now_ns)
        if query.minutes > 1:
            rows = _rolled(rows, query.minutes)
        first, last = query.start_ns, query.end_ns
        if after_ns is not None and query.descending:
            last = min(last, after_ns - 1)
        elif after_ns is not None:
            first = max(first, after_ns + 1)
        for row in reversed(rows) if query.descending else rows:
            if first <= row[0] <= last:
                yield row

    def _minutes(self, symbol: str, session: Session, now_ns: int) -> list[Row]:
        block, i = self._source.block(session), self._index[symbol]
        columns = np.flatnonzero((block.trades[i] > 0) & (block.starts_ns + MINUTE_NS <= now_ns))
        averages = self._session_averages(session, block)[i, columns]
        fields = (
            block.starts_ns[columns], block.open[i, columns], block.high[i, columns],
            block.low[i, columns], block.close[i, columns], block.volume[i, columns],
            block.trades[i, columns], averages,
        )  # fmt: skip
        plain: list[list[Any]] = [field.tolist() for field in fields]
        return list(zip(*plain, strict=True))

    def _session_averages(self, session: Session, block: Block) -> Floats:
        """Volume-weighted average prices of a session, shape ``(S, M)``."""
        averages = self._averages.get(session)
        if averages is None:
            averages = np.zeros(block.open.shape)
            step = max(1, _WALKED_BARS // len(self._source.symbols))
            for first in range(0, len(block.starts_ns), step):
                columns = slice(first, first + step)
                bars = ticks.bars_of(block, self._keys, columns)
                walked = ticks.walk(bars, width=self._width)
                averages[:, columns][block.present[:, columns]] = walked.vwap
            self._averages[session] = averages
            while len(self._averages) > _CACHED_SESSIONS:
                self._averages.popitem(last=False)
        return averages


def _edge(session: Session, query: Query) -> int:
    """A moment such that what lies beyond it, in the query's order, begins with the session."""
    if query.descending:
        return session[1]
    return _bar_start(session[0], query.minutes) - 1


def _bar_start(ns: int, minutes: int) -> int:
    return _day_start(ns) if minutes == 1440 else ns - ns % (minutes * MINUTE_NS)


def _rolled(rows: Sequence[Row], minutes: int) -> list[Row]:
    """Minute bars of one session as longer bars."""
    out: list[Row] = []
    for start, group in groupby(rows, key=lambda row: _bar_start(row[0], minutes)):
        part = list(group)
        volume = sum(r[5] for r in part)
        notional = sum(r[7] * r[5] for r in part)
        vwap = round(notional / volume, 6) if volume else part[-1][4]
        out.append(
            (start, part[0][1], max(r[2] for r in part), min(r[3] for r in part), part[-1][4],
             volume, sum(r[6] for r in part), vwap)
        )  # fmt: skip
    return out


def _day_start(ns: int) -> int:
    """Midnight of New York before a moment."""
    moment = datetime.fromtimestamp(ns // SECOND_NS, NEW_YORK)
    midnight = moment.replace(hour=0, minute=0, second=0)
    return int(midnight.timestamp()) * SECOND_NS


def _as_json(row: Row) -> dict[str, Any]:
    start, o, h, low, c, v, n, vwap = row
    return {"t": format_time_ns(start), "o": o, "h": h, "l": low, "c": c, "v": v, "n": n,
            "vw": vwap}  # fmt: skip


def _token(symbol: str, last_ns: int) -> str:
    return base64.urlsafe_b64encode(f"{symbol}|{last_ns}".encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        symbol, _, last = base64.urlsafe_b64decode(token.encode()).decode().partition("|")
        return symbol, int(last)
    except (binascii.Error, ValueError) as wrong:
        raise BadRequest("invalid page_token") from wrong
