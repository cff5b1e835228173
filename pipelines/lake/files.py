"""The data files of a table: rows in, Parquet files out, and back.

Files are written anywhere (an executor, the driver) and mean nothing until a commit names them:
one that no commit names is an orphan, invisible to readers, which vacuuming removes. A
:class:`FileInfo` is what a commit needs to know; it travels as JSON.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from pipelines.clock import wall_ns
from pipelines.errors import LakeError
from pipelines.lake.tables import PARTITION, Table

_FORMAT: dict[str, Any] = {
    "compression": "zstd", "compression_level": 1, "row_group_size": 65_536,
}  # fmt: skip
"""By its row groups a query for one symbol skips the others."""

_PREFIX = 32
"""Characters of a text that go into the log's bounds."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One written Parquet file.

    Args:
        path: Path relative to its table's folder.
        size: Bytes.
        date: Its partition, ``YYYY-MM-DD``.
        rows: Number of rows.
        written_ms: Wall time of writing, milliseconds since the epoch.
        stats: Delta statistics as JSON.
    """

    path: str
    size: int
    date: str
    rows: int
    written_ms: int
    stats: str

    def to_dict(self) -> dict[str, Any]:
        """JSON types; :meth:`from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FileInfo:
        """The info of what :meth:`to_dict` gave."""
        return cls(**fields)


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """Rows with exactly the table's columns; ``date`` is the event time's where it is absent.

    Raises:
        LakeError: A column is missing, unknown, or of a type that cannot be cast.
    """
    if PARTITION not in rows.column_names and "event_time" in rows.column_names:
        rows = rows.append_column(PARTITION, pc.cast(rows["event_time"], pa.date32()))
    if sorted(rows.column_names) != sorted(table.schema.names):
        wrong = set(rows.column_names) ^ set(table.schema.names)
        raise LakeError(f"columns of {table.name} differ: {', '.join(sorted(wrong))}")
    try:
        return rows.select(table.schema.names).cast(table.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise LakeError(f"rows do not fit {table.name}: {error}") from error


def write_files(
    uri: str,
    table: Table,
    rows: pa.Table,
    *,
    tag: str = "part",
    storage_options: Mapping[str, str] | None = None,
) -> list[FileInfo]:
    """Write rows as Parquet files (zstd, sorted), one for each date, not yet part of the table.

    Args:
        uri: The lake's address.
        table: The table they are for.
        rows: Its columns, in any order of rows; rows that sort alike keep their order.
        tag: Beginning of the file names, for people who look.
        storage_options: Credentials and endpoint of an object store.

    Raises:
        LakeError: The rows do not fit the table, or cannot be written.
    """
    rows = conform(table, rows)
    if not rows.num_rows:
        return []
    rows = rows.sort_by([(column, "ascending") for column in table.sort])
    days = rows.column(PARTITION)
    out = []
    for day in sorted(pc.unique(days).to_pylist()):
        part = rows.filter(pc.equal(days, day)).drop_columns([PARTITION])
        path = f"{PARTITION}={day.isoformat()}/{tag}-{uuid.uuid4().hex}.parquet"
        size = _write(f"{uri.rstrip('/')}/{table.name}", path, part, storage_options)
        out.append(
            FileInfo(
                path=path,
                size=size,
                date=day.isoformat(),
                rows=part.num_rows,
                written_ms=wall_ns() // 1_000_000,
                stats=_statistics(part),
            )
        )
    return out


def read_files(
    uri: str,
    table: Table,
    paths: Sequence[str],
    *,
    storage_options: Mapping[str, str] | None = None,
) -> pa.Table:
    """The rows of files by path, whether or not the table still names them, in the order given.

    A column that is newer than a file is null.
    """
    folder = f"{uri.rstrip('/')}/{table.name}"
    parts = [table.schema.empty_table()]
    for path in paths:
        part = _read(folder, path, storage_options)
        day = path.split("/", 1)[0].removeprefix(f"{PARTITION}=")
        column = pc.cast(pa.array([day] * part.num_rows, pa.string()), pa.date32())
        part = part.append_column(PARTITION, column)
        for newer in table.schema:
            if newer.name not in part.column_names:
                part = part.append_column(newer, pa.nulls(part.num_rows, newer.type))
        parts.append(part.select(table.schema.names).cast(table.schema))
    return pa.concat_tables(parts)


def _statistics(part: pa.Table) -> str:
    """Delta statistics: bounds of every column that has an order (bytes are left out).

    All of them or none: deltalake's Arrow dataset takes a column without bounds, beside one with
    them, for a column without values, and then skips the file.
    """
    low, high, nulls = {}, {}, {}
    for name in part.column_names:
        values = part.column(name)
        nulls[name] = values.null_count
        if values.null_count < part.num_rows and not pa.types.is_nested(values.type):
            if pa.types.is_binary(values.type):
                continue
            bounds = pc.min_max(values).as_py()
            low[name], high[name] = _bound(bounds["min"]), _bound(bounds["max"], upper=True)
    return orjson.dumps(
        {"numRecords": part.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}
    ).decode()


def _bound(value: Any, *, upper: bool = False) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, str) and len(value) > _PREFIX:
        return value[:_PREFIX] + ("\U0010ffff" if upper else "")
    return value


def is_remote(uri: str) -> bool:
    """Whether an address is none of a folder of this machine.

    >>> is_remote("/var/lake"), is_remote("file:///var/lake"), is_remote("s3a://bucket/lake")
    (False, False, True)
    """
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> str:
    """The folder of an address that is one of this machine.

    >>> local_path("file:///var/lake")
    '/var/lake'
    """
    return uri.removeprefix("file://")


def _store(folder: str, options: Mapping[str, str] | None) -> Any:
    """The files below a folder of an object store; ``None`` for a local one.

    deltalake's own handler, whose streams take bytes: through its Arrow file system newer versions
    of Arrow hand it buffers, which it refuses.
    """
    if not is_remote(folder):
        return None
    from deltalake.fs import DeltaStorageHandler

    return DeltaStorageHandler(folder, dict(options or {}))._handler


def _write(folder: str, path: str, part: pa.Table, options: Mapping[str, str] | None) -> int:
    store = _store(folder, options)
    if store is None:
        target = Path(local_path(folder)) / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, target, **_FORMAT)
            return target.stat().st_size
        except OSError as error:  # Arrow has removed what it wrote of the file
            raise LakeError(f"{folder} cannot be written: {error}") from error
    sink = pa.BufferOutputStream()
    pq.write_table(part, sink, **_FORMAT)
    data = sink.getvalue().to_pybytes()
    try:
        stream = store.open_output_stream(path, None)
        stream.write(data)
        stream.close()
    except (DeltaError, OSError) as error:
        raise LakeError(f"{folder} cannot be written: {error}") from error
    return len(data)


def _read(folder: str, path: str, options: Mapping[str, str] | None) -> pa.Table:
    store = _store(folder, options)
    if store is None:
        return pq.ParquetFile(Path(local_path(folder)) / path).read()
    return pq.ParquetFile(pa.PythonFile(store.open_input_file(path))).read()
