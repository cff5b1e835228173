"""The embedded Kinesis keeps what it was given."""

import boto3

from pipelines.ports import KinesisConfig


def test_put_then_get_returns_the_record(kinesis: KinesisConfig) -> None:
    client = boto3.client("kinesis", **kinesis.client_kwargs())
    put = client.put_record(StreamName=kinesis.market_data, Data=b"x", PartitionKey="1")
    iterator = client.get_shard_iterator(
        StreamName=kinesis.market_data, ShardId=put["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = client.get_records(ShardIterator=iterator)["Records"]
    assert [r["Data"] for r in records] == [b"x"]
    client.close()
