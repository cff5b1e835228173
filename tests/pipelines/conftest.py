"""An object store for the tests of the lake: moto's, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from cluster import processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Storage options of a store with the bucket ``lake``; each test takes a prefix of its own."""
    # A process of its own: delta-rs holds the interpreter's lock while it uploads.
    folder = tmp_path_factory.mktemp("aws")
    port = processes.free_port()
    child = processes.start(
        "aws",
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        run_dir=folder / "run",
        log_dir=folder / "log",
    )
    processes.wait_until(lambda: processes.port_in_use(port), name="aws", timeout_s=60, child=child)
    url = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    client.create_bucket(Bucket="lake")
    client.close()
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ALLOW_HTTP": "true",
        "aws_conditional_put": "etag",
    }
    processes.stop(child, run_dir=folder / "run")


@pytest.fixture
def faulty_store(
    object_store: dict[str, str], tmp_path: Path
) -> Iterator[tuple[dict[str, str], Callable[..., Any]]]:
    """The same store behind a proxy, and what sets its faults."""
    port = processes.free_port()
    script = str(ROOT / "tests" / "chaos" / "storage_proxy.py")
    child = processes.start(
        "proxy",
        [sys.executable, script, str(port), object_store["AWS_ENDPOINT_URL"]],
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
    )
    processes.wait_until(
        lambda: processes.port_in_use(port), name="proxy", timeout_s=30, child=child
    )
    url = f"http://127.0.0.1:{port}"

    def set_faults(**faults: Any) -> None:
        httpx.put(f"{url}/-/faults", json=faults).raise_for_status()

    quick = {"max_retries": "2", "backoff_config.init_backoff": "20ms", "retry_timeout": "5s"}
    yield object_store | {"AWS_ENDPOINT_URL": url} | quick, set_faults
    processes.stop(child, run_dir=tmp_path / "run")
