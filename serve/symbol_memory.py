"""What the feed remembers of one symbol, and how it tells it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from pipelines.events import format_time_ns, parse_time_ns

MAX_STATS = 101
"""Rows of statistics kept per symbol: a page as long as it is by default, and the row after it."""


class SymbolMemory:
    """What is known of one symbol.

    Args:
        max_bars: Closed bars kept.
        max_signals: Signals kept; also feature rows.
    """

    __slots__ = ("bars", "features", "forming", "quote", "signals", "stats", "touched", "trade")

    def __init__(self, *, max_bars: int, max_signals: int) -> None:
        self.trade: dict[str, Any] | None = None
        self.quote: dict[str, Any] | None = None
        self.forming: dict[str, Any] | None = None
        self.bars: deque[dict[str, Any]] = deque(maxlen=max_bars)
        self.features: deque[dict[str, Any]] = deque(maxlen=max_signals)
        self.signals: deque[dict[str, Any]] = deque(maxlen=max_signals)
        self.stats: deque[dict[str, Any]] = deque(maxlen=MAX_STATS)
        self.touched: set[str] = set()


def keep(rows: deque[dict[str, Any]], row: dict[str, Any]) -> bool:
    """Put a row where its time belongs; whether it says anything new.

    A row of the same time replaces the one before it, except that a bar made from trades never
    replaces the vendor's.
    """
    time = parse_time_ns(row["event_time"])
    at = len(rows)
    while at and parse_time_ns(rows[at - 1]["event_time"]) > time:
        at -= 1
    if at and parse_time_ns(rows[at - 1]["event_time"]) == time:
        old = rows[at - 1]
        if old == row or (old.get("source") == "vendor" and row.get("source") == "trades"):
            return False
        rows[at - 1] = row
        return True
    if at == len(rows):
        rows.append(row)
    elif len(rows) < (rows.maxlen or at):
        rows.insert(at, row)
    elif at:
        rows.popleft()
        rows.insert(at - 1, row)
    return True


def tick_data(newest: Mapping[str, Any]) -> dict[str, Any]:
    """The newest trade or quote, as clients see it."""
    data = {k: v for k, v in newest.items() if k not in ("event_time", "received_ns")}
    received = newest["received_ns"]
    data["received_at"] = format_time_ns(received) if received else None
    return data


def forming_data(bar: Mapping[str, Any]) -> dict[str, Any]:
    """The forming bar, as clients see it."""
    volume = bar["volume"]
    return {
        "event_time": format_time_ns(bar["start"]),
        "open": bar["open"],
        "high": bar["high"],
        "low": bar["low"],
        "close": bar["close"],
        "volume": volume,
        "trade_count": bar["trade_count"],
        "vwap": bar["notional"] / volume if volume else None,
        "source": "trades",
        "forming": True,
        "window": "1m",
    }
