"""Backfilled trades that the lake holds already.

The producer leaves out what it remembers; the lake remembers for longer. Only a batch with
backfilled trades pays for the look. A trade is known by symbol, exchange, day and id; one that is
there already goes to quarantine as ``duplicate_trade``, so that every message stays accounted for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.lake.tables import TABLES

REASON = "duplicate_trade"
KEY = ("symbol", "exchange", "date", "trade_id")
"""The columns that a trade is known by."""

Keys = set[tuple[Any, ...]]


def split(
    trades: pa.Table, stored: Callable[[ds.Expression], pa.Table]
) -> tuple[pa.Table, pa.Table]:
    """The trades without those backfilled ones that are there already, and these as quarantine.

    Args:
        trades: Rows of the table ``trades``.
        stored: Asked once, if there are backfilled rows: the stored trades that a filter finds,
            their columns :data:`KEY` at least.
    """
    late = pc.fill_null(trades["backfilled"], False)
    backfilled = trades.filter(late)
    empty = TABLES["quarantine"].schema.empty_table()
    if not backfilled.num_rows:
        return trades, empty
    live = trades.filter(pc.invert(late))
    times = pc.min_max(backfilled["event_time"]).as_py()
    where = (
        ds.field("date").isin(pc.unique(backfilled["date"]))
        & ds.field("symbol").isin(pc.unique(backfilled["symbol"]))
        & (ds.field("event_time") >= times["min"])
        & (ds.field("event_time") <= times["max"])
        # Two gaps that are days apart have all that lies between them inside their bounds.
        & ds.field("trade_id").isin(pc.unique(backfilled["trade_id"].drop_null()))
    )
    seen = _keys(live) | _keys(stored(where))
    keep = []
    for key in _rows(backfilled):
        fresh = key not in seen or key[-1] is None
        keep.append(fresh)
        seen.add(key)
    mask = pa.array(keep, pa.bool_())
    kept = pa.concat_tables([live, backfilled.filter(mask)])
    return kept, _quarantined(backfilled.filter(pc.invert(mask)))


def _rows(trades: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(trades[name].to_pylist() for name in KEY), strict=True))


def _keys(trades: pa.Table) -> Keys:
    return set(_rows(trades))


def _quarantined(rows: pa.Table) -> pa.Table:
    schema = TABLES["quarantine"].schema
    made = []
    for row in rows.to_pylist():
        said = {k: v for k, v in row.items() if k not in ("event_time", "date") and v is not None}
        made.append(
            {name: row.get(name) for name in schema.names}
            | {"reason": REASON, "detected": row["event_time"]}
            | {"payload": orjson.dumps(said).decode()}
        )
    return pa.Table.from_pylist(made, schema=schema)
