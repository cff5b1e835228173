"""Records of trades and quotes to rows of the raw tables, by columns: the archive's hot path. Pure.

What is judged one by one in :mod:`pipelines.streaming.parse` is judged here for thousands at once:
their times, and whether they come too late for their bar. Where one of them is not as it should be,
their records are given back, to be sorted in one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipelines.events import MAX_AHEAD_NS, MAX_BEHIND_NS, QUOTE, TRADE
from pipelines.lake.tables import TABLES
from pipelines.streaming.columns import HOME, Records, times_of, to_time
from pipelines.streaming.notice import Notice
from pipelines.ticks import Heartbeat, Quote, TickRecord, Trade

_KEYS: Final[Mapping[type, tuple[str, Mapping[str, str]]]] = {
    Trade: (
        TRADE,
        {
            "symbol": "S", "price": "p", "size": "s", "trade_id": "i", "exchange": "x",
            "conditions": "c", "tape": "z", "received_at_ns": "r", "backfilled": "bf",
        },
    ),
    Quote: (
        QUOTE,
        {
            "symbol": "S", "bid_price": "bp", "bid_size": "bs", "bid_exchange": "bx",
            "ask_price": "ap", "ask_size": "ask_size", "ask_exchange": "ax", "conditions": "c",
            "tape": "z", "received_at_ns": "r", "backfilled": "bf",
        },
    ),
}  # fmt: skip


@dataclass(slots=True)
class _Rows:
    """Rows of one table: parallel, but for ``times``, which those that were checked have."""

    ticks: list[Any] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list)
    checked: int = 0

    def keep(self, times: np.ndarray) -> None:
        self.times.append(times)
        self.checked = len(self.ticks)

    def forget_unchecked(self) -> None:
        del self.ticks[self.checked :], self.record[self.checked :], self.position[self.checked :]


class TickRows:
    """Takes records of ticks, keeps their rows until they are taken."""

    def __init__(self) -> None:
        self._trades, self._quotes = _Rows(), _Rows()
        self._unchecked: dict[int, tuple[int, bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._trades.ticks) + len(self._quotes.ticks)

    def add(self, record: TickRecord, number: int, data: bytes, *, settled_ns: int) -> None:
        """Take a record.

        Args:
            record: What it holds.
            number: Its number among the records of the chunk.
            data: It itself, to be given back.
            settled_ns: What starts before this is over.
        """
        self._unchecked[number] = record.market_ns, data, settled_ns
        for position, tick in enumerate(record.messages):
            if isinstance(tick, Heartbeat):
                continue
            rows = self._quotes if isinstance(tick, Quote) else self._trades
            rows.ticks.append(tick)
            rows.record.append(number)
            rows.position.append(position)

    def check(self, notice: Notice) -> Mapping[int, tuple[bytes, int]]:
        """Look at what came since the last check, before anything changes in what is known of bars.

        Args:
            notice: Told of each trade that comes too late for its bar.

        Returns:
            Nothing; or, by number, data and ``settled_ns`` of the records that came since, which
            are no longer kept here.
        """
        trades, quotes = self._trades, self._quotes
        times, of_quotes = self._times(trades), self._times(quotes)
        if times is None or of_quotes is None:
            trades.forget_unchecked()
            quotes.forget_unchecked()
            unchecked, self._unchecked = self._unchecked, {}
            return {number: (data, settled) for number, (_, data, settled) in unchecked.items()}
        self._notice(notice, times)
        trades.keep(times)
        quotes.keep(of_quotes)
        self._unchecked = {}
        return {}

    def tables(self, records: Records) -> Iterator[tuple[str, pa.Table]]:
        """The rows, by table; all have been checked."""
        for kind, rows in ((Trade, self._trades), (Quote, self._quotes)):
            if rows.ticks:
                yield HOME[_KEYS[kind][0]], _table(kind, rows, records)

    def _times(self, rows: _Rows) -> np.ndarray | None:
        """Times of the rows that were not checked; ``None`` if one is not as it should be."""
        times = times_of([tick.t for tick in rows.ticks[rows.checked :]])
        if times is None:
            return None
        known = self._unchecked
        market = np.array([known[number][0] for number in rows.record[rows.checked :]], np.int64)
        good = (times >= market - MAX_BEHIND_NS) & (times <= market + MAX_AHEAD_NS)
        return times if good.all() else None

    def _notice(self, notice: Notice, times: np.ndarray) -> None:
        rows, closed, known = self._trades, notice.closed, self._unchecked
        since = rows.checked
        over = np.array(
            [
                max(closed.get(tick.S, 0), known[number][2])
                for tick, number in zip(rows.ticks[since:], rows.record[since:], strict=True)
            ],
            np.int64,
        )
        for late in np.flatnonzero(times < over):
            notice.dirty.minute(rows.ticks[since + late].S, int(times[late]))


def _table(kind: type, rows: _Rows, records: Records) -> pa.Table:
    letter, keys = _KEYS[kind]
    schema = TABLES[HOME[letter]].schema
    columns: dict[str, Any] = {
        name: pa.array(list(map(attrgetter(key), rows.ticks)), schema.field(name).type)
        for name, key in keys.items()
    }
    columns["event_time_ns"] = times = pa.array(np.concatenate(rows.times))
    columns["event_time"] = to_time(times)
    columns["position"] = pa.array(rows.position, pa.int32())
    columns.update(records.columns(rows.record))
    columns["date"] = columns["event_time"].cast(pa.date32())
    return pa.table([columns[name] for name in schema.names], schema=schema)
