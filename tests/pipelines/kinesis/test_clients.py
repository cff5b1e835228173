"""A role is assumed through STS, its credentials are renewed, nothing secret is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipelines.kinesis.clients import Role, client_of
from pipelines.kinesis.options import SourceOptions
from pipelines.kinesis.service import list_shards

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


def test_role_never_shows_its_external_id() -> None:
    assert "hush" not in repr(Role(ROLE, external_id="hush"))
