from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.exchange.frames import Batch
from pipelines.exchange.record import Tape, read_entries, read_tape, tape_files


def _batch(first: int, count: int = 3) -> Batch:
    return Batch.injected([{"T": "t", "S": "A", "i": first + i} for i in range(count)])


def _ids(folder: Path) -> list[int]:
    return [m["i"] for m in read_tape(folder)]


def test_tape_gives_back_what_was_written(tmp_path: Path) -> None:
    tape = Tape(tmp_path, max_mb=8)
    tape.write(_batch(0), wall_ns=5)
    tape.write_raw(b"\xff", wall_ns=6)
    tape.write(Batch.injected([{"T": "?"}]), wall_ns=7)
    tape.close()
    entries = list(read_entries(tmp_path))
    assert [e["c"] for e in entries] == ["trades"] * 3 + ["raw", ""]
    assert [e["w"] for e in entries] == [5, 5, 5, 6, 7]
    assert entries[0]["m"] == {"T": "t", "S": "A", "i": 0}
    assert len(list(read_tape(tmp_path))) == 4


def test_tape_being_written_is_read_as_far_as_it_was_flushed(tmp_path: Path) -> None:
    tape = Tape(tmp_path, max_mb=8)
    tape.write(_batch(0), wall_ns=0)
    tape.flush_if_due(10**9)
    tape.write(_batch(3), wall_ns=10**9)
    assert _ids(tmp_path) == [0, 1, 2]
    tape.close()
    assert _ids(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_tape_cut_by_a_crash_is_read_up_to_the_last_whole_line(tmp_path: Path) -> None:
    tape = Tape(tmp_path, max_mb=8)
    for i in range(100):
        tape.write(_batch(3 * i), wall_ns=0)
    tape.close()
    (path,) = tape_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    ids = _ids(tmp_path)
    assert ids == list(range(len(ids)))
    assert 0 < len(ids) < 300


def test_tape_of_a_later_run_follows(tmp_path: Path) -> None:
    for run in range(2):
        tape = Tape(tmp_path, max_mb=8)
        tape.write(_batch(3 * run), wall_ns=0)
        tape.close()
    assert _ids(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert len(tape_files(tmp_path)) == 2


def test_tape_over_its_budget_drops_its_oldest_files(tmp_path: Path) -> None:
    tape = Tape(tmp_path, max_mb=1)
    rng = np.random.default_rng(1)
    for i in range(40):
        noise = rng.bytes(30_000).hex()
        tape.write(Batch.injected([{"T": "t", "S": "A", "i": i, "x": noise}]), wall_ns=i * 10**9)
        tape.flush_if_due(i * 10**9)
    tape.close()
    stats = tape.stats()
    assert stats["dropped_files"] > 0
    assert stats["bytes"] <= 1024 * 1024
    ids = _ids(tmp_path)
    assert ids == list(range(ids[0], 40))
