"""Daily bars as they grow through a session. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from pipelines.events import SECOND_NS
from pipelines.exchange import ticks
from pipelines.exchange.frames import Batch
from pipelines.exchange.market import Block
from pipelines.exchange.noise import Floats, Keys

_NEW_YORK = ZoneInfo("America/New_York")


class DayBars:
    """The day so far of each symbol.

    Args:
        block: The session.
        symbols: Name of each row.
    """

    def __init__(self, block: Block, *, symbols: Sequence[str]) -> None:
        count = len(symbols)
        self._symbols = symbols
        self._start_ns = _midnight(block.session[0])
        self._prices: Floats = np.zeros((4, count))
        self._volume = np.zeros(count, dtype=np.int64)
        self._trades = np.zeros(count, dtype=np.int64)
        self._notional: Floats = np.zeros(count)

    def catch_up(self, block: Block, *, keys: Keys, minutes: int, width: int) -> None:
        """Add the first minutes of a session, as they were."""
        for column in range(minutes):
            bars = ticks.bars_of(block, keys, slice(column, column + 1))
            self.add(bars, ticks.walk(bars, width=width).vwap)

    def add(self, bars: ticks.Bars, vwap: Floats) -> None:
        """Add one minute of bars."""
        rows = bars.symbol
        first = self._trades[rows] == 0
        opened, high, low, close = self._prices
        opened[rows] = np.where(first, bars.open, opened[rows])
        high[rows] = np.maximum(high[rows], bars.high)
        low[rows] = np.where(first, bars.low, np.minimum(low[rows], bars.low))
        close[rows] = bars.close
        self._volume[rows] += bars.volume
        self._trades[rows] += bars.trades
        self._notional[rows] += vwap * bars.volume

    def batch(self, bars: ticks.Bars) -> Batch:
        """The days of the symbols that traded in a minute."""
        rows = bars.symbol
        opened, high, low, close = (column[rows] for column in self._prices)
        vwap = np.where(
            self._volume[rows] > 0, self._notional[rows] / np.maximum(self._volume[rows], 1), close
        )
        columns = (rows, opened, high, low, close, self._volume[rows], self._trades[rows],
                   np.clip(np.round(vwap, 6), low, high))  # fmt: skip
        messages = [
            {"T": "d", "S": self._symbols[i], "o": o, "h": h, "l": lowest, "c": c, "v": v, "n": n,
             "vw": vw, "t": None}
            for i, o, h, lowest, c, v, n, vw in zip(*(c.tolist() for c in columns), strict=True)
        ]  # fmt: skip
        keys = [("dailyBars", m["S"]) for m in messages]
        return Batch(messages, times_ns=[self._start_ns] * len(messages), keys=keys)


def _midnight(ns: int) -> int:
    """Midnight of New York before a moment."""
    moment = datetime.fromtimestamp(ns // SECOND_NS, _NEW_YORK)
    return int(moment.replace(hour=0, minute=0, second=0).timestamp()) * SECOND_NS
