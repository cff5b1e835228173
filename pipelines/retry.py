"""Delays between attempts: one generator, shared by everything that tries again."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(
    *, first_s: float = 0.5, factor: float = 2.0, cap_s: float = 30.0, rng: random.Random
) -> Iterator[float]:
    """Yield back-off delays for ever: exponential, capped, with full jitter above half.

    Each delay is drawn from ``[d/2, d]`` where ``d`` grows from ``first_s`` by ``factor`` up to
    ``cap_s``, so that many clients that lost the same server do not return together.

    Args:
        first_s: Upper bound of the first delay, seconds.
        factor: Growth from one delay to the next.
        cap_s: Upper bound of every delay, seconds.
        rng: Source of the jitter.

    Yields:
        Seconds to wait before the next attempt.

    >>> gen = delays(first_s=1, cap_s=4, rng=random.Random(1))
    >>> [0.5 <= next(gen) <= 1, 1 <= next(gen) <= 2, 2 <= next(gen) <= 4, 2 <= next(gen) <= 4]
    [True, True, True, True]
    """
    bound_s = first_s
    while True:
        yield bound_s * (0.5 + rng.random() / 2)
        bound_s = min(bound_s * factor, cap_s)
