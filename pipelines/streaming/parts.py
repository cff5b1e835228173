"""What goes into the state of a symbol, what comes out, and where it begins. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow

# No change of last, high or low by the consolidated tape's rules; they count in the volume only.
_VOLUME_ONLY: Final = frozenset("CHIMNPQRTUVWZ479")


@dataclass(frozen=True, slots=True)
class Part:
    """What one record says about one symbol.

    Args:
        epoch: Producer run of the record.
        bseq: Its counter; parts of a symbol come in its order.
        sent_at_ns: Wall time at which it was sent.
        market_ns: Market time at which it was sent.
        ops: In order: ``("q", ns, bid, ask)``, ``("t", ns, price, size, in price)``,
            ``("b", start_ns, open, high, low, close, volume, trades, vwap)``,
            ``("g", from_ns, to_ns)``, ``("f", count)`` of backfilled messages and ``("x",)``, a
            message that was left out, and ``("l", count, total_ms)``, how long the messages took to
            arrive (live); none for a mere heartbeat.
    """

    epoch: str
    bseq: int
    sent_at_ns: int
    market_ns: int
    ops: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Decidable:
    """A closed bar with its features.

    Args:
        bar: The bar.
        row: Its features.
        gap: Whether a declared gap touches one of the last three bars.
        market_ns: Market time of the record that closed it.
        decided: Whether the lake held a decision on it when the symbol began: it was read again.
        derived: What else follows from it: indicators, roll-ups, statistics; JSON types.
    """

    bar: ClosedBar
    row: FeatureRow
    gap: bool
    market_ns: int
    decided: bool = False
    derived: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """Why it must not be decided on."""
        if self.gap:
            return "gap"
        return None if self.row.warm else "warming_up"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a symbol without state begins.

    Args:
        window: State of a :class:`FeatureBuilder` over history.
        starts: Starts of the last bars in it, ns; the newest last.
        decided_ns: Start of the last bar that the lake holds a decision on.
        known_ns: Wall time of that decision: bars up to ``decided_ns`` in records sent before it
            are read again, and decided already.
        derived: State of a :class:`~pipelines.streaming.derived.Derived` over history.
    """

    window: bytes = b""
    starts: tuple[int, ...] = ()
    decided_ns: int = 0
    known_ns: int = 0
    derived: Sequence[Any] = ()


StartOf = Callable[[int], Start]
"""Gives the start of a symbol whose history has to end at a market time."""


def op_of_trade(ns: int, price: float, size: float, conditions: Iterable[str]) -> list[Any]:
    """The operation of a trade.

    >>> op_of_trade(7, 1.5, 10, ["@", "I"])
    ['t', 7, 1.5, 10, False]
    """
    return ["t", ns, price, size, _VOLUME_ONLY.isdisjoint(conditions)]
