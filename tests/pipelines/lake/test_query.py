"""SQL over the lake."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from pipelines.errors import LakeError
from pipelines.events import parse_time_ns
from pipelines.lake.query import LakeHistory, LakeQuery
from pipelines.lake.tables import TABLES, Table
from pipelines.lake.writer import LakeWriter


@pytest.fixture
def query(tmp_path, bars) -> LakeQuery:
    writer = LakeWriter(str(tmp_path))
    generation = writer.open_query("q", tables=["bars"])
    batches = [
        bars("SPY", 30, 31, 32), bars("AAPL", 30, price=3.0), bars("SPY", 31, bseq=2, price=2.0),
    ]  # fmt: skip
    for batch, rows in enumerate(batches):
        writer.commit("bars", rows, query_id="q", batch_id=batch, generation=generation)
    return LakeQuery(str(tmp_path))


def test_sql_groups_over_commits(query):
    answer = query.sql("SELECT symbol, count(*) n FROM bars GROUP BY symbol ORDER BY symbol")
    assert answer.to_pylist() == [{"symbol": "AAPL", "n": 1}, {"symbol": "SPY", "n": 4}]


def test_sql_takes_parameters(query):
    answer = query.sql("SELECT count(*) n FROM bars WHERE symbol = $s", {"s": "AAPL"})
    assert answer["n"].to_pylist() == [1]


def test_sql_over_a_table_never_written_is_empty_with_its_columns(query):
    assert query.sql("SELECT * FROM signals").column_names == TABLES["signals"].schema.names


def test_sql_sees_what_was_committed_since(query, tmp_path, bars):
    assert query.sql("SELECT count(*) n FROM bars")["n"].to_pylist() == [5]
    writer = LakeWriter(str(tmp_path))
    generation = writer.open_query("q", tables=["bars"])
    writer.commit("bars", bars("KO", 30), query_id="q", batch_id=3, generation=generation)
    assert query.sql("SELECT count(*) n FROM bars")["n"].to_pylist() == [6]


def test_held_lake_answers_all_queries_from_one_snapshot(query, tmp_path, bars):
    count = "SELECT count(*) n FROM bars"
    with query.held() as held:
        assert held.sql(count)["n"].to_pylist() == [5]
        writer = LakeWriter(str(tmp_path))
        generation = writer.open_query("q", tables=["bars"])
        writer.commit("bars", bars("KO", 30), query_id="q", batch_id=3, generation=generation)
        with pytest.raises(LakeError, match="no table bar; did you mean bars"):
            held.sql("FROM bar")
        assert held.sql(count)["n"].to_pylist() == [5]
        assert len(held.recent_bars("KO", limit=2)) == 0
        assert query.sql(count)["n"].to_pylist() == [6]


@pytest.mark.parametrize(
    "bad",
    [
        "SELEC",
        "",
        "SELECT 1; SELECT 2",
        "CREATE TABLE mine AS SELECT 1",
        "SET threads = 1",
        "SELECT nope FROM bars",
        "SELECT * FROM no_such_table",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY bars TO '/tmp/raytape-bars.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ],
)
def test_sql_that_is_wrong_or_leaves_the_lake_is_refused(query, bad):
    with pytest.raises(LakeError):
        query.sql(bad)


def test_sql_of_an_unknown_table_says_what_was_meant(query):
    with pytest.raises(LakeError, match="no table trade; did you mean trades"):
        query.sql("SELECT * FROM trade")


def test_sql_shows_all_tables_and_describes_one(query):
    names = query.sql("SHOW TABLES")["name"].to_pylist()
    assert {"trades", "bars_current", "alerts_current", "fills"} <= set(names)
    assert "symbol" in query.sql("DESCRIBE bars")["column_name"].to_pylist()


def test_sql_that_runs_too_long_is_interrupted(tmp_path):
    slow = LakeQuery(str(tmp_path), timeout_s=0.2)
    with pytest.raises(LakeError, match="longer than"):
        slow.sql("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range % 7 = 1")


def test_sql_whose_tables_take_too_long_to_open_is_refused(tmp_path):
    clock = iter((0.0, 10.0))
    slow = LakeQuery(str(tmp_path), timeout_s=10, monotonic=lambda: next(clock))
    with pytest.raises(LakeError, match="longer than 10 s"):
        slow.sql("SELECT count(*) FROM bars")


def test_dataset_is_built_once_for_each_version(query, tmp_path, bars):
    first = query.dataset("bars")
    assert query.dataset("bars") is first
    writer = LakeWriter(str(tmp_path))
    generation = writer.open_query("q", tables=["bars"])
    writer.commit("bars", bars("KO", 30), query_id="q", batch_id=3, generation=generation)
    assert (first.count_rows(), query.dataset("bars").count_rows()) == (5, 6)


def test_dataset_of_an_unknown_table_is_refused(query):
    with pytest.raises(LakeError, match="trades"):
        query.dataset("nope")


def test_recent_bars_are_the_last_word_of_each_minute_oldest_first(query):
    rows = query.recent_bars("SPY", limit=2)
    assert [(r["event_time"].minute, r["close"]) for r in rows] == [(31, 2.0), (32, 1.0)]


def test_history_gives_alpaca_bars_that_ended_before(query):
    before = parse_time_ns("2011-01-03T14:32:00Z")
    found = LakeHistory(query).bars("SPY", before_ns=before, limit=10)
    assert [b["t"] for b in found] == ["2011-01-03T14:30:00Z", "2011-01-03T14:31:00Z"]
    assert found[1] == {
        "t": "2011-01-03T14:31:00Z", "o": 2.0, "h": 2.0, "l": 2.0, "c": 2.0, "v": 5.0, "n": 1,
        "vw": 2.0,
    }  # fmt: skip


def _value(kind: pa.DataType, k: int) -> Any:
    if pa.types.is_string(kind):
        return "a long text of many letters, and then " + str(k)
    if pa.types.is_binary(kind):
        return bytes([k])
    if pa.types.is_timestamp(kind):
        return datetime(2011, 1, 3, 14, 30, k, 123_457, tzinfo=UTC)
    if pa.types.is_date(kind):
        return date(2011, 1, 3)
    if pa.types.is_list(kind):
        return [_value(kind.value_type, k)]
    return {"bool": k % 2 == 0, "double": k + 0.5}.get(str(kind), k)


def _rows(table: Table, *ks: int, empty: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    return [
        {f.name: None if f.name in empty else _value(f.type, k) for f in table.schema} for k in ks
    ]


@pytest.mark.parametrize("name", TABLES)
def test_filters_on_every_column_find_the_same_rows_as_in_memory(tmp_path, name):
    table = TABLES[name]
    nothing = frozenset(table.schema.names) - {"date"}
    files = [
        _rows(table, 1, 2),
        _rows(table, 3, empty=nothing),
        [*_rows(table, 4, empty=nothing), *_rows(table, 5)],
    ]
    writer = LakeWriter(str(tmp_path))
    generation = writer.open_query("q", tables=[name])
    for batch, rows in enumerate(files):
        added = pa.Table.from_pylist(rows, schema=table.schema)
        writer.commit(name, added, query_id="q", batch_id=batch, generation=generation)
    stored = LakeQuery(str(tmp_path)).dataset(name)
    memory = ds.dataset(pa.Table.from_pylist([r for f in files for r in f], schema=table.schema))
    for column in table.schema:
        if pa.types.is_nested(column.type):
            continue
        cell = ds.field(column.name)
        filters = [cell.is_null(), cell.is_valid()]
        for k in (1, 2, 5, 6):
            value = pa.scalar(_value(column.type, k), column.type)
            filters.append(cell == value)
            if not (pa.types.is_boolean(column.type) or pa.types.is_binary(column.type)):
                filters += [cell < value, cell <= value, cell > value, cell >= value]
        for wanted in filters:
            assert stored.count_rows(filter=wanted) == memory.count_rows(filter=wanted), wanted
