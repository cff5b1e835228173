"""The lake, as the command line asks for it: query it, export from it, keep evaluations."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from rich.console import Console
from rich.text import Text

from cluster.settings import Settings
from pipelines.clock import wall_ns
from pipelines.errors import ConfigError
from pipelines.lake.export import cell, encode, write_hive
from pipelines.lake.query import AsOf, LakeQuery
from pipelines.lake.tables import TABLES, TIME
from pipelines.lake.writer import LakeWriter
from rl.registry import ModelRef

EVALUATE = "evaluate"
FORMATS = ("table", "csv", "json", "parquet")


def lake(settings: Settings) -> LakeQuery:
    """The lake of this platform."""
    return LakeQuery(settings.uri("lake"), settings.store_options())


def as_of(text: str | None) -> AsOf | None:
    """What ``--as-of`` says: a version, or a time; one without a zone is UTC.

    Raises:
        ConfigError: It is neither.

    >>> as_of("12"), str(as_of("2011-01-03T14:30:00Z")), str(as_of("2011-01-03 14:30"))
    (12, '2011-01-03 14:30:00+00:00', '2011-01-03 14:30:00+00:00')
    """
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--as-of {text!r}: neither a version (12) nor a time (2011-01-03T14:30:00Z)"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def query(
    settings: Settings,
    sql: str,
    *,
    form: str,
    out: Path | None,
    moment: str | None,
    limit: int,
    console: Console,
) -> None:
    """Print the answer of a query, or write it to a file.

    Raises:
        ConfigError: The format is none of :data:`FORMATS`, does not fit where it goes, or the file
            cannot be written.
        LakeError: The query failed; the message lists the tables.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form!r}: there are {', '.join(FORMATS)}")
    if form == "table" and out is not None:
        raise ConfigError("--out needs --format csv, json or parquet")
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise ConfigError("--format parquet is no text for a terminal; add --out FILE")
    rows = lake(settings).sql(sql, as_of=as_of(moment))
    if form != "table":
        data = encode(rows, form)  # type: ignore[arg-type]
        if out is None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            try:
                out.write_bytes(data)
            except OSError as error:
                raise ConfigError(f"--out {out}: {error.strerror}") from error
            console.print(f"{rows.num_rows} rows → {out}")
        return
    _print(rows, limit=limit, console=console)


def leave(settings: Settings) -> None:
    """End the process at once if the lake is in an object store; all is written.

    A query that ended early (LIMIT) leaves threads of Arrow that read on, through delta-rs and
    Python; an interpreter that shuts down under them hangs or crashes.
    """
    if "://" in settings.uri("lake"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _print(rows: pa.Table, *, limit: int, console: Console) -> None:
    """Rows as a table; a record at a time where a terminal is too narrow for all columns."""
    cells = [
        ["" if value is None else str(cell(value)) for value in row.values()]
        for row in rows.slice(0, limit).to_pylist()
    ]
    names = rows.column_names
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    width = sum(widths) + 2 * len(widths)
    if width > console.width and console.is_terminal:
        longest = max(map(len, names))
        for number, row in enumerate(cells, 1):
            console.print(f"[dim]── {number}[/]")
            for name, text in zip(names, row, strict=True):
                console.print(Text(f"{name:<{longest}}  {text}"), soft_wrap=True)
    else:
        for style, line in (("bold", names), *(("", row) for row in cells)):
            padded = [text.ljust(size) for text, size in zip(line, widths, strict=True)]
            console.print(Text("  ".join(padded).rstrip(), style), soft_wrap=True)
    if rows.num_rows > limit:
        console.print(f"[dim]{limit} of {rows.num_rows} rows; --limit shows more[/]")


def export(
    settings: Settings,
    name: str,
    *,
    partition_by: str,
    out: Path,
    moment: str | None,
    console: Console,
) -> None:
    """Write a table as Hive-style Parquet.

    Raises:
        LakeError: There is no such table or column, or the folder is not empty.
    """
    columns = [column.strip() for column in partition_by.split(",") if column.strip()]
    data = lake(settings).dataset(name, as_of=as_of(moment))
    rows = write_hive(data, out, partition_by=columns, what=name)
    console.print(f"{rows} rows → {out}")


def keep_evaluation(settings: Settings, ref: ModelRef, rows: Mapping[str, Any]) -> None:
    """Write a backtest down in ``evaluations``.

    Args:
        settings: The platform.
        ref: The model that was judged.
        rows: By policy its metrics: the model's own, and the baselines'.

    Raises:
        LakeError: The lake cannot be written.
    """
    wanted, now_ns = TABLES["evaluations"], wall_ns()
    at = pa.scalar(now_ns // 1000, pa.timestamp("us")).cast(TIME).as_py()
    made = []
    for policy, metrics in rows.items():
        flat = {k: v for k, v in metrics.items() if k != "baselines"}
        made.append(
            {name: metrics.get(name) for name in wanted.schema.names}
            | {"event_time": at, "date": at.date(), "policy": policy}
            | {"model_id": ref.id, "model_version": str(ref.version)}
            | {"payload": orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY).decode()}
        )
    writer = LakeWriter(settings.uri("lake"), settings.store_options())
    generation = writer.open_query(EVALUATE, tables=(wanted.name,))
    writer.commit(
        wanted.name,
        pa.Table.from_pylist(made, schema=wanted.schema),
        query_id=EVALUATE,
        batch_id=writer.next_batch(wanted.name, EVALUATE),
        generation=generation,
    )
