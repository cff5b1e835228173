"""One run of the archive on ``local[2]``, to be killed: see ``test_archive_kills``.

``archive_job.py FOLDER CONFIG``; with ``drain`` in the configuration it stores what there is,
writes its counters to ``FOLDER/stats.json``, and ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.lake.tables import ARCHIVE_STATE
from pipelines.lake.writer import LakeWriter
from pipelines.ports import KinesisConfig
from pipelines.streaming import session
from pipelines.streaming.archive import Archive
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.session import SparkConfig
from tests.pipelines.kinesis.deadly import deadly_source, dying


def deadly_lake(die: Any) -> None:
    """Let the lake's commits and the end of a batch be places to die at."""
    commit, process = LakeWriter.commit, Archive.process

    def commit_or_die(self: LakeWriter, name: str, *args: Any, **kwargs: Any) -> bool:
        state = name == ARCHIVE_STATE.name
        die("before the state" if state else "before a table")
        done = commit(self, name, *args, **kwargs)
        die("after the state" if state else "after a table")
        return done

    def process_or_die(self: Archive, frame: Any, batch_id: int) -> None:
        process(self, frame, batch_id)
        die("sink")

    LakeWriter.commit, Archive.process = commit_or_die, process_or_die  # type: ignore[method-assign]


def main() -> None:
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    file, group = str(folder / "die"), os.getpgid(0)
    session.KinesisDataSource = deadly_source(file, group)  # type: ignore[misc]
    deadly_lake(dying(file, group))
    job = StreamingJob(
        StreamingConfig(
            spark=SparkConfig(
                master="local[2]", app_name="archive-kills", driver_memory="512m", ui_port=None
            ),
            kinesis=KinesisConfig(**given["kinesis"]),
            lake_uri=str(folder / "lake"),
            checkpoint_uri=str(folder / "checkpoints"),
            archive_trigger_s=0.1,
            archive_max_bytes=64_000,
            signals=False,
            maintenance_every_s=given["maintenance_every_s"],
        )
    )
    job.start()
    if given["drain"]:
        drained = job.drain(120)
        (folder / "stats.json").write_text(json.dumps({"drained": drained, **job.stats()}))
        job.stop()
    else:
        job.wait()


if __name__ == "__main__":
    main()
