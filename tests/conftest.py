"""Fixtures that every test may use: the embedded Kinesis on a port of its own, real data."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, settings

from cluster import local_aws, processes
from pipelines.ports import KinesisConfig

# No example is judged by the clock: the machine may be busy with a platform beside it.
settings.register_profile("raytape", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raytape")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def kinesis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KinesisConfig]:
    """A kinesalite of this test session (LevelDB in a temporary folder)."""
    folder = tmp_path_factory.mktemp("kinesis")
    port = processes.free_port()
    child = local_aws.start_kinesis(
        port=port, path=folder / "db", run_dir=folder / "run", log_dir=folder / "log"
    )
    yield local_aws.embedded_kinesis(port)
    processes.stop(child, run_dir=folder / "run")


@pytest.fixture
def kinesis(kinesis_server: KinesisConfig) -> Iterator[KinesisConfig]:
    """Two fresh streams of this test (two shards for market data), deleted after it."""
    tag = uuid.uuid4().hex[:8]
    config = replace(
        kinesis_server, market_data=f"market-data-{tag}", market_signals=f"market-signals-{tag}"
    )
    local_aws.ensure_streams(config, shards=2)
    yield config
    client = boto3.client("kinesis", **config.client_kwargs())
    for name in (config.market_data, config.market_signals):
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):
            client.delete_stream(StreamName=name)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real market data beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real market data (../shared/data) is not beside this checkout")
    return SHARED_DATA
