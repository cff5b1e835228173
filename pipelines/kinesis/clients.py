"""Clients of Kinesis: which credentials, which role, which endpoint.

Credentials come from AWS's standard chain unless they are given. A role is assumed on top of them
and its credentials are renewed before they end, for as long as the client lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

from pipelines.ports import KinesisConfig


@dataclass(frozen=True, slots=True)
class Role:
    """A role to assume.

    Args:
        arn: Its ARN.
        session_name: Name of the session, seen in AWS's logs.
        external_id: What its owner asks for, if anything; never shown.
        sts_endpoint_url: Address of an embedded STS, or ``None`` for AWS.
    """

    arn: str
    session_name: str = "raytape"
    external_id: str | None = None
    sts_endpoint_url: str | None = None

    def __repr__(self) -> str:
        return f"Role(arn={self.arn!r}, session_name={self.session_name!r})"


def timestamps_work(config: KinesisConfig) -> bool:
    """Whether an iterator AT_TIMESTAMP may be asked for.

    Embedded Kinesis walks through all that it holds for one, and never answers if nothing is as
    new as that; the cursor then skips by arrival time itself.
    """
    return config.endpoint_url is None or ".amazonaws.com" in config.endpoint_url


@lru_cache(maxsize=8)
def client_of(config: KinesisConfig, role: Role | None = None) -> Any:
    """The Kinesis client of this process for a configuration (making one takes ~0.1 s)."""
    options = Config(
        retries={"total_max_attempts": 1},  # tried again by us, where the reason is known
        connect_timeout=3,
        read_timeout=15,
        max_pool_connections=32,
        tcp_keepalive=True,
    )
    arguments = config.client_kwargs()
    if role is None:
        return boto3.client("kinesis", config=options, **arguments)
    session = boto3.Session(botocore_session=_session_of(config, role))
    return session.client(
        "kinesis",
        config=options,
        region_name=config.region,
        endpoint_url=config.endpoint_url,
    )


def _session_of(config: KinesisConfig, role: Role) -> botocore.session.Session:
    """A session whose credentials are those of a role, renewed before they end."""
    source = botocore.session.get_session()
    if config.access_key and config.secret_key:
        source.set_credentials(config.access_key, config.secret_key)
    asked = {"RoleSessionName": role.session_name}
    if role.external_id:
        asked["ExternalId"] = role.external_id
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(
            source.create_client, region_name=config.region, endpoint_url=role.sts_endpoint_url
        ),
        source_credentials=source.get_credentials(),
        role_arn=role.arn,
        extra_args=asked,
    )
    assumed = botocore.session.get_session()
    assumed._credentials = DeferredRefreshableCredentials(  # type: ignore[attr-defined]
        method="assume-role", refresh_using=fetcher.fetch_credentials
    )
    return assumed
