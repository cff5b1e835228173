"""What every benchmark suite gives back: rows of measured values beside their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Say = Callable[[str], None]
"""Tells the user what is being done."""


@dataclass
class Samples:
    """Latencies in milliseconds."""

    values: list[float] = field(default_factory=list)

    def at(self, quantile: float) -> float:
        ordered = sorted(self.values)
        return (
            ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
            if ordered
            else float("nan")
        )


@dataclass(frozen=True)
class Row:
    """One line of the table; without a target it is a baseline or a fact."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target
