"""How far a query is behind a shard's tip. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the end of the last batch lies behind the tip of one shard.

    Args:
        ms: By arrival, milliseconds; 0 at the tip.
        records: Records that lie between; 0 at the tip, elsewhere estimated from how fast they
            arrived lately (no call of Kinesis counts them), ``None`` while that is not known.
    """

    ms: int = 0
    records: int | None = 0

    def to_dict(self) -> dict[str, int | None]:
        """JSON form."""
        return {"ms": self.ms, "records": self.records}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast records arrive in a shard.

    Args:
        records_per_ms: Records per millisecond.
        bytes_per_ms: Their bytes per millisecond.
    """

    records_per_ms: float
    bytes_per_ms: float

    def lag(self, ms: int) -> Lag:
        """The lag of so much time.

        >>> Pace(0.5, 100.0).lag(3000)
        Lag(ms=3000, records=1500)
        """
        return Lag(ms, round(ms * self.records_per_ms))

    def blend(self, newer: Pace) -> Pace:
        """This pace moved half-way to a newer one, so that a single burst does not rule."""
        return Pace(
            (self.records_per_ms + newer.records_per_ms) / 2,
            (self.bytes_per_ms + newer.bytes_per_ms) / 2,
        )


def with_lag(offset: Mapping[str, Any], lags: Mapping[str, Lag]) -> dict[str, Any]:
    """What ``StreamingQueryProgress`` shows as the source's ``latestOffset``.

    Args:
        offset: The end of the newest batch, JSON form.
        lags: By shard.
    """
    return {**offset, "lag": {shard: lag.to_dict() for shard, lag in sorted(lags.items())}}


def lag_of(progress: Mapping[str, Any] | None) -> dict[str, dict[str, int | None]]:
    """The lag by shard in the JSON form of a query's progress; empty while none is known.

    >>> lag_of({"sources": [{"latestOffset": {"lag": {"a": {"ms": 0, "records": 0}}}}]})
    {'a': {'ms': 0, 'records': 0}}
    >>> lag_of(None)
    {}
    """
    sources = (progress or {}).get("sources") or [{}]
    found: dict[str, dict[str, int | None]] = (sources[0].get("latestOffset") or {}).get("lag", {})
    return found
