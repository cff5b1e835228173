from __future__ import annotations

from pathlib import Path

from pipelines.exchange.frames import Batch
from pipelines.exchange.record import Tape
from pipelines.tape import TapeHeader, read_entries, read_tape

HEADER = TapeHeader(feed="iex", source="synthetic", started_ns=1)


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
