"""A Kinesis source that dies where it is told to: for the kill tests.

A test names the place in a file; whoever comes to that place next takes the file away and dies.
The places are FAULTS' fail points: ``latestOffset`` (before the offset log is written),
``partitions`` (after it), ``read`` (in a task), ``sink`` (at the end of foreachBatch), ``commit``
(after the commit log, with the next batch).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.kinesis.source import KinesisDataSource

PLACES = ("latestOffset", "partitions", "read", "sink", "commit")


def dying(file: str, group: int | None = None) -> Callable[[str], None]:
    """What dies at a place if the file names it; a closure, so that it travels by value.

    Args:
        file: Path of the file.
        group: Process group that dies too: driver and JVM; ``None``: this process alone.
    """

    def die(place: str) -> None:
        path = Path(file)
        try:
            if path.read_text() != place:
                return
            path.unlink()
        except FileNotFoundError:
            return
        if group is not None:
            os.killpg(group, signal.SIGKILL)
        os._exit(9)

    return die


def deadly_source(
    file: str,
    group: int | None = None,
    *,
    in_task: Callable[[str], None] | None = None,
    source: type[KinesisDataSource] = KinesisDataSource,
) -> type[KinesisDataSource]:
    """A data source that dies; made here, so that it travels to workers by value.

    Args:
        file: As of :func:`dying`.
        group: As of :func:`dying`.
        in_task: Dies in a task instead.
        source: The data source, ``kinesis`` or one made of it.
    """
    die = dying(file, group)
    die_reading = in_task or die

    class Deadly(source):  # type: ignore[misc, valid-type]
        def streamReader(self, schema: Any) -> Any:  # noqa: N802
            reader = super().streamReader(schema)

            class Reader(type(reader)):  # type: ignore[misc]
                def latestOffset(self, start: Any, limit: Any) -> Any:  # noqa: N802
                    end = super().latestOffset(start, limit)
                    if end != start:
                        die("latestOffset")
                    return end

                def partitions(self, start: Any, end: Any) -> Any:
                    die("partitions")
                    return super().partitions(start, end)

                def read(self, partition: Any) -> Iterator[Any]:
                    for batch in super().read(partition):
                        yield batch
                        die_reading("read")

                def commit(self, end: Any) -> None:
                    die("commit")

            reader.__class__ = Reader
            return reader

    return Deadly
