"""One run of the streaming job, to be killed: see :mod:`tests.chaos.killed_job`.

``streaming_job.py FOLDER CONFIG``; with ``drain`` in the configuration it processes what there is,
writes its counters to ``FOLDER/stats.json``, and ends. It dies where ``FOLDER/die`` says:

=========================================  =================================================
``latestOffset partitions read commit``    in the source (:mod:`tests.pipelines.kinesis.deadly`)
``sink``                                   after either query's batch, before its commit log
``before/after the state``                 the archive's one point of commit
``before/after a table``                   any other commit into the lake
``before/after the items``                 publishing on ``market-signals``
``shuffle``                                in a task: what was shuffled is read, not yet folded
``write``                                  in a task: a file of the lake is written, not named
``fold``                                   in a task: a symbol's state is updated, not committed
``state store``                            the JVM, while it commits the state
=========================================  =================================================

Only where the state has several parts is there a shuffle; with one, ``shuffle`` is before a fold.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.kinesis.writer import KinesisWriter
from pipelines.lake.tables import ARCHIVE_STATE
from pipelines.lake.writer import LakeWriter
from pipelines.ports import KinesisConfig
from pipelines.streaming import archive, session, signals
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.market_data import MarketDataSource
from pipelines.streaming.outbox import Outbox
from pipelines.streaming.session import SparkConfig
from tests.pipelines.kinesis.deadly import deadly_source, dying

Die = Callable[[str], None]


def deadly_driver(die: Die) -> None:
    """Let the lake's commits, publishing and the end of a batch be places to die at."""
    commit, process = LakeWriter.commit, archive.Archive.process
    put, take = KinesisWriter.put_items, Outbox.take

    def commit_or_die(self: LakeWriter, name: str, *args: Any, **kwargs: Any) -> bool:
        state = name == ARCHIVE_STATE.name
        die("before the state" if state else "before a table")
        done = commit(self, name, *args, **kwargs)
        die("after the state" if state else "after a table")
        return done

    def process_or_die(self: archive.Archive, frame: Any, batch_id: int) -> None:
        process(self, frame, batch_id)
        die("sink")

    def put_or_die(self: KinesisWriter, items: Any) -> None:
        die("before the items")
        put(self, items)
        die("after the items")

    def take_or_die(self: Outbox, *args: Any, **kwargs: Any) -> None:
        take(self, *args, **kwargs)
        die("sink")

    LakeWriter.commit = commit_or_die  # type: ignore[method-assign]
    archive.Archive.process = process_or_die  # type: ignore[method-assign]
    KinesisWriter.put_items = put_or_die  # type: ignore[method-assign]
    Outbox.take = take_or_die  # type: ignore[method-assign]


def deadly_tasks(die: Die, die_soon: Die) -> None:
    """Let the tasks of both queries be places to die at; they travel to workers by value."""
    fold, task = signals.Fold, archive.Task

    class Fold(fold):  # type: ignore[misc, valid-type]
        def __call__(self, group: Any, frames: Any, state: Any) -> Iterator[Any]:
            def read() -> Iterator[Any]:
                for frame in frames:
                    die("shuffle")
                    yield frame

            yield from super().__call__(group, read(), state)
            die("fold")
            die_soon("state store")

    class Task(task):  # type: ignore[misc, valid-type]
        def _write(self, parser: Any, files: Any, first: Any) -> None:
            before = len(files)
            task._write(self, parser, files, first)
            if len(files) > before:
                die("write")

    signals.Fold, archive.Task = Fold, Task  # type: ignore[misc]


def killer(file: str, how: str, group: int) -> tuple[Die, Die]:
    """What dies in a task, at once and a few milliseconds later.

    Args:
        file: Path of the file that names the place.
        how: ``worker``: the Python worker alone; ``executor``: its JVM, if that is not the driver's
            (else the driver, with its group).
        group: Process group of the driver.
    """

    def end() -> None:
        if how == "worker":
            os._exit(9)
        for parent in psutil.Process().parents():
            if parent.name() == "java":
                if os.getpgid(parent.pid) == group:
                    os.killpg(group, signal.SIGKILL)
                os.kill(parent.pid, signal.SIGKILL)
                os._exit(9)
        os._exit(9)

    def named(place: str) -> bool:
        path = Path(file)
        try:
            if path.read_text() != place:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def die(place: str) -> None:
        if named(place):
            end()

    def die_soon(place: str) -> None:
        if named(place):
            threading.Timer(random.random() * 0.03, end).start()

    return die, die_soon


def main() -> None:
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    file, group = str(folder / "die"), os.getpgid(0)
    die, die_soon = killer(file, given["task_dies"], group)
    session.KinesisDataSource = deadly_source(file, group, in_task=die)  # type: ignore[misc]
    session.MarketDataSource = deadly_source(  # type: ignore[misc, assignment]
        file, group, in_task=die, source=MarketDataSource
    )
    deadly_driver(dying(file, group))
    deadly_tasks(die, die_soon)
    master, spark = given["master"], folder / given["scratch"]
    if master == "raydp":
        connect(given["ray"])
    job = StreamingJob(
        StreamingConfig(
            spark=SparkConfig(
                master=master, app_name=f"kills-{os.getpid()}", driver_memory="512m", ui_port=None,
                folder=str(spark), executor_tmp=str(folder), shuffle_partitions=given["parts"],
            ),
            kinesis=KinesisConfig(**given["kinesis"]),
            lake_uri=str(folder / "lake"),
            checkpoint_uri=str(folder / "checkpoints"),
            archive_trigger_s=0.5,
            signals_trigger_s=0.3,
            archive_max_bytes=64_000,
            signals_max_bytes=64_000,
            signals=given["signals"],
            policy_url=given["policy_url"],
            policy_deadline_s=20.0,
            provisional_every_s=0,
            maintenance_every_s=given["maintenance_every_s"],
            revisions_every_s=0,
        )
    )  # fmt: skip
    job.start()
    if given["drain"]:
        drained = job.drain(600)
        write(folder, {"drained": drained, **job.stats()})
        job.stop()
    else:
        job.wait()


def connect(overrides: dict[str, Any]) -> None:
    """Connect to the Ray that a test started."""
    from cluster import runtime
    from cluster.settings import load

    settings = load(**overrides)
    runtime.prepare(settings)
    import ray

    ray.init(address=runtime.ray_address(settings), namespace=runtime.NAMESPACE)


def write(folder: Path, stats: dict[str, Any]) -> None:
    """Say how it went, whole or not at all."""
    draft = folder / "stats.tmp"
    draft.write_text(json.dumps(stats))
    draft.rename(folder / "stats.json")


if __name__ == "__main__":
    main()
