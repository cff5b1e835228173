"""The executors' side of the query ``archive``: one shard's part of a batch to Parquet files.

In: the source's rows. Out: one row of JSON: which files, which records, what became of the
messages, and which bars have to be looked at again. The driver makes a batch of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.dataset as ds

from pipelines.lake.archive_state import Marks
from pipelines.lake.files import read_files, write_files
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.streaming import refilled, replaced
from pipelines.streaming.notice import Notice
from pipelines.streaming.parse import Parser
from pipelines.workers import settle

COUNTERS = ("stored", "duplicates", "quarantined", "gaps", "undecodable")
"""What a result counts, by the names of :class:`pipelines.lake.archive_state.Totals`."""

_FLUSH_ROWS = 400_000
"""A task writes its files when it holds so many rows: bounds its memory."""

_JSON = orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Task:
    """What an executor needs to archive its part of a batch.

    Args:
        lake_uri: The lake.
        storage_options: Its credentials and endpoint.
        marks: Last ``bseq`` seen of each epoch and bucket before this batch.
        tag: Beginning of its files' names.
        closed: Per symbol the end of the last bar that came before this batch.
        ended: When the last minutes were first seen to be over.
        awaited: Symbols whose first moment in this batch is asked for.
    """

    lake_uri: str
    storage_options: Mapping[str, str] = field(repr=False)
    marks: Marks
    tag: str
    closed: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)
    awaited: tuple[str, ...] = ()

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Archive one partition; yields one row of JSON (for ``mapInArrow``)."""
        result = self.archive(batches)
        yield pa.record_batch({"result": [orjson.dumps(result, option=_JSON).decode()]})
        settle("archive")

    def archive(self, batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """Parse the records, write the files, say what was done."""
        notice = Notice(self.closed, self.ended)
        parser = Parser(self.marks, notice)
        files: dict[str, list[dict[str, Any]]] = {}
        first: dict[str, int] = {}
        positions: dict[str, str] = {}
        for batch in batches:
            data = batch.column("data").to_pylist()
            arrivals = batch.column("arrival").cast(pa.int64()).to_pylist()
            shards = batch.column("shard").to_pylist()
            positions.update(zip(shards, batch.column("sequence").to_pylist(), strict=True))
            for payload, arrival_us in zip(data, arrivals, strict=True):
                parser.add(payload, arrival_ns=arrival_us * 1000)
            if parser.rows >= _FLUSH_ROWS:
                self._write(parser, files, first)
        self._write(parser, files, first)
        counts = parser.counts
        return {
            "files": files,
            "positions": positions,
            "accepted": parser.accepted(),
            "records": counts.records,
            "dirty": notice.dirty.to_dict(),
            "closed": {k: v for k, v in notice.closed.items() if self.closed.get(k) != v},
            "ended": notice.ended,
            "first": first,
            **{name: getattr(counts, name) for name in COUNTERS},
        }

    def _write(
        self, parser: Parser, files: dict[str, list[dict[str, Any]]], first: dict[str, int]
    ) -> None:
        tables = parser.take()
        if self.awaited:
            for symbol, ns in replaced.first_of(tables, self.awaited).items():
                first[symbol] = min(ns, first.get(symbol, ns))
        if "trades" in tables:
            self._leave_out_stored(tables, parser, files)
        for name, rows in tables.items():
            infos = write_files(
                self.lake_uri,
                TABLES[name],
                rows,
                tag=self.tag,
                storage_options=self.storage_options,
            )
            files.setdefault(name, []).extend(info.to_dict() for info in infos)

    def _leave_out_stored(
        self, tables: dict[str, pa.Table], parser: Parser, files: Mapping[str, Any]
    ) -> None:
        def stored(where: ds.Expression) -> pa.Table:
            lake, columns = LakeQuery(self.lake_uri, self.storage_options), list(refilled.KEY)
            found = [lake.dataset("trades").to_table(columns=columns, filter=where)]
            for info in files.get("trades", ()):
                rows = read_files(
                    self.lake_uri, TABLES["trades"], [info["path"]],
                    storage_options=self.storage_options,
                )  # fmt: skip
                found.append(rows.filter(where).select(columns))
            return pa.concat_tables(found)

        tables["trades"], left_out = refilled.split(tables["trades"], stored)
        if left_out.num_rows:
            parser.counts.stored -= left_out.num_rows
            parser.counts.quarantined += left_out.num_rows
            others = tables.get("quarantine")
            tables["quarantine"] = pa.concat_tables([left_out, *([others] if others else [])])
