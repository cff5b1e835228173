"""The archive's driver: one point of commit, finished by whoever comes next. Without Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.errors import Fenced, LakeError
from pipelines.events import format_time_ns, parse_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.archive import Archive
from pipelines.streaming.archive_task import Task

STREAM = "market-data@1"


class Lake:
    """A lake and whoever archives into it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def archive(self, writer: LakeWriter | None = None, stream: str = STREAM) -> Archive:
        archive = Archive(writer or LakeWriter(self.uri), clock=lambda: 5_000)
        archive.open(stream)
        return archive

    def take(
        self,
        archive: Archive,
        parts: Sequence[pa.RecordBatch],
        *,
        batch_id: int,
        query_id: str = "q1",
    ) -> None:
        def run(single: bool) -> list[Any]:
            task = archive.task(batch_id)
            groups = [list(parts)] if single else [[part] for part in parts]
            rows = [row for group in groups for row in task(group)]
            return [orjson.loads(row.column("result")[0].as_py()) for row in rows]

        archive.take(run, query_id=query_id, batch_id=batch_id)

    def count(self, name: str = "trades") -> int:
        return LakeQuery(self.uri).dataset(name).count_rows()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


class Crash(Exception):
    """The driver dies here."""


class CrashingWriter(LakeWriter):
    """Dies before its commit number ``at``."""

    def __init__(self, uri: str, *, at: int) -> None:
        super().__init__(uri)
        self._left = at

    def commit(self, *args: Any, **kwargs: Any) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Crash
        return super().commit(*args, **kwargs)


def test_batch_fills_the_tables_and_the_totals(lake, tape, rows_of):
    archive = lake.archive()
    lake.take(
        archive,
        [rows_of([tape.record(tape.trade(), tape.quote()), tape.record(tape.trade(p=-1))])],
        batch_id=0,
    )
    totals = archive.stats()
    assert (totals["stored"], totals["quarantined"], totals["holes"]) == (2, 1, 0)
    assert totals["by_table"] == {"trades": 1, "quotes": 1, "quarantine": 1}
    assert lake.count() == lake.count("quotes") == lake.count("quarantine") == 1
    assert archive.state.positions == {"shard-0": "2"}


def test_state_survives_the_driver(lake, tape, rows_of):
    first = lake.archive()
    lake.take(first, [rows_of([tape.record(tape.trade())])], batch_id=0)
    assert lake.archive().state == first.state


def test_totals_add_up_over_batches_and_holes_are_counted(lake, tape, rows_of):
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=0)
    tape.skip()
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=1)
    assert (archive.state.totals.batches, archive.state.totals.stored) == (2, 2)
    assert archive.state.totals.holes == 1


def test_batch_that_runs_again_is_held_already(lake, tape, rows_of):
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=0)
    assert archive.state.holds("q1", 0)
    assert not archive.state.holds("q1", 1)
    assert not archive.state.holds("q2", 0)


@pytest.mark.parametrize("at", range(5))
def test_driver_that_dies_between_any_two_commits_is_completed(
    lake: Lake, tape: Any, rows_of: Callable[..., pa.RecordBatch], at: int
):
    lake.take(lake.archive(), [rows_of([tape.record(tape.trade())])], batch_id=0)
    rows = [rows_of([tape.record(tape.trade(), tape.quote(), tape.bar(), tape.trade(p=0))])]
    dying = CrashingWriter(lake.uri, at=at + 1)  # opening finishes batch 0: one commit
    with pytest.raises(Crash):
        lake.take(lake.archive(dying), rows, batch_id=1)
    successor = lake.archive()
    if not successor.state.holds("q1", 1):
        assert at == 0
        lake.take(successor, rows, batch_id=1)
    assert [lake.count(n) for n in ("trades", "quotes", "bars", "quarantine")] == [2, 1, 1, 1]
    assert successor.state.totals.stored == 4


@pytest.mark.parametrize("at", range(4))
def test_deleted_checkpoint_after_a_crash_continues_without_repeating(lake, tape, rows_of, at):
    records = [tape.record(tape.trade(), tape.quote(), tape.bar()) for _ in range(2)]
    with pytest.raises(Crash):
        lake.take(lake.archive(CrashingWriter(lake.uri, at=at)), [rows_of(records[:1])], batch_id=0)
    successor = lake.archive()
    lake.take(successor, [rows_of(records)], batch_id=0, query_id="q2")
    assert [lake.count(n) for n in ("trades", "quotes", "bars")] == [2, 2, 2]
    assert successor.state.totals.duplicates == (0 if at == 0 else 3)


def test_zombie_is_fenced_and_leaves_nothing(lake, tape, rows_of):
    zombie = lake.archive()
    lake.archive()
    with pytest.raises(Fenced):
        lake.take(zombie, [rows_of([tape.record(tape.trade())])], batch_id=0)
    assert lake.count() == 0


def test_zombie_with_half_a_batch_committed_does_not_disturb(lake, tape, rows_of):
    rows = [rows_of([tape.record(tape.trade(), tape.quote())])]
    zombie = lake.archive(CrashingWriter(lake.uri, at=1))
    with pytest.raises(Crash):
        lake.take(zombie, rows, batch_id=0)
    lake.archive()
    zombie._writer = LakeWriter(lake.uri)
    with pytest.raises(Fenced):
        zombie._finish(zombie._load())
    assert lake.count() == lake.count("quotes") == 1


def test_record_read_by_two_tasks_is_stored_once(lake, tape, rows_of):
    parent = [tape.record(tape.trade()) for _ in range(3)]
    child = [parent[2], tape.record(tape.trade())]
    archive = lake.archive()
    lake.take(archive, [rows_of(parent, shard="parent"), rows_of(child, shard="child")], batch_id=0)
    assert lake.count() == 4
    assert archive.state.totals.duplicates == 1
    assert archive.state.totals.holes == 0


def test_shards_after_one_another_in_a_batch_show_no_hole(lake, tape, rows_of):
    records = [tape.record(tape.trade()) for _ in range(4)]
    archive = lake.archive()
    lake.take(
        archive,
        [rows_of(records[2:], shard="child"), rows_of(records[:2], shard="parent")],
        batch_id=0,
    )
    assert (lake.count(), archive.state.totals.holes) == (4, 0)


def test_new_producer_run_counts_from_one_again(lake, new_tape, rows_of):
    archive = lake.archive()
    for batch, epoch in enumerate(("run-1", "run-2")):
        tape = new_tape(epoch)
        lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=batch)
    assert (lake.count(), archive.state.totals.duplicates) == (2, 0)
    assert list(archive.state.marks) == ["run-1", "run-2"]


def test_stream_made_anew_forgets_the_positions_and_keeps_the_marks(lake, tape, rows_of):
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=0)
    anew = lake.archive(stream="market-data@2")
    assert anew.state.positions == {}
    assert (archive.replaced, anew.replaced) == (False, True)
    assert anew.stats()["streams_replaced"] == 1
    assert anew.state.marks == archive.state.marks


def test_task_that_cannot_reach_the_lake_fails(tape, rows_of, tmp_path):
    (tmp_path / "trades").write_text("a file where a folder should be")
    task = Task(str(tmp_path), {}, {}, "test")
    with pytest.raises((OSError, LakeError)):
        list(task([rows_of([tape.record(tape.trade())])]))


def gaps(lake: Lake) -> list[dict[str, Any]]:
    sql = "SELECT symbol, from_ns, to_ns, reason FROM gaps ORDER BY symbol"
    return LakeQuery(lake.uri).sql(sql).to_pylist()


def test_stream_made_anew_declares_a_gap_for_each_symbol_when_it_comes(lake, new_tape, rows_of):
    old, new = new_tape("run-1"), new_tape("run-2")
    last = {s: parse_time_ns(old.trade(s)["t"]) for s in ("SPY", "KO")}
    new._ns = old._ns + 10_000_000_000
    before = [old.record(old.trade(s, t=format_time_ns(ns)), symbol=s) for s, ns in last.items()]
    lake.take(lake.archive(), [rows_of(before)], batch_id=0)
    archive = lake.archive(stream="market-data@2")
    first = {}
    for batch_id, symbol in enumerate(("SPY", "KO", "KO")):  # over a restart, and only once
        trade = new.trade(symbol)
        first.setdefault(symbol, parse_time_ns(trade["t"]))
        lake.take(
            archive, [rows_of([new.record(trade, symbol=symbol)])], batch_id=batch_id, query_id="q2"
        )
        archive = lake.archive(stream="market-data@2")
    assert gaps(lake) == [
        {"symbol": s, "from_ns": last[s], "to_ns": first[s], "reason": "stream_replaced"}
        for s in ("KO", "SPY")
    ]
    assert archive.state.totals.gaps == 2
    assert archive.state.awaited == {}


def test_stream_made_anew_that_goes_on_with_the_next_record_declares_no_gap(lake, tape, rows_of):
    lake.take(lake.archive(), [rows_of([tape.record(tape.trade())])], batch_id=0)
    archive = lake.archive(stream="market-data@2")
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=0, query_id="q2")
    assert gaps(lake) == []
    assert archive.state.awaited == {}


def anew_after_a_loss(lake: Lake, new_tape: Any, rows_of: Any, *batches: Any) -> Archive:
    """A stream made anew by another producer run, whose batches hold these messages."""
    old, new = new_tape("run-1"), new_tape("run-2")
    lake.take(lake.archive(), [rows_of([old.record(old.trade())])], batch_id=0)
    new._ns = old._ns + 10_000_000_000
    archive = lake.archive(stream="market-data@2")
    for batch_id, make in enumerate(batches):
        rows = rows_of([new.record(make(new))])
        lake.take(archive, [rows], batch_id=batch_id, query_id="q2")
        archive = lake.archive(stream="market-data@2")
    return archive


def heartbeat(tape: Any) -> dict[str, Any]:
    return {"T": "hb", "market_ns": tape._ns, "symbols": ["SPY"]}


def test_stream_made_anew_that_begins_with_a_heartbeat_declares_its_gap(lake, new_tape, rows_of):
    archive = anew_after_a_loss(lake, new_tape, rows_of, heartbeat, lambda tape: tape.trade())
    assert [gap["symbol"] for gap in gaps(lake)] == ["SPY"]
    assert archive.state.awaited == {}


def test_stream_made_anew_that_goes_on_with_a_heartbeat_declares_no_gap(lake, tape, rows_of):
    lake.take(lake.archive(), [rows_of([tape.record(tape.trade())])], batch_id=0)
    archive = lake.archive(stream="market-data@2")
    for batch_id, message in enumerate((heartbeat(tape), tape.trade())):
        rows = rows_of([tape.record(message)])
        lake.take(archive, [rows], batch_id=batch_id, query_id="q2")
    assert (gaps(lake), archive.state.awaited) == ([], {})


def test_stream_made_anew_twice_declares_the_gap_of_a_symbol_that_came_in_neither(
    lake, new_tape, rows_of
):
    anew_after_a_loss(lake, new_tape, rows_of, heartbeat)
    third = new_tape("run-2")  # the producer goes on, in the next stream
    third.skip()
    third._ns += 20_000_000_000
    archive = lake.archive(stream="market-data@3")
    rows = rows_of([third.record(third.trade())])
    lake.take(archive, [rows], batch_id=0, query_id="q3")
    assert [gap["symbol"] for gap in gaps(lake)] == ["SPY"]


def test_backfilled_trade_that_is_stored_already_goes_to_quarantine(lake, tape, rows_of):
    archive = lake.archive()
    known, other = tape.trade(i=1), tape.trade(i=2)
    lake.take(archive, [rows_of([tape.record(known)])], batch_id=0)
    again = [known | {"bf": True}, other | {"bf": True}, other | {"bf": True}, tape.trade(i=2)]
    lake.take(archive, [rows_of([tape.record(*again)])], batch_id=1)
    sql = "SELECT trade_id, backfilled FROM trades ORDER BY event_time"
    found = [tuple(row.values()) for row in LakeQuery(lake.uri).sql(sql).to_pylist()]
    assert found == [(1, False), (2, False)]
    sql = "SELECT reason, symbol, payload FROM quarantine"
    quarantined = LakeQuery(lake.uri).sql(sql).to_pylist()
    assert {row["reason"] for row in quarantined} == {"duplicate_trade"}
    assert (archive.state.totals.stored, archive.state.totals.quarantined) == (2, 3)


def test_dirty_bars_stay_until_they_were_looked_at_and_that_was_committed(lake, tape, rows_of):
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.bar(), tape.trade())])], batch_id=0)
    dirty = archive.dirty()
    assert len(dirty) == 1
    assert lake.archive().dirty() == dirty
    archive = lake.archive()
    archive.looked_at(dirty)
    assert len(archive.dirty()) == 0
    assert lake.archive().dirty() == dirty  # not committed yet
    archive = lake.archive()
    archive.looked_at(dirty)
    lake.take(archive, [rows_of([tape.record(tape.quote())])], batch_id=1)
    assert len(lake.archive().dirty()) == 0
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=2)
    assert archive.dirty() == dirty  # dirty once more, by what was closed two batches before


def test_bar_that_becomes_dirty_again_while_it_was_looked_at_stays_dirty(lake, tape, rows_of):
    class Meanwhile(LakeWriter):
        """The minute is looked at while the batch that makes it dirty again is committed."""

        def commit(self, *args: Any, **kwargs: Any) -> bool:
            if kwargs["batch_id"] == 1:
                archive.looked_at(dirty)
            return super().commit(*args, **kwargs)

    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.bar(), tape.trade())])], batch_id=0)
    dirty = archive.dirty()
    archive = Archive(Meanwhile(lake.uri))
    archive.open(STREAM)
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=1)
    assert archive.dirty() == dirty


@pytest.mark.parametrize("message", ["trade", "bar"])
def test_bar_that_becomes_dirty_again_while_it_is_looked_at_stays_dirty(
    lake, tape, rows_of, message
):
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(tape.bar(), tape.trade())])], batch_id=0)
    seen = archive.look()
    again = tape.trade() if message == "trade" else tape.bar(bf=True)
    lake.take(archive, [rows_of([tape.record(again)])], batch_id=1)
    archive.looked_at(seen)  # of what was known before batch 1
    assert archive.dirty() == seen
    lake.take(archive, [rows_of([tape.record(tape.quote())])], batch_id=2)
    assert lake.archive().dirty() == seen
    archive.looked_at(archive.look())
    assert len(archive.dirty()) == 0


def test_archive_whose_bars_nobody_looks_at_notes_none(lake, tape, rows_of):
    archive = Archive(LakeWriter(lake.uri), revised=False)
    archive.open(STREAM)
    lake.take(archive, [rows_of([tape.record(tape.bar(), tape.trade())])], batch_id=0)
    assert len(archive.dirty()) == 0
