"""The archive when its storage fails: whole batches or none, and it goes on where it was."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.codec import decode_record
from pipelines.errors import LakeError
from pipelines.events import parse_time_ns
from pipelines.lake.maintenance import Limits, Maintenance
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.archive import Archive
from tests.chaos.ledger import counted


def opened(uri: str, options: dict[str, str] | None = None) -> Archive:
    archive = Archive(LakeWriter(uri, options, sleep=lambda _: None))
    archive.open("market-data@1")
    return archive


def take(archive: Archive, rows: pa.RecordBatch, batch_id: int) -> None:
    def run(single: bool) -> list[Any]:
        done = archive.task(batch_id)([rows])
        return [orjson.loads(row.column("result")[0].as_py()) for row in done]

    archive.take(run, query_id="q", batch_id=batch_id)


def counts(uri: str, options: dict[str, str] | None = None) -> tuple[int, int]:
    query = LakeQuery(uri, options)
    return query.dataset("trades").count_rows(), query.dataset("quotes").count_rows()


def batches(tape: Any, rows_of: Callable[..., pa.RecordBatch], count: int) -> list[pa.RecordBatch]:
    return [rows_of([tape.record(tape.trade(), tape.quote())]) for _ in range(count)]


def ledger(
    sent: Sequence[pa.RecordBatch], uri: str, options: dict[str, str] | None = None
) -> dict[str, int]:
    """The messages of batches against the rows of the lake, each known by its time."""
    data = [one for rows in sent for one in rows.column("data").to_pylist()]
    times = [parse_time_ns(m["t"]) for one in data for m in decode_record(one).messages]
    sql = "SELECT event_time_ns FROM trades UNION ALL SELECT event_time_ns FROM quotes"
    return counted(times, LakeQuery(uri, options).sql(sql)["event_time_ns"].to_pylist())


@pytest.mark.chaos
@pytest.mark.long
def test_archive_on_a_store_that_refuses_every_third_request_stores_all_once(
    faulty_store, object_store, tape, rows_of, record_property
):
    uri, (options, faults) = "s3://lake/thirds", faulty_store
    archive = opened(uri, options)
    faults(every=3)
    sent = batches(tape, rows_of, 4)
    for batch_id, rows in enumerate(sent):
        take(archive, rows, batch_id)
    faults(every=0)
    assert counts(uri, object_store) == (4, 4)
    limits = Limits(many_files=2, retention_h=0)
    keeper = Maintenance(LakeWriter(uri, options), limits, tables=["trades", "quotes"])
    keeper.open()
    keeper.run()
    assert keeper.stats()["compacted_files"] == 8
    record_property("ledger", ledger(sent, uri, object_store))
    assert counts(uri, object_store) == (4, 4)
    assert archive.state.totals.stored == 8


@pytest.mark.chaos
@pytest.mark.long
def test_archive_whose_store_is_away_keeps_whole_batches_and_goes_on(
    faulty_store, object_store, tape, rows_of, record_property
):
    uri, (options, faults) = "s3://lake/away", faulty_store
    archive = opened(uri, options)
    first, second = batches(tape, rows_of, 2)
    take(archive, first, 0)
    for lost in ({"every": 1}, {"every": 2, "after": True}):
        faults(**lost)
        with contextlib.suppress(LakeError):
            take(archive, second, 1)
        assert set(counts(uri, object_store)) <= {1, 2}  # each table has the batch or has not
    faults(every=0)
    successor = opened(uri, options)
    if not successor.state.holds("q", 1):
        take(successor, second, 1)
    record_property("ledger", ledger([first, second], uri, object_store))
    assert counts(uri, object_store) == (2, 2)
    assert successor.state.totals.stored == 4


@pytest.mark.chaos
@pytest.mark.long
def test_archive_that_cannot_reach_its_store_says_so(faulty_store, tape, rows_of):
    options, faults = faulty_store
    archive = opened("s3://lake/gone", options)
    faults(every=1)
    with pytest.raises(LakeError, match="cannot be written"):
        take(archive, batches(tape, rows_of, 1)[0], 0)
    faults(every=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("a small disk needs root and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.chaos
def test_archive_on_a_full_disk_says_so_and_resumes_when_there_is_room(
    small_disk, tape, rows_of, record_property
):
    uri = str(small_disk / "lake")
    archive = opened(uri)
    first, second = batches(tape, rows_of, 2)
    take(archive, first, 0)
    hog = small_disk / "hog"
    with contextlib.suppress(OSError), hog.open("wb") as file:
        while True:
            file.write(os.urandom(4096))
    with pytest.raises(LakeError, match="No space left on device"):
        take(archive, second, 1)
    assert counts(uri) == (1, 1)
    assert not [p for p in small_disk.rglob("*.parquet") if "archive-1" in p.name]
    hog.unlink()
    take(archive, second, 1)
    record_property("ledger", ledger([first, second], uri))
    assert counts(uri) == (2, 2)
    assert archive.state.totals.stored == 4
