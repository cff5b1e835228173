"""Records that never came leave gap rows: once, with exact bounds, whatever is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import DAY_NS, bucket_of, format_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.streaming import replaced
from pipelines.streaming.missing import REASON, Hole, holes_of
from tests.pipelines.streaming.conftest import START_NS
from tests.pipelines.streaming.test_archive import Crash, CrashingWriter, Lake

OTHER = next(s for s in (f"S{i}" for i in range(999)) if bucket_of(s) == bucket_of("SPY"))
"""A symbol of the same bucket as SPY."""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def gaps(lake: Lake) -> list[tuple[Any, ...]]:
    sql = f"SELECT symbol, from_ns, to_ns FROM gaps WHERE reason = '{REASON}' ORDER BY ALL"
    rows = LakeQuery(lake.uri).sql(sql).to_pylist()
    return [(row["symbol"], row["from_ns"], row["to_ns"]) for row in rows]


def received(*messages: dict[str, Any]) -> list[int]:
    return [message["r"] - 5 for message in messages]  # as the tape stamps them


def test_hole_between_batches_is_a_gap_from_the_last_moment_to_the_next(lake, tape, rows_of):
    archive = lake.archive()
    first, second = tape.trade(), tape.trade()
    lake.take(archive, [rows_of([tape.record(first, second)])], batch_id=0)
    tape.skip()
    third = tape.quote()
    lake.take(archive, [rows_of([tape.record(third), tape.record(tape.trade())])], batch_id=1)
    assert gaps(lake) == [("SPY", *received(second, third))]
    assert (archive.state.totals.holes, archive.state.totals.gaps) == (1, 1)
    lake.take(archive, [rows_of([tape.record(tape.trade())])], batch_id=2)
    assert len(gaps(lake)) == 1


def test_hole_inside_a_batch_has_bounds_of_its_own_run_of_records(lake, tape, rows_of):
    records = [tape.record(tape.trade())]
    before, after = tape.trade(), tape.quote()
    records += [tape.record(before)]
    tape.skip()
    records += [tape.record(after), tape.record(tape.trade())]
    archive = lake.archive()
    lake.take(archive, [rows_of(records)], batch_id=0)
    assert gaps(lake) == [("SPY", *received(before, after))]


def test_symbol_that_comes_later_has_its_gap_then_also_after_a_restart(lake, tape, rows_of):
    last, others = tape.trade(), tape.trade(OTHER)
    lake.take(lake.archive(), [rows_of([tape.record(last, others)])], batch_id=0)
    tape.skip()
    here = tape.trade()
    lake.take(lake.archive(), [rows_of([tape.record(here)])], batch_id=1)
    assert gaps(lake) == [("SPY", *received(last, here))]
    lake.take(lake.archive(), [rows_of([tape.record(tape.trade())])], batch_id=2)
    there = tape.trade(OTHER)
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(there)])], batch_id=3)
    assert gaps(lake) == [(OTHER, *received(others, there)), ("SPY", *received(last, here))]
    assert not archive.state.missing


def test_records_lost_before_the_first_that_came_leave_a_gap_without_a_beginning(
    lake, tape, rows_of
):
    tape.skip()
    first = tape.trade()
    lake.take(lake.archive(), [rows_of([tape.record(first)])], batch_id=0)
    assert gaps(lake) == [("SPY", None, *received(first))]


def test_hole_before_a_late_trade_is_declared_all_the_same(lake, tape, rows_of):
    late, last = tape.trade(), tape.trade()
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(last)])], batch_id=0)
    tape.skip()
    lake.take(archive, [rows_of([tape.record(late)])], batch_id=1)
    assert gaps(lake) == [("SPY", *received(late, last))]


def test_backfilled_messages_neither_begin_nor_end_a_gap(lake, tape, rows_of):
    last = tape.trade()
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(last)])], batch_id=0)
    tape.skip()
    late = tape.trade(i=8, bf=True)
    live = tape.trade(i=9)
    lake.take(archive, [rows_of([tape.record(late), tape.record(live)])], batch_id=1)
    assert gaps(lake) == [("SPY", *received(last, live))]


def test_hole_is_judged_by_the_last_days_alone_and_without_a_limit_in_time(
    lake, tape, rows_of, monkeypatch
):
    archive = lake.archive()
    old, last = tape.trade(OTHER), tape.trade()
    old |= {"t": format_time_ns(START_NS - 12 * DAY_NS), "r": START_NS - 12 * DAY_NS + 5}
    lake.take(archive, [rows_of([tape.record(old, last)])], batch_id=0)
    for file in (Path(lake.uri) / "trades").glob("date=2010-12-22/*.parquet"):
        file.unlink()  # whoever looks there fails
    limits: list[float | None] = []
    of_lake = replaced.last_of

    def last_of(query: LakeQuery, **bounds: Any) -> dict[str, int]:
        limits.append(query._timeout_s)
        return of_lake(query, **bounds)

    monkeypatch.setattr(replaced, "last_of", last_of)
    tape.skip()
    here, there = tape.trade(), tape.trade(OTHER)
    lake.take(archive, [rows_of([tape.record(here, there)])], batch_id=1)
    assert limits == [None]
    assert gaps(lake) == [(OTHER, None, *received(there)), ("SPY", *received(last, here))]


@pytest.mark.parametrize("at", range(4))
def test_driver_that_dies_anywhere_declares_a_hole_once(lake, tape, rows_of, at):
    last = tape.trade()
    lake.take(lake.archive(), [rows_of([tape.record(last)])], batch_id=0)
    tape.skip()
    here = tape.trade()
    rows = [rows_of([tape.record(here)])]
    dying = lake.archive(CrashingWriter(lake.uri, at=at + 1))  # opening finishes batch 0: a commit
    try:
        lake.take(dying, rows, batch_id=1)
    except Crash:
        again = lake.archive()
        if not again.state.holds("q1", 1):
            lake.take(again, rows, batch_id=1)
    assert gaps(lake) == [("SPY", *received(last, here))]
    assert lake.count() == 2


@given(st.sets(st.integers(1, 30), min_size=1), st.integers(0, 10))
def test_holes_are_what_was_not_accepted_below_the_last(seen: set[int], mark: int):
    came = sorted(n for n in seen if n > mark) or [mark + 1]
    ranges: list[tuple[int, int]] = []
    for n in came:
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1] = (ranges[-1][0], n)
        else:
            ranges.append((n, n))
    holes = holes_of({"e": {1: mark}}, {"e": {1: ranges}})
    lost = [n for hole in holes for n in range(hole.low, hole.high + 1)]
    assert lost == [n for n in range(mark + 1, came[-1]) if n not in came]
    assert all(isinstance(hole, Hole) and (hole.epoch, hole.bucket) == ("e", 1) for hole in holes)
