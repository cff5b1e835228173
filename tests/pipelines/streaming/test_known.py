"""What the lake knows of minutes, asked for many symbols at once."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.known import Known
from pipelines.streaming.spread import SpreadMeter

OPEN_NS = parse_time_ns("2011-01-03T14:30:00Z")
FIRST = OPEN_NS // MINUTE_NS


def quotes_of(rng: np.random.Generator, symbol: str, count: int) -> list[dict[str, object]]:
    """Quotes of two and a half hours, some with an empty or a crossed side."""
    moments = sorted(rng.choice(150 * 60, count, replace=False) * 1_000_000_000 + OPEN_NS)
    return [
        {
            "symbol": symbol, "event_time_ns": int(ns), "date": datetime(2011, 1, 3).date(),
            "event_time": datetime.fromtimestamp(ns / 1e9, UTC),
            "bid_price": float(rng.choice([0.0, 99.0, 100.0, 101.0], p=[0.1, 0.4, 0.4, 0.1])),
            "ask_price": float(rng.choice([100.5, 102.0])),
        }
        for ns in moments
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_spreads_of_some_minutes_are_those_that_all_quotes_say(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows = [row for s, n in (("KO", 12), ("SPY", 400)) for row in quotes_of(rng, s, n)]
    schema = TABLES["quotes"].schema
    table = pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)
    writer = LakeWriter(str(tmp_path))
    generation = writer.open_query("q", tables=["quotes"])
    writer.commit("quotes", table, query_id="q", batch_id=0, generation=generation)
    wanted = {
        symbol: sorted(FIRST + int(m) for m in rng.choice(150, 9, replace=False))
        for symbol in ("KO", "SPY", "NONE")
    }
    expected: dict[str, dict[int, float | None]] = {}
    for symbol, minutes in wanted.items():
        meter = SpreadMeter()
        own = [row for row in rows if row["symbol"] == symbol]
        expected[symbol] = {}
        for minute in range(FIRST, minutes[-1] + 1):
            for row in own:
                if row["event_time_ns"] // MINUTE_NS == minute:
                    meter.quote(row["event_time_ns"], bid=row["bid_price"], ask=row["ask_price"])
            spread = meter.close(minute * MINUTE_NS)
            if minute in minutes:
                expected[symbol][minute] = spread
    found = Known(LakeQuery(str(tmp_path)), window=3).spreads(wanted)
    assert found == {s: pytest.approx(by_minute) for s, by_minute in expected.items()}
    assert all(v is None for v in found["NONE"].values())
