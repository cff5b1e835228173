"""The same lake on S3, played by moto."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from cluster import processes
from pipelines.errors import Fenced
from pipelines.lake import archive_state
from pipelines.lake.files import write_files
from pipelines.lake.maintenance import Limits, Maintenance
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, str]]:
    # A process of its own: delta-rs holds the interpreter's lock while it uploads.
    port = processes.free_port()
    child = processes.start(
        "aws",
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
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
    processes.stop(child, run_dir=tmp_path / "run")


def test_lake_on_an_object_store_keeps_the_laws(options, bars):
    uri = "s3://lake/tape"
    writer = LakeWriter(uri, options)
    old = writer.open_query("q", tables=["bars"])
    files = write_files(
        uri, TABLES["bars"], pa.concat_tables([bars("SPY", 30), bars("KO", 31, day=4)]),
        storage_options=options,
    )  # fmt: skip
    batch = {"query_id": "q", "batch_id": 0}
    assert writer.commit("bars", files, **batch, generation=old)
    assert not writer.commit("bars", files, **batch, generation=old)
    assert writer.read_batch("bars", "q", 0).num_rows == 2
    new = writer.open_query("q", tables=["bars"])
    with pytest.raises(Fenced):
        writer.commit("bars", bars("SPY", 31), query_id="q", batch_id=1, generation=old)
    assert writer.commit("bars", bars("SPY", 31), query_id="q", batch_id=1, generation=new)
    query = LakeQuery(uri, options)
    answer = query.sql("SELECT symbol, count(*) n FROM bars GROUP BY symbol ORDER BY symbol")
    assert answer.to_pylist() == [{"symbol": "KO", "n": 1}, {"symbol": "SPY", "n": 2}]
    keeper = Maintenance(writer, Limits(many_files=1, retention_h=0))
    keeper.open()
    keeper.run()
    assert writer.commit("bars", bars("SPY", 32), query_id="q", batch_id=2, generation=new)
    keeper.run()
    assert keeper.stats()["skipped"] == 0
    assert keeper.stats()["vacuumed_files"] >= 2
    assert query.dataset("bars").count_rows() == 4
    assert archive_state.load(query) == archive_state.ArchiveState()
