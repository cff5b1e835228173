"""What a driver of ``signals`` that died left unfinished, as the lake tells it.

Features are committed before the signals on them, so a death between the two leaves features that
wait for a decision; one behind both leaves decisions that may not be published. In: the lake. Out:
rows of ``features``, each of a bar; a market that is played again decides on a bar again, later.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES

DECIDED_ON: Final = pc.field("revision") == 0
"""Rows of ``features`` that the query ``signals`` writes; the others are of the revisions."""

Bar = tuple[str, int]
"""Its symbol, and its start in ns."""

_FAR: Final = timedelta(days=1)
"""Drivers that die one after the other do so within it."""

_WAITING: Final = """
SELECT symbol, event_time_ns, max(f.known_at) AS known_at
FROM features f
LEFT JOIN (
    SELECT symbol, event_time_ns, max(known_at) AS decided_at FROM signals
    WHERE known_at >= $since GROUP BY ALL
) s USING (symbol, event_time_ns)
WHERE f.revision = 0 AND f.known_at >= $since
  AND (s.decided_at IS NULL OR s.decided_at < f.known_at)
GROUP BY ALL
"""

_KNOWN: Final = """
SELECT symbol, event_time_ns, max(known_at) AS known_at
FROM features
WHERE revision = 0 AND known_at <= $decided_at AND event_time_ns BETWEEN $first AND $last
GROUP BY ALL
"""


def waiting(lake: LakeQuery) -> pa.Table:
    """Features that nobody decided on.

    Raises:
        LakeError: The lake cannot be read.
    """
    newest = lake.newest_batch("features", DECIDED_ON)
    if not newest.num_rows:
        return newest
    since = newest["known_at"][0].as_py() - _FAR
    return _rows(lake, lake.sql(_WAITING, {"since": since}))


def decided_on(lake: LakeQuery, signals: pa.Table) -> pa.Table:
    """The features that the signals of a batch were decided on.

    Raises:
        LakeError: The lake cannot be read.
    """
    if not signals.num_rows:
        return TABLES["features"].schema.empty_table()
    bounds = pc.min_max(signals["event_time_ns"]).as_py()
    asked = {
        "decided_at": signals["known_at"][0].as_py(), "first": bounds["min"], "last": bounds["max"],
    }  # fmt: skip
    return _rows(lake, within(lake.sql(_KNOWN, asked), signals))


def _rows(lake: LakeQuery, wanted: pa.Table) -> pa.Table:
    """The whole rows of ``features`` of bars and when they were known."""
    schema = TABLES["features"].schema
    if not wanted.num_rows:
        return schema.empty_table()
    keys = set(zip(bars_of(wanted), wanted["known_at"].to_pylist(), strict=True))
    bounds = pc.min_max(wanted["known_at"]).as_py()
    known, kind = pc.field("known_at"), schema.field("known_at").type
    found = lake.dataset("features").to_table(
        filter=DECIDED_ON
        & pc.field("symbol").isin(pc.unique(wanted["symbol"]))
        & (known >= pa.scalar(bounds["min"], kind))
        & (known <= pa.scalar(bounds["max"], kind))
    )
    rows = zip(bars_of(found), found["known_at"].to_pylist(), strict=True)
    mask = pa.array([row in keys for row in rows], pa.bool_())
    return found.filter(mask).select(schema.names).cast(schema)


def bars_of(rows: pa.Table) -> list[Bar]:
    """The bar of each row."""
    return list(zip(rows["symbol"].to_pylist(), rows["event_time_ns"].to_pylist(), strict=True))


def within(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows of bars that another table has too."""
    return rows.filter(_shared(rows, others))


def without(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows of bars that another table has not."""
    return rows.filter(pc.invert(_shared(rows, others)))


def _shared(rows: pa.Table, others: pa.Table) -> pa.Array:
    """For each row, whether another table has its bar too."""
    if not (rows.num_rows and others.num_rows):  # as in nearly every batch
        return pa.repeat(False, rows.num_rows)
    bars = set(bars_of(others))
    return pa.array([bar in bars for bar in bars_of(rows)], pa.bool_())
