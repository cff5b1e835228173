"""How often a shard may be read: the service allows five reads a second to all its readers. Pure.

Each read is charged, the driver's as well as those that executors will make, and no batch is begun
while a shard is in debt. So over any time no more is read than the rate allows, plus the few reads
that were saved up before.
"""

from __future__ import annotations

_SAVED_S = 1.0
_SLACK = 0.1  # of a read: a trigger may come a little early without losing its turn


class ReadBudget:
    """The reads of one query, by shard.

    Args:
        reads_per_s: Reads of one shard per second; ``None`` for no limit.

    >>> budget = ReadBudget(2.0)
    >>> budget.charge("a", 3, now_s=0.0)
    >>> budget.wait_s("a", now_s=0.0), budget.wait_s("b", now_s=0.0)
    (0.95, 0.0)
    >>> budget.wait_s("a", now_s=1.0)
    0.0
    """

    def __init__(self, reads_per_s: float | None) -> None:
        self._rate = reads_per_s
        self._most = max(1.0, (reads_per_s or 0) * _SAVED_S)
        self._left: dict[str, tuple[float, float]] = {}

    def charge(self, shard: str, reads: int, *, now_s: float) -> None:
        """Take note of reads of a shard."""
        if self._rate is not None:
            self._left[shard] = (self._tokens(shard, now_s) - reads, now_s)

    def wait_s(self, shard: str, *, now_s: float) -> float:
        """How long until the shard may be read; 0 for now."""
        if self._rate is None:
            return 0.0
        missing = 1.0 - _SLACK - self._tokens(shard, now_s)
        return missing / self._rate if missing > 1e-9 else 0.0

    def _tokens(self, shard: str, now_s: float) -> float:
        left, at_s = self._left.get(shard, (self._most, now_s))
        return min(self._most, left + (now_s - at_s) * (self._rate or 0))
