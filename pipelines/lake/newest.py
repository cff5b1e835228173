"""The rows of a table's newest batch, found by what they say: all carry one ``known_at``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipelines.lake.files import read_files
from pipelines.lake.table import Table

STAMP: Final = "known_at"
_ROUNDED: Final = timedelta(milliseconds=1)
"""Bounds in a log may be cut to milliseconds."""


def newest_rows(
    snapshot: DeltaTable,
    uri: str,
    wanted: Table,
    own: pc.Expression,
    storage_options: Mapping[str, str] | None = None,
) -> pa.Table:
    """The newest batch of one query, in its own files or in joined ones; sorted as in these.

    Reads only files whose bounds in the log say that they may hold it.

    Args:
        snapshot: The table.
        uri: The lake's address.
        wanted: What table it is.
        own: Which rows that query writes.
        storage_options: Its credentials and endpoint.

    Raises:
        OSError: The files cannot be read.
    """
    files: list[dict[str, Any]] = pa.table(snapshot.get_add_actions(flatten=True)).to_pylist()
    files.sort(key=_bound, reverse=True)
    parts: list[tuple[datetime, str, pa.Table]] = []
    newest: datetime | None = None
    for file in files:
        if newest is not None and _bound(file) < newest - _ROUNDED:
            break
        rows = read_files(uri, wanted, [file["path"]], storage_options=storage_options)
        rows = rows.filter(own)
        last = pc.max(rows[STAMP]).as_py()
        if last is not None:
            newest = max(newest or last, last)
            parts.append((last, file["path"], rows))
    found = [rows for last, _, rows in sorted(parts, key=lambda p: p[1]) if last == newest]
    rows = pa.concat_tables([wanted.schema.empty_table(), *found])
    return rows.filter(pc.field(STAMP) == pa.scalar(newest, rows[STAMP].type))


def _bound(file: Mapping[str, Any]) -> datetime:
    """No row of a file is newer than this."""
    bound = file.get(f"max.{STAMP}")
    return datetime.max.replace(tzinfo=UTC) if bound is None else bound.replace(tzinfo=UTC)
