"""Alarms become alerts with one beginning and one end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipelines.alerts import Alarm, Alerts
from pipelines.events import SECOND_NS

NAMES = ("journal_full", "producer_failed", "archive_behind")


def alarm(name: str) -> Alarm:
    return Alarm(name, "warning", "producer", "why")


@given(st.lists(st.tuples(st.integers(1, 30), st.sets(st.sampled_from(NAMES))), max_size=60))
def test_alerts_of_one_name_never_overlap_and_each_begins_and_ends_once(steps) -> None:
    alerts, now_s, told = Alerts(calm_s=10), 1_000, []
    for later_s, names in steps:
        now_s += later_s
        told += alerts.update([alarm(n) for n in names], now_ns=now_s * SECOND_NS)
    told += alerts.update([], now_ns=(now_s + 60) * SECOND_NS)
    assert alerts.standing == []
    for name in NAMES:
        mine = [a for a in told if a.alarm.name == name]
        begun, ended = mine[::2], mine[1::2]
        assert [a.ended_ns is None for a in mine] == [True, False] * len(ended)
        assert [a.alert_id for a in begun] == [a.alert_id for a in ended]
        assert all(a.began_ns <= a.ended_ns for a in ended)
        assert all(a.ended_ns < b.began_ns for a, b in zip(ended, begun[1:], strict=False))


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=60))
def test_alarm_that_comes_again_with_its_old_beginning_is_an_alert_of_its_own(steps) -> None:
    alerts, now_s, told = Alerts(calm_s=10), 1_000, []
    full = replace(alarm("journal_full"), since_ns=900 * SECOND_NS)
    for later_s, on, restarted in steps:
        now_s += later_s
        if restarted:
            alerts, found = Alerts(calm_s=10), {alert.alert_id: alert for alert in told}
            alerts.restore(found.values(), now_ns=now_s * SECOND_NS)
        told += alerts.update([full] if on else [], now_ns=now_s * SECOND_NS)
    told += alerts.update([], now_ns=(now_s + 60) * SECOND_NS)
    begun, ended = told[::2], told[1::2]
    assert [a.alert_id for a in begun] == [a.alert_id for a in ended]
    assert len({a.alert_id for a in begun}) == len(begun)
    assert all(a.ended_ns < b.began_ns for a, b in zip(ended, begun[1:], strict=False))


def test_alert_is_told_again_by_nobody_after_it_was_restored() -> None:
    first = Alerts(calm_s=10)
    (begun,) = first.update([alarm("journal_full")], now_ns=SECOND_NS)
    second = Alerts(calm_s=10)
    second.restore([begun], now_ns=100 * SECOND_NS)
    assert second.update([alarm("journal_full")], now_ns=101 * SECOND_NS) == []
    (ended,) = second.update([], now_ns=111 * SECOND_NS)
    assert (ended.alert_id, ended.ended_ns) == (begun.alert_id, 101 * SECOND_NS)


def test_alert_begins_when_the_alarm_says_and_its_item_is_revised_at_its_end() -> None:
    alerts = Alerts(calm_s=1e-6)
    since = Alarm("full", "critical", "producer", "x", symbol="SPY", since_ns=5_000)
    (begun,) = alerts.update([since], now_ns=9_000)
    assert begun.began_ns == 5_000
    first, second = begun.to_item(), alerts.update([], now_ns=10_000)[0].to_item()
    assert (first["revision"], second["revision"]) == (0, 1)
    assert first["id"] != second["id"]
    assert first["data"]["id"] == second["data"]["id"] == "full:SPY@1970-01-01T00:00:00.000005Z"
    assert (first["data"]["ended_at"], second["data"]["ended_at"]) == (
        None, "1970-01-01T00:00:00.000009Z",
    )  # fmt: skip
