"""The ledger and the alerts in a real lake, over losses, crashes and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.alerts import Alarm, Alert
from pipelines.errors import Fenced, LakeError, StreamError
from pipelines.events import SECOND_NS, parse_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.alerts import alert_table
from pipelines.streaming.outbox import new_stats
from pipelines.streaming.rows import anomalies_table
from pipelines.streaming.watch import Watch

START_NS = 1_700_000_000 * SECOND_NS


class World:
    """The parts that are watched, and the clock."""

    def __init__(self, uri: Path) -> None:
        self.uri = str(uri)
        self.now_s = 0.0
        self.archive = {"stored": 0, "duplicates": 0, "quarantined": 0, "holes": 0, "gaps": 0}
        self.signals = new_stats()
        self.producer: dict[str, Any] | None = self.streaming(0)
        self.items: list[dict[str, Any]] = []
        self.down = False

    @staticmethod
    def streaming(sent: int, **more: Any) -> dict[str, Any]:
        return {"state": "streaming", "received": sent, "acked": sent, "gaps": 0, **more}

    def put_items(self, items: Any) -> None:
        if self.down:
            raise StreamError("down")
        self.items += items

    def watch(self) -> Watch:
        watch = Watch(
            LakeWriter(self.uri),
            lambda: {"archive": self.archive, "signals": self.signals},
            producer=lambda: self.producer,
            sink=self,
            ledger_every_s=60,
            clock=lambda: START_NS + int(self.now_s * SECOND_NS),
            monotonic=lambda: self.now_s,
        )
        watch.open()
        return watch

    def go(self, watch: Watch, seconds: int, *, every: int = 5) -> None:
        for _ in range(0, seconds, every):
            self.now_s += every
            watch.step()

    def sql(self, text: str) -> list[dict[str, Any]]:
        return LakeQuery(self.uri).sql(text).to_pylist()

    def alerts(self) -> list[tuple[str, float, float | None]]:
        """Name, beginning and end of each, seconds since the start."""
        sql = """SELECT name, epoch(began_at) AS began, epoch(ended_at) AS ended
                 FROM alerts_current ORDER BY began_at, name"""
        start = START_NS / SECOND_NS
        return [
            (r["name"], r["began"] - start, None if r["ended"] is None else r["ended"] - start)
            for r in self.sql(sql)
        ]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "lake")
    yield world
    twice = "SELECT alert_id FROM alerts GROUP BY alert_id, ended_at IS NULL HAVING count(*) > 1"
    assert world.sql(twice) == []
    ids = [item["id"] for item in world.items]
    told = {row["alert_id"] for row in world.sql("SELECT DISTINCT alert_id FROM alerts")}
    assert {item["data"]["id"] for item in world.items} <= told, "told before it was stored"
    assert world.down or len(set(ids)) == len(world.sql("SELECT 1 FROM alerts"))


def test_ledger_is_written_per_stage_each_minute_and_balances(world: World) -> None:
    watch = world.watch()
    world.producer, world.archive["stored"] = world.streaming(20), 15
    world.go(watch, 5)
    watch.step(stopped=lambda: True)
    world.archive |= {"stored": 18, "quarantined": 2}
    world.go(watch, 60)
    watch.finish()
    rows = world.sql("""
        SELECT stage, received, stored, quarantined, in_flight, imbalance FROM ledger
        ORDER BY event_time, received DESC, stage""")
    assert [r["stage"] for r in rows[:4]] == ["producer", "stream", "archive", "signals"]
    assert len(rows) == 12
    assert all(
        r["received"] == r["stored"] + r["quarantined"] + r["in_flight"] + r["imbalance"]
        for r in rows
    )
    last = {r["stage"]: r for r in rows[-4:]}
    assert last["stream"] | {"stage": ""} == {
        "stage": "", "received": 20, "stored": 18, "quarantined": 2, "in_flight": 0, "imbalance": 0,
    }  # fmt: skip


def test_message_that_is_lost_shows_as_an_imbalance_and_as_an_alert(world: World) -> None:
    watch = world.watch()
    world.producer, world.archive["stored"] = world.streaming(100), 99
    world.archive["holes"] = 0
    world.go(watch, 60)
    assert world.alerts() == []
    world.archive["holes"] = 1
    world.go(watch, 65)
    newest = "SELECT imbalance FROM ledger WHERE stage = 'stream' ORDER BY event_time DESC LIMIT 1"
    assert world.sql(newest) == [{"imbalance": 1}]
    assert watch.stats()["overdue"] == 1
    assert [(n, e) for n, _, e in world.alerts()] == [
        ("records_missing", None), ("stream_imbalance", None),
    ]  # fmt: skip
    world.archive["stored"] = 100  # it was found after all
    world.go(watch, 75)
    assert all(ended is not None for _, _, ended in world.alerts())


def test_loss_that_is_declared_ends_its_alert_and_the_next_one_is_another(world: World) -> None:
    def standing() -> list[str]:
        return [name for name, _, ended in world.alerts() if ended is None]

    watch = world.watch()
    world.producer, world.archive["stored"] = world.streaming(100), 95
    world.go(watch, 300)
    assert standing() == ["stream_imbalance"]  # nobody knows of what
    world.archive |= {"holes": 1, "gaps": 2}
    world.go(watch, 30)
    assert standing() == ["stream_imbalance", "records_missing"]
    world.go(watch, 60)
    assert standing() == []
    world.go(watch, 60)
    again = world.watch()
    world.go(again, 300)
    assert standing() == []
    world.producer = world.streaming(103)  # three more, of no record that is known to be lost
    world.go(again, 600)
    assert standing() == ["stream_imbalance"]
    assert [name for name, _, _ in world.alerts()].count("stream_imbalance") == 2
    found = "SELECT detail FROM alerts_current WHERE ended_at IS NULL"
    assert world.sql(found) == [{"detail": "stream: 3 messages are missing"}]


def test_alarm_of_the_producer_is_one_alert_over_a_kill_of_the_driver(world: World) -> None:
    alarm = {"name": "journal_full", "since_ns": START_NS + 2 * SECOND_NS, "detail": "1,024 MB"}
    world.producer = world.streaming(1, alarms=[alarm])
    world.go(world.watch(), 10)
    again = world.watch()
    world.go(again, 10)
    world.producer = world.streaming(1, alarms=[])
    world.go(again, 20)
    assert world.alerts() == [("journal_full", 2.0, 20.0), ("streaming_down", 5.0, 15.0)]
    assert again.stats()["alerts"] == []
    assert world.sql("SELECT severity, detail FROM alerts_current WHERE source = 'producer'") == [
        {"severity": "critical", "detail": "1,024 MB"}
    ]


def test_alert_that_stands_is_known_after_a_restart_however_many_newer_ones_ended(
    world: World,
) -> None:
    world.producer = world.streaming(1, state="failed", error="auth failed")
    world.go(world.watch(), 5)
    spike = Alarm("anomaly", "critical", "market", "price_spike", symbol="SPY")
    moments = [START_NS + (5_000 + n) * 1_000_000 for n in range(1_100)]
    ended = [Alert(f"anomaly:SPY:{ns}", spike, ns, ns) for ns in moments]
    writer = LakeWriter(world.uri)
    generation = writer.open_query("other", tables=("alerts",))
    writer.commit("alerts", alert_table(ended), query_id="other", batch_id=0, generation=generation)
    world.now_s, world.producer = 10, world.streaming(1)
    again = world.watch()
    assert [alert["name"] for alert in again.stats()["alerts"]] == ["producer_failed"]
    world.go(again, 20)
    found = "SELECT epoch(ended_at) AS ended FROM alerts_current WHERE name = 'producer_failed'"
    assert world.sql(found) == [{"ended": START_NS / SECOND_NS + 10}]
    world.items += [alert.to_item() for alert in ended]


def test_alerts_about_the_same_that_older_drivers_left_standing_end_but_for_the_newest(
    world: World,
) -> None:
    full = Alarm("journal_full", "critical", "producer", "1,024 MB")
    left = [Alert(f"journal_full@{n}", full, START_NS + n * SECOND_NS) for n in range(3)]
    writer = LakeWriter(world.uri)
    generation = writer.open_query("other", tables=("alerts",))
    writer.commit("alerts", alert_table(left), query_id="other", batch_id=0, generation=generation)
    alarm = {"name": "journal_full", "since_ns": START_NS, "detail": "1,024 MB"}
    world.now_s, world.producer = 10, world.streaming(1, alarms=[alarm])
    watch = world.watch()
    world.go(watch, 5)
    assert [alert["id"] for alert in watch.stats()["alerts"]] == ["journal_full@2"]
    assert world.alerts() == [
        ("journal_full", 0.0, 1.0), ("journal_full", 1.0, 2.0), ("journal_full", 2.0, None),
    ]  # fmt: skip


def test_watch_whose_lake_or_stream_is_away_tells_everything_later(world: World) -> None:
    watch = world.watch()
    world.go(watch, 5)
    world.down = True
    world.producer = world.streaming(1, state="failed", error="auth failed")
    commit = watch._writer.commit

    def refuse(*args: Any, **kwargs: Any) -> bool:
        raise LakeError("no room")

    watch._writer.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(LakeError):
        world.go(watch, 5)
    watch._writer.commit = commit  # type: ignore[method-assign]
    world.go(watch, 5)
    assert world.items == []
    world.down = False
    world.go(watch, 5)
    assert [i["data"]["name"] for i in world.items] == ["producer_failed"]
    assert world.alerts() == [("producer_failed", 10.0, None)]


def test_driver_that_was_down_is_told_of_by_the_next_one(world: World) -> None:
    world.go(world.watch(), 60)
    world.now_s = 400
    again = world.watch()
    world.go(again, 5)
    world.go(again, 5)
    assert world.alerts() == [("streaming_down", 5.0, 405.0)]


def test_driver_that_ended_in_order_is_no_alert(world: World) -> None:
    watch = world.watch()
    world.go(watch, 60)
    watch.finish()
    world.now_s = 4_000
    world.go(world.watch(), 5)
    assert world.alerts() == []


def test_watch_that_was_replaced_writes_nothing_more(world: World) -> None:
    first = world.watch()
    world.go(first, 5)
    second = world.watch()
    with pytest.raises(Fenced):
        first.finish()
    world.go(second, 5)


def test_silent_producer_is_an_alert_after_half_a_minute_and_not_before_it_was_there(
    world: World,
) -> None:
    world.producer = None
    watch = world.watch()
    world.go(watch, 60)
    assert world.alerts() == []
    world.producer = world.streaming(0)
    world.go(watch, 5)
    world.producer = None
    world.go(watch, 25)
    assert world.alerts() == []
    world.go(watch, 5)
    assert [name for name, _, _ in world.alerts()] == ["producer_silent"]


def test_alarms_of_a_producer_that_does_not_answer_stand_until_it_is_silent(world: World) -> None:
    alarm = {"name": "journal_full", "since_ns": START_NS, "detail": "1,024 MB"}
    world.producer = world.streaming(0, alarms=[alarm])
    watch = world.watch()
    world.go(watch, 5)
    world.producer = None
    world.go(watch, 25)
    world.producer = world.streaming(0, alarms=[alarm])
    world.go(watch, 5)
    assert world.alerts() == [("journal_full", 0.0, None)]
    world.producer = None
    world.go(watch, 45)
    assert [name for name, _, ended in world.alerts() if ended is None] == ["producer_silent"]
    world.producer = world.streaming(0, alarms=[alarm])
    world.go(watch, 20)
    assert world.alerts() == [
        ("journal_full", 0.0, 60.0), ("producer_silent", 65.0, 80.0), ("journal_full", 85.0, None),
    ]  # fmt: skip


def test_quarantine_lag_and_policy_are_alerts_while_they_last(world: World) -> None:
    watch = world.watch()
    world.producer = world.streaming(1_019)
    world.archive |= {"stored": 1_000, "quarantined": 19}
    world.go(watch, 60)
    assert world.alerts() == []
    world.archive |= {"stored": 2_000, "quarantined": 60, "lag": {"s": {"ms": 45_000}}}
    world.signals["policy"] = "open"
    world.producer = world.streaming(2_060)
    world.go(watch, 5)
    assert sorted(n for n, _, _ in world.alerts()) == [
        "archive_behind", "policy_unavailable", "quarantine_rate",
    ]  # fmt: skip
    world.archive["lag"] = {}
    world.signals["policy"] = "closed"
    world.go(watch, 80)
    assert watch.stats()["alerts"] == []


def test_critical_anomaly_is_an_alert_once_also_if_it_is_found_again(world: World) -> None:
    writer = LakeWriter(world.uri)
    generation = writer.open_query("signals", tables=("anomalies",))
    finding = {"kind": "price_spike", "score": 2.0, "value": 11.0, "threshold": 5.0,
               "reason": "11 % off", "detector": "rule"}  # fmt: skip
    bars = [
        {"symbol": "SPY", "event_time": "2011-01-03T14:30:00Z", "gap": False,
         "anomalies": [finding | {"severity": s}]}
        for s in ("warning", "critical")
    ]  # fmt: skip
    for batch in range(2):  # the second: a batch that was read again with a new checkpoint
        rows = anomalies_table(bars, known_ns=START_NS + batch * SECOND_NS)
        writer.commit("anomalies", rows, query_id="signals", batch_id=batch, generation=generation)
    watch = world.watch()
    world.go(watch, 5)
    world.signals["anomalies"] += 2
    world.go(watch, 5)
    world.go(world.watch(), 5)
    found = "SELECT symbol, name, detail, epoch_ns(market_time) AS ns FROM alerts"
    rows = world.sql(f"{found} WHERE source = 'market'")
    assert rows == [
        {"symbol": "SPY", "name": "anomaly", "detail": "price_spike: 11 % off",
         "ns": parse_time_ns("2011-01-03T14:30:00Z")}
    ]  # fmt: skip
