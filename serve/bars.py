"""Bars of any window from minute bars; pages of them, newest first. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.events import format_time_ns, parse_time_ns
from pipelines.features.bar import paid_of
from pipelines.features.rollup import window_start_ns

Row = dict[str, Any]
GapKey = tuple[int, str, int]
"""A gap in its listing's order: its end, its symbol, its start (-1: unknown)."""


class BadCursor(ValueError):
    """A cursor that this API never gave."""


def roll_up(bars: Sequence[Mapping[str, Any]], window: str) -> list[Row]:
    """Bars of a window from minute bars, both oldest first.

    The volume-weighted price is weighted by volume; a bar is forming as long as its last minute
    is.

    >>> minutes = [{"event_time": f"2024-07-05T13:3{i}:00Z", "open": 1 + i, "high": 2 + i,
    ...             "low": i, "close": 1 + i, "volume": 10} for i in range(6)]
    >>> [(b["open"], b["high"], b["low"], b["close"], b["volume"]) for b in roll_up(minutes, "5m")]
    [(1, 6, 0, 5, 50), (6, 7, 5, 6, 10)]
    """
    if window == "1m":
        return [{**bar, "window": "1m"} for bar in bars]
    out: list[Row] = []
    current, weighted = None, 0.0
    for bar in bars:
        start = window_start_ns(parse_time_ns(bar["event_time"]), window)
        if current != start:
            current, weighted = start, 0.0
            out.append(
                {
                    **bar,
                    "event_time": format_time_ns(start),
                    "volume": 0,
                    "trade_count": None,
                    "forming": False,
                    "window": window,
                }
            )
        row = out[-1]
        row["high"], row["low"] = max(row["high"], bar["high"]), min(row["low"], bar["low"])
        row["close"] = bar["close"]
        row["volume"] += bar["volume"]
        if bar.get("trade_count") is not None:
            row["trade_count"] = (row["trade_count"] or 0) + bar["trade_count"]
        weighted += _paid(bar) * bar["volume"]
        row["vwap"] = weighted / row["volume"] if row["volume"] else None
        row["forming"] = bool(bar.get("forming"))
        if bar.get("source") != row.get("source"):
            row["source"] = "trades"
    return out


def join(older: Sequence[Mapping[str, Any]], newer: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Bars of one window of two sources, oldest first, none of whose minutes is in both.

    The last of the older and the first of the newer may be two parts of one bar.

    >>> part = {"event_time": "2024-07-05T13:30:00Z", "open": 1, "high": 3, "low": 1, "close": 2,
    ...         "volume": 10, "vwap": 2.0, "window": "5m", "source": "vendor"}
    >>> (bar,) = join([part], [{**part, "high": 9, "close": 5, "vwap": 4.0}])
    >>> bar["open"], bar["high"], bar["close"], bar["volume"], bar["vwap"]
    (1, 9, 5, 20, 3.0)
    """
    rows = [dict(row) for row in older]
    for row in newer:
        if rows and rows[-1]["event_time"] == row["event_time"]:
            rows[-1] = _whole(rows[-1], row)
        else:
            rows.append(dict(row))
    return rows


def _paid(bar: Mapping[str, Any]) -> float:
    return paid_of(bar.get("vwap"), high=bar["high"], low=bar["low"], close=bar["close"])


def _whole(first: Mapping[str, Any], then: Mapping[str, Any]) -> Row:
    volume = first["volume"] + then["volume"]
    paid = sum(_paid(part) * part["volume"] for part in (first, then))
    counts = [part.get("trade_count") for part in (first, then)]
    known = [count for count in counts if count is not None]
    return {
        **then,
        "open": first["open"],
        "high": max(first["high"], then["high"]),
        "low": min(first["low"], then["low"]),
        "volume": volume,
        "trade_count": sum(known) if known else None,
        "vwap": paid / volume if volume else None,
        "source": first["source"] if first["source"] == then["source"] else "trades",
    }


def merge(older: Sequence[Mapping[str, Any]], newer: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Minute bars of two sources, oldest first; where both have a minute, ``newer`` counts."""
    known = {parse_time_ns(bar["event_time"]): dict(bar) for bar in older}
    known |= {parse_time_ns(bar["event_time"]): dict(bar) for bar in newer}
    return [known[start] for start in sorted(known)]


def between(rows: Sequence[Row], *, start_ns: int | None, end_ns: int | None) -> list[Row]:
    """Rows with start ≤ event time < end, in the order given."""
    return [
        row
        for row in rows
        if (start_ns is None or parse_time_ns(row["event_time"]) >= start_ns)
        and (end_ns is None or parse_time_ns(row["event_time"]) < end_ns)
    ]


def page(rows: Sequence[Row], *, limit: int) -> tuple[list[Row], str | None]:
    """The newest rows of rows that are oldest first, newest first, and the next page's cursor.

    >>> rows = [{"event_time": f"2024-07-05T13:3{i}:00Z"} for i in range(3)]
    >>> items, cursor = page(rows, limit=2)
    >>> [i["event_time"][14:16] for i in items], format_time_ns(read_cursor(cursor))
    (['32', '31'], '2024-07-05T13:31:00Z')
    >>> page(rows, limit=3)[1] is None
    True
    """
    items = list(reversed(rows[-limit:]))
    more = len(rows) > limit
    return items, write_cursor(parse_time_ns(items[-1]["event_time"])) if more else None


def write_cursor(end_ns: int) -> str:
    """An opaque cursor: what follows lies before this time."""
    return base64.urlsafe_b64encode(f"t{end_ns}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> int:
    """The time of a cursor.

    Raises:
        BadCursor: It is none of ours.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        if not raw.startswith("t"):
            raise BadCursor(text)
        return int(raw[1:])
    except (ValueError, binascii.Error, UnicodeDecodeError) as error:
        raise BadCursor(text) from error


def write_gap_cursor(row: Mapping[str, Any]) -> str:
    """An opaque cursor: what follows comes after this gap."""
    from_ns = row["from_ns"]
    key = [row["to_ns"], row["symbol"], -1 if from_ns is None else from_ns]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def read_gap_cursor(text: str) -> GapKey:
    """The gap of a cursor.

    Raises:
        BadCursor: It is none of ours.
    """
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor(text) from error
    if not isinstance(key, list) or [type(v) for v in key] != [int, str, int]:
        raise BadCursor(text)
    if not all(-(2**63) <= v < 2**63 for v in (key[0], key[2])):
        raise BadCursor(text)
    return key[0], key[1], key[2]


def bar_of_lake(row: Mapping[str, Any]) -> Row:
    """A bar as served, of a row of the lake's table ``bars``."""
    return {
        "event_time": format_time_ns(row["event_time_ns"]),
        **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
        "trade_count": row["trade_count"],
        "vwap": row["vwap"],
        "source": "vendor",
        "forming": False,
    }
