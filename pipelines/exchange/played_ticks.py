"""Trades and quotes of a market by playing it again: there is no second formula. Pure.

In: a piece of a session and the symbols that are asked for. Out: their ticks, from the player of
the live market.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np

from pipelines.events import MINUTE_NS
from pipelines.exchange.frames import Batch
from pipelines.exchange.market import BarSource, Block, Session
from pipelines.exchange.tick_history import Tick, Ticks

_LATE_NS = 60 * MINUTE_NS
"""How far behind its time a trade may be published."""


class Player(Protocol):
    """What plays a slice, as :class:`~pipelines.exchange.playback.Playback` does."""

    def due(self, now_ns: int, *, limit: int = 2000) -> Batch | None:
        """The next messages, or ``None`` when nothing is left."""
        ...


Play = Callable[[BarSource, Sequence[Session]], Player]
"""Makes the player of a slice of a market."""


def played_ticks(source: BarSource, play: Play) -> Ticks:
    """What gives the ticks of a market.

    Args:
        source: The market.
        play: Makes the player of a slice, with the seed and rate of the live one.
    """

    def ticks(piece: Session, symbols: Sequence[str]) -> Iterator[Tick]:
        player = play(cast("BarSource", _Only(source, symbols)), [piece])
        while (batch := player.due(piece[1] + _LATE_NS, limit=1_000_000)) is not None:
            times = batch.times_ns or ()
            for (channel, symbol), ns, message in zip(
                batch.keys, times, batch.messages, strict=True
            ):
                if symbol in symbols and channel in ("trades", "quotes"):
                    yield Tick(channel, symbol, ns, message)

    return ticks


class _Only:
    """A market in which only some symbols trade; the others keep their rows, empty."""

    def __init__(self, source: BarSource, symbols: Sequence[str]) -> None:
        self._source = source
        wanted = set(symbols)
        self._silent = np.array([s not in wanted for s in source.symbols])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def block(self, session: Session) -> Block:
        block = self._source.block(session)
        return replace(block, trades=np.where(self._silent[:, None], 0, block.trades))
