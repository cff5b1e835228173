from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import TapeFailed
from pipelines.exchange.floor import Floor
from pipelines.exchange.frames import Batch
from pipelines.exchange.record import Tape
from pipelines.tape import TapeHeader, TapeWriter, read_entries, read_tape, tape_files
from tests.pipelines.exchange.conftest import SMALL

HEADER = TapeHeader(feed="iex", source="synthetic", started_ns=1)
SECOND = 10**9


class Disk:
    """The file of a tape on a disk with some room left; what does not fit is written in part."""

    def __init__(self, tape: TapeWriter, room: int) -> None:
        self._file: Any = tape._file
        self._room = room
        tape._file = self  # type: ignore[assignment]

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written: int = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _batch(first: int, count: int = 3) -> Batch:
    trades = [{"T": "t", "S": "A", "i": i, "x": f"{i**7}"} for i in range(first, first + count)]
    return Batch.injected(trades)


def _ids(folder: Path) -> list[int]:
    return [m["i"] for m in read_tape(folder)]


def test_tape_gives_back_the_batches_that_were_written(tmp_path: Path) -> None:
    tape = Tape(tmp_path, header=HEADER, max_mb=8)
    trades = [{"T": "t", "S": "A", "i": i} for i in range(3)]
    tape.write(Batch.injected(trades), wall_ns=5)
    tape.write_raw(b"\xff", wall_ns=6)
    tape.write(Batch.injected([{"T": "?"}]), wall_ns=7)
    tape.close()
    entries = list(read_entries(tmp_path))
    assert [e["c"] for e in entries] == ["trades"] * 3 + ["raw", ""]
    assert [e["w"] for e in entries] == [5, 5, 5, 6, 7]
    assert list(read_tape(tmp_path)) == [*trades, {"T": "?"}]
    assert tape.stats()["messages"] == 4


@pytest.mark.parametrize("room", [0, 1, 100])
def test_tape_on_a_full_disk_stops_whole_and_goes_on_when_there_is_room(
    tmp_path: Path, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Tape(tmp_path, header=HEADER, max_mb=8)
    tape.write(_batch(0), wall_ns=0)
    tape.flush_if_due(SECOND)
    Disk(tape._writer, room)
    tape.write(_batch(3, 50), wall_ns=SECOND)
    tape.flush_if_due(2 * SECOND)
    assert tape.stopped is not None
    assert "No space left" in tape.stopped
    assert tape.lost == 50
    tape.write(_batch(53), wall_ns=3 * SECOND)
    tape.write_raw(b"\xff", wall_ns=3 * SECOND)
    tape.flush_if_due(4 * SECOND)
    assert _ids(tmp_path) == [0, 1, 2]
    tape.flush_if_due(13 * SECOND)
    assert tape.stopped is None
    tape.write(_batch(56), wall_ns=13 * SECOND)
    tape.close()
    assert _ids(tmp_path) == [0, 1, 2, 56, 57, 58]
    (gap,) = [e["m"] for e in read_entries(tmp_path) if e["c"] == "gap"]
    assert gap["since"] == SECOND
    assert "No space left" in gap["reason"]
    assert (tape.stats()["messages"], tape.stats()["lost"]) == (6, 53)
    assert caplog.text.count("the tape stops") == 1


def test_tape_that_cannot_go_on_leaves_no_files_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape(tmp_path, header=HEADER, max_mb=8)
    Disk(tape._writer, 0)
    tape.write(_batch(0), wall_ns=0)
    tape.flush_if_due(SECOND)
    opened = Path.open

    def full(path: Path, *args: Any, **more: Any) -> Any:
        if args and args[0] == "wb":
            tape._writer._file = opened(path, *args, **more)
            return Disk(tape._writer, 0)
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    for second in range(20, 100, 10):
        tape.flush_if_due(second * SECOND)
    tape.close()
    assert len(tape_files(tmp_path)) == 1
    assert caplog.text.count("the tape stops") == 1


def test_tape_writer_alone_fails_loudly_and_stays_whole(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path, header=HEADER, max_mb=8)
    tape.write_messages([{"T": "t", "i": 1}], wall_ns=0)
    tape.flush_if_due(SECOND)
    Disk(tape, 3)
    tape.write_messages([{"T": "t", "i": 2}], wall_ns=SECOND)
    with pytest.raises(TapeFailed, match="No space left"):
        tape.flush_if_due(2 * SECOND)
    tape.close()
    assert _ids(tmp_path) == [1]


def test_market_goes_on_without_its_tape_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    now = [10**18]
    config = replace(SMALL, open_on="start", record_dir=tmp_path / "tape",
                     state_path=tmp_path / "played.json")  # fmt: skip
    floor = Floor(config, wall_ns=lambda: now[0])
    assert floor.announcement()["tape"] == "recording"
    assert floor._tape is not None
    Disk(floor._tape._writer, 0)
    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(20):
        now[0] += 10**8
        while floor.publish_due():
            pass
    assert floor.state == "finished"
    assert floor.stats()["by_channel"]["bars"] == 15
    assert floor.announcement()["tape"].startswith("stopped: tape ")
    assert caplog.text.count("minutes played are not written") == 1
    floor.close()
