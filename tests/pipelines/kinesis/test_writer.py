"""The writer against the embedded Kinesis."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import boto3
import pytest

from cluster.processes import free_port
from pipelines import codec
from pipelines.errors import StreamError
from pipelines.events import item
from pipelines.kinesis.writer import KinesisWriter
from pipelines.ports import Put, PutResult


@pytest.fixture
def client(kinesis):
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    yield client
    client.close()


def _read(client, stream):
    records = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records += client.get_records(ShardIterator=iterator)["Records"]
    return records


def test_put_tells_where_each_record_lies(kinesis, client):
    writer = KinesisWriter(kinesis, kinesis.market_data)
    results = writer.put([Put(key=str(n), data=b"x%d" % n) for n in range(20)])
    writer.close()
    assert all(result.error is None for result in results)
    stored = {
        record["SequenceNumber"]: record["Data"] for record in _read(client, kinesis.market_data)
    }
    assert [stored[result.sequence] for result in results] == [b"x%d" % n for n in range(20)]
    assert len({result.shard for result in results}) == 2


def test_put_without_an_answer_raises(kinesis):
    config = replace(kinesis, endpoint_url=f"http://127.0.0.1:{free_port()}")
    writer = KinesisWriter(config, kinesis.market_data)
    with pytest.raises(StreamError, match="cannot put"):
        writer.put([Put(key="1", data=b"x")])
    writer.close()


def test_put_to_a_missing_stream_raises(kinesis):
    writer = KinesisWriter(kinesis, "no-such-stream")
    with pytest.raises(StreamError, match="no-such-stream"):
        writer.put([Put(key="1", data=b"x")])
    writer.close()


def _items(n):
    return [
        item(
            "bar",
            symbol=("SPY", "AAPL")[i % 2],
            event_time=f"2024-07-05T{i // 60:02}:{i % 60:02}:00Z",
            data={"pad": "x" * 400},
        )
        for i in range(n)
    ]


def test_put_items_keeps_the_order_of_each_symbol(kinesis, client):
    writer = KinesisWriter(kinesis, kinesis.market_signals)
    items = _items(30)
    writer.put_items(items)
    writer.close()
    records = _read(client, kinesis.market_signals)
    read = [one for record in records for one in codec.decode_items(record["Data"])]
    for symbol in ("SPY", "AAPL"):
        assert [i for i in read if i["symbol"] == symbol] == [
            i for i in items if i["symbol"] == symbol
        ]


def test_put_items_refused_in_part_is_tried_until_all_is_stored(kinesis, monkeypatch):
    rng, stored = random.Random(2), []

    def flaky(records):
        if rng.random() < 0.3:
            raise StreamError("no answer")
        results = []
        for record in records:
            ok = rng.random() < 0.5
            stored.extend(codec.decode_items(record.data) if ok else [])
            results.append(PutResult(sequence="1") if ok else PutResult(error="Throttled"))
        return results

    monkeypatch.setattr("pipelines.kinesis.writer.MAX_ITEMS_BYTES", 2000)
    writer = KinesisWriter(kinesis, kinesis.market_signals, sleep=lambda _: None)
    monkeypatch.setattr(writer, "put", flaky)
    items = _items(60)
    writer.put_items(items)
    writer.close()
    for symbol in ("SPY", "AAPL"):
        assert [i for i in stored if i["symbol"] == symbol] == [
            i for i in items if i["symbol"] == symbol
        ]


def test_put_items_never_accepted_gives_up_in_time(kinesis, monkeypatch):
    writer = KinesisWriter(kinesis, kinesis.market_signals, sleep=lambda _: None)
    monkeypatch.setattr(
        writer, "put", lambda records: [PutResult(error="Throttled")] * len(records)
    )
    with pytest.raises(StreamError, match="Throttled"):
        writer.put_items(_items(2), timeout_s=0.05)
    writer.close()


def test_put_items_that_is_stopped_tries_no_more(kinesis, monkeypatch):
    stopped = threading.Event()
    writer = KinesisWriter(
        kinesis, kinesis.market_signals, sleep=lambda _: stopped.set(), stopped=stopped.is_set
    )
    asked: list[int] = []

    def refuse(records):
        asked.append(len(records))
        return [PutResult(error="Throttled")] * len(records)

    monkeypatch.setattr(writer, "put", refuse)
    with pytest.raises(StreamError, match="before the end"):
        writer.put_items(_items(2))
    assert len(asked) == 2
    writer.close()
