from __future__ import annotations

from typing import Any

import pytest

from serve.readiness import SILENT_S, readiness

RUNNING: dict[str, Any] = {
    "market": {"finished": False}, "feed": {"streams": {"market-data": "streaming"}},
    "producer": {"state": "streaming", "error": None},
    "streaming": {"state": "running", "error": None},
}  # fmt: skip


def reasons(change: dict[str, Any], *, synced: bool = True, age_s: float | None = 0.1) -> list[str]:
    return readiness({**RUNNING, **change}, synced=synced, age_s=age_s)["reasons"]


def test_platform_whose_parts_all_run_is_ready() -> None:
    answer = readiness(RUNNING, synced=True, age_s=0.0)
    assert (answer["status"], answer["reasons"]) == ("ok", [])
    assert answer["parts"] == {
        "feed": "streaming", "streams": {"market-data": "streaming"}, "producer": "streaming",
        "streaming": "running", "alarms": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"producer": None}, "producer: no answer"),
        ({"producer": {"state": "failed", "error": "bad key"}}, "producer: failed (bad key)"),
        ({"producer": {"state": "paused"}}, "producer: paused"),
        ({"producer": {"state": "backing_off"}}, "producer: backing_off"),
        ({"streaming": {"state": None, "error": None}}, "streaming: no answer"),
        ({"streaming": {"state": "failed", "error": "lake"}}, "streaming: failed (lake)"),
        ({"streaming": {"state": "starting"}}, "streaming: starting"),
        ({"feed": {"streams": {"market-data": "failed"}}}, "feed: market-data failed"),
        ({"feed": {"streams": {}}}, "feed: reads no stream"),
    ],
)
def test_part_that_does_not_run_is_the_reason(change: dict[str, Any], reason: str) -> None:
    assert reasons(change) == [reason]


def test_feed_that_is_lost_or_silent_is_the_reason_whatever_it_said_last() -> None:
    assert reasons({}, synced=False) == ["feed: does not answer"]
    assert reasons({}, age_s=SILENT_S + 1) == ["feed: has told nothing of the platform for 11 s"]
    assert reasons({}, age_s=None) == ["feed: has told nothing of the platform yet"]


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        ("streaming", True),
        ("backing_off", True),
        ("stopped", True),
        ("failed", False),
        (None, False),
    ],
)
def test_market_that_is_finished_needs_no_stream_but_a_producer(state: Any, ready: bool) -> None:
    change = {"market": {"finished": True}, "producer": state and {"state": state}}
    assert (reasons(change) == []) == ready


def test_part_that_only_starts_is_told_apart_from_one_that_failed() -> None:
    starting = {**RUNNING, "producer": {"state": "connecting"}}
    failed = {**RUNNING, "producer": {"state": "failed"}}
    assert readiness(starting, synced=True, age_s=0)["status"] == "starting"
    assert readiness(failed, synced=True, age_s=0)["status"] == "unavailable"


def test_alarm_of_the_producer_is_told_and_makes_nothing_unready() -> None:
    alarm = {"name": "spilling", "since_ns": 1, "detail": "messages wait on disk"}
    producer = {**RUNNING["producer"], "alarms": [alarm]}
    answer = readiness({**RUNNING, "producer": producer}, synced=True, age_s=1.0)
    assert answer["status"] == "ok"
    assert answer["parts"]["alarms"] == ["spilling: messages wait on disk"]
