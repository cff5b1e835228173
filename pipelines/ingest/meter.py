"""What came from the feed, counted for people and metrics: rate, types, symbols, bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

RATE_WINDOW_S = 5.0
MAX_SERIES = 5_000
OTHER = "other"

Counts = dict[tuple[str, str], int]
"""Messages per (type, symbol)."""


def count(messages: Sequence[Any]) -> Counts:
    """How many messages of which type and symbol; what has neither is not counted.

    >>> count([{"T": "t", "S": "SPY"}, {"T": "t", "S": "SPY"}, {"T": "n", "symbols": []}, 7])
    {('t', 'SPY'): 2, ('n', ''): 1}
    """
    counts: Counts = {}
    for message in messages:
        try:
            key = (message["T"], message["S"])
            if type(key[0]) is not str or type(key[1]) is not str:
                continue
            counts[key] = counts.get(key, 0) + 1
        except (KeyError, TypeError):
            kind = message.get("T") if type(message) is dict else None
            if type(kind) is str:
                counts[kind, ""] = counts.get((kind, ""), 0) + 1
    return counts


class Meter:
    """Counts messages.

    Attributes:
        last_ns: Wall time of the last message.
        stalls: How often the socket was not read because the queue was full.
        n_bytes: Bytes of frames.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque()
        self._series: Counts = {}
        self.last_ns: int | None = None
        self.stalls = 0
        self.n_bytes = 0

    def add(self, counts: Mapping[tuple[str, str], int], *, now_s: float, received_ns: int) -> None:
        """Messages came."""
        self.last_ns = received_ns
        total = 0
        for key, n in counts.items():
            total += n
            if key not in self._series and len(self._series) >= MAX_SERIES:
                key = (str(key[0])[:8], OTHER)  # noqa: PLW2901 (a symbol too many for metrics)
            self._series[key] = self._series.get(key, 0) + n
        if self._recent and now_s - self._recent[-1][0] < 0.1:
            began_s, so_far = self._recent[-1]
            self._recent[-1] = (began_s, so_far + total)
        else:
            self._recent.append((now_s, total))
            while now_s - self._recent[0][0] > RATE_WINDOW_S:
                self._recent.popleft()

    def rate(self, now_s: float) -> float:
        """Messages per second of the last five seconds."""
        recent = [(at, n) for at, n in list(self._recent) if now_s - at <= RATE_WINDOW_S]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(1.0, now_s - recent[0][0])

    def series(self) -> Counts:
        """Messages per type and symbol, since the start."""
        return dict(self._series)

    def by_type(self) -> dict[str, int]:
        """Messages per type, since the start."""
        totals: dict[str, int] = {}
        for (kind, _), n in self.series().items():
            totals[kind] = totals.get(kind, 0) + n
        return totals
