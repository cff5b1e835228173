"""The ledger as rows of the lake."""

from __future__ import annotations

from pipelines import ledger
from pipelines.lake.tables import TABLES
from pipelines.streaming.ledger import ledger_table
from pipelines.streaming.outbox import new_stats

ARCHIVE = {"stored": 5, "duplicates": 1, "quarantined": 2, "holes": 0, "gaps": 3, "dirty": 0}


def test_ledger_has_a_row_for_each_stage_with_what_the_stage_said() -> None:
    producer = {"received": 9, "acked": 8, "gaps": 3, "clock": {"long": "story"}}
    streaming = {"archive": ARCHIVE, "signals": new_stats() | {"bars": 4, "signals": 4}}
    rows = ledger.rows(producer, streaming)
    made = ledger_table(rows, producer, streaming, at_ns=86_400_000_000_000)
    assert made.schema == TABLES["ledger"].schema
    found = {row["stage"]: row for row in made.to_pylist()}
    assert list(found) == ["producer", "stream", "archive", "signals"]
    assert {str(row["date"]) for row in found.values()} == {"1970-01-02"}
    assert [row["received"] for row in found.values()] == [9, 8, 8, 4]
    assert [row["in_flight"] for row in found.values()] == [1, 1, 0, 0]
    assert '"acked":8' in found["producer"]["payload"]
    assert "clock" not in found["producer"]["payload"]
