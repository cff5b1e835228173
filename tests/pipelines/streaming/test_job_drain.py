"""Draining waits for revisions that are due, no longer than it may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.processes import free_port
from pipelines.errors import LakeError, StreamError
from pipelines.lake.writer import LakeWriter
from pipelines.ports import KinesisConfig
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.outbox import Outbox
from pipelines.streaming.session import SparkConfig


class Due:
    """Revisions of which so many passes are left."""

    def __init__(self, passes: int, *, broken: bool = False) -> None:
        self.left, self.broken = passes, broken

    def settle(self, *, stopped: Callable[[], bool]) -> bool:
        if self.broken:
            raise LakeError("away")
        while self.left and not stopped():
            self.left -= 1
        return not self.left


def job_with(tmp_path: Path, due: Due | None) -> StreamingJob:
    now = iter(range(1000))  # each look at the clock is a second
    config = StreamingConfig(
        SparkConfig(), KinesisConfig(), lake_uri=str(tmp_path), checkpoint_uri=str(tmp_path / "c")
    )
    job = StreamingJob(config, monotonic=lambda: float(next(now)))
    job._revisions = due
    return job


@pytest.mark.parametrize(
    ("due", "drained", "left"),
    [(None, True, 0), (Due(3), True, 0), (Due(50), False, 41), (Due(1, broken=True), False, 1)],
)
def test_drain_is_done_when_no_revision_is_due(tmp_path, due, drained, left):
    assert job_with(tmp_path, due).drain(10.0) is drained
    assert (due.left if due else 0) == left


def test_stop_ends_what_is_still_being_published_to_a_stream_that_is_away(tmp_path):
    kinesis = KinesisConfig(
        endpoint_url=f"http://127.0.0.1:{free_port()}", access_key="k", secret_key="s"
    )
    config = StreamingConfig(
        SparkConfig(), kinesis, lake_uri=str(tmp_path), checkpoint_uri=str(tmp_path / "c")
    )
    job = StreamingJob(config)
    sink = job._sink(config)
    job._outbox = Outbox(LakeWriter(config.lake_uri), sink)
    forming = job._outbox._pool.submit(sink.put_items, [{"id": "x", "symbol": "SPY"}])
    job.stop()
    with pytest.raises(StreamError, match="before the end"):
        forming.result(30)
    assert job._outbox._pool._shutdown
