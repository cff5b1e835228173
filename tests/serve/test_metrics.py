"""What the feed's gauges show."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.streaming.outbox import new_stats
from serve import metrics


class Shown:
    """Gauges that remember what they were set to."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, ...], float] = {}

    def gauge(self, name: str, **_: Any) -> Any:
        shown = self

        class Gauge:
            def set(self, value: float, tags: dict[str, str]) -> None:
                shown.values[name, *tags.values()] = value

        return Gauge()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    found = Shown()
    monkeypatch.setattr(metrics, "Gauge", found.gauge)
    return found


def system(**parts: Any) -> dict[str, Any]:
    """What the feed says while nothing is known, and this besides."""
    places = ("received", "stored", "duplicates", "quarantined", "in_flight", "lost")
    unknown = {"feed_p50": None, "feed_p99": None}
    return {"latency_ms": unknown, "ledger": dict.fromkeys(places)} | parts


def test_gauges_show_the_lag_of_each_query_and_shard_as_far_as_it_is_known(shown: Shown) -> None:
    metrics.FeedGauges().set(
        system(
            latency_ms={"feed_p50": 3.0, "feed_p99": None},
            archive={"lag": {"shard-0": {"ms": 1200, "records": None}}},
            signals=None,
        )
    )
    assert shown.values == {
        ("raytape_feed_lag_ms", "p50"): 3.0,
        ("raytape_stream_lag_ms", "archive", "shard-0"): 1200,
    }


def test_gauges_show_what_came_late_by_kind(shown: Shown) -> None:
    metrics.FeedGauges().set(system(signals=new_stats() | {"late_trades": 3}))
    assert shown.values == {
        ("raytape_late_messages", "trades"): 3,
        ("raytape_late_messages", "bars"): 0,
    }
