"""The source behind a proxy that refuses, throttles, drops and counts; Spark is played.

FAULTS 18 to 21: whatever happens, every record comes once and in the order of its key, and the
query goes on within a bound.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import local_aws, processes
from pipelines.errors import DataLoss
from pipelines.kinesis.clients import client_of
from pipelines.kinesis.source import KinesisDataSource, source_options
from pipelines.ports import KinesisConfig
from tests.chaos.ledger import counted
from tests.chaos.proxy import Answer, Call, FaultProxy, proxied, refusal, refusing

TRIGGER_S = 0.05

Record = Callable[[str, object], None]


@pytest.fixture
def proxy(kinesis: KinesisConfig) -> Iterator[FaultProxy]:
    with proxied(kinesis) as made:
        yield made


class Played:
    """A query as Spark drives it: one trigger after the other, every batch read by a new copy.

    Args:
        config: Its stream.
        record: Takes the ledger, for the report of ``make chaos``.
        options: Options of the source.
    """

    def __init__(
        self, config: KinesisConfig, record: Record = lambda *_: None, **options: object
    ) -> None:
        self.record = record
        given = {"startingPosition": "TRIM_HORIZON", "readsPerSecond": 0} | options
        self.options = source_options(config, config.market_data, **given)
        self.rows: list[tuple[str, str]] = []
        self.restart()
        self.end = self.reader.initialOffset()
        self.batches = 0

    def restart(self) -> None:
        self.reader = KinesisDataSource(self.options).streamReader(None)

    def trigger(self) -> int:
        end = self.reader.latestOffset(self.end, self.reader.getDefaultReadLimit())
        found = 0
        if end != self.end:
            for part in self.reader.partitions(self.end, end):
                for batch in KinesisDataSource(self.options).streamReader(None).read(part):
                    rows = list(zip(batch["shard"], batch["data"], strict=True))
                    self.rows += [(shard.as_py(), data.as_py().decode()) for shard, data in rows]
                    found += len(rows)
            self.end = end
            self.batches += 1
        return found

    def until(self, count: int, *, timeout_s: float = 20) -> float:
        """Triggers until there are so many rows; how long it took, seconds."""
        begun = time.monotonic()
        while len(self.rows) < count:
            assert time.monotonic() < begun + timeout_s, f"{len(self.rows)} of {count} rows"
            if not self.trigger():
                time.sleep(TRIGGER_S)
        return time.monotonic() - begun

    def check(self, sent: list[str]) -> None:
        """The ledger: all of it, once, in order per key."""
        got = [text for _, text in self.rows]
        ledger = counted(sent, got)
        self.record("ledger", ledger)
        assert (ledger["lost"], ledger["twice"]) == (0, 0), str(ledger)
        for key in {_key(text) for text in got}:
            of_key = [text for text in got if _key(text) == key]
            assert of_key == sorted(of_key)


@pytest.fixture
def play(proxy: FaultProxy, record_property: Record) -> Iterator[Callable[..., Played]]:
    made: list[Played] = []

    def begin(**options: object) -> Played:
        made.append(Played(proxy.config, record_property, **options))
        return made[-1]

    yield begin
    for one in made:
        one.reader.stop()


def _key(text: str) -> str:
    return str(int(text[1:]) % 8)


@pytest.fixture
def put(kinesis: KinesisConfig) -> Callable[[int], list[str]]:
    """Puts so many records more; all that were put so far."""
    client, sent = client_of(kinesis), []

    def more(count: int) -> list[str]:
        texts = [f"m{n:06d}" for n in range(len(sent), len(sent) + count)]
        for text in texts:
            client.put_record(
                StreamName=kinesis.market_data, Data=text.encode(), PartitionKey=_key(text)
            )
        sent.extend(texts)
        return sent

    return more


@pytest.mark.chaos
@pytest.mark.parametrize("inline", [0, 900_000])
def test_source_whose_iterators_expire_again_and_again_reads_everything_once(
    proxy: FaultProxy, play: Callable[..., Played], put: Callable[[int], list[str]], inline: int
) -> None:
    rng = random.Random(7)
    query = play(inlineBytes=inline)

    def expire(call: Call) -> Answer | None:
        expired = call.operation == "GetRecords" and rng.random() < 0.3
        return refusal("ExpiredIteratorException") if expired else None

    proxy.faults = [expire]
    for _ in range(6):
        query.until(len(put(20)))
    query.check(put(0))
    assert proxy.count("GetShardIterator") > 6


@pytest.mark.chaos
def test_source_that_is_throttled_backs_off_as_one_and_reads_everything_once(
    proxy: FaultProxy, play: Callable[..., Played], put: Callable[[int], list[str]]
) -> None:
    rng = random.Random(8)
    query = play(inlineBytes=0)

    def throttle(call: Call) -> Answer | None:
        if call.operation in {"GetRecords", "GetShardIterator"} and rng.random() < 0.25:
            return refusal("ProvisionedThroughputExceededException")
        return None

    proxy.faults = [throttle]
    for _ in range(5):
        query.until(len(put(20)))
    query.check(put(0))


@pytest.mark.parametrize(
    "fault",
    [
        lambda call: refusal("InternalFailure", status=500),
        lambda call: refusal("ServiceUnavailable", status=503),
        lambda call: Answer(dropped=True),
        lambda call: Answer(dropped=True, passed_on=True),
    ],
    ids=["500", "503", "no-answer", "answer-lost"],
)
def test_source_whose_service_is_away_for_a_second_goes_on_when_it_is_back(
    proxy: FaultProxy,
    play: Callable[..., Played],
    put: Callable[[int], list[str]],
    fault: Callable[[Call], Answer],
) -> None:
    query = play()
    query.until(len(put(10)))
    back_at = time.monotonic() + 1.0
    proxy.faults = [lambda call: fault(call) if call.at_s < back_at else None]
    query.until(len(put(10)))
    query.check(put(0))


@pytest.mark.chaos
def test_source_with_one_shard_refused_goes_on_with_the_other_and_then_with_both(
    proxy: FaultProxy,
    play: Callable[..., Played],
    put: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.kinesis.planner._REQUEST_TIMEOUT_S", 0.2)
    query = play()
    sent = put(40)
    proxy.faults = [
        lambda call: (
            refusal("ProvisionedThroughputExceededException")
            if call.asked.get("ShardId") == "shardId-000000000000"
            else None
        )
    ]
    for _ in range(10):
        query.trigger()
    shards = {shard for shard, _ in query.rows}
    assert shards == {"shardId-000000000001"}
    proxy.faults = []
    query.until(len(sent))
    query.check(sent)


@pytest.mark.chaos
def test_source_with_an_idle_shard_gives_its_first_record_in_the_next_batch(
    play: Callable[..., Played], kinesis: KinesisConfig
) -> None:
    client, stream = client_of(kinesis), kinesis.market_data
    query = play()
    sent = [f"m{8 * turn:06d}" for turn in range(20)]  # one key: the other shard stays idle
    for text in sent:
        client.put_record(StreamName=stream, Data=text.encode(), PartitionKey="0")
        query.trigger()
    (busy,) = {shard for shard, _ in query.rows}
    quiet_hash = "0" if busy != "shardId-000000000000" else str(2**128 - 1)
    client.put_record(
        StreamName=stream, Data=b"m000001", PartitionKey="x", ExplicitHashKey=quiet_hash
    )
    assert query.trigger() == 1
    assert {shard for shard, _ in query.rows} != {busy}
    query.check([*sent, "m000001"])


@pytest.mark.chaos
def test_source_through_a_reshard_and_a_restart_under_faults_keeps_the_order_of_each_key(
    proxy: FaultProxy,
    play: Callable[..., Played],
    put: Callable[[int], list[str]],
    kinesis: KinesisConfig,
) -> None:
    client, stream = client_of(kinesis), kinesis.market_data
    query = play()
    query.until(len(put(20)))
    proxy.faults = [
        refusing("ListShards", "LimitExceededException", times=2),
        refusing("GetRecords", "ExpiredIteratorException", times=5),
    ]
    client.split_shard(
        StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
    )
    _active(client, stream)
    query.until(len(put(40)))
    query.reader.stop()
    client.merge_shards(  # while the job is down
        StreamName=stream,
        ShardToMerge="shardId-000000000003",
        AdjacentShardToMerge="shardId-000000000001",
    )
    _active(client, stream)
    sent = put(40)
    query.restart()
    query.until(len(sent))
    query.check(sent)


LONG = [pytest.mark.chaos, pytest.mark.long]


@pytest.mark.parametrize(
    "change", [pytest.param("split", marks=LONG), pytest.param("merge", marks=LONG), "both"]
)
def test_source_whose_stream_is_resharded_while_it_reads_keeps_the_order_of_each_key(
    play: Callable[..., Played],
    put: Callable[[int], list[str]],
    kinesis: KinesisConfig,
    change: str,
) -> None:
    client, stream = client_of(kinesis), kinesis.market_data
    query = play(maxRecordsPerBatch=7)  # never at the tip when it happens
    put(40)
    query.trigger()
    if change != "merge":
        client.split_shard(
            StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
        )
        _active(client, stream)
    put(20)
    query.trigger()
    if change != "split":
        left, right = ("000", "001") if change == "merge" else ("003", "001")
        client.merge_shards(
            StreamName=stream,
            ShardToMerge=f"shardId-000000000{left}",
            AdjacentShardToMerge=f"shardId-000000000{right}",
        )
        _active(client, stream)
    sent = put(40)
    query.until(len(sent))
    query.check(sent)


@pytest.mark.chaos
def test_source_down_for_longer_than_the_retention_stops_and_names_what_is_missing(
    tmp_path: Path, record_property: Record
) -> None:
    port = processes.free_port()
    child = local_aws.start_kinesis(
        port=port, path=tmp_path / "db", run_dir=tmp_path, log_dir=tmp_path,
        retention_s=1.0, trim_every_s=0.1,
    )  # fmt: skip
    try:
        config = local_aws.embedded_kinesis(port)
        local_aws.ensure_streams(config, shards=1)
        client, query = client_of(config), Played(config)

        def put(text: str) -> int:
            record = {"StreamName": config.market_data, "PartitionKey": "1", "Data": text.encode()}
            return int(client.put_record(**record)["SequenceNumber"])

        sent = [f"m{n:06d}" for n in range(5)]
        last_read = put(sent[0])
        query.until(1)
        query.reader.stop()
        missed = {put(text): text for text in sent[1:4]}
        processes.wait_until(
            lambda: _oldest(client, config.market_data) > sorted(missed)[1],
            name="the records expire", timeout_s=20, poll_s=0.05,
        )  # fmt: skip
        kept = put(sent[4])
        processes.wait_until(
            lambda: _oldest(client, config.market_data) == kept,
            name="all but the newest expire", timeout_s=20, poll_s=0.05,
        )  # fmt: skip
        oldest = _oldest(client, config.market_data)
        query.restart()
        with pytest.raises(DataLoss, match=f"from after:{last_read} to at:{oldest} are gone"):
            query.until(5)
        lenient = Played(config, failOnDataLoss="false")
        lenient.end = query.end
        lenient.until(1)
        assert lenient.rows[-1][1] in ("m000003", "m000004")
        assert kept >= oldest
        rows = [text for _, text in query.rows + lenient.rows]
        named = [text for sequence, text in missed.items() if last_read < sequence < oldest]
        record_property("ledger", counted(sent, rows, declared=named))
        for one in (query, lenient):
            one.reader.stop()
    finally:
        processes.stop(child, run_dir=tmp_path)


def _oldest(client: Any, stream: str) -> int:
    """Sequence number of the oldest record of a stream of one shard."""
    (shard,) = client.list_shards(StreamName=stream)["Shards"]
    found = client.get_shard_iterator(
        StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )
    records = client.get_records(ShardIterator=found["ShardIterator"], Limit=1)["Records"]
    return int(records[0]["SequenceNumber"])


def _active(client: Any, stream: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        summary = client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("trigger_s", "reads_per_s", "inline"),
    [(0.5, 2.0, 900_000), (0.1, 2.0, 0), (1.0, 0.5, 900_000)],
    ids=["signals", "busy-signals", "archive"],
)
def test_source_over_a_steady_stream_keeps_its_budget_of_reads_per_shard(
    proxy: FaultProxy,
    play: Callable[..., Played],
    put: Callable[[int], list[str]],
    trigger_s: float,
    reads_per_s: float,
    inline: int,
) -> None:
    query = play(readsPerSecond=reads_per_s, inlineBytes=inline)
    query.trigger()
    before, begun = proxy.count("GetRecords"), time.monotonic()
    while (lasted := time.monotonic() - begun) < 3:
        put(4)
        query.trigger()
        time.sleep(max(0.0, trigger_s - (time.monotonic() - begun - lasted)))
    per_shard = (proxy.count("GetRecords") - before) / 2
    assert per_shard <= (time.monotonic() - begun) * reads_per_s + 2
    query.until(len(put(0)))
    query.check(put(0))
