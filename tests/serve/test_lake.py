from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from pipelines.lake import tables
from serve.bars import read_gap_cursor, write_gap_cursor
from serve.lake import ServedLake


def test_gaps_of_the_lake_by_cursor_are_all_there_once(tmp_path: Path) -> None:
    """One cut ends for all symbols at one moment, and may be declared twice."""
    rows = [
        {"symbol": s, "from_ns": f, "to_ns": n, "reason": "reconnect", "backfilled": False}
        for n in (10, 20)
        for s in ("AAPL", "SPY")
        for f in (None, 3)
    ]
    schema = tables.table("gaps").schema
    columns = {f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}
    write_deltalake(str(tmp_path / "gaps"), pa.table(columns, schema=schema))
    lake, seen, after = ServedLake(str(tmp_path)), [], None
    while page := lake.gaps(limit=3, after=after):
        seen += [(r["to_ns"], r["symbol"], r["from_ns"]) for r in page]
        after = read_gap_cursor(write_gap_cursor(page[-1]))
    assert seen == [(n, s, f) for n in (20, 10) for s in ("AAPL", "SPY") for f in (None, 3)]
    assert len(lake.gaps(limit=9, start_ns=10, end_ns=20)) == 4
