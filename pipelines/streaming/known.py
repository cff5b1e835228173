"""What the lake knows of minutes of one trading day: all that a revision is made of.

One query for all symbols, for a query costs about the same however many there are: it opens the
tables and reads the rows of the time, which lie in the lake as they came.
"""

from __future__ import annotations

import re
from bisect import bisect_right
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
_PARAMETER = re.compile(r"\$(\w+)")

# The bars asked for: parallel lists, because a list of parameters holds one type.
_WANTED = "(SELECT unnest($of) AS symbol, unnest($minutes) AS minute) w"

# The time of each symbol, from its first minute to its last.
_SPANS = (
    "(SELECT unnest($symbols) AS symbol, unnest($begins) AS begin_ns, unnest($ends) AS end_ns) s"
)

_NEWEST = """
    SELECT symbol, max(event_time_ns) // $minute AS minute FROM features
    WHERE date >= $day AND symbol IN $symbols GROUP BY symbol
"""

_FROM = """
    SELECT DISTINCT symbol, event_time_ns // $minute AS minute FROM features
    WHERE date >= $day AND symbol IN $symbols AND event_time_ns >= $first_ns ORDER BY ALL
"""

_CORRECTED = """
    SELECT t.symbol, t.event_time_ns // $minute AS minute, max(k.corrected_at_ns) AS at_ns
    FROM trades t JOIN corrected k ON k.symbol = t.symbol
        AND k.exchange IS NOT DISTINCT FROM t.exchange AND k.root_id = t.trade_id
    WHERE t.symbol IN $symbols AND t.date >= $day AND t.date <= $next_day
        AND t.event_time_ns >= $from_ns AND t.event_time_ns < $to_ns AND k.market_day = $market_day
    GROUP BY ALL
"""

_IN = (
    "t.symbol IN $symbols AND t.date >= $day AND t.date <= $next_day "
    "AND t.event_time_ns >= $from_ns AND t.event_time_ns < $to_ns"
)
_ASKED = f"SEMI JOIN {_WANTED} ON t.symbol = w.symbol AND t.event_time_ns // $minute = w.minute"

_TRADES = f"""
    SELECT symbol, event_time_ns, price, size, conditions, received_at_ns,
           coalesce(backfilled, false) AS backfilled
    FROM trades_current t {_ASKED} WHERE {_IN}
"""  # noqa: S608 - our own text
_VENDOR = f"""
    SELECT symbol, event_time_ns, open, high, low, close, volume, trade_count, vwap, received_at_ns
    FROM bars t {_ASKED} WHERE {_IN}
"""  # noqa: S608
_UPDATED = f"""
    SELECT symbol, event_time_ns, payload, received_at_ns
    FROM events t {_ASKED} WHERE type = 'u' AND {_IN}
"""  # noqa: S608
_FEATURES = f"""
    SELECT * FROM features t {_ASKED} WHERE {_IN}
    QUALIFY row_number() OVER (PARTITION BY symbol, event_time_ns ORDER BY revision DESC) = 1
"""  # noqa: S608
_BARS = f"""
    SELECT t.* FROM bars_current t
        JOIN {_SPANS}
        ON t.symbol = s.symbol AND t.event_time_ns >= s.begin_ns AND t.event_time_ns < s.end_ns
    WHERE {_IN} ORDER BY t.symbol, t.event_time_ns
"""  # noqa: S608
# Those of a minute, and the one that was in force when it began.
_QUOTES = f"""
    WITH asked AS (
        SELECT t.symbol, t.event_time_ns, t.bid_price, t.ask_price FROM quotes t JOIN {_SPANS}
        ON t.symbol = s.symbol AND t.event_time_ns >= s.begin_ns - $in_force
            AND t.event_time_ns < s.end_ns
        WHERE {_IN}
    )
    SELECT t.* FROM asked t {_ASKED}
    UNION
    SELECT t.* FROM {_WANTED} ASOF JOIN asked t
        ON t.symbol = w.symbol AND w.minute * $minute > t.event_time_ns
    ORDER BY symbol, event_time_ns
"""  # noqa: S608
# A gap may touch the features of a bar two bars after it.
_GAPS = f"""
    SELECT g.symbol, g.from_ns, g.to_ns FROM gaps g JOIN {_SPANS}
    ON g.symbol = s.symbol AND g.to_ns > s.begin_ns - {DAY_NS}
        AND coalesce(g.from_ns, 0) < s.end_ns
    GROUP BY g.symbol, g.from_ns, g.to_ns HAVING NOT bool_or(coalesce(g.backfilled, false))
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Minutes:
    """What is known of minutes of a symbol in one trading day; maps go by minute since the epoch.

    Args:
        wanted: The minutes that were asked for, ascending.
        vendor: The vendor's bars, updated ones among them.
        trades: The trades as they stand.
        corrected_at_ns: When the last correction in it was received.
        features: The newest row of ``features``.
        gaps: Gaps of the symbol that were not filled, market ns.
        before: The bars before the first of them as they stand, oldest first.
        between: Those from the first to the last.
    """

    wanted: Sequence[int]
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

    def corrected(self, symbols: Iterable[str], day: int) -> dict[str, dict[int, int]]:
        """Minutes of a trading day with a corrected trade, and when the last one was received."""
        begin_ns = day * DAY_NS + MARKET_DAY_BEGINS_NS
        return self._corrected(_span(symbols, begin_ns, begin_ns + DAY_NS), day)

    def _corrected(self, about: Mapping[str, Any], day: int) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for row in self._rows(_CORRECTED, {**about, "market_day": day}):
            found.setdefault(row["symbol"], {})[row["minute"]] = row["at_ns"]
        return found

    def of(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, Minutes]:
        """Everything about minutes of one trading day.

        Args:
            wanted: Of each symbol those that are asked for, ascending; at least one.
        """
        about = _about(wanted)
        vendor = self._by_symbol(_VENDOR, about)
        for symbol, rows in self._by_symbol(_UPDATED, about).items():
            vendor.setdefault(symbol, []).extend(map(_updated, rows))
        trades = self._by_symbol(_TRADES, about)
        features = self._by_symbol(_FEATURES, about)
        gaps = self._by_symbol(_GAPS, about)
        corrected = self._corrected(about, market_day(about["from_ns"]))
        begins = dict(zip(about["symbols"], about["begins"], strict=True))
        before = self._lake.recent_bars_of(begins, limit=self._window)
        between = self._by_symbol(_BARS, about)
        return {
            symbol: Minutes(
                wanted=wanted[symbol],
                vendor=_by_minute(vendor.get(symbol, ())),
                trades=_by_minute(trades.get(symbol, ())),
                corrected_at_ns=corrected.get(symbol, {}),
                features={_minute(row): row for row in features.get(symbol, ())},
                gaps=[interval(gap) for gap in gaps.get(symbol, ())],
                before=before[symbol],
                between=between.get(symbol, ()),
            )
            for symbol in wanted
        }

    def spreads(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float | None]]:
        """The quoted spread of minutes of one trading day; basis points.

        Args:
            wanted: Of each symbol those that are asked for, ascending.
        """
        if not wanted:
            return {}
        about = _about(wanted, back_ns=MAX_IN_FORCE_NS) | {"in_force": MAX_IN_FORCE_NS}
        quotes = self._by_symbol(_QUOTES, about)
        return {s: _spreads(quotes.get(s, ()), minutes) for s, minutes in wanted.items()}

    def _by_symbol(
        self, sql: str, parameters: Mapping[str, Any]
    ) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows(sql, parameters):
            found.setdefault(row["symbol"], []).append(row)
        return found

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        named = set(_PARAMETER.findall(sql))
        used = {name: value for name, value in parameters.items() if name in named}
        rows: list[dict[str, Any]] = self._lake.sql(sql, used).to_pylist()
        return rows


def _updated(row: Row) -> dict[str, Any]:
    message = orjson.loads(row["payload"])
    keys = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    return {
        **{name: message[key] for name, key in keys.items()},
        "trade_count": message.get("n"),
        "vwap": message.get("vw"),
        "event_time_ns": row["event_time_ns"],
        "received_at_ns": row["received_at_ns"],
    }


def _by_minute(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(_minute(row), []).append(row)
    return found


def _spreads(rows: Iterable[Row], minutes: Sequence[int]) -> dict[int, float | None]:
    quotes = iter(rows)
    quote = next(quotes, None)
    meter = SpreadMeter()
    found: dict[int, float | None] = {}
    for minute in minutes:
        while quote is not None and quote["event_time_ns"] < (minute + 1) * MINUTE_NS:
            meter.quote(quote["event_time_ns"], bid=quote["bid_price"], ask=quote["ask_price"])
            quote = next(quotes, None)
        found[minute] = meter.close(minute * MINUTE_NS)
    return found


def _minute(row: Row) -> int:
    minute: int = row["event_time_ns"] // MINUTE_NS
    return minute


def _about(wanted: Mapping[str, Sequence[int]], *, back_ns: int = 0) -> dict[str, Any]:
    """Parameters of the minutes that are asked for, of the time of each symbol, and of all."""
    begins = [minutes[0] * MINUTE_NS for minutes in wanted.values()]
    ends = [(minutes[-1] + 1) * MINUTE_NS for minutes in wanted.values()]
    return _span(wanted, min(begins) - back_ns, max(ends)) | {
        "of": [symbol for symbol, minutes in wanted.items() for _ in minutes],
        "minutes": [minute for minutes in wanted.values() for minute in minutes],
        "begins": begins,
        "ends": ends,
    }


def _span(symbols: Iterable[str], from_ns: int, to_ns: int) -> dict[str, Any]:
    """Parameters of a time, with the partitions that it lies in."""
    first, last = _day(from_ns), _day(to_ns - 1)
    return {
        "symbols": list(symbols), "minute": MINUTE_NS, "day": first, "next_day": last,
        "from_ns": from_ns, "to_ns": to_ns,
    }  # fmt: skip


def _day(ns: int) -> date:
    return _EPOCH_DAY + timedelta(ns // DAY_NS)
