"""The embedded Kinesis keeps what it was given."""

import socket
import struct
from urllib.parse import urlsplit

import boto3
import psutil

from cluster import local_aws
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


def test_kinesis_outlives_a_client_that_is_killed_in_the_middle_of_a_request(
    kinesis: KinesisConfig,
) -> None:
    port = urlsplit(kinesis.endpoint_url or "").port
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = (
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
            )
            client.sendall(head)
            assert client.recv(1000).startswith(b"HTTP/1.1 100")  # the request has begun
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    local_aws.ensure_streams(kinesis, shards=2)


def test_kinesis_listens_on_loopback_only(kinesis: KinesisConfig) -> None:
    port = urlsplit(kinesis.endpoint_url or "").port
    addresses = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert addresses == {"127.0.0.1"}
