"""Answers as text and Parquet; tables as Hive-style folders."""

from __future__ import annotations

import io

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import LakeError
from pipelines.lake.export import encode, write_hive
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter


@pytest.fixture
def query(tmp_path, bars) -> LakeQuery:
    writer = LakeWriter(str(tmp_path / "lake"))
    generation = writer.open_query("q", tables=["bars"])
    rows = pa.concat_tables([bars("SPY", 30, 31), bars("KO", 30), bars("SPY", 30, day=4)])
    writer.commit("bars", rows, query_id="q", batch_id=0, generation=generation)
    return LakeQuery(writer.uri)


def test_export_makes_a_folder_for_each_value_and_other_tools_read_it(query, tmp_path):
    out = tmp_path / "out"
    count = write_hive(query.dataset("bars"), out, partition_by=["symbol", "date"])
    assert count == 4
    assert sorted(str(p.parent.relative_to(out)) for p in out.rglob("*.parquet")) == [
        "symbol=KO/date=2011-01-03", "symbol=SPY/date=2011-01-03", "symbol=SPY/date=2011-01-04",
    ]  # fmt: skip
    sql = f"SELECT symbol, count(*) FROM read_parquet('{out}/**/*.parquet', hive_partitioning=true)"
    found = duckdb.sql(sql + " GROUP BY symbol ORDER BY symbol").fetchall()
    assert found == [("KO", 1), ("SPY", 3)]


def test_export_without_folders_is_the_table(query, tmp_path):
    write_hive(query.dataset("bars"), tmp_path / "out", partition_by=[])
    rows = pq.read_table(tmp_path / "out")
    order = [("symbol", "ascending"), ("event_time", "ascending")]
    assert rows.sort_by(order).equals(query.dataset("bars").to_table().sort_by(order))


def test_export_by_a_column_that_does_not_exist_is_refused(query, tmp_path):
    with pytest.raises(LakeError, match="no column 'sector'; it has symbol"):
        write_hive(query.dataset("bars"), tmp_path / "out", partition_by=["sector"])


def test_export_into_a_folder_that_is_not_empty_is_refused(query, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(LakeError, match="not empty"):
        write_hive(query.dataset("bars"), tmp_path, partition_by=["date"])


def test_answers_read_back_from_parquet_and_times_are_rfc_3339_in_text(query):
    rows = query.sql("SELECT event_time, date, symbol FROM bars ORDER BY symbol, event_time")
    assert pq.read_table(io.BytesIO(encode(rows, "parquet"))).equals(rows)
    assert encode(rows, "csv").decode().splitlines()[1] == "2011-01-03T14:30:00Z,2011-01-03,KO"
    assert b'"event_time":"2011-01-03T14:30:00Z","date":"2011-01-03"' in encode(rows, "json")
