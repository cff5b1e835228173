"""What the feed's gauges show."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_gauges_show_the_lag_of_each_query_and_shard_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Shown()
    monkeypatch.setattr(metrics, "Gauge", shown.gauge)
    places = ("received", "stored", "duplicates", "quarantined", "in_flight", "lost")
    metrics.FeedGauges().set(
        {
            "latency_ms": {"feed_p50": 3.0, "feed_p99": None},
            "ledger": dict.fromkeys(places),
            "archive": {"lag": {"shard-0": {"ms": 1200, "records": None}}},
            "signals": None,
        }
    )
    assert shown.values == {
        ("raytape_feed_lag_ms", "p50"): 3.0,
        ("raytape_stream_lag_ms", "archive", "shard-0"): 1200,
    }
