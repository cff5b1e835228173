"""Minute bars of one session for all symbols, and the sources that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.exchange.news import Item
from pipelines.exchange.noise import Floats, Ints
from pipelines.exchange.pauses import Bands, Pause
from pipelines.exchange.profiles import SymbolProfile

Session = tuple[int, int]
"""``(open_ns, close_ns)`` in market time: the first minute's start and the last minute's end."""


@dataclass(frozen=True, slots=True)
class Block:
    """Minute bars of one session.

    Args:
        session: The session.
        starts_ns: Start of each minute that has a bar of any symbol, ascending, shape ``(M,)``.
        open: First price, USD, shape ``(S, M)`` like all that follow; 0 where there is no bar.
        high: Highest price.
        low: Lowest price.
        close: Last price.
        volume: Shares.
        trades: Number of trades; 0 where there is no bar.
        spread_bps: Typical quoted spread.
        depth: Typical shares at the best bid and ask.
        opening: Shares of an auction that is the minute's first trade; mostly 0.
        closing: Shares of an auction that is its last trade; mostly 0.
        bands: The price bands of the session.
        pauses: The pauses of its symbols.
        vwap: Average prices, where they are given; else they are those of the ticks.
    """

    session: Session
    starts_ns: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Ints
    trades: Ints
    spread_bps: Floats
    depth: Floats
    opening: Ints | None = None
    closing: Ints | None = None
    bands: Bands | None = None
    pauses: tuple[Pause, ...] = ()
    vwap: Floats | None = None

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where there is a bar, shape ``(S, M)``."""
        return self.trades > 0


class BarSource(Protocol):
    """A market as minute bars; what was and what will be."""

    @property
    def name(self) -> str:
        """Identity of the market: two sources of one name play the same minutes."""
        ...

    @property
    def mode(self) -> str:
        """``synthetic`` or ``replay``."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is traded, in the order of the rows of a block."""
        ...

    @property
    def profiles(self) -> tuple[SymbolProfile, ...]:
        """What is known of each symbol, in the same order."""
        ...

    def playable(self) -> Sequence[Session]:
        """The sessions to play, ascending."""
        ...

    def sessions(self, start_ns: int, end_ns: int) -> Sequence[Session]:
        """All sessions with a minute in ``[start_ns, end_ns]``, ascending, also unplayed ones."""
        ...

    def block(self, session: Session) -> Block:
        """The bars of a session that :meth:`playable` or :meth:`sessions` named."""
        ...

    def news(self, session: Session, /) -> Sequence[Item]:
        """The news of a session, in order of time."""
        ...


def quoting(profiles: Sequence[SymbolProfile], volatility: Floats) -> tuple[Floats, Floats]:
    """Typical spread, bps, and depth, shares: what moves more is dearer and thinner to trade.

    Args:
        profiles: Profile per symbol.
        volatility: Of each minute over the symbol's typical one, shape ``(S, M)``.
    """
    factor = np.clip(volatility**0.7, 0.5, 6.0)
    spread = np.array([p.spread_bps for p in profiles])[:, None] * factor
    depth = np.array([p.depth_shares for p in profiles])[:, None] / factor
    return spread, depth


def needed_trades(block_open: Floats, high: Floats, low: Floats, close: Floats) -> Ints:
    """Fewest trades that can touch open, high, low and close, shapes alike.

    >>> o, h, l, c = (np.array(x) for x in ([5.0, 5, 5], [5.0, 6, 6], [5.0, 5, 4], [5.0, 6, 5]))
    >>> needed_trades(o, h, l, c)
    array([1, 2, 4])
    """
    above = high > np.maximum(block_open, close)
    below = low < np.minimum(block_open, close)
    flat = high == low
    return np.where(flat, 1, 2 + above.astype(np.int64) + below.astype(np.int64))


def remaining(
    sessions: Sequence[Session], *, after_ns: int | None, max_minutes: int | None = None
) -> tuple[Session, ...]:
    """The part of the sessions still to be played.

    Args:
        sessions: All sessions, ascending.
        after_ns: Start of the last minute played; ``None`` if none was.
        max_minutes: Market minutes to play at most.

    >>> m = 60_000_000_000
    >>> remaining([(0, 5 * m), (9 * m, 12 * m)], after_ns=3 * m, max_minutes=3)
    ((240000000000, 300000000000), (540000000000, 660000000000))
    """
    minute = 60_000_000_000
    left_ns = None if max_minutes is None else max_minutes * minute
    out = []
    for opens, closes in sessions:
        first = opens if after_ns is None else max(opens, after_ns + minute)
        last = closes if left_ns is None else min(closes, first + left_ns)
        if first >= last:
            continue
        out.append((first, last))
        if left_ns is not None:
            left_ns -= last - first
    return tuple(out)
