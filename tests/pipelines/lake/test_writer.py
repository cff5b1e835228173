"""The laws of a commit: once, never backwards, only by the newest writer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.errors import Fenced, LakeError
from pipelines.lake.files import write_files
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter


@pytest.fixture
def writer(tmp_path: Path) -> LakeWriter:
    return LakeWriter(str(tmp_path))


def count(writer: LakeWriter, name: str = "bars") -> int:
    return LakeQuery(writer.uri).dataset(name).count_rows()


def test_commit_of_a_batch_twice_adds_it_once(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    batch = {"query_id": "q", "batch_id": 0, "generation": generation}
    assert writer.commit("bars", bars("SPY", 30, 31), **batch)
    assert not writer.commit("bars", bars("SPY", 30, 31), **batch)
    assert count(writer) == 2


def test_commit_of_an_earlier_batch_is_refused(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    writer.commit("bars", bars("SPY", 30), query_id="q", batch_id=4, generation=generation)
    with pytest.raises(LakeError, match="holds batch 4"):
        writer.commit("bars", bars("SPY", 31), query_id="q", batch_id=3, generation=generation)
    assert count(writer) == 1


def test_commit_by_an_older_generation_is_fenced(writer, bars):
    old = writer.open_query("q", tables=["bars"])
    new = writer.open_query("q", tables=["bars"])
    assert new > old
    with pytest.raises(Fenced):
        writer.commit("bars", bars("SPY", 30), query_id="q", batch_id=0, generation=old)
    assert writer.commit("bars", bars("SPY", 30), query_id="q", batch_id=0, generation=new)


def test_commit_of_a_zombie_between_its_check_and_its_commit_is_fenced(
    writer, bars, monkeypatch, tmp_path
):
    old = writer.open_query("q", tables=["bars"])
    stale = DeltaTable(str(tmp_path / "bars"))
    new = LakeWriter(writer.uri).open_query("q", tables=["bars"])
    real, first = writer._snapshot, [stale]
    monkeypatch.setattr(writer, "_snapshot", lambda name: first.pop() if first else real(name))
    with pytest.raises(Fenced):
        writer.commit("bars", bars("SPY", 30), query_id="q", batch_id=0, generation=old)
    assert not first
    assert count(writer) == 0
    assert new == old + 1


def test_commit_that_lost_its_answer_is_not_repeated(writer, bars, monkeypatch, tmp_path):
    generation = writer.open_query("q", tables=["bars"])
    other = LakeWriter(writer.uri)
    stale = DeltaTable(str(tmp_path / "bars"))
    other.commit("bars", bars("SPY", 30), query_id="q", batch_id=0, generation=generation)
    real, first = writer._snapshot, [stale]
    monkeypatch.setattr(writer, "_snapshot", lambda name: first.pop() if first else real(name))
    assert not writer.commit(
        "bars", bars("SPY", 30), query_id="q", batch_id=0, generation=generation
    )
    assert count(writer) == 1


def test_commit_without_an_open_query_is_refused(writer, bars):
    writer.create(["bars"])
    with pytest.raises(Fenced):
        writer.commit("bars", bars("SPY", 30), query_id="q", batch_id=0, generation=1)


def test_commit_with_a_new_checkpoint_starts_at_batch_zero_under_the_same_fence(writer, bars):
    old = writer.open_query("archive", tables=["bars"])
    writer.commit(
        "bars", bars("SPY", 30), query_id="q1", batch_id=7, generation=old, query="archive"
    )
    new = writer.open_query("archive", tables=["bars"])
    assert writer.commit(
        "bars", bars("SPY", 31), query_id="q2", batch_id=0, generation=new, query="archive"
    )
    with pytest.raises(Fenced):
        writer.commit(
            "bars", bars("SPY", 32), query_id="q1", batch_id=8, generation=old, query="archive"
        )


def test_commit_of_two_queries_at_once_keeps_both(writer, bars):
    generations = {q: writer.open_query(q, tables=["bars"]) for q in ("a", "b")}
    failures: list[BaseException] = []

    def run(query: str) -> None:
        try:
            mine = LakeWriter(writer.uri)
            for batch in range(10):
                mine.commit(
                    "bars", bars(query, 30), query_id=query, batch_id=batch,
                    generation=generations[query],
                )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(q,)) for q in generations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert count(writer) == 20


def test_open_query_of_many_at_once_gives_each_its_own_generation(writer):
    writer.create(["bars", "trades"])
    found: list[int] = []

    def run() -> None:
        found.append(LakeWriter(writer.uri).open_query("q", tables=["bars", "trades"]))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 3


def test_read_batch_gives_the_rows_of_that_commit_alone(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    for batch, minute in enumerate((30, 31, 32)):
        writer.commit(
            "bars", bars("SPY", minute), query_id="q", batch_id=batch, generation=generation,
            metadata={"asked": minute},
        )  # fmt: skip
    assert writer.read_batch("bars", "q", 1).equals(bars("SPY", 31))
    assert writer.metadata_of("bars", "q", 1)["asked"] == 31
    assert writer.read_batch("bars", "q", 3) is None
    assert writer.last_batch("bars", "q") == 2


def test_commit_of_an_empty_batch_records_its_id(writer, bars):
    generation = writer.open_query("q", tables=["bars"])
    assert writer.commit("bars", bars("SPY"), query_id="q", batch_id=0, generation=generation)
    assert writer.last_batch("bars", "q") == 0
    assert writer.read_batch("bars", "q", 0).num_rows == 0


def test_files_that_no_commit_names_are_not_read(writer, bars):
    writer.open_query("q", tables=["bars"])
    write_files(writer.uri, TABLES["bars"], bars("SPY", 30))
    assert count(writer) == 0


def test_write_files_makes_one_sorted_file_a_day(writer, bars):
    import pyarrow as pa

    rows = pa.concat_tables([bars("SPY", 31, 30), bars("AAPL", 30), bars("SPY", 30, day=4)])
    infos = write_files(writer.uri, TABLES["bars"], rows)
    assert [(i.date, i.rows) for i in infos] == [("2011-01-03", 3), ("2011-01-04", 1)]
    generation = writer.open_query("q", tables=["bars"])
    writer.commit("bars", infos, query_id="q", batch_id=0, generation=generation)
    first = writer.read_batch("bars", "q", 0).slice(0, 3)
    assert first["symbol"].to_pylist() == ["AAPL", "SPY", "SPY"]


def test_write_files_of_other_columns_is_refused(writer, bars):
    with pytest.raises(LakeError, match="vwap"):
        write_files(writer.uri, TABLES["bars"], bars("SPY", 30).drop_columns(["vwap"]))
    with pytest.raises(LakeError, match="do not fit"):
        write_files(
            writer.uri,
            TABLES["bars"],
            bars("SPY", 30).set_column(0, "symbol", [[None]]).set_column(3, "open", [["x"]]),
        )


def test_create_over_a_table_with_fewer_columns_is_refused(writer, bars):
    DeltaTable.create(f"{writer.uri}/bars", bars("SPY").schema.remove(0))
    with pytest.raises(LakeError, match="symbol"):
        writer.create(["bars"])


def test_create_of_a_table_that_lacks_a_new_column_adds_it(writer, bars, tmp_path):
    old, new = bars("SPY", 30).drop_columns(["backfilled"]), bars("SPY", 31)
    write_deltalake(str(tmp_path / "bars"), old, partition_by=["date"])
    generation = writer.open_query("q", tables=["bars"])
    new = new.set_column(new.schema.get_field_index("backfilled"), "backfilled", [[True]])
    writer.commit("bars", new, query_id="q", batch_id=0, generation=generation)
    LakeWriter(writer.uri).create(["bars"])  # nothing left to add
    query = LakeQuery(writer.uri)
    rows = query.sql("SELECT event_time, backfilled FROM bars ORDER BY event_time").to_pylist()
    assert [row["backfilled"] for row in rows] == [None, True]
    for condition, expected in (("backfilled", 1), ("backfilled IS NOT TRUE", 1), ("true", 2)):
        assert query.sql(f"FROM bars WHERE {condition}").num_rows == expected
    assert set(query.dataset("bars").schema.names) == set(TABLES["bars"].schema.names)


def test_create_by_many_starters_at_once_adds_a_column_once(writer, bars, tmp_path):
    old = bars("SPY", 30).drop_columns(["backfilled"])
    write_deltalake(str(tmp_path / "bars"), old, partition_by=["date"])
    wrong = []

    def start():
        try:
            LakeWriter(str(tmp_path)).create(["bars"])
        except LakeError as error:
            wrong.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    names = [f.name for f in DeltaTable(str(tmp_path / "bars")).schema().fields]
    assert sorted(names) == sorted(TABLES["bars"].schema.names)
