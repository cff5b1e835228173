"""The ledger as rows of the lake."""

from __future__ import annotations

import pytest

from pipelines.errors import Fenced
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.ledger import LedgerKeeper
from pipelines.streaming.outbox import new_stats

ARCHIVE = {"stored": 5, "duplicates": 1, "quarantined": 2, "holes": 0, "gaps": 3, "dirty": 0}


def keeper(uri: str) -> LedgerKeeper:
    stats = {"archive": ARCHIVE, "signals": new_stats() | {"bars": 4, "signals": 4}}
    made = LedgerKeeper(LakeWriter(uri), lambda: stats, clock=lambda: 86_400_000_000_000)
    made.open()
    return made


def test_ledger_adds_a_row_for_each_stage_each_time_also_after_a_restart(tmp_path):
    first = keeper(str(tmp_path))
    first.write()
    first.write(stopped=lambda: True)
    keeper(str(tmp_path)).write()
    sql = "SELECT stage, received, stored, gaps, date FROM ledger ORDER BY stage"
    rows = LakeQuery(str(tmp_path)).sql(sql).to_pylist()
    assert [row["stage"] for row in rows] == ["archive"] * 2 + ["signals"] * 2
    assert rows[0] | {"date": str(rows[0]["date"])} == {
        "stage": "archive", "received": 8, "stored": 5, "gaps": 3, "date": "1970-01-02",
    }  # fmt: skip
    with pytest.raises(Fenced):
        first.write()
