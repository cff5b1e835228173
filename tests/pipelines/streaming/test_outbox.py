"""The outbox rule: decide once, commit, publish what the lake holds."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.errors import Fenced, LakeError, StreamError
from pipelines.events import MINUTE_NS, SECOND_NS, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.features.spec import FEATURE_SPEC
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.outbox import Batch, Outbox
from pipelines.streaming.parts import Decidable
from pipelines.streaming.signals import payload_of
from pipelines.streaming.warmup import decided_in
from tests.chaos.ledger import counted

T0 = parse_time_ns("2011-01-03T14:30:00Z")
QUERY = "5c6f"


class Sink:
    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.broken = False

    def put_items(self, items) -> None:
        if self.broken:
            raise StreamError("down")
        self.items += orjson.loads(orjson.dumps(items))


class Policy:
    """A batch of the query: bars of two minutes, and an opinion that changes with each asking."""

    def __init__(self) -> None:
        self.asked = 0
        self.decided = False  # what the fold says of its first bars
        self.first_ns = T0
        self.close = 2.0

    def run(self, ask: bool) -> list[dict[str, Any]]:
        self.asked += ask
        rows = []
        for symbol in ("SPY", "QQQ"):
            builder = FeatureBuilder()
            for minute in range(2):
                at, close = self.first_ns + minute * MINUTE_NS, self.close - minute
                bar = ClosedBar(at, 1, 2, 1, close, 10, 3, 1.5, 0.7)
                closed = Decidable(
                    bar,
                    builder.update(bar),
                    minute == 1,
                    self.first_ns + 2 * MINUTE_NS,
                    self.decided and minute == 0,
                )
                payload = payload_of(symbol, closed)
                signal = {
                    "symbol": symbol, "action": "BUY", "action_id": 1, "confidence": 0.5,
                    "probabilities": [0.2, 0.5, 0.3], "value": float(self.asked),
                    "q_values": None, "position_fraction": 0.0, "cash_fraction": 1.0,
                    "model": {"id": "ppo-1", "version": 3, "fingerprint": "f"},
                    "event_time": payload["event_time"],
                    "decided_at": "2026-01-01T00:00:00.5Z", "data_age_ms": 12.5, "reason": None,
                }  # fmt: skip
                rows.append(
                    {
                        "symbol": symbol,
                        "payload": orjson.dumps(payload).decode(),
                        "signal": orjson.dumps(signal).decode()
                        if ask and not closed.decided
                        else None,
                    }
                )
        counters = {"symbol": "SPY", "counters": {"late_bars": 2}}
        rows.append({"symbol": "SPY", "payload": orjson.dumps(counters).decode(), "signal": None})
        return rows


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def new_outbox(tmp_path: Path, sink: Sink):
    made = []
    seconds = itertools.count(T0 + 1_000, SECOND_NS)

    def make(to: Sink = sink) -> Outbox:
        outbox = Outbox(LakeWriter(str(tmp_path)), to, clock=lambda: next(seconds))
        outbox.open()
        made.append(outbox)
        return outbox

    yield make
    for outbox in made:
        outbox.close()


@pytest.fixture
def killed_before(new_outbox, policy: Policy, monkeypatch: pytest.MonkeyPatch):
    """Lets a driver die in its first batch, before that is committed to a table."""
    whole = LakeWriter.commit

    def die(missing: str, run: Batch = policy.run, query_id: str = QUERY) -> None:
        def commit(self, name, *args, **kwargs):
            if name == missing:
                raise OSError("killed")
            return whole(self, name, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(LakeWriter, "commit", commit)
            with pytest.raises(OSError, match="killed"):
                new_outbox().take(run, query_id=query_id, batch_id=0)

    return die


@pytest.fixture
def killed_publishing(new_outbox, policy: Policy, sink: Sink):
    """Lets a driver die in its first batch, which is committed and not published."""

    def die(query_id: str = QUERY) -> None:
        sink.broken = True
        with pytest.raises(StreamError):
            new_outbox().take(policy.run, query_id=query_id, batch_id=0)
        sink.broken = False

    return die


def lake(tmp_path: Path, sql: str) -> list[dict[str, Any]]:
    return LakeQuery(str(tmp_path)).sql(sql).to_pylist()


def test_take_commits_and_publishes_each_bar_with_features_and_signal(
    new_outbox, policy, sink, tmp_path
):
    outbox = new_outbox()
    outbox.take(policy.run, query_id=QUERY, batch_id=0)
    spy = [item for item in sink.items if item["symbol"] == "SPY"]
    assert [(i["kind"], i["event_time"][11:16]) for i in spy] == [
        ("bar", "14:30"), ("features", "14:30"), ("signal", "14:30"),
        ("bar", "14:31"), ("features", "14:31"), ("signal", "14:31"),
    ]  # fmt: skip
    bar, features, signal = spy[:3]
    assert bar["id"] == "bar:SPY:2011-01-03T14:30:00Z:0"
    assert bar["data"] == {
        "open": 1.0, "high": 2.0, "low": 1.0, "close": 2.0, "volume": 10.0, "trade_count": 3,
        "vwap": 1.5, "source": "vendor",
    }  # fmt: skip
    assert features["data"] == {
        "values": {**dict.fromkeys(FEATURE_SPEC.names), "spread_bps": 0.7},
        "fingerprint": FEATURE_SPEC.fingerprint, "warm": False, "spread_assumed": False,
        "gap": False, "indicators": None,
    }  # fmt: skip
    assert signal["id"] == "signal:SPY:2011-01-03T14:30:00Z:0:ppo-1:3"
    assert signal["data"] == orjson.loads(policy.run(True)[0]["signal"]) | {"value": 1.0}
    assert lake(tmp_path, "SELECT count(*) AS n, count(DISTINCT symbol) AS s FROM signals") == [
        {"n": 4, "s": 2}
    ]
    stats = outbox.stats()
    assert (stats["bars"], stats["signals"], stats["late_bars"]) == (4, 4, 2)
    assert stats["last_event_time"] == "2011-01-03T14:31:00Z"


def _derived(minute: int) -> dict[str, Any]:
    """What the fold says beside a bar."""
    rolled = {
        "event_time": "2011-01-03T14:30:00Z", "revision": 0,
        "bar": {"close": 2.0, "window": "5m"},
    }  # fmt: skip
    stats = {
        "count": 3, "min": 1.0, "max": 2.0, "mean": 1.5, "variance": 0.25, "std": 0.5,
        "session": "2011-01-03T05:00:00Z",
    }  # fmt: skip
    return {
        "indicators": {"sma_5": 1.0 + minute},
        "rollups": [rolled] if minute else [],
        "stats": stats,
    }


def test_take_publishes_and_stores_what_follows_from_the_bars(new_outbox, sink, tmp_path):
    def run(ask: bool) -> list[dict[str, Any]]:
        rows = Policy().run(ask)
        for i, row in enumerate(rows[:4]):
            payload = orjson.loads(row["payload"]) | _derived(i % 2)
            row["payload"] = orjson.dumps(payload).decode()
        idle = {"symbol": "SPY", "rollups": _derived(1)["rollups"]}
        return [*rows, {"symbol": "SPY", "payload": orjson.dumps(idle).decode(), "signal": None}]

    outbox = new_outbox()
    outbox.take(run, query_id=QUERY, batch_id=0)
    found = {item["id"]: item["data"] for item in sink.items}
    assert found["features:QQQ:2011-01-03T14:31:00Z:0"]["indicators"] == {"sma_5": 2.0}
    assert found["bar:QQQ:2011-01-03T14:30:00Z:0:5m"] == {"close": 2.0, "window": "5m"}
    assert found["bar:QQQ:2011-01-03T14:30:00Z:0"]["source"] == "vendor"  # of the minute
    assert found["stats:SPY:2011-01-03T14:31:00Z:0"]["std"] == 0.5
    assert outbox.stats()["rollups"] == 3
    rows = lake(tmp_path, "SELECT symbol, span, count, std, payload FROM stats ORDER BY ALL")
    assert [row["symbol"] for row in rows] == ["QQQ", "QQQ", "SPY", "SPY"]
    assert rows[0] | {"symbol": ""} == {
        "symbol": "", "span": "session", "count": 3, "std": 0.5,
        "payload": '{"session":"2011-01-03T05:00:00Z"}',
    }  # fmt: skip
    first = list(sink.items)
    new_outbox().take(run, query_id=QUERY, batch_id=0)
    assert sink.items == first * 2
    assert lake(tmp_path, "SELECT count(*) AS n FROM stats") == [{"n": 4}]


def _strange(ask: bool) -> list[dict[str, Any]]:
    """A batch with an anomaly in its second bar of SPY."""
    rows = Policy().run(ask)
    payload = orjson.loads(rows[1]["payload"])
    payload["anomalies"] = [
        {
            "kind": "volume_spike", "severity": "warning", "score": 2.0, "value": 6.0,
            "threshold": 3.0, "reason": "volume is 6.0 times the average", "detector": "rule",
        }
    ]  # fmt: skip
    rows[1]["payload"] = orjson.dumps(payload).decode()
    return rows


def test_take_stores_and_publishes_an_anomaly_once_whatever_is_replayed(new_outbox, sink, tmp_path):
    outbox = new_outbox()
    outbox.take(_strange, query_id=QUERY, batch_id=0)
    assert sink.items[-1] == {
        "id": "anomaly:SPY:2011-01-03T14:31:00Z:0:volume_spike", "kind": "anomaly",
        "symbol": "SPY", "event_time": "2011-01-03T14:31:00Z", "revision": 0,
        "data": {
            "kind": "volume_spike", "severity": "warning", "score": 2.0, "value": 6.0,
            "threshold": 3.0, "reason": "volume is 6.0 times the average", "detector": "rule",
            "gap": True,
        },
    }  # fmt: skip
    assert outbox.stats()["anomalies"] == 1
    first = list(sink.items)
    new_outbox().take(_strange, query_id=QUERY, batch_id=0)
    assert sink.items == first * 2
    assert lake(tmp_path, "SELECT count(*) AS n FROM anomalies") == [{"n": 1}]


def test_take_after_a_crash_before_the_anomalies_makes_up_for_them(
    new_outbox, killed_before, sink, tmp_path
):
    killed_before("anomalies", _strange)
    assert "anomaly" not in {item["kind"] for item in sink.items}
    new_outbox().take(_strange, query_id=QUERY, batch_id=0)
    assert [item["kind"] for item in sink.items].count("anomaly") == 1
    assert lake(tmp_path, "SELECT symbol, type FROM anomalies") == [
        {"symbol": "SPY", "type": "volume_spike"}
    ]


def test_take_shows_the_worst_circuit_and_counts_what_was_asked(new_outbox):
    def run(ask: bool) -> list[dict[str, Any]]:
        said = [
            {"policy": state, "counters": {"policy_asked": 1, "policy_failed": state == "open"}}
            for state in ("closed", "open", "half_open")
        ]
        return [
            {"symbol": "", "payload": orjson.dumps(one).decode(), "signal": None} for one in said
        ]

    outbox = new_outbox()
    outbox.take(run, query_id=QUERY, batch_id=0)
    stats = outbox.stats()
    assert (stats["policy"], stats["policy_asked"], stats["policy_failed"]) == ("open", 3, 1)


def test_take_without_bars_publishes_roll_ups_that_closed_by_time(new_outbox, sink):
    idle = {"symbol": "SPY", "rollups": _derived(1)["rollups"]}
    row = {"symbol": "SPY", "payload": orjson.dumps(idle).decode(), "signal": None}
    new_outbox().take(lambda ask: [row], query_id=QUERY, batch_id=0)
    assert [item["id"] for item in sink.items] == ["bar:SPY:2011-01-03T14:30:00Z:0:5m"]


def test_take_publishes_forming_bars_and_drops_them_while_the_last_are_on_their_way(new_outbox):
    forming = {
        "event_time": "2011-01-03T14:30:00Z", "at_ns": 7, "bar": {"close": 2.0},
        "values": dict.fromkeys(FEATURE_SPEC.names, 0.5),
    }  # fmt: skip
    payload = orjson.dumps({"symbol": "SPY", "provisional": forming}).decode()
    rows = [{"symbol": "SPY", "payload": payload, "signal": None}]
    free, said = threading.Event(), []

    class Slow(Sink):
        def put_items(self, items) -> None:
            free.wait(10)
            said.extend(items)

    outbox = new_outbox(Slow())
    for batch in range(3):
        outbox.take(lambda ask: rows, query_id=QUERY, batch_id=batch)
    free.set()
    stats = outbox.stats()
    assert (stats["provisional"], stats["provisional_dropped"]) == (1, 2)
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.001)
    (item,) = said
    assert item["id"] == "provisional:SPY:2011-01-03T14:30:00Z:0:7"
    assert item["data"]["provisional"] is True
    assert item["data"]["generation"] == 1
    assert item["data"]["values"]["spread_bps"] == 0.5


def test_take_of_a_held_batch_publishes_the_same_and_asks_nobody(new_outbox, policy, sink):
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    first = list(sink.items)
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    assert policy.asked == 1
    assert sink.items == first * 2


def test_take_after_the_stream_failed_publishes_what_the_lake_holds(
    new_outbox, killed_publishing, policy, sink, tmp_path
):
    killed_publishing()
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    assert policy.asked == 1
    assert len(sink.items) == 12
    assert lake(tmp_path, "SELECT count(*) AS n FROM features") == [{"n": 4}]


@pytest.mark.parametrize("missing", ["features", "signals"])
def test_take_after_a_crash_between_the_tables_completes_them(
    new_outbox, killed_before, policy, sink, tmp_path, missing
):
    killed_before(missing)
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    assert policy.asked == 2
    for table in ("features", "signals"):
        assert lake(tmp_path, f"SELECT count(*) AS n FROM {table}") == [{"n": 4}]
    published = [i["data"]["value"] for i in sink.items if i["kind"] == "signal"]
    assert published == [policy.asked] * 4


@pytest.mark.parametrize("missing", ["features", "signals"])
def test_take_from_a_new_checkpoint_after_a_crash_between_the_tables_has_each_bar_once(
    new_outbox, killed_before, policy, sink, tmp_path, missing
):
    killed_before(missing)
    assert decided_in(LakeQuery(str(tmp_path))) == {}
    new_outbox().take(policy.run, query_id="another", batch_id=0)
    for table in ("features", "signals"):
        assert lake(tmp_path, f"SELECT count(*) AS n FROM {table}") == [{"n": 4}]
    assert len(sink.items) == 12


def test_take_of_bars_some_of_which_have_features_already_publishes_all(
    new_outbox, killed_before, killed_publishing, policy, sink, tmp_path
):
    killed_before("signals", lambda ask: policy.run(ask)[:1])  # features of one bar of four
    killed_publishing("second")
    for table in ("features", "signals"):
        assert lake(tmp_path, f"SELECT count(*) AS n FROM {table}") == [{"n": 4}]
    decided = [row["payload"] for row in lake(tmp_path, "SELECT payload FROM signals")]

    def published() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in sink.items:
            found.setdefault(one["kind"], []).append(orjson.dumps(one["data"]).decode())
        sink.items.clear()
        return found

    # With its checkpoint, and without.
    new_outbox().take(policy.run, query_id="second", batch_id=0)
    first = published()
    new_outbox().take(lambda _: [], query_id="third", batch_id=0)
    for items in (first, published()):
        assert sorted(items["signal"]) == sorted(decided)
        assert len(items["features"]) == len(items["bar"]) == 4


@pytest.mark.parametrize("dies_before", ["publication", "stats"])
def test_take_of_bars_all_of_which_have_features_already_leaves_one_row_of_each(
    new_outbox, killed_before, killed_publishing, policy, sink, tmp_path, dies_before
):
    killed_before("signals")
    if dies_before == "stats":
        killed_before("stats", query_id="second")
    else:
        killed_publishing("second")
    sink.items.clear()
    new_outbox().take(policy.run, query_id="second", batch_id=0)
    for table in ("features", "signals"):
        assert lake(tmp_path, f"SELECT count(*) AS n FROM {table}") == [{"n": 4}]
    assert len(sink.items) == 12


def test_take_of_an_earlier_day_after_a_crash_between_the_tables_has_each_bar_once(
    new_outbox, killed_before, policy, tmp_path
):
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    policy.first_ns -= 60 * MINUTE_NS
    killed_before("signals", query_id="second")
    new_outbox().take(policy.run, query_id="third", batch_id=0)
    for table in ("features", "signals"):
        assert lake(tmp_path, f"SELECT count(*) AS n FROM {table}") == [{"n": 8}]


def test_take_of_a_day_that_is_played_again_publishes_the_newest_alone(new_outbox, policy, sink):
    outbox = new_outbox()
    outbox.take(policy.run, query_id=QUERY, batch_id=0)
    policy.close = 1.75
    outbox.take(policy.run, query_id=QUERY, batch_id=1)
    sink.items.clear()
    new_outbox().take(lambda _: [], query_id=QUERY, batch_id=2)
    kinds = [item["kind"] for item in sink.items]
    assert sorted(kinds) == sorted(4 * ["bar", "features", "signal"])
    assert {i["data"]["close"] for i in sink.items if i["kind"] == "bar"} == {1.75, 0.75}


def test_take_of_bars_again_whose_features_waited_stores_and_publishes_the_new_ones(
    new_outbox, killed_before, policy, sink, tmp_path
):
    killed_before("signals")
    outbox = new_outbox()
    outbox.take(policy.run, query_id=QUERY, batch_id=0)
    sink.items.clear()
    policy.close = 1.75
    outbox.take(policy.run, query_id=QUERY, batch_id=1)
    assert lake(tmp_path, "SELECT count(*) AS n FROM features") == [{"n": 8}]
    assert {i["data"]["close"] for i in sink.items if i["kind"] == "bar"} == {1.75, 0.75}


def test_take_from_a_new_checkpoint_publishes_what_the_last_driver_did_not(
    new_outbox, killed_publishing, sink, tmp_path
):
    killed_publishing()
    again = new_outbox()
    for batch_id in range(2):
        again.take(lambda _: [], query_id="another", batch_id=batch_id)
    kinds = [item["kind"] for item in sink.items]
    assert sorted(kinds) == sorted(4 * ["bar", "features", "signal"])
    assert lake(tmp_path, "SELECT count(*) AS n FROM signals") == [{"n": 4}]


def test_take_of_bars_decided_before_leaves_them_out(new_outbox, policy, sink):
    policy.decided = True
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    assert {i["event_time"][11:16] for i in sink.items} == {"14:31"}


def test_take_of_a_held_batch_whose_bars_now_count_as_decided_publishes_it(
    new_outbox, policy, sink
):
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    first = list(sink.items)
    policy.decided = True
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    assert sink.items == first * 2


def test_take_by_a_replaced_driver_is_fenced(new_outbox, policy, sink):
    old = new_outbox()
    new_outbox()
    with pytest.raises(Fenced):
        old.take(policy.run, query_id=QUERY, batch_id=0)
    assert sink.items == []


def test_take_of_a_batch_without_bars_writes_nothing(new_outbox, sink, tmp_path):
    new_outbox().take(lambda _: [], query_id=QUERY, batch_id=0)
    assert sink.items == []
    assert LakeWriter(str(tmp_path)).last_batch("signals", QUERY) is None


def test_decided_in_names_the_last_bar_of_each_symbol(new_outbox, policy, tmp_path):
    assert decided_in(LakeQuery(str(tmp_path))) == {}
    new_outbox().take(policy.run, query_id=QUERY, batch_id=0)
    (known,) = lake(tmp_path, "SELECT max(epoch_us(known_at)) * 1000 AS ns FROM signals")
    assert decided_in(LakeQuery(str(tmp_path))) == dict.fromkeys(
        ("SPY", "QQQ"), (T0 + MINUTE_NS, known["ns"])
    )


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.parametrize("fault", [{"every": 2, "after": True}, {"every": 1}], ids=["lost", "all"])
def test_take_on_a_store_that_fails_publishes_only_what_the_lake_holds(
    policy, sink, faulty_store, object_store, fault, request, record_property
):
    uri, (options, faults) = f"s3://lake/outbox-{request.node.callspec.id}", faulty_store

    def opened() -> Outbox:
        outbox = Outbox(LakeWriter(uri, options, sleep=lambda _: None), sink)
        outbox.open()
        return outbox

    first = opened()
    for _ in range(2):  # as Spark tries a batch again after a restart
        faults(**fault)
        with contextlib.suppress(LakeError):
            first.take(policy.run, query_id=QUERY, batch_id=0)
        faults(every=0, after=False)
        first.close()
        first = opened()
    first.take(policy.run, query_id=QUERY, batch_id=0)
    first.close()
    held = LakeQuery(uri, object_store).sql("SELECT symbol, event_time_ns, value FROM signals")
    wanted = [(symbol, T0 + n * MINUTE_NS) for symbol in ("SPY", "QQQ") for n in range(2)]
    found = zip(held["symbol"].to_pylist(), held["event_time_ns"].to_pylist(), strict=True)
    record_property("ledger", counted(wanted, found))
    assert held.num_rows == 4
    (value,) = set(held["value"].to_pylist())  # of one asking
    published = {item["data"]["value"] for item in sink.items if item["kind"] == "signal"}
    assert published == {value}
