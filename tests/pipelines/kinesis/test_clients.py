"""A role is assumed through STS, its credentials are renewed, nothing secret is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from pipelines.kinesis.clients import Role, _parse_records, client_of
from pipelines.kinesis.options import SourceOptions
from pipelines.kinesis.service import list_shards
from pipelines.ports import KinesisConfig

ROLE = "arn:aws:iam::123456789012:role/reader"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """An embedded AWS with STS and Kinesis; its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_client_with_a_role_reads_with_its_credentials_and_renews_them(aws: str) -> None:
    boto3.client(
        "kinesis", region_name="us-east-1", endpoint_url=aws,
        aws_access_key_id="k", aws_secret_access_key="s",
    ).create_stream(StreamName="s", ShardCount=1)  # fmt: skip
    options = SourceOptions.parse(
        {
            "streamName": "s", "endpointUrl": aws, "stsEndpointUrl": aws, "accessKey": "k",
            "secretKey": "s", "roleArn": ROLE, "roleSessionName": "ticks", "roleExternalId": "x1",
        }
    )  # fmt: skip
    client = client_of.__wrapped__(options.kinesis, options.role)
    assert len(list_shards(client, "s")) == 1
    credentials = client._request_signer._credentials
    first = credentials.get_frozen_credentials()
    assert first.access_key not in {"k", None}
    assert first.token
    # As if the hour were over.
    past = datetime.now(UTC) - timedelta(seconds=1)
    credentials._expiry_time = past
    for answer in credentials._refresh_using.__self__._cache.values():
        answer["Credentials"]["Expiration"] = past.isoformat()
    assert len(list_shards(client, "s")) == 1
    second = credentials.get_frozen_credentials()
    assert second.access_key != first.access_key
    client.close()


def test_records_are_parsed_as_botocore_parses_them(aws: str) -> None:
    config = KinesisConfig(endpoint_url=aws, access_key="k", secret_key="s")
    ours = client_of.__wrapped__(config)
    theirs = boto3.client("kinesis", **config.client_kwargs())
    ours.create_stream(StreamName="parsed", ShardCount=1)
    data = [b"", b"\x00\xff", "µ".encode(), b"x" * 10_000]
    for n, one in enumerate(data):
        ours.put_record(StreamName="parsed", PartitionKey=f"µ{n}", Data=one)
    shard = ours.list_shards(StreamName="parsed")["Shards"][0]["ShardId"]

    def answer(client: Any, limit: int) -> dict[str, Any]:
        place = ours.get_shard_iterator(
            StreamName="parsed", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )
        got: dict[str, Any] = client.get_records(ShardIterator=place["ShardIterator"], Limit=limit)
        got.pop("ResponseMetadata")
        assert got.pop("NextShardIterator")
        return got

    for limit in (1, 100):
        assert answer(ours, limit) == answer(theirs, limit)
    records = answer(ours, 100)["Records"]
    assert [record["Data"] for record in records] == data
    # By whom: botocore's zone is the machine's.
    assert all(record["ApproximateArrivalTimestamp"].tzinfo is UTC for record in records)
    with pytest.raises(ClientError) as refused:
        ours.get_records(ShardIterator="nonsense")
    assert refused.value.response["Error"]["Code"]
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b'{"Records": [{}]}',
        b"[]",
        b'{"Records": 3}',
        b'{"Records": [{"Data": "", "ApproximateArrivalTimestamp": 1e30}]}',
    ],
)
def test_answer_that_is_not_understood_is_left_to_botocore(body: bytes) -> None:
    answer, parsed = {"status_code": 200, "body": body}, dict[str, Any]()
    _parse_records(answer, parsed)
    assert (answer["body"], parsed) == (body, {})


def test_role_never_shows_its_external_id() -> None:
    assert "hush" not in repr(Role(ROLE, external_id="hush"))
