"""What the gateway asks of the lake, as rows that it serves. Blocks; called in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from pipelines import alerts
from pipelines.events import MINUTE_NS, format_time_ns
from pipelines.features import indicators
from pipelines.features.rollup import WINDOWS
from pipelines.features.spec import WINDOW
from pipelines.lake.query import LakeQuery
from serve.bars import GapKey, bar_of_lake
from serve.listings import RowKey

_GAPS = """
    SELECT symbol, from_ns, to_ns, any_value(reason) AS reason, bool_or(backfilled) AS backfilled
    FROM gaps WHERE to_ns >= $start AND to_ns < $end
      AND (to_ns < $after_ns OR (to_ns = $after_ns
           AND (symbol, coalesce(from_ns, -1)) > ($after_symbol, $after_from)))
    GROUP BY symbol, from_ns, to_ns
    ORDER BY to_ns DESC, symbol, coalesce(from_ns, -1) LIMIT $limit
"""
_ROLLED = """
    SELECT start_ns, arg_min(open, event_time_ns) AS open, max(high) AS high, min(low) AS low,
           arg_max(close, event_time_ns) AS close, sum(volume) AS volume,
           sum(trade_count)::BIGINT AS trade_count,
           sum(coalesce(nullif(vwap, 0), (high + low + close) / 3) * volume)
               / nullif(sum(volume), 0) AS vwap,  -- as ClosedBar.paid
           bool_and(source = 'vendor') AS vendor
    FROM (
        SELECT *, CASE WHEN $span_ns = 0
            THEN epoch_ns(date_trunc('day', event_time AT TIME ZONE 'America/New_York')
                          AT TIME ZONE 'America/New_York')
            ELSE event_time_ns // greatest($span_ns, 1) * $span_ns END AS start_ns
        FROM bars_current
        WHERE symbol = $symbol AND event_time_ns <= $last_ns AND date <= $last_day::DATE
          AND event_time_ns >= $first_ns AND date >= $first_day::DATE
    ) GROUP BY start_ns ORDER BY start_ns DESC LIMIT $limit
"""
_STATS = """
    SELECT * FROM stats
    WHERE symbol = $symbol AND event_time_ns < $before_ns
      AND date >= $first_day::DATE AND date <= $last_day::DATE
    QUALIFY row_number() OVER (PARTITION BY event_time_ns ORDER BY known_at) = 1
    ORDER BY event_time_ns DESC LIMIT $limit
"""
_ANOMALIES = """
    SELECT symbol, event_time_ns, type, severity, score, value, threshold, reason, detector,
           epoch_us(known_at) AS known_us
    FROM anomalies
    WHERE event_time_ns >= $start AND event_time_ns < $end AND date >= $first_day::DATE
      AND date <= $last_day::DATE AND ($symbol = '' OR symbol = $symbol)
      AND list_contains($severities, severity)
      AND (event_time_ns < $after_ns OR (event_time_ns = $after_ns
           AND (symbol, type) > ($after_symbol, $after_type)))
    QUALIFY row_number() OVER (PARTITION BY symbol, event_time_ns, type ORDER BY known_at) = 1
    ORDER BY event_time_ns DESC, symbol, type LIMIT $limit
"""
_FILLS = """
    SELECT *, model_id || ':' || model_version AS model, epoch_us(decided_on) AS decided_us,
           epoch_us(filled_at) AS filled_us, epoch_us(known_at) AS known_us
    FROM fills
    WHERE event_time_ns >= $start AND event_time_ns < $end AND date >= $first_day::DATE
      AND date <= $last_day::DATE AND ($symbol = '' OR symbol = $symbol)
      AND ($model IN ('', model_id, model_id || ':' || model_version))
      AND (event_time_ns < $after_ns OR (event_time_ns = $after_ns
           AND (symbol, model_id || ':' || model_version) > ($after_symbol, $after_model)))
    ORDER BY event_time_ns DESC, symbol, model LIMIT $limit
"""
_ALERTS = """
    SELECT * FROM (
        SELECT alert_id, name, severity, source, symbol, detail,
               epoch_us(began_at) * 1000 AS began_ns, epoch_us(ended_at) * 1000 AS ended_ns,
               epoch_us(market_time) * 1000 AS market_ns
        FROM alerts_current
    )
    WHERE began_ns >= $start AND began_ns < $end
      AND (ended_ns IS NULL OR NOT $standing)
      AND list_contains($severities, severity)
      AND (began_ns < $after_ns OR (began_ns = $after_ns AND alert_id > $after_id))
    ORDER BY began_ns DESC, alert_id LIMIT $limit
"""
_FILL = (
    "symbol", "model", "side", "shares", "price", "open", "bid_price", "ask_price", "spread_bps",
    "notional", "commission", "spread_cost", "slippage_cost", "cash_after", "shares_after",
    "signal_id", "reason",
)  # fmt: skip
_FAR_NS = 2**62
_NEAR_DAYS = 10
"""Days that are looked into first; if they hold too few rows four times as many, and so on."""


class ServedLake:
    """Reads bars and gaps.

    Args:
        uri: The lake.
        options: Its storage options.
    """

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self._query = LakeQuery(uri, options, timeout_s=10)

    def bars(self, symbol: str, *, limit: int, before_ns: int | None) -> list[dict[str, Any]]:
        """Closed minute bars that ended at or before a market time, oldest first."""
        rows = self._query.recent_bars(symbol, limit=limit, before_ns=before_ns)
        return [bar_of_lake(row) for row in rows]

    def rolled(
        self,
        symbol: str,
        window: str,
        *,
        limit: int,
        before_ns: int | None = None,
        start_ns: int | None = None,
    ) -> list[dict[str, Any]]:
        """The newest bars of a longer window, oldest first.

        Args:
            symbol: Its symbol.
            window: One of :data:`~pipelines.features.rollup.WINDOWS`.
            limit: At most so many.
            before_ns: Only minutes that ended at or before this market time.
            start_ns: Only minutes that begin at it or later.
        """
        last_ns = _FAR_NS if before_ns is None else before_ns - MINUTE_NS
        parameters = {
            "symbol": symbol,
            "span_ns": 0 if window == "1d" else WINDOWS[window] * MINUTE_NS,
            "last_ns": last_ns,
            "last_day": format_time_ns(last_ns)[:10],
            "first_ns": start_ns or 0,
            "first_day": format_time_ns(start_ns or 0)[:10],
        }
        rows = self._newest(_ROLLED, parameters, limit=limit, tables=("bars", "features"))
        return [
            {
                "event_time": format_time_ns(row["start_ns"]),
                **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
                "trade_count": row["trade_count"],
                "vwap": row["vwap"],
                "source": "vendor" if row["vendor"] else "trades",
                "forming": False,
                "window": window,
            }
            for row in reversed(rows)
        ]

    def indicators(self, symbol: str, *, limit: int, before_ns: int | None) -> list[dict[str, Any]]:
        """Indicators of the last closed bars, oldest first, computed from the bars as they are."""
        rows = self._query.recent_bars(symbol, limit=limit + WINDOW, before_ns=before_ns)
        if not rows:
            return []
        columns = {name: [row[name] for row in rows] for name in ("high", "low", "close", "volume")}
        vwap = np.array([np.nan if row["vwap"] is None else row["vwap"] for row in rows])
        starts = [row["event_time_ns"] for row in rows]
        found = indicators.batch(start_ns=starts, **columns, vwap=vwap)
        return [
            {"event_time": format_time_ns(starts[at]), **indicators.row_at(found, at)}
            for at in range(max(0, len(rows) - limit), len(rows))
        ]

    def stats(self, symbol: str, *, limit: int, before_ns: int | None) -> list[dict[str, Any]]:
        """Running statistics at the last bars that began before a market time, oldest first."""
        before_ns = _FAR_NS if before_ns is None else before_ns
        parameters = {
            "symbol": symbol,
            "before_ns": before_ns,
            "first_day": format_time_ns(0)[:10],
            "last_day": format_time_ns(before_ns)[:10],
        }
        rows = self._newest(_STATS, parameters, limit=limit, tables=("stats",))
        return [
            {
                "event_time": format_time_ns(row["event_time_ns"]),
                **{k: row[k] for k in ("count", "min", "max", "mean", "variance", "std")},
                **orjson.loads(row["payload"]),
            }
            for row in reversed(rows)
        ]

    def anomalies(
        self,
        *,
        limit: int,
        severities: Sequence[str],
        symbol: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        after: RowKey | None = None,
    ) -> list[dict[str, Any]]:
        """Anomalies with start ≤ time < end, newest first, then by symbol and kind.

        Args:
            limit: Most rows.
            severities: Only of these.
            symbol: Only of it.
            start_ns: Market nanoseconds.
            end_ns: Market nanoseconds.
            after: The last row of the page before.
        """
        after_ns, after_symbol, after_type = after or (_FAR_NS, "", "")
        parameters = {
            **_span(start_ns, end_ns, after_ns),
            "limit": limit,
            "severities": list(severities),
            "symbol": symbol or "",
            "after_symbol": after_symbol,
            "after_type": after_type,
        }
        return [
            {
                "symbol": row["symbol"],
                "event_time": format_time_ns(row["event_time_ns"]),
                "kind": row["type"],
                **{name: row[name] for name in ("severity", "score", "value", "threshold")},
                **{name: row[name] for name in ("reason", "detector")},
                "known_at": format_time_ns(row["known_us"] * 1000),
            }
            for row in self._query.sql(_ANOMALIES, parameters).to_pylist()
        ]

    def fills(
        self,
        *,
        limit: int,
        symbol: str | None = None,
        model: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        after: RowKey | None = None,
    ) -> list[dict[str, Any]]:
        """Paper fills with start ≤ time < end, newest first, then by symbol and model.

        Args:
            limit: Most rows.
            symbol: Only of it.
            model: Only of this one, ``id`` or ``id:version``.
            start_ns: Market nanoseconds.
            end_ns: Market nanoseconds.
            after: The last row of the page before.
        """
        after_ns, after_symbol, after_model = after or (_FAR_NS, "", "")
        span = _span(start_ns, end_ns, after_ns)
        names = {"symbol": symbol or "", "model": model or "", "limit": limit}
        key = {"after_symbol": after_symbol, "after_model": after_model}
        return [
            {
                "event_time": format_time_ns(row["event_time_ns"]),
                **{name: row[name] for name in _FILL},
                "decided_on": _text(row["decided_us"]),
                "filled_at": _text(row["filled_us"]),
                "known_at": _text(row["known_us"]),
            }
            for row in self._query.sql(_FILLS, span | names | key).to_pylist()
        ]

    def alerts(
        self,
        *,
        limit: int,
        severities: Sequence[str],
        standing: bool = False,
        start_ns: int | None = None,
        end_ns: int | None = None,
        after: RowKey | None = None,
    ) -> list[dict[str, Any]]:
        """Alerts that began with start ≤ wall time < end, newest first, then by id.

        Args:
            limit: Most rows.
            severities: Only of these.
            standing: Only those that have not ended.
            start_ns: Wall nanoseconds.
            end_ns: Wall nanoseconds.
            after: The last row of the page before.
        """
        after_ns, after_id, _ = after or (_FAR_NS, "", "")
        parameters = {
            "limit": limit,
            "severities": list(severities),
            "standing": standing,
            "start": start_ns or 0,
            "end": _FAR_NS if end_ns is None else end_ns,
            "after_ns": after_ns,
            "after_id": after_id,
        }
        rows = self._query.sql(_ALERTS, parameters).to_pylist()
        return [alerts.from_row(row).data() for row in rows]

    def gaps(
        self,
        *,
        limit: int,
        start_ns: int | None = None,
        end_ns: int | None = None,
        after: GapKey | None = None,
    ) -> list[dict[str, Any]]:
        """Declared gaps with start ≤ to < end, newest first, then by symbol.

        One cut of the line ends for all symbols at one moment, so that a page goes on after a
        row, not after a time.

        Args:
            limit: Most rows.
            start_ns: Market nanoseconds.
            end_ns: Market nanoseconds.
            after: The last row of the page before.
        """
        after_ns, symbol, from_ns = after or (_FAR_NS, "", -1)
        parameters = {
            "limit": limit,
            "start": -_FAR_NS if start_ns is None else start_ns,
            "end": _FAR_NS if end_ns is None else end_ns,
            "after_ns": after_ns,
            "after_symbol": symbol,
            "after_from": from_ns,
        }
        rows: list[dict[str, Any]] = self._query.sql(_GAPS, parameters).to_pylist()
        return rows

    def _newest(
        self,
        query: str,
        parameters: Mapping[str, Any],
        *,
        limit: int,
        tables: Sequence[str],
    ) -> list[dict[str, Any]]:
        """The newest rows of a query, from no more days than they need.

        Args:
            query: Rows newest first, bounded by its parameters.
            parameters: Its parameters; of ``first_day`` the earliest, and no ``limit``.
            limit: At most so many rows.
            tables: The tables whose days it reads.
        """
        first_day, last_day = parameters["first_day"], parameters["last_day"]
        held = {day.isoformat() for name in tables for day in self._query.days(name)}
        days = sorted(day for day in held if first_day <= day <= last_day)
        near = _NEAR_DAYS
        while True:
            bounds = {"first_day": days[-near] if near < len(days) else first_day}
            # One more: the oldest may begin on the day before, and be there in part only.
            found = self._query.sql(query, {**parameters, **bounds, "limit": limit + 1})
            if found.num_rows > limit or near >= len(days):
                rows: list[dict[str, Any]] = found.slice(0, limit).to_pylist()
                return rows
            near *= 4


def _span(start_ns: int | None, end_ns: int | None, after_ns: int) -> dict[str, Any]:
    """Bounds of a listing by market time, with the days that they lie in."""
    first_ns = 0 if start_ns is None else start_ns
    last_ns = min(_FAR_NS if end_ns is None else end_ns, after_ns + 1)
    return {
        "start": first_ns,
        "end": last_ns,
        "first_day": format_time_ns(max(0, first_ns))[:10],
        "last_day": format_time_ns(max(0, last_ns))[:10],
        "after_ns": after_ns,
    }


def _text(us: int | None) -> str | None:
    return None if us is None else format_time_ns(us * 1000)
