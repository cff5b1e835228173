"""Which of several sources to use: the best that will have us. Pure.

Sources are numbered, best first. One that refuses us for good (its plan, its keys) is left at once,
one that keeps failing after a number of attempts; then the next one takes over. A better source is
asked again from time to time; as soon as it would have us, it is used again.
"""

from __future__ import annotations

from collections.abc import Sequence


class Failover:
    """Decides.

    Args:
        names: The sources, best first.
        after: Failed attempts in a row after which the next source takes over.

    >>> failover = Failover(["sip", "iex", "rest"], after=2)
    >>> failover.failed("plan", fatal=True), failover.name, failover.degraded
    (True, 'iex', 'sip: plan')
    >>> failover.failed("lost"), failover.failed("lost"), failover.name
    (False, True, 'rest')
    >>> failover.better
    (0, 1)
    >>> failover.back_to(0); failover.name, failover.degraded
    ('sip', None)
    """

    def __init__(self, names: Sequence[str], *, after: int) -> None:
        self._names = tuple(names)
        self._after = after
        self._fatal: dict[int, str] = {}
        self._why: dict[int, str] = {}
        self._failures = 0
        self.index = 0

    @property
    def name(self) -> str:
        """The source in use."""
        return self._names[self.index]

    @property
    def better(self) -> tuple[int, ...]:
        """Sources that would be preferred."""
        return tuple(range(self.index))

    @property
    def degraded(self) -> str | None:
        """Why the best source is not used, or ``None`` when it is."""
        if self.index == 0:
            return None
        return "; ".join(f"{self._names[i]}: {self._why.get(i, 'not used')}" for i in self.better)

    def failed(self, reason: str, *, fatal: bool = False) -> bool:
        """An attempt failed; whether another source is to be used now.

        A source that was refused for good is not gone back to by itself, except from
        :meth:`back_to` and :meth:`begin_again`.
        """
        self._why[self.index] = reason
        self._failures += 1
        if fatal:
            self._fatal[self.index] = reason
        elif self._failures < self._after:
            return False
        others = [*range(self.index + 1, len(self._names)), *range(self.index)]
        chosen = next((i for i in others if i not in self._fatal), None)
        if chosen is None:
            return False
        self.index, self._failures = chosen, 0
        return True

    @property
    def refused(self) -> bool:
        """Whether every source refuses us for good."""
        return len(self._fatal) == len(self._names)

    def streamed(self) -> None:
        """Data came from the source in use."""
        self._failures = 0

    def back_to(self, index: int) -> None:
        """A better source would have us."""
        self._fatal.pop(index, None)
        self.index, self._failures = index, 0

    def begin_again(self) -> None:
        """Someone asks to try again from the best."""
        self._fatal.clear()
        self.index, self._failures = 0, 0
