"""What a table of the lake is: columns, sort order, and the groups of columns that many have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

PARTITION = "date"
TIME = pa.timestamp("us", tz="UTC")

PROVENANCE = (
    ("epoch", pa.string()),
    ("bucket", pa.int32()),
    ("bseq", pa.int64()),
    ("position", pa.int32()),
    ("received_at_ns", pa.int64()),
    ("sent_at_ns", pa.int64()),
)
EVENT = (("symbol", pa.string()), ("event_time", TIME), ("event_time_ns", pa.int64()))
OHLCV = (
    ("open", pa.float64()),
    ("high", pa.float64()),
    ("low", pa.float64()),
    ("close", pa.float64()),
    ("volume", pa.float64()),
    ("trade_count", pa.int64()),
    ("vwap", pa.float64()),
)
BACKFILLED = ("backfilled", pa.bool_())
STRINGS = pa.list_(pa.string())
FLOATS = pa.list_(pa.float64())


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake.

    Args:
        name: Its name and folder.
        schema: All columns, the partition column ``date`` last.
        sort: Columns by which the rows inside each file are sorted.
        doc: What a row is.
    """

    name: str
    schema: pa.Schema
    sort: tuple[str, ...]
    doc: str

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside the files: all but the partition column, which is in the path."""
        return pa.schema([f for f in self.schema if f.name != PARTITION])


def make(
    name: str,
    columns: Sequence[tuple[str, pa.DataType]],
    *,
    doc: str,
    sort: tuple[str, ...] = ("symbol", "event_time"),
    raw: bool = False,
) -> Table:
    """A table; a raw one has provenance columns besides."""
    fields = [*columns, *(PROVENANCE if raw else ()), (PARTITION, pa.date32())]
    return Table(name, pa.schema(fields), sort, doc)
