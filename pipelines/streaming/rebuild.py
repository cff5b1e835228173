"""A minute bar from what the lake holds of its minute now. Pure.

The vendor's last word on a minute (its bar, or an updated bar) is the bar, unless a correction, a
cancel or a late trade was received after it: then the bar is made anew from the trades as they
stand. That needs all of them; with a gap in the minute that was not filled, there is no bar until
the vendor speaks again. Backfilled trades are no reason to doubt the vendor, who never missed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.streaming.parts import op_of_trade

Row = Mapping[str, Any]
Interval = tuple[int, int]

SAME: Final = 1e-9
"""Relative difference up to which two numbers are the same."""

_COMPARED: Final = ("open", "high", "low", "close", "volume", "trade_count", "vwap")


def current_bar(
    start_ns: int,
    *,
    vendor: Sequence[Row],
    trades: Sequence[Row],
    corrected_at_ns: int | None,
    complete: bool,
) -> ClosedBar | None:
    """The bar of a minute as it stands; ``None`` if that cannot be said, or there is none.

    Args:
        start_ns: Start of the minute, market time.
        vendor: The vendor's bars of it (``open`` … ``vwap``, ``received_at_ns``).
        trades: Its trades as they stand (``event_time_ns price size conditions received_at_ns
            backfilled``).
        corrected_at_ns: When the last correction or cancel in it was received, wall time.
        complete: Whether no gap that was not filled touches it.
    """
    said = max(vendor, key=_received, default=None)
    doubts = [_received(trade) for trade in trades if not trade["backfilled"]]
    if corrected_at_ns is not None:
        doubts.append(corrected_at_ns)
    if said is not None and max(doubts, default=0) <= _received(said):
        return ClosedBar(
            start_ns,
            open=float(said["open"]),
            high=float(said["high"]),
            low=float(said["low"]),
            close=float(said["close"]),
            volume=float(said["volume"]),
            trade_count=said["trade_count"],
            vwap=said["vwap"],
            source="revised",
        )
    return bar_of_trades(start_ns, trades) if complete else None


def bar_of_trades(start_ns: int, trades: Iterable[Row]) -> ClosedBar | None:
    """Our own bar of a minute; ``None`` without a trade that makes a price.

    >>> def trade(ns, price, conditions=()):
    ...     return {"event_time_ns": ns, "price": price, "size": 10.0, "conditions": conditions,
    ...             "received_at_ns": ns}
    >>> bar = bar_of_trades(0, [trade(2, 3.0), trade(1, 1.0), trade(3, 9.0, ["I"])])
    >>> bar.open, bar.high, bar.close, bar.volume, bar.trade_count
    (1.0, 3.0, 3.0, 30.0, 3)
    """
    prices: list[float] = []
    volume = paid = 0.0
    count = 0
    for trade in sorted(trades, key=lambda t: (t["event_time_ns"], _received(t))):
        _, _, price, size, in_price = op_of_trade(
            trade["event_time_ns"], trade["price"], trade["size"], trade["conditions"] or ()
        )
        if in_price:
            prices.append(price)
        volume += size
        paid += price * size
        count += 1
    if not prices:
        return None
    vwap = paid / volume if volume > 0 else None
    return ClosedBar(
        start_ns, prices[0], max(prices), min(prices), prices[-1], volume, count, vwap,
        source="revised",
    )  # fmt: skip


def same_bar(bar: ClosedBar, row: Row) -> bool:
    """Whether a bar says what a row says; what one of them does not know is no difference."""
    data = bar.data()
    return all(
        data[key] is None or row[key] is None or abs(data[key] - row[key]) <= SAME * abs(row[key])
        for key in _COMPARED
    )


def touches(gaps: Iterable[Interval], begin_ns: int, end_ns: int) -> bool:
    """Whether one of the gaps overlaps a time.

    >>> touches([(5, 9)], 9, 12), touches([(5, 9)], 8, 12)
    (False, True)
    """
    return any(from_ns < end_ns and to_ns > begin_ns for from_ns, to_ns in gaps)


def interval(gap: Row) -> Interval:
    """Begin and end of a gap; without a beginning it reaches back to the start of its minute."""
    to_ns = gap["to_ns"]
    return (to_ns - to_ns % MINUTE_NS if gap["from_ns"] is None else gap["from_ns"], to_ns)


def _received(row: Row) -> int:
    return row["received_at_ns"] or 0
