"""What the lake knows of minutes of one symbol and trading day: all that a revision is made of."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson

from pipelines.events import DAY_NS, MARKET_DAY_BEGINS_NS, MINUTE_NS, market_day
from pipelines.lake.query import LakeQuery
from pipelines.streaming.rebuild import Interval, Row, interval
from pipelines.streaming.spread import MAX_IN_FORCE_NS, SpreadMeter

_EPOCH_DAY = date(1970, 1, 1)

_NEWEST = """
    SELECT symbol, max(event_time_ns) // $minute AS minute FROM features
    WHERE date >= $day AND symbol IN $symbols GROUP BY symbol
"""

_FROM = """
    SELECT DISTINCT symbol, event_time_ns // $minute AS minute FROM features
    WHERE date >= $day AND symbol IN $symbols AND event_time_ns >= $first_ns ORDER BY ALL
"""

_CORRECTED = """
    SELECT t.event_time_ns // $minute AS minute, max(k.corrected_at_ns) AS at_ns
    FROM trades t JOIN corrected k ON k.symbol = t.symbol
        AND k.exchange IS NOT DISTINCT FROM t.exchange AND k.root_id = t.trade_id
    WHERE t.symbol = $symbol AND t.date >= $day AND t.date <= $next_day
        AND t.event_time_ns >= $from_ns AND t.event_time_ns < $to_ns AND k.market_day = $market_day
    GROUP BY ALL
"""

_IN = (
    "symbol = $symbol AND date >= $day AND date <= $next_day "
    "AND event_time_ns >= $from_ns AND event_time_ns < $to_ns"
)

_TRADES = f"""
    SELECT event_time_ns, price, size, conditions, received_at_ns,
           coalesce(backfilled, false) AS backfilled
    FROM trades_current WHERE {_IN} AND event_time_ns // $minute IN $minutes
"""  # noqa: S608 - our own text
_VENDOR = f"""
    SELECT event_time_ns, open, high, low, close, volume, trade_count, vwap, received_at_ns
    FROM bars WHERE {_IN} AND event_time_ns // $minute IN $minutes
"""  # noqa: S608
_UPDATED = f"""
    SELECT event_time_ns, payload, received_at_ns FROM events WHERE type = 'u' AND {_IN}
"""  # noqa: S608
_FEATURES = f"""
    SELECT * FROM features WHERE {_IN} AND event_time_ns // $minute IN $minutes
    QUALIFY row_number() OVER (PARTITION BY event_time_ns ORDER BY revision DESC) = 1
"""  # noqa: S608
_BARS = f"SELECT * FROM bars_current WHERE {_IN} ORDER BY event_time_ns"  # noqa: S608
_QUOTES = f"""
    SELECT event_time_ns, bid_price, ask_price FROM quotes WHERE {_IN} ORDER BY event_time_ns
"""  # noqa: S608
_GAPS = """
    SELECT from_ns, to_ns FROM gaps
    WHERE symbol = $symbol AND to_ns > $from_ns AND coalesce(from_ns, 0) < $to_ns
    GROUP BY from_ns, to_ns HAVING NOT bool_or(coalesce(backfilled, false))
"""


@dataclass(frozen=True, slots=True)
class Minutes:
    """What is known of minutes of one symbol and trading day; maps go by minute since the epoch.

    Args:
        vendor: The vendor's bars, updated ones among them.
        trades: The trades as they stand.
        corrected_at_ns: When the last correction in it was received.
        features: The newest row of ``features``.
        gaps: Gaps of the symbol that were not filled, market ns.
        before: The bars before the first of them as they stand, oldest first.
        between: Those from the first to the last.
    """

    vendor: Mapping[int, Sequence[Row]]
    trades: Mapping[int, Sequence[Row]]
    corrected_at_ns: Mapping[int, int]
    features: Mapping[int, Row]
    gaps: Sequence[Interval]
    before: Sequence[Row]
    between: Sequence[Row]


class Known:
    """Asks the lake.

    Args:
        lake: The lake.
        window: Bars before a minute that are asked for.
    """

    def __init__(self, lake: LakeQuery, *, window: int) -> None:
        self._lake = lake
        self._window = window

    def newest(self, since: Mapping[str, int]) -> dict[str, int]:
        """The newest minute with features of each symbol that has any from then on.

        Args:
            since: Per symbol the first minute that matters, minutes since the epoch: bounds what
                is read of the lake.
        """
        if not since:
            return {}
        first_ns = min(since.values()) * MINUTE_NS
        about = {"minute": MINUTE_NS, "day": _day(first_ns), "symbols": list(since)}
        rows = self._lake.sql(_NEWEST, about).to_pylist()
        return {row["symbol"]: row["minute"] for row in rows}

    def after(self, since: Mapping[str, Iterable[int]]) -> dict[str, dict[int, list[int]]]:
        """The minutes with features after others, ascending.

        Args:
            since: The minutes of each symbol that are asked for.
        """
        wanted = {symbol: sorted(minutes) for symbol, minutes in since.items() if minutes}
        if not wanted:
            return {}
        first_ns = min(minutes[0] for minutes in wanted.values()) * MINUTE_NS
        about = {
            "minute": MINUTE_NS, "day": _day(first_ns), "first_ns": first_ns,
            "symbols": list(wanted),
        }  # fmt: skip
        rows: dict[str, list[int]] = {symbol: [] for symbol in wanted}
        for row in self._lake.sql(_FROM, about).to_pylist():
            rows[row["symbol"]].append(row["minute"])
        return {
            symbol: {minute: found[bisect_right(found, minute) :] for minute in wanted[symbol]}
            for symbol, found in rows.items()
        }

    def corrected(self, symbol: str, day: int) -> dict[int, int]:
        """Minutes of a trading day with a corrected trade, and when the last one was received."""
        begin_ns = day * DAY_NS + MARKET_DAY_BEGINS_NS
        about = _span(symbol, begin_ns, begin_ns + DAY_NS) | {
            "minute": MINUTE_NS, "market_day": day,
        }  # fmt: skip
        rows = self._lake.sql(_CORRECTED, about).to_pylist()
        return {row["minute"]: row["at_ns"] for row in rows}

    def of(self, symbol: str, minutes: Sequence[int]) -> Minutes:
        """Everything about minutes of one trading day, ascending."""
        first_ns, end_ns = minutes[0] * MINUTE_NS, (minutes[-1] + 1) * MINUTE_NS
        span = _span(symbol, first_ns, end_ns)
        among = span | {"minute": MINUTE_NS, "minutes": list(minutes)}
        vendor = defaultdict(list, _by_minute(self._rows(_VENDOR, among)))
        for row in self._rows(_UPDATED, span):
            vendor[row["event_time_ns"] // MINUTE_NS].append(_updated(row))
        # A gap may touch the features of a bar two bars after it.
        around = {"symbol": symbol, "from_ns": first_ns - DAY_NS, "to_ns": end_ns}
        features = {row["event_time_ns"] // MINUTE_NS: row for row in self._rows(_FEATURES, among)}
        return Minutes(
            vendor=vendor,
            trades=_by_minute(self._rows(_TRADES, among)),
            corrected_at_ns=self.corrected(symbol, market_day(first_ns)),
            features=features,
            gaps=[interval(gap) for gap in self._rows(_GAPS, around)],
            before=self._lake.recent_bars(symbol, limit=self._window, before_ns=first_ns),
            between=self._rows(_BARS, span),
        )

    def spreads(self, symbol: str, minutes: Sequence[int]) -> dict[int, float | None]:
        """The quoted spread of minutes of one trading day, ascending; basis points."""
        first_ns, end_ns = minutes[0] * MINUTE_NS, (minutes[-1] + 1) * MINUTE_NS
        span = _span(symbol, first_ns - MAX_IN_FORCE_NS, end_ns)
        quotes = iter(self._rows(_QUOTES, span))
        quote = next(quotes, None)
        meter = SpreadMeter()
        found: dict[int, float | None] = {}
        for minute in minutes:
            while quote is not None and quote["event_time_ns"] < (minute + 1) * MINUTE_NS:
                meter.quote(quote["event_time_ns"], bid=quote["bid_price"], ask=quote["ask_price"])
                quote = next(quotes, None)
            found[minute] = meter.close(minute * MINUTE_NS)
        return found

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        used = {name: value for name, value in parameters.items() if f"${name}" in sql}
        rows: list[dict[str, Any]] = self._lake.sql(sql, used).to_pylist()
        return rows


def _updated(row: Row) -> dict[str, Any]:
    message = orjson.loads(row["payload"])
    keys = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    return {
        **{name: message[key] for name, key in keys.items()},
        "trade_count": message.get("n"),
        "vwap": message.get("vw"),
        "received_at_ns": row["received_at_ns"],
    }


def _by_minute(rows: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["event_time_ns"] // MINUTE_NS, []).append(row)
    return found


def _span(symbol: str, from_ns: int, to_ns: int) -> dict[str, Any]:
    """Parameters of a time, with the partitions that it lies in."""
    first, last = _day(from_ns), _day(to_ns - 1)
    return {"symbol": symbol, "day": first, "next_day": last, "from_ns": from_ns, "to_ns": to_ns}


def _day(ns: int) -> date:
    return _EPOCH_DAY + timedelta(ns // DAY_NS)
