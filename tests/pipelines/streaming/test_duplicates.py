"""Nothing twice in a real lake: records by ``bseq``, backfilled trades by their id."""

from __future__ import annotations

import tempfile
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.streaming import archive_task
from pipelines.streaming.refilled import KEY, split
from tests.pipelines.streaming.test_archive import Lake

TRADES = TABLES["trades"].schema

ids = st.integers(1, 6)
messages = st.tuples(st.sampled_from(["live", "backfilled", "quote"]), ids)
records = st.lists(st.lists(messages, min_size=1, max_size=4), min_size=1, max_size=5)
played = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=3)


def _first_once(parts: list[list[int]], count: int) -> list[list[int]]:
    """What a shard brings: any record again and again, but none for the first time out of turn."""
    top, out = -1, []
    for part in parts:
        mine = []
        for index in part:
            if index < count and index <= top + 1:
                top = max(top, index)
                mine.append(index)
        out.append(mine)
    return out


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(records, played, st.booleans())
def test_lake_holds_each_record_once_and_no_backfilled_trade_that_it_had(
    new_tape: Any, rows_of: Any, contents: list[Any], parts: list[list[int]], restart: bool
) -> None:
    tape = new_tape()
    times = {n: tape.trade()["t"] for n in range(1, 7)}  # an id is one trade, at one time
    made = []
    for content in contents:
        batch = [
            tape.quote() if kind == "quote"
            else tape.trade(i=n, t=times[n], **({"bf": True} if kind == "backfilled" else {}))
            for kind, n in content
        ]  # fmt: skip
        made.append((tape.record(*batch), content))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        archive = lake.archive()
        sent = 0
        for batch_id, part in enumerate(_first_once(parts, len(made))):
            sent += sum(len(made[index][1]) for index in part)
            lake.take(archive, [rows_of([made[index][0] for index in part])], batch_id=batch_id)
            if restart:
                archive = lake.archive()
        new = {index for part in _first_once(parts, len(made)) for index in part}
        query = LakeQuery(folder)
        rows = query.sql("SELECT bseq, position, trade_id, backfilled FROM trades").to_pylist()
        assert len({(row["bseq"], row["position"]) for row in rows}) == len(rows)
        totals = archive.state.totals
        assert sent == totals.stored + totals.duplicates + totals.quarantined
        assert totals.stored == len(rows) + query.dataset("quotes").count_rows()
        live = [n for index in new for kind, n in made[index][1] if kind == "live"]
        late = {n for index in new for kind, n in made[index][1] if kind == "backfilled"}
        assert sorted(r["trade_id"] for r in rows if not r["backfilled"]) == sorted(live)
        filled = [row["trade_id"] for row in rows if row["backfilled"]]
        assert len(set(filled)) == len(filled)
        assert late <= set(live) | set(filled)


def _table(rows: list[tuple[int | None, str, bool]]) -> pa.Table:
    made = [
        dict.fromkeys(TRADES.names)
        | {"symbol": symbol, "exchange": "V", "trade_id": n, "backfilled": late, "bseq": i}
        | {"event_time": 1_000_000 * (n or 0)}
        for i, (n, symbol, late) in enumerate(rows)
    ]
    columns = {f.name: pa.array([row[f.name] for row in made], f.type) for f in TRADES}
    columns["date"] = columns["event_time"].cast(pa.date32())
    return pa.table(columns, schema=TRADES)


trade = st.tuples(st.none() | st.integers(1, 5), st.sampled_from(["SPY", "KO"]), st.booleans())


@settings(max_examples=50, deadline=None)
@given(st.lists(trade, max_size=12), st.lists(trade, max_size=12))
def test_split_keeps_every_trade_once_by_its_id_and_loses_none(fresh: Any, known: Any) -> None:
    stored = _table(known)
    kept, left_out = split(_table(fresh), stored.filter)
    assert kept.num_rows + left_out.num_rows == len(fresh)
    assert sorted(kept["bseq"].to_pylist() + left_out["bseq"].to_pylist()) == [*range(len(fresh))]
    ids_of = {(n, symbol) for n, symbol, _ in known if n is not None}
    for row in kept.to_pylist():
        key = (row["trade_id"], row["symbol"])
        if row["backfilled"] and key[0] is not None:
            assert key not in ids_of, "stored already"
            ids_of.add(key)
    live = [i for i, (_, _, late) in enumerate(fresh) if not late]
    assert set(live) <= set(kept["bseq"].to_pylist()), "what came live is kept, whatever it is"
    assert set(left_out["reason"].to_pylist()) <= {"duplicate_trade"}


@pytest.mark.parametrize("late", [False, True])
def test_split_asks_the_lake_only_for_what_was_backfilled(late: bool) -> None:
    asked: list[Any] = []

    def stored(where: Any) -> pa.Table:
        asked.append(where)
        return TRADES.empty_table()

    split(_table([(1, "SPY", late)]), stored)
    assert len(asked) == late


def test_split_of_two_distant_gaps_finds_no_other_trades_than_theirs() -> None:
    found: list[pa.Table] = []

    def stored(where: Any) -> pa.Table:
        found.append(_table([(n, "SPY", False) for n in range(1, 100)]).filter(where).select(KEY))
        return found[0]

    kept, left_out = split(
        _table([(1, "SPY", True), (None, "SPY", True), (99, "SPY", True)]), stored
    )
    assert found[0]["trade_id"].to_pylist() == [1, 99]
    assert (kept["trade_id"].to_pylist(), left_out.num_rows) == ([None], 2)


def test_task_that_writes_in_parts_takes_no_backfilled_trade_twice(
    tmp_path, tape, rows_of, monkeypatch
):
    monkeypatch.setattr(archive_task, "_FLUSH_ROWS", 1)
    lake = Lake(str(tmp_path))
    archive = lake.archive()
    lake.take(archive, [rows_of([tape.record(first := tape.trade(i=1))])], batch_id=0)
    late = [tape.trade(i=2, bf=True), first | {"bf": True}]
    parts = [rows_of([tape.record(*late)]), rows_of([tape.record(late[0])])]
    task = archive.task(1)
    (row,) = task(parts)
    result = orjson.loads(row.column("result")[0].as_py())
    archive.take(lambda single: [result], query_id="q1", batch_id=1)
    assert (archive.state.totals.stored, archive.state.totals.quarantined) == (2, 2)
    rows = LakeQuery(str(tmp_path)).sql("SELECT trade_id FROM trades ORDER BY ALL").to_pylist()
    assert [row["trade_id"] for row in rows] == [1, 2]
