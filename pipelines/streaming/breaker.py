"""A circuit breaker: who failed some times in a row is left alone for a while. Pure.

``closed``     asked as usual
``open``       not asked: the pause is not over
``half_open``  the pause is over: one request is let through, and what becomes of it decides
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts failures in a row. One thread uses it.

    Args:
        failures: So many in a row open it.
        pause_s: How long it stays open.
        monotonic: Monotonic clock, seconds.

    >>> now = [0.0]
    >>> breaker = Breaker(failures=2, pause_s=5.0, monotonic=lambda: now[0])
    >>> for _ in range(3):
    ...     if breaker.allows():
    ...         breaker.failed()
    >>> breaker.state, breaker.counters
    ('open', {'asked': 2, 'failed': 2, 'refused': 1, 'opened': 1})
    >>> now[0] = 5.0
    >>> breaker.state, breaker.allows()
    ('half_open', True)
    >>> breaker.succeeded()
    >>> breaker.state
    'closed'
    """

    def __init__(
        self, *, failures: int, pause_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._in_a_row = 0
        self._until_s = 0.0
        self.counters = {"asked": 0, "failed": 0, "refused": 0, "opened": 0}

    @property
    def state(self) -> State:
        """What it is now."""
        if self._in_a_row < self._failures:
            return "closed"
        return "open" if self._monotonic() < self._until_s else "half_open"

    def allows(self) -> bool:
        """Whether to ask; say then how it went."""
        allowed = self.state != "open"
        self.counters["asked" if allowed else "refused"] += 1
        return allowed

    def succeeded(self) -> None:
        """The request that was allowed was answered: all is well."""
        self._in_a_row = 0

    def failed(self) -> None:
        """It was not; in the half-open state that opens it at once."""
        self.counters["failed"] += 1
        self._in_a_row += 1
        if self._in_a_row >= self._failures:
            self.counters["opened"] += 1
            self._until_s = self._monotonic() + self._pause_s

    def report(self) -> dict[str, Any]:
        """State and counters, JSON types."""
        return {"state": self.state, **self.counters}
