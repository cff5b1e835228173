"""Settings of the filling of gaps, as one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillConfig:
    """How gaps are filled.

    Args:
        delay_s: Wall time that must pass after a gap's end before its history is asked for.
        max_gap_s: A gap of more market time is not filled.
        chunk: Most messages that are handed on at once.
        interval_s: Wall time between two chunks.
        max_waiting: While more messages wait for the stream, none are handed on.
        retry_first_s: First delay after a request that failed.
        retry_cap_s: Longest delay.
        give_up_s: Wall time after which a gap that still fails is given up. (The free plan has the
            consolidated tape only 15 minutes later: until then its requests fail.)
        poll_s: Interval of looking for work.
    """

    delay_s: float = 5.0
    max_gap_s: float = 4 * 86_400.0
    chunk: int = 500
    interval_s: float = 0.1
    max_waiting: int = 10_000
    retry_first_s: float = 2.0
    retry_cap_s: float = 60.0
    give_up_s: float = 3600.0
    poll_s: float = 0.25
