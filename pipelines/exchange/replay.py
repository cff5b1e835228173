"""A market out of a Parquet file of minute bars.

Its columns: ``symbol timestamp open high low close volume``, a timestamp being the bar's start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import calendar
from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, SECOND_NS
from pipelines.exchange import noise
from pipelines.exchange.market import Block, Session, needed_trades, quoting
from pipelines.exchange.news import Item
from pipelines.exchange.noise import Floats, Ints
from pipelines.exchange.profiles import profile

CLOSED_NS = 120 * MINUTE_NS
"""A silence of all symbols longer than this is a closed hour and is skipped."""

_COLUMNS = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
_PRICES = ("open", "high", "low", "close")
_COUNT = 11
_RECENT = 10
_CACHED_BLOCKS = 32


class ReplayMarket:
    """The bars of a file, as a :class:`~pipelines.exchange.market.BarSource`.

    A session is a run of minutes without a long silence, over all symbols (``all``), or a session
    of the trading calendar (``regular``); rows outside the sessions are not played. Prices and
    volumes are the file's own numbers.

    Args:
        bars: The Parquet file, or a table of its columns, perhaps with ``trade_count``
            and ``vwap`` too.
        symbols: Which of its symbols; empty for all. Of a table: the names of its symbols, also
            of those without a bar.
        sessions: ``all`` or ``regular``.
        max_sessions: Most sessions to play.
        seed: Seed of the number of trades inside each bar.
        trades_per_minute: Mean number of trades per bar, where its volume allows.

    Raises:
        ConfigError: The file cannot be read, has none of the symbols, or holds an impossible bar.
    """

    mode = "replay"

    def __init__(
        self,
        bars: Path | pa.Table,
        *,
        symbols: Sequence[str] = (),
        sessions: Literal["all", "regular"] = "all",
        max_sessions: int | None = None,
        seed: int = 7,
        trades_per_minute: float = 40.0,
    ) -> None:
        path = bars if isinstance(bars, Path) else Path("(table)")
        self.name = f"replay:{path.name}:{sessions}"
        self._trades_per_minute = trades_per_minute
        table = bars if isinstance(bars, pa.Table) else _read(path, symbols)
        names = table["symbol"].to_numpy(zero_copy_only=False)
        present = set(symbols) if isinstance(bars, pa.Table) else set(names.tolist())
        self.symbols = _ordered(present, symbols)
        self.profiles = tuple(profile(symbol) for symbol in self.symbols)
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._keys = noise.keys(seed, *self.symbols)
        starts = table["timestamp"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
        self._row = np.array([index[n] for n in names], dtype=np.int64)
        order = np.lexsort((self._row, starts))
        self._row, self._starts = self._row[order], starts[order]
        self._prices = np.stack([table[c].cast(pa.float64()).to_numpy()[order] for c in _PRICES])
        self._volume = table["volume"].cast(pa.int64()).to_numpy()[order]
        given = set(table.column_names)
        self._given_count = (
            table["trade_count"].to_numpy()[order] if "trade_count" in given else None
        )
        self._given_vwap = table["vwap"].to_numpy()[order] if "vwap" in given else None
        self._check(path)
        if len(self._starts):
            self._sessions = find_sessions(self._starts, sessions, path)[:max_sessions]
        self._blocks: OrderedDict[Session, Block] = OrderedDict()

    def playable(self) -> tuple[Session, ...]:
        """The file's sessions."""
        return self._sessions

    def sessions(self, start_ns: int, end_ns: int) -> tuple[Session, ...]:
        """The file's sessions with a minute in the range: there is nothing before the file."""
        return tuple(s for s in self._sessions if s[1] > start_ns and s[0] <= end_ns)

    def block(self, session: Session) -> Block:
        """The bars of one session."""
        block = self._blocks.get(session)
        if block is None:
            block = self._blocks[session] = self._make(session)
            while len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def news(self, _: Session) -> tuple[Item, ...]:
        """None: bars tell no news."""
        return ()

    def _make(self, session: Session) -> Block:
        low, high = np.searchsorted(self._starts, session)
        starts, column = np.unique(self._starts[low:high], return_inverse=True)
        row = self._row[low:high]
        shape = (len(self.symbols), len(starts))
        prices = np.zeros((4, *shape))
        prices[:, row, column] = self._prices[:, low:high]
        volume = np.zeros(shape, dtype=np.int64)
        volume[row, column] = self._volume[low:high]
        trades = np.zeros(shape, dtype=np.int64)
        trades[row, column] = self._count(low, high)
        spread_bps, depth = quoting(self.profiles, _unrest(prices))
        vwap = None
        if self._given_vwap is not None:
            vwap = np.zeros(shape)
            vwap[row, column] = self._given_vwap[low:high]
        return Block(
            session, starts, prices[0], prices[1], prices[2], prices[3], volume, trades,
            spread_bps, depth, vwap=vwap,
        )  # fmt: skip

    def _count(self, low: int, high: int) -> Ints:
        """Trades of the rows ``low`` to ``high``: as set, as the volume allows, as prices need."""
        if self._given_count is not None:
            given: Ints = self._given_count[low:high]
            return given
        keys = noise.at(self._keys[self._row[low:high]], _COUNT)
        spread = 0.8 + 0.4 * noise.uniform(keys, self._starts[low:high] // MINUTE_NS)
        wanted = np.round(self._trades_per_minute * spread).astype(np.int64)
        o, h, lowest, c = self._prices[:, low:high]
        possible = np.minimum(wanted, self._volume[low:high])
        count: Ints = np.maximum(possible, needed_trades(o, h, lowest, c))
        return count

    def _check(self, path: Path) -> None:
        o, h, low, c = self._prices
        good = (low > 0) & (low <= np.minimum(o, c)) & (h >= np.maximum(o, c)) & np.isfinite(h)
        good &= (self._volume >= 0) & (self._starts % MINUTE_NS == 0)
        good[1:] &= (np.diff(self._starts) > 0) | (np.diff(self._row) > 0)
        if not good.all():
            i = int(np.argmin(good))
            when = datetime.fromtimestamp(int(self._starts[i]) / SECOND_NS, UTC)
            raise ConfigError(
                f"replay {path}: bar of {self.symbols[self._row[i]]} at {when:%Y-%m-%d %H:%M:%S} "
                "is impossible, twice there, or does not start on a minute"
            )


def _unrest(prices: Floats) -> Floats:
    """Range of the minutes just before each one over the mean so far, shape ``(S, M)``.

    Only what was before a minute says how it is quoted.
    """
    opened, high, low, _ = prices
    there = opened > 0
    ranges = np.where(there, (high - low) / np.where(there, opened, 1.0), 0.0)
    total, count = np.cumsum(ranges, axis=1), np.cumsum(there, axis=1)
    recent, recent_count = total.copy(), count.copy()
    recent[:, _RECENT:] -= total[:, :-_RECENT]
    recent_count[:, _RECENT:] -= count[:, :-_RECENT]
    mean = total / np.maximum(count, 1)
    ratio = np.where(mean > 0, recent / np.maximum(recent_count, 1) / np.maximum(mean, 1e-12), 1.0)
    result = np.ones(ratio.shape)
    result[:, 1:] = ratio[:, :-1]
    return result


def _read(path: Path, symbols: Sequence[str]) -> pa.Table:
    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"replay {path}: no Parquet file of bars ({', '.join(_COLUMNS)}): {error}"
        ) from error
    if symbols:
        wanted = table.filter(pc.is_in(table["symbol"], pa.array(list(symbols))))
        if not wanted.num_rows:
            has = ", ".join(sorted(pc.unique(table["symbol"]).to_pylist())[:20])
            raise ConfigError(f"replay {path}: has none of {', '.join(symbols)}; it has {has}")
        table = wanted
    if not table.num_rows:
        raise ConfigError(f"replay {path}: has no bars")
    if any(table[c].null_count for c in _COLUMNS):
        raise ConfigError(f"replay {path}: has empty cells")
    return table


def _ordered(present: set[str], wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple(s for s in wanted if s in present) if wanted else tuple(sorted(present))


def find_sessions(
    minutes: Ints | Sequence[int], sessions: Literal["all", "regular"], path: Path
) -> tuple[Session, ...]:
    """The sessions in which there is something.

    Args:
        minutes: Starts of minutes, ascending; at least one.
        sessions: ``all``: runs without a long silence; ``regular``: those of the calendar.
        path: Where they come from.

    Raises:
        ConfigError: Nothing lies in a regular session.
    """
    starts = np.asarray(minutes, dtype=np.int64)
    found = _runs(starts) if sessions == "all" else _regular(starts)
    if not found:
        raise ConfigError(f"replay {path}: has nothing in a regular session")
    return found


def _runs(starts: Ints) -> tuple[Session, ...]:
    """Runs of minutes without a long silence."""
    minutes = np.unique(starts)
    cuts = np.flatnonzero(np.diff(minutes) > CLOSED_NS)
    first = np.concatenate(([0], cuts + 1))
    last = np.concatenate((cuts, [len(minutes) - 1]))
    return tuple(
        (int(minutes[a]), int(minutes[b]) + MINUTE_NS) for a, b in zip(first, last, strict=True)
    )


def _regular(starts: Ints) -> tuple[Session, ...]:
    """Sessions of the calendar in which there is something."""
    days = [datetime.fromtimestamp(int(starts[i]) / SECOND_NS, UTC).date() for i in (0, -1)]
    minutes = np.unique(starts)
    return tuple(
        s
        for s in calendar.sessions(days[0], days[1])
        if np.searchsorted(minutes, s[0]) < np.searchsorted(minutes, s[1])
    )
