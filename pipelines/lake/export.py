"""Answers and tables for other tools: text, Parquet, and Hive-style folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.errors import LakeError

Format = Literal["csv", "json", "parquet"]

_MAX_PARTITIONS = 100_000
_OPEN_FILES = 256


def encode(rows: pa.Table, form: Format) -> bytes:
    r"""An answer as one document; times are in UTC, RFC 3339.

    >>> rows = pa.table({"symbol": ["KO", None], "n": [[1], []]})
    >>> print(encode(rows, "csv").decode(), end="")
    symbol,n
    KO,[1]
    ,[]
    >>> encode(rows, "json")
    b'[\n{"symbol":"KO","n":[1]},\n{"symbol":null,"n":[]}\n]\n'
    """
    if form == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        data: bytes = sink.getvalue().to_pybytes()
        return data
    if form == "json":
        lines = [_json(row) for row in rows.to_pylist()]
        return b"[\n" + b",\n".join(lines) + b"\n]\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    writer.writerows([cell(value) for value in row.values()] for row in rows.to_pylist())
    return text.getvalue().encode()


def write_hive(
    data: ds.Dataset, folder: Path, *, partition_by: Sequence[str], what: str = "table"
) -> int:
    """Write a table as Parquet files in folders ``column=value/``; how many rows there were.

    Args:
        data: The table, read piece by piece.
        folder: An empty or new folder.
        partition_by: Columns that become folders, in this order; none: one folder.
        what: The table's name, for errors.

    Raises:
        LakeError: There is no such column, the folder is not empty, or it cannot be written.
    """
    names = data.schema.names
    if unknown := [name for name in partition_by if name not in names]:
        raise LakeError(f"{what} has no column {unknown[0]!r}; it has {', '.join(names)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LakeError(f"{folder} is not empty; name a new folder")
    scanner = data.scanner()
    fields = [data.schema.field(name) for name in partition_by]
    written = 0

    def count(file: Any) -> None:
        nonlocal written
        written += file.metadata.num_rows

    try:
        ds.write_dataset(
            scanner,
            folder,
            format="parquet",
            partitioning=ds.partitioning(pa.schema(fields), flavor="hive"),
            file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
            max_partitions=_MAX_PARTITIONS,
            max_open_files=_OPEN_FILES,
            file_visitor=count,
        )
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{what} cannot be exported to {folder}: {error}") from error
    return written


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_other, option=orjson.OPT_UTC_Z)


def cell(value: Any) -> Any:
    """A value as text, where it is no text or number: lists as JSON, times as RFC 3339."""
    if isinstance(value, (list, dict, bytes)):
        return _json(value).decode()
    if isinstance(value, (datetime, date)):
        return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode().strip('"')
    return value


def _other(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)
