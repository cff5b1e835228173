"""The closed minute bar that features are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.events import format_time_ns, parse_time_ns

Source = Literal["vendor", "trades", "revised"]


@dataclass(frozen=True, slots=True)
class ClosedBar:
    """One minute of one symbol that is over.

    Args:
        start_ns: Start of the minute, market time, nanoseconds since the epoch.
        open: First price, USD.
        high: Highest price, USD.
        low: Lowest price, USD.
        close: Last price, USD; positive.
        volume: Shares; not negative.
        trade_count: Trades, where known.
        vwap: Volume-weighted price, USD, where known; some vendors say 0 where it is not.
        spread_bps: Time-weighted quoted spread of the minute; ``None`` if there were no quotes.
        source: ``vendor`` (the vendor's bar message), ``trades`` (our own, standing in) or
            ``revised`` (a later revision of either).
    """

    start_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trade_count: int | None = None
    vwap: float | None = None
    spread_bps: float | None = None
    source: Source = "vendor"

    @property
    def event_time(self) -> str:
        """Start of the minute, RFC 3339."""
        return format_time_ns(self.start_ns)

    @classmethod
    def from_message(
        cls, message: Mapping[str, Any], *, spread_bps: float | None = None
    ) -> ClosedBar:
        """The bar of an Alpaca bar message, or of a bar of its REST answers.

        >>> at = {"t": "2011-01-03T14:30:00Z", "o": 1, "h": 2, "l": 1, "c": 2, "v": 10}
        >>> ClosedBar.from_message(at).close
        2.0
        """
        return cls(
            start_ns=parse_time_ns(message["t"]),
            open=float(message["o"]),
            high=float(message["h"]),
            low=float(message["l"]),
            close=float(message["c"]),
            volume=float(message["v"]),
            trade_count=None if message.get("n") is None else int(message["n"]),
            vwap=float(message["vw"]) if message.get("vw") else None,
            spread_bps=spread_bps,
        )

    @property
    def paid(self) -> float:
        """What a share cost, USD."""
        return paid_of(self.vwap, high=self.high, low=self.low, close=self.close)

    def data(self) -> dict[str, Any]:
        """The ``data`` of its item on ``market-signals``, JSON types."""
        return {
            "open": self.open,
            "high": self.high,
            "low": self.low,
            "close": self.close,
            "volume": self.volume,
            "trade_count": self.trade_count,
            "vwap": self.vwap,
            "source": self.source,
        }


def paid_of(vwap: float | None, *, high: float, low: float, close: float) -> float:
    """What a share cost in a bar, USD: its volume-weighted price, else that of the three others.

    >>> paid_of(None, high=4, low=1, close=1), paid_of(3.0, high=4, low=1, close=1)
    (2.0, 3.0)
    """
    return vwap or (high + low + close) / 3
