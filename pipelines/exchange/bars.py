"""Bars of the past as the vendor's REST interface pages them. Pure but for a cache.

In: symbols, a range of market time, a time frame. Out: one page of bars and where the next
begins. The last minute that can be seen is the last one that is over; a longer bar that is not
over is the bar so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from pipelines.events import MINUTE_NS, format_time_ns
from pipelines.exchange import noise, ticks
from pipelines.exchange.market import BarSource, Block, Session
from pipelines.exchange.noise import Floats
from pipelines.exchange.paging import Place
from pipelines.exchange.playback import walk_width
from pipelines.exchange.timeframes import TimeFrame

_CACHED_AVERAGES = 256 * 20
_CACHED_DAYS = 50_000
PAGE_SESSIONS = 200
"""Most sessions of symbols that one page computes; a longer range takes more pages."""

Row = tuple[int, float, float, float, float, int, int, float]
"""Start ns, open, high, low, close, volume, trades, vwap."""
_MINUTE, _DAY = TimeFrame(1, "Min"), TimeFrame(1, "Day")


@dataclass(frozen=True, slots=True)
class Query:
    """One request.

    Args:
        symbols: Whose bars.
        start_ns: First bar start.
        end_ns: Last bar start.
        frame: Length of a bar.
        limit: Most bars of the page, over all symbols.
        descending: Newest first, inside each symbol.
        token: Where the page begins, from the page before.
    """

    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    frame: TimeFrame = _MINUTE
    limit: int = 1000
    descending: bool = False
    token: str | None = None


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
        self._averages: OrderedDict[tuple[str, Session], Floats] = OrderedDict()
        self._days: OrderedDict[tuple[str, Session], list[Row]] = OrderedDict()

    def page(
        self, query: Query, *, now_ns: int
    ) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
        """One page of bars per symbol, and the token of the next page.

        Args:
            query: What is asked.
            now_ns: Market time.

        Raises:
            Refused: The token is none of ours.
        """
        given = Place.of(query.token)
        found: dict[str, list[dict[str, Any]]] = {}
        last = Place("", 0)
        left, fresh = query.limit, 0
        for symbol in sorted(s for s in set(query.symbols) if s in self._index):
            if given is not None and symbol < given.symbol:
                continue
            after_ns = given.ns if given is not None and symbol == given.symbol else None
            for period in self._periods(query, after_ns, now_ns):
                unknown = [s for s in period if not self._knows(symbol, s, query.frame)]
                if unknown and fresh + len(unknown) > PAGE_SESSIONS:
                    if not found:  # one bar of many sessions: some pages only get it ready
                        for session in unknown[: PAGE_SESSIONS - fresh]:
                            self._day_rows(symbol, session, now_ns)
                    return found, Place(symbol, _edge(period, query)).token()
                fresh += len(unknown)
                for row in self._rows(symbol, period, query, after_ns, now_ns):
                    if not left:
                        return found, last.token()
                    found.setdefault(symbol, []).append(_as_json(row))
                    last = Place(symbol, row[0])
                    left -= 1
        return found, None

    def latest(
        self, symbols: Sequence[str], frame: TimeFrame, *, now_ns: int, count: int = 1
    ) -> dict[str, list[dict[str, Any]]]:
        """The last bars of symbols that have any in the last week, newest first."""
        start_ns = now_ns - 10 * 1440 * MINUTE_NS
        found: dict[str, list[dict[str, Any]]] = {}
        for symbol in symbols:
            query = Query((symbol,), start_ns, now_ns, frame, limit=count, descending=True)
            found |= self.page(query, now_ns=now_ns)[0]
        return found

    def _knows(self, symbol: str, session: Session, frame: TimeFrame) -> bool:
        return (symbol, session) in (self._averages if frame.intraday else self._days)

    def _periods(
        self, query: Query, after_ns: int | None, now_ns: int
    ) -> Iterator[tuple[Session, ...]]:
        """Runs of sessions such that no bar needs more than one run, in the query's order."""
        start, end = query.start_ns, min(query.frame.next_start(query.end_ns) - 1, now_ns)
        if after_ns is not None:
            if query.descending:
                end = min(end, after_ns)
            else:
                start = max(start, after_ns)
        sessions = self._source.sessions(start, end) if start <= end else ()
        if query.frame.intraday:
            runs: list[tuple[Session, ...]] = [(session,) for session in sessions]
        else:
            by_bar = groupby(sessions, key=lambda session: query.frame.start_of(session[0]))
            runs = [tuple(run) for _, run in by_bar]
        yield from reversed(runs) if query.descending else runs

    def _rows(
        self,
        symbol: str,
        period: Sequence[Session],
        query: Query,
        after_ns: int | None,
        now_ns: int,
    ) -> Iterator[Row]:
        """Bars of one symbol and period inside the query, beyond ``after_ns`` in its order."""
        if query.frame.intraday:
            rows = self._minutes(symbol, period[0], now_ns)
        else:
            rows = [row for s in period for row in self._day_rows(symbol, s, now_ns)]
        if query.frame != _MINUTE:
            rows = _rolled(rows, query.frame)
        first, last = query.start_ns, query.end_ns
        if after_ns is not None and query.descending:
            last = min(last, after_ns - 1)
        elif after_ns is not None:
            first = max(first, after_ns + 1)
        for row in reversed(rows) if query.descending else rows:
            if first <= row[0] <= last:
                yield row

    def _day_rows(self, symbol: str, session: Session, now_ns: int) -> list[Row]:
        """The bar of a session's day, or none where the symbol never traded."""
        rows = self._days.get((symbol, session))
        if rows is None:
            rows = _rolled(self._minutes(symbol, session, now_ns), _DAY)
            if session[1] <= now_ns:
                self._days[symbol, session] = rows
                while len(self._days) > _CACHED_DAYS:
                    self._days.popitem(last=False)
        return rows

    def _minutes(self, symbol: str, session: Session, now_ns: int) -> list[Row]:
        block, i = self._source.block(session), self._index[symbol]
        columns = np.flatnonzero((block.trades[i] > 0) & (block.starts_ns + MINUTE_NS <= now_ns))
        averages = self._vwap(symbol, session, block)[columns]
        fields = (
            block.starts_ns[columns], block.open[i, columns], block.high[i, columns],
            block.low[i, columns], block.close[i, columns], block.volume[i, columns],
            block.trades[i, columns], averages,
        )  # fmt: skip
        plain: list[list[Any]] = [field.tolist() for field in fields]
        return list(zip(*plain, strict=True))

    def _vwap(self, symbol: str, session: Session, block: Block) -> Floats:
        """Volume-weighted average prices of a symbol in a session, shape ``(M,)``."""
        i = self._index[symbol]
        if block.vwap is not None:
            given: Floats = block.vwap[i]
            return given
        averages = self._averages.get((symbol, session))
        if averages is None:
            only = np.zeros(len(self._index), dtype=np.bool_)
            only[i] = True
            alone = replace(block, trades=np.where(only[:, None], block.trades, 0))
            bars = ticks.bars_of(alone, self._keys, slice(None))
            averages = np.zeros(len(block.starts_ns))
            averages[block.present[i]] = ticks.walk(bars, width=self._width).vwap
            self._averages[symbol, session] = averages
            while len(self._averages) > _CACHED_AVERAGES:
                self._averages.popitem(last=False)
        return averages


def _edge(period: Sequence[Session], query: Query) -> int:
    """A moment such that what lies beyond it, in the query's order, begins with the period."""
    if query.descending:
        return period[-1][1]
    return query.frame.start_of(period[0][0]) - 1


def _rolled(rows: Sequence[Row], frame: TimeFrame) -> list[Row]:
    """Bars as longer bars."""
    if rows and frame.start_of(rows[0][0]) == (start := frame.start_of(rows[-1][0])):
        return [_joined(start, rows)]
    groups = groupby(rows, key=lambda row: frame.start_of(row[0]))
    return [_joined(start, list(group)) for start, group in groups]


def _joined(start: int, part: Sequence[Row]) -> Row:
    volume = sum(r[5] for r in part)
    notional = sum(r[7] * r[5] for r in part)
    vwap = round(notional / volume, 6) if volume else part[-1][4]
    return (
        start, part[0][1], max(r[2] for r in part), min(r[3] for r in part), part[-1][4],
        volume, sum(r[6] for r in part), vwap,
    )  # fmt: skip


def _as_json(row: Row) -> dict[str, Any]:
    start, o, h, low, c, v, n, vwap = row
    return {"t": format_time_ns(start), "o": o, "h": h, "l": low, "c": c, "v": v, "n": n,
            "vw": vwap}  # fmt: skip
