"""The query ``signals`` on Spark and the embedded Kinesis, from records to items and lake."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import boto3
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.codec import decode_items, encode_record
from pipelines.events import MINUTE_NS, Record, bucket_of, format_time_ns, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder, batch
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, FeatureSpec
from pipelines.lake.query import LakeQuery
from pipelines.ports import KinesisConfig
from pipelines.streaming import signals
from pipelines.streaming.anomalies import Watch
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.reduce import group_of
from pipelines.streaming.session import SparkConfig, close_session, open_session
from tests.running import until

pytestmark = pytest.mark.heavy

SPARK = SparkConfig(
    master="local[2]",
    app_name="signals-test",
    driver_memory="512m",
    ui_port=None,
    extra={
        "spark.sql.streaming.stateStore.minDeltasForSnapshot": "1",
        "spark.sql.streaming.stateStore.maintenanceInterval": "500ms",
    },
)
SYMBOLS = ("SPY", "TSLA")  # of one group, and two buckets
APART = ("SPY", "AAPL")  # of two groups, and of both parts where there are two
T0 = parse_time_ns("2011-01-03T14:30:00Z")
N_HISTORY, N_LIVE = 150, 12
LOUD = (3, 8)
_PART_OF = "SELECT pmod(hash(g), 2) FROM VALUES ({}), ({}) AS groups(g)"


class History:
    """Real closes of SPY; what the stream will bring follows on them."""

    def __init__(self, closes: list[float], volumes: list[float]) -> None:
        self.closes, self.volumes = closes, volumes

    def bar(self, minute: int) -> dict[str, Any]:
        i = minute + N_HISTORY
        c = self.closes[i]
        return {
            "o": c, "h": c, "l": c, "c": c, "v": self.volumes[i], "n": 3, "vw": c,
            "t": format_time_ns(T0 + minute * MINUTE_NS),
        }  # fmt: skip

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> list[dict[str, Any]]:
        last = min(0, (before_ns - T0) // MINUTE_NS)
        return [self.bar(m) for m in range(-N_HISTORY, last)][-limit:]


class Policy(BaseHTTPRequestHandler):
    """Answers with how often it was asked, so that a second opinion would show."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        Policy.asked += 1
        question = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answers = [
            {
                "symbol": symbol, "action": "BUY", "action_id": 1, "confidence": 0.5,
                "probabilities": [0.2, 0.5, 0.3], "value": float(Policy.asked), "q_values": None,
                "position_fraction": 0.0, "cash_fraction": 1.0,
                "model": {"id": "m", "version": 1, "fingerprint": FEATURE_SPEC.fingerprint},
                "event_time": bar["event_time"], "decided_at": "2026-01-01T00:00:00Z",
                "data_age_ms": 1.0, "reason": reason,
            }
            for symbol, bar, reason in zip(
                question["symbols"], question["bars"], question["reasons"], strict=True
            )
        ]  # fmt: skip
        body = orjson.dumps({"signals": answers})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def policy_url() -> Iterator[str]:
    Policy.asked = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Policy)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/signals/batch"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def history(shared_data: Path) -> History:
    table = pq.read_table(shared_data / "bars_1min_spy_2011_01.parquet")
    rows = table.slice(300, N_HISTORY + N_LIVE)
    volumes = [float(v) for v in rows["volume"].to_pylist()]
    for minute in LOUD:
        volumes[N_HISTORY + minute] = 8 * sum(volumes[N_HISTORY + minute - 19 :][:19]) / 19
    return History(rows["close"].to_pylist(), volumes)


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    yield open_session(SPARK)
    close_session(SPARK)


@pytest.fixture
def features() -> FeatureSpec:
    return FEATURE_SPEC


@pytest.fixture
def config(
    kinesis: KinesisConfig, tmp_path: Path, policy_url: str, history: History, features: FeatureSpec
) -> StreamingConfig:
    return StreamingConfig(
        spark=SPARK,
        kinesis=kinesis,
        lake_uri=str(tmp_path / "lake"),
        checkpoint_uri=str(tmp_path / "checkpoints"),
        symbols=SYMBOLS,
        signals_trigger_s=0.1,
        policy_url=policy_url,
        policy_deadline_s=10.0,
        history=history,
        features=features,
        archive=False,
    )


@pytest.fixture
def run(spark: SparkSession, config: StreamingConfig) -> Callable[..., dict[str, Any]]:
    """Starts the query as a new driver would, until it has taken all there is; its counters."""

    def go(
        config: StreamingConfig = config, *, look: Callable[[StreamingQuery], object] = id
    ) -> dict[str, Any]:
        outbox = signals.open_outbox(config)
        query = signals.start(spark, config, outbox)
        try:
            query.processAllAvailable()
            look(query)
        finally:
            query.stop()
            outbox.close()
        return outbox.stats()

    return go


def put(
    kinesis: KinesisConfig, history: History, minutes: range, symbols: tuple[str, ...] = SYMBOLS
) -> None:
    """A record for each minute and symbol, as a producer would send it right after the minute."""
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    for minute in minutes:
        end_ns = T0 + (minute + 1) * MINUTE_NS
        for symbol in symbols:
            quote = {
                "T": "q", "S": symbol, "bp": 99.99, "bs": 1, "ap": 100.01, "as": 1,
                "t": format_time_ns(end_ns - MINUTE_NS), "r": 1,
            }  # fmt: skip
            bar = {"T": "b", "S": symbol, **history.bar(minute), "r": 1}
            bucket = bucket_of(symbol)
            record = Record("run-1", bucket, minute + 1, end_ns, end_ns + 1, [quote, bar])
            client.put_record(
                StreamName=kinesis.market_data,
                Data=encode_record(record),
                PartitionKey=str(bucket),
            )


def published(kinesis: KinesisConfig) -> list[dict[str, Any]]:
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    items: list[dict[str, Any]] = []
    for shard in client.list_shards(StreamName=kinesis.market_signals)["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName=kinesis.market_signals,
            ShardId=shard["ShardId"],
            ShardIteratorType="TRIM_HORIZON",
        )["ShardIterator"]
        for record in client.get_records(ShardIterator=iterator, Limit=1000)["Records"]:
            items += decode_items(record["Data"])
    return items


def test_signals_over_a_restart_are_one_for_each_bar_and_equal_to_the_batched_features(
    config, kinesis, history, run
):
    half = N_LIVE // 2
    put(kinesis, history, range(half))
    assert run()["bars"] == half * len(SYMBOLS)
    # The driver dies after its last batch's commit to the lake, before Spark's own: it is replayed.
    commits = Path(config.checkpoint_uri) / signals.FOLDER / "commits"
    last = max(int(path.name) for path in commits.iterdir() if path.name.isdigit())
    for path in (commits / str(last), commits / f".{last}.crc"):
        path.unlink(missing_ok=True)
    asked = Policy.asked
    put(kinesis, history, range(half, N_LIVE))
    assert run()["last_event_time"] == history.bar(N_LIVE - 1)["t"]

    lake = LakeQuery(config.lake_uri)
    expected = batch(close=history.closes, volume=history.volumes, spread_bps=2.0)[N_HISTORY:]
    for symbol in SYMBOLS:
        rows = lake.sql(
            "SELECT * FROM features WHERE symbol = $s ORDER BY event_time", {"s": symbol}
        ).to_pylist()
        assert [r["event_time_ns"] for r in rows] == [T0 + m * MINUTE_NS for m in range(N_LIVE)]
        assert all(r["warm"] and not r["gap"] and not r["spread_assumed"] for r in rows)
        got = np.array([[r[name] for name in FEATURE_SPEC.names] for r in rows])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    in_lake = {
        (r["symbol"], format_time_ns(r["event_time_ns"])): orjson.loads(r["payload"])
        for r in lake.sql("SELECT * FROM signals").to_pylist()
    }
    assert len(in_lake) == N_LIVE * len(SYMBOLS)
    assert lake.sql("SELECT count(*) AS n FROM signals").to_pylist() == [{"n": len(in_lake)}]
    items = published(kinesis)
    by_id: dict[str, dict[str, Any]] = {}
    for item in items:
        assert by_id.setdefault(item["id"], item) == item  # a repeat says the same
    on_stream = {
        (i["symbol"], i["event_time"]): i["data"] for i in by_id.values() if i["kind"] == "signal"
    }
    assert len(items) > len(by_id)  # the replayed batch was published again
    assert on_stream == in_lake
    strange = {
        (i["symbol"], i["event_time"], i["data"]["kind"]): i["data"]["reason"]
        for i in by_id.values()
        if i["kind"] == "anomaly"
    }
    assert strange == _unusual(history)  # as without the restart
    kept = lake.sql("SELECT symbol, event_time_ns, type, reason FROM anomalies").to_pylist()
    assert len(kept) == len(strange)
    assert {
        (r["symbol"], format_time_ns(r["event_time_ns"]), r["type"]): r["reason"] for r in kept
    } == strange
    rolled = [i for i in by_id.values() if i["kind"] == "bar" and "window" in i["data"]]
    assert [i["data"]["window"] for i in rolled] == ["5m"] * 2 * len(SYMBOLS)
    assert len(by_id) == 4 * len(in_lake) + len(rolled) + len(strange)
    for symbol in SYMBOLS:
        ours = [i for i in by_id.values() if i["symbol"] == symbol and i not in rolled]
        for kind in ("bar", "features", "signal", "stats"):
            times = [i["event_time"] for i in ours if i["kind"] == kind]
            assert times == sorted(times)
    indicators = [i["data"]["indicators"] for i in by_id.values() if i["kind"] == "features"]
    assert all(found["sma_60"] is not None for found in indicators)  # warm from history
    assert Policy.asked > asked


def test_state_goes_into_snapshots_so_that_its_changes_need_not_be_kept_for_ever(
    spark, config, kinesis, history
):
    put(kinesis, history, range(2))
    outbox = signals.open_outbox(config)
    query = signals.start(spark, config, outbox)
    try:
        query.processAllAvailable()
        state = Path(config.checkpoint_uri) / signals.FOLDER / "state"
        until(lambda: any(state.rglob("*.zip")), timeout_s=60, what="a snapshot of the state")
    finally:
        query.stop()
        outbox.close()


def _unusual(history: History) -> dict[tuple[str, str, str], str]:
    """The anomalies of a history that nothing interrupts: why, by symbol, time and kind."""
    found = {}
    for symbol in SYMBOLS:
        builder = FeatureBuilder()
        watch = Watch(seed=zlib.crc32(symbol.encode()))
        for minute in range(-N_HISTORY, N_LIVE):
            bar = ClosedBar.from_message(history.bar(minute), spread_bps=2.0)
            if minute < 0:
                builder.push(bar)
                watch.push(bar)
                continue
            row = builder.update(bar)
            for finding in watch.update(bar, closes=builder.closes, row=row):
                found[symbol, bar.event_time, finding["kind"]] = finding["reason"]
    times = {format_time_ns(T0 + minute * MINUTE_NS) for minute in LOUD}
    assert {k[1] for k in found if k[2] == "volume_spike"} >= times
    return found


@pytest.mark.parametrize("features", [EXTENDED_SPEC], ids=["intraday-extended"])
def test_signals_from_a_new_checkpoint_decide_nothing_twice(
    config, kinesis, history, run, features
):
    put(kinesis, history, range(4))
    assert run()["bars"] == 4 * len(SYMBOLS)
    put(kinesis, history, range(4, 6))
    # Elsewhere, since Spark's maintenance of the state may still write after a query's stop.
    anew = replace(config, checkpoint_uri=config.checkpoint_uri + "-anew")
    assert run(anew)["bars"] == 2 * len(SYMBOLS)
    lake = LakeQuery(config.lake_uri)
    counted = lake.sql("SELECT count(*) AS n, count(DISTINCT event_time) AS m FROM signals")
    assert counted.to_pylist() == [{"n": 12, "m": 6}]
    rows = lake.sql("SELECT * FROM features WHERE symbol = 'TSLA' ORDER BY event_time").to_pylist()
    starts = [T0 + (i - N_HISTORY) * MINUTE_NS for i in range(len(history.closes))]
    expected = batch(
        close=history.closes, high=history.closes, low=history.closes, volume=history.volumes,
        start_ns=starts, spread_bps=2.0, spec=features,
    )[N_HISTORY:][:6]  # fmt: skip
    got = np.array([[row[name] for name in features.names] for row in rows])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert {row["fingerprint"] for row in rows} == {features.fingerprint}


@pytest.fixture
def set_parts(spark: SparkSession) -> Iterator[Callable[[int], None]]:
    """Sets the number of parts of a new state, as a driver with another setting would."""
    name = "spark.sql.shuffle.partitions"
    before = spark.conf.get(name)
    yield lambda parts: spark.conf.set(name, str(parts))
    spark.conf.set(name, before)


@pytest.mark.parametrize(("parts", "later"), [(2, 1), (1, 2)])
def test_signals_of_a_state_in_parts_are_one_for_each_bar_and_its_checkpoint_keeps_their_number(
    config, kinesis, history, spark, run, set_parts, capsys, parts, later
):
    config = replace(config, symbols=APART)
    groups = [row[0] for row in spark.sql(_PART_OF.format(*map(group_of, APART))).collect()]
    assert sorted(groups) == [0, 1]
    for chosen, minutes in ((parts, range(3)), (later, range(3, 6))):
        set_parts(chosen)
        put(kinesis, history, minutes, APART)
        assert run(config, look=lambda query: query.explain())["bars"] == 3 * len(APART)
        plan = capsys.readouterr().out
        assert ("Coalesce" in plan) == (chosen == 1)  # else one task would read all
        assert ("hashpartitioning" in plan) == (parts != 1 or chosen != 1)
    state = Path(config.checkpoint_uri) / signals.FOLDER / "state" / "0"
    assert {path.name for path in state.iterdir()} - {"_metadata"} == set(map(str, range(parts)))

    lake = LakeQuery(config.lake_uri)
    expected = batch(close=history.closes, volume=history.volumes, spread_bps=2.0)[N_HISTORY:][:6]
    for symbol in APART:
        rows = lake.sql(
            "SELECT * FROM features WHERE symbol = $s ORDER BY event_time", {"s": symbol}
        ).to_pylist()
        got = np.array([[row[name] for name in FEATURE_SPEC.names] for row in rows])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    decided = lake.sql("SELECT symbol, event_time_ns FROM signals").to_pylist()
    assert sorted((row["symbol"], row["event_time_ns"]) for row in decided) == sorted(
        (symbol, T0 + minute * MINUTE_NS) for symbol in APART for minute in range(6)
    )


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_start_removes_the_checkpoint_of_older_code_from_this_machine(config, tmp_path, scheme):
    old = tmp_path / "checkpoints" / "signals"
    old.mkdir(parents=True)
    uri = f"{scheme}{tmp_path / 'checkpoints'}"
    signals.start(MagicMock(), replace(config, checkpoint_uri=uri), MagicMock())
    assert not old.exists()


@pytest.mark.parametrize(
    ("every_s", "symbols", "expected_s"),
    [(1.0, 20, 1.0), (1.0, 1000, 5.0), (8.0, 1000, 8.0), (0.0, 1000, 0.0)],
)
def test_forming_bars_of_many_symbols_are_shown_less_often(
    kinesis: KinesisConfig, every_s: float, symbols: int, expected_s: float
) -> None:
    config = StreamingConfig(
        SPARK, kinesis, "lake", "checkpoints",
        symbols=tuple(f"S{n}" for n in range(symbols)), provisional_every_s=every_s,
    )  # fmt: skip
    assert signals.provisional_every_ns(config) == expected_s * 1e9
