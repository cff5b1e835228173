"""The state of the platform, of what its parts say of themselves: market, ledger, alerts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipelines import calendar
from pipelines.alerts import Alarm, Alert
from pipelines.events import format_time_ns
from serve.config import FeedConfig
from serve.ledger import ledger
from serve.market import MarketTime

Stats = Mapping[str, Any]


class PlatformState:
    """Puts together what the parts say.

    Args:
        config: What market it is.
    """

    def __init__(self, config: FeedConfig) -> None:
        self._config = config
        self._silent_ns: int | None = None  # since when the streaming job does not answer

    def system(
        self, producer: Stats | None, streaming: Stats | None, *, market: MarketTime, wall: int
    ) -> dict[str, Any]:
        """The state, JSON types; of a part that does not answer ``None``.

        Args:
            producer: Statistics of the producer, or ``None``.
            streaming: Those of the streaming job, or ``None``.
            market: The market's clock.
            wall: Wall time, nanoseconds.
        """
        now = market.now_ns(wall)
        said = streaming or {}
        return {
            "market": {
                "time": format_time_ns(now // 1000 * 1000) if now is not None else None,
                "rate": market.rate,
                "simulated": self._config.simulated,
                "mode": self._config.mode,
                "open": self._open(market, wall),
                "finished": _finished(market, wall),
            },
            "ledger": ledger(producer, streaming, as_of=format_time_ns(wall)),
            "producer": _brief(producer),
            "archive": said.get("archive"),
            "signals": said.get("signals"),
            "streaming": {name: said.get(name) for name in ("state", "error")},
            "alerts": list(said.get("alerts") or ()),
            "unwritten_alerts": self._unwritten(streaming, wall),
        }

    def _open(self, market: MarketTime, wall: int) -> bool | None:
        known = market.is_open(wall)
        if known is not None or self._config.simulated:
            return known
        today = datetime.fromtimestamp(wall / 1e9, UTC).date()
        return any(opens <= wall < closes for opens, closes in calendar.sessions(today, today))

    def _unwritten(self, streaming: Mapping[str, Any] | None, wall: int) -> list[dict[str, Any]]:
        """Alerts about the part that writes alerts down: the next streaming job tells of them."""
        if streaming is not None:
            self._silent_ns = None
            return []
        self._silent_ns = self._silent_ns or wall
        silent = Alarm("streaming_silent", "critical", "streaming", "streaming does not answer")
        began = format_time_ns(self._silent_ns)
        return [Alert(f"{silent.name}@{began}", silent, self._silent_ns).data()]


def _finished(market: MarketTime, wall: int) -> bool:
    """Whether a simulated market has played its last session."""
    clock = market.clock
    return clock is not None and clock.simulated and clock.market_ns(wall) >= clock.sessions[-1][1]


def _brief(producer: Stats | None) -> dict[str, Any] | None:
    """The producer's statistics without its clock: the sessions of a year are long."""
    return {k: v for k, v in producer.items() if k != "clock"} if producer else None
