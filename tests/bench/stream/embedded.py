"""An embedded Kinesis of a benchmark's own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import local_aws, processes
from pipelines.ports import KinesisConfig


@contextlib.contextmanager
def embedded(shards: int = 2) -> Iterator[tuple[Path, KinesisConfig]]:
    """A folder, and an embedded Kinesis that runs in it.

    Args:
        shards: Shards of ``market-data``.
    """
    folder = Path(tempfile.mkdtemp(prefix="raytape-bench-"))
    port = processes.free_port()
    child = local_aws.start_kinesis(
        port=port, path=folder / "db", run_dir=folder / "run", log_dir=folder / "log"
    )
    try:
        config = local_aws.embedded_kinesis(port)
        local_aws.ensure_streams(config, shards=shards)
        yield folder, config
    finally:
        processes.stop(child, run_dir=folder / "run")
        shutil.rmtree(folder, ignore_errors=True)
