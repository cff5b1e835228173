"""Maintenance makes files fewer, loses nothing, and stands in nobody's way."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pipelines.errors import Fenced, LakeError
from pipelines.lake.maintenance import Limits, Maintenance
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES, Table
from pipelines.lake.writer import LakeWriter

LIMITS = Limits(many_files=4, retention_h=0)


@pytest.fixture
def writer(tmp_path: Path) -> LakeWriter:
    return LakeWriter(str(tmp_path))


def maintenance(writer: LakeWriter, limits: Limits = LIMITS) -> Maintenance:
    found = Maintenance(writer, limits)
    found.open()
    return found


def parquet(writer: LakeWriter, name: str) -> list[Path]:
    return list((Path(writer.uri) / name).rglob("*.parquet"))


def data_files(writer: LakeWriter, name: str) -> list[Path]:
    return [p for p in parquet(writer, name) if "_delta_log" not in p.parts]


def value(field: pa.Field, i: int) -> Any:
    kind = field.type
    if field.name == "date":
        return date(2011, 1, 3)
    if pa.types.is_timestamp(kind):
        return datetime(2011, 1, 3, 14, 30, tzinfo=UTC) + timedelta(microseconds=123_456 + i)
    if pa.types.is_string(kind):
        return "x" * 40 + f"{i:02d}"
    if pa.types.is_binary(kind):
        return b"%d" % i
    if pa.types.is_boolean(kind):
        return bool(i % 2)
    if pa.types.is_nested(kind):
        return ["a"] if pa.types.is_string(kind.value_type) else [1.0 * i]
    return 1.5 * i if pa.types.is_floating(kind) else i


def rows(table: Table, *numbers: int) -> pa.Table:
    made = [{field.name: value(field, i) for field in table.schema} for i in numbers]
    return pa.Table.from_pylist(made, schema=table.schema)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_compacted_table_is_found_by_each_of_its_columns(writer, name):
    table = TABLES[name]
    generation = writer.open_query("q", tables=[name])
    for batch in range(6):
        writer.commit(
            name, rows(table, 2 * batch, 2 * batch + 1),
            query_id="q", batch_id=batch, generation=generation,
        )  # fmt: skip
    before = LakeQuery(writer.uri).dataset(name).to_table().sort_by(table.schema.names[-2])
    keeper = maintenance(writer)
    keeper.run()
    assert keeper.stats()["skipped"] == 0
    assert keeper.stats()["compacted_files"] == 6
    assert len(DeltaTable(f"{writer.uri}/{name}").file_uris()) == 1
    dataset = LakeQuery(writer.uri).dataset(name)
    assert dataset.to_table().sort_by(table.schema.names[-2]).equals(before)
    for field in table.schema:
        if field.name == "date" or pa.types.is_nested(field.type):
            continue
        for i in range(12):
            wanted = pc.field(field.name) == pa.scalar(value(field, i), field.type)
            assert dataset.count_rows(filter=wanted) == (
                6 if pa.types.is_boolean(field.type) else 1
            ), (field.name, i)


def test_dead_files_go_but_the_last_batch_of_a_query_can_be_read_again(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch in range(6):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    keeper = maintenance(writer)
    keeper.run()
    assert writer.read_batch("bars", "q", 5).equals(bars("SPY", 5))
    for batch in range(6, 8):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    keeper.run()
    assert keeper.stats()["vacuumed_files"] == 6
    assert len(data_files(writer, "bars")) == 3
    assert writer.read_batch("bars", "q", 7).equals(bars("SPY", 7))
    assert LakeQuery(writer.uri).dataset("bars").count_rows() == 8


def test_table_that_is_replaced_again_and_again_stays_small(writer):
    from dataclasses import replace

    from pipelines.lake import archive_state
    from pipelines.lake.archive_state import ArchiveState

    generation = writer.open_query("archive", tables=["_archive"])
    state = ArchiveState(query_id="q", committed_ns=1)
    keeper = maintenance(writer)
    for batch in range(20):
        state = replace(state, batch_id=batch)
        writer.commit(
            "_archive", state.to_table(), query_id="q", batch_id=batch, generation=generation,
            query="archive", replace=True,
        )  # fmt: skip
    keeper.run()
    assert len(data_files(writer, "_archive")) <= 2
    assert archive_state.load(LakeQuery(writer.uri)) == state


def test_files_that_are_not_committed_yet_stay(writer, bars):
    from pipelines.lake.files import write_files

    generation = writer.open_query("q", tables=["bars"])
    infos = write_files(writer.uri, TABLES["bars"], bars("SPY", 30))
    maintenance(writer).run()
    writer.commit("bars", infos, query_id="q", batch_id=0, generation=generation)
    assert LakeQuery(writer.uri).dataset("bars").to_table().num_rows == 1


def test_files_within_the_retention_stay(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch in range(6):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    keeper = maintenance(writer, Limits(many_files=4, retention_h=1))
    keeper.run()
    assert keeper.stats()["vacuumed_files"] == 0
    assert len(data_files(writer, "bars")) == 7


def test_older_maintenance_is_fenced(writer):
    old = maintenance(writer)
    new = maintenance(writer)
    with pytest.raises(Fenced):
        old.run()
    new.run()


def test_maintenance_during_commits_loses_nothing(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    keeper = maintenance(writer)
    done = threading.Event()
    failures: list[BaseException] = []

    def commit() -> None:
        try:
            for batch in range(40):
                writer.commit(
                    "bars", bars("SPY", batch), query_id="q", batch_id=batch,
                    generation=generation,
                )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)
        done.set()

    thread = threading.Thread(target=commit)
    thread.start()
    while not done.is_set():
        keeper.run()
    thread.join()
    assert not failures
    keeper.run()
    found = LakeQuery(writer.uri).dataset("bars").to_table(columns=["event_time"])
    assert sorted(t.minute for t in found["event_time"].to_pylist()) == list(range(40))
    assert keeper.stats()["compacted_files"] > 0


def test_reader_goes_on_when_the_log_was_cut_behind_it(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    query = LakeQuery(writer.uri)
    assert query.dataset("bars").count_rows() == 0
    for batch in range(10):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    table = DeltaTable(f"{writer.uri}/bars")
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    table.create_checkpoint()
    table.cleanup_metadata()
    assert len(list((Path(writer.uri) / "bars" / "_delta_log").glob("*.json"))) < 3
    assert query.dataset("bars").count_rows() == 10


@pytest.mark.parametrize("earlier", [{}, {"delta.logRetentionDuration": "interval 1 days"}])
def test_log_of_a_table_made_earlier_is_bounded_too(tmp_path, earlier):
    wanted = TABLES["bars"]
    DeltaTable.create(
        str(tmp_path / "bars"), wanted.schema, partition_by=["date"], configuration=earlier
    )
    writer = LakeWriter(str(tmp_path))
    maintenance(writer).run()
    kept = DeltaTable(str(tmp_path / "bars")).metadata().configuration
    assert kept["delta.logRetentionDuration"] == "interval 1 days"
    assert kept["delta.checkpointInterval"] == "10"


def test_joined_file_is_sorted_and_its_rows_that_sort_alike_keep_their_order(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch, (symbol, minute) in enumerate(
        [("SPY", 31), ("KO", 30), ("SPY", 30), ("BA", 31)] * 2
    ):
        writer.commit(
            "bars", bars(symbol, minute, bseq=batch), query_id="q", batch_id=batch,
            generation=generation,
        )  # fmt: skip
    maintenance(writer).run()
    (path,) = DeltaTable(f"{writer.uri}/bars").file_uris()
    found = LakeQuery(writer.uri).dataset("bars").to_table().to_pylist()
    assert path.rpartition("/")[2].startswith("joined-")
    order = [(row["symbol"], row["event_time"].minute, row["bseq"]) for row in found]
    assert order == sorted(order)


def test_pass_joins_all_there_is_and_no_more_rows_at_once_than_its_limit(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch in range(12):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    keeper = maintenance(writer, Limits(many_files=2, retention_h=0, join_rows=5))
    keeper.run()
    assert keeper.stats()["compacted_files"] == 10
    assert sorted(
        f.metadata.num_rows for f in LakeQuery(writer.uri).dataset("bars").get_fragments()
    ) == [1, 1, 5, 5]
    assert LakeQuery(writer.uri).dataset("bars").count_rows() == 12


def test_day_that_is_over_becomes_one_file_and_the_newest_is_left_until_it_is_crowded(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch, day in enumerate((3, 3, 4, 5, 5, 5)):
        writer.commit(
            "bars", bars("SPY", batch, day=day), query_id="q", batch_id=batch,
            generation=generation,
        )  # fmt: skip
    keeper = maintenance(writer)
    keeper.run()
    keeper.run()
    assert keeper.stats()["compacted_files"] == 2
    days = [Path(uri).parent.name for uri in DeltaTable(f"{writer.uri}/bars").file_uris()]
    assert sorted(days) == ["date=2011-01-03", "date=2011-01-04", *["date=2011-01-05"] * 3]
    assert LakeQuery(writer.uri).dataset("bars").count_rows() == 6


def test_pass_that_runs_out_of_time_is_continued_at_the_table_it_had_come_to(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch in range(12):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
    ticks = itertools.count()
    keeper = Maintenance(
        writer, Limits(many_files=2, join_rows=5, pass_s=6), tables=("trades", "bars"),
        monotonic=lambda: next(ticks),
    )  # fmt: skip
    keeper.open()
    keeper.run()
    assert (keeper.stats()["passes"], keeper.stats()["compacted_files"]) == (0, 0)
    for _ in range(9):
        keeper.run()
    assert keeper.stats()["compacted_files"] == 10


def test_join_of_files_from_before_a_column_was_added_keeps_their_rows(writer, bars, tmp_path):
    from deltalake import write_deltalake

    for minute in range(3):
        old = bars("SPY", minute).drop_columns(["backfilled"])
        write_deltalake(str(tmp_path / "bars"), old, partition_by=["date"], mode="append")
    writer.open_query("q", tables=["bars"])
    keeper = maintenance(writer, Limits(many_files=2))
    keeper.run()
    assert (keeper.stats()["compacted_files"], keeper.stats()["skipped"]) == (3, 0)
    query = LakeQuery(writer.uri)
    assert query.sql("FROM bars WHERE backfilled IS NULL").num_rows == 3


def test_orphans_go_when_they_are_old_and_never_before(writer, bars):
    import os
    import time

    from pipelines.lake.files import write_files

    generation = writer.open_query("q", tables=["bars"])
    writer.commit("bars", bars("SPY", 29), query_id="q", batch_id=0, generation=generation)
    (old,) = write_files(writer.uri, TABLES["bars"], bars("SPY", 30), tag="old")
    (new,) = write_files(writer.uri, TABLES["bars"], bars("SPY", 31), tag="new")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(Path(writer.uri) / "bars" / old.path, (two_days_ago, two_days_ago))
    keeper = maintenance(writer, Limits(many_files=2))
    keeper.run()
    assert keeper.stats()["vacuumed_files"] == 1
    names = {path.name for path in data_files(writer, "bars")}
    assert not any(name.startswith("old-") for name in names)
    writer.commit("bars", [new], query_id="q", batch_id=1, generation=generation)
    assert LakeQuery(writer.uri).dataset("bars").to_table().num_rows == 2


def test_days_beyond_those_that_a_table_keeps_are_dropped(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch, day in enumerate((3, 4, 5, 7)):
        writer.commit(
            "bars", bars("SPY", 30, day=day), query_id="q", batch_id=batch, generation=generation
        )
    keeper = maintenance(writer, Limits(keep_days={"bars": 3}))
    keeper.run()
    keeper.run()
    found = LakeQuery(writer.uri).dataset("bars").to_table(columns=["event_time"])
    assert sorted(t.day for t in found["event_time"].to_pylist()) == [5, 7]
    assert keeper.stats()["dropped_days"] == 2


def test_query_travels_back_over_a_compaction_within_the_retention(writer, bars, store_time):
    generation = writer.open_query("q", tables=["bars"])
    for batch in range(6):
        writer.commit(
            "bars", bars("SPY", batch), query_id="q", batch_id=batch, generation=generation
        )
        if batch == 2:
            then = store_time()
    maintenance(writer, Limits(many_files=2, retention_h=1)).run()
    query = LakeQuery(writer.uri)
    assert query.sql("FROM bars", as_of=then).num_rows == 3
    writer.commit("bars", bars("SPY", 6), query_id="q", batch_id=6, generation=generation)
    assert query.sql("FROM bars").num_rows == 7
    maintenance(writer, Limits(many_files=2, retention_h=0)).run()
    with pytest.raises(LakeError, match="no longer knows"):
        query.sql("FROM bars", as_of=then)
