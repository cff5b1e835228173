"""How far the archive query is: totals, bucket marks, stream positions. Pure, but for :func:`load`.

The state after a batch stands in one row of the table ``_archive``, together with the files of
that batch. That row is the batch's one point of commit: it replaces the row of the batch before,
and whoever finds it can add the files to their tables (again, harmlessly), whatever happened to
its writer. So the totals, the marks and the tables agree after any crash, and a query with a new
checkpoint continues from the lake.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from pipelines.lake.dirty import Dirty
from pipelines.lake.files import FileInfo
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import ARCHIVE_STATE, TIME

Marks = Mapping[str, Mapping[int, int]]
"""Last ``bseq`` seen of each epoch and bucket."""

Ranges = Mapping[str, Mapping[int, Sequence[tuple[int, int]]]]
"""Accepted ``bseq`` of each epoch and bucket, as closed ranges, ascending and disjoint."""

MAX_EPOCHS = 512
"""Marks are kept for so many producer runs; the one that was quiet longest goes first."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters since the lake began. Received = stored + duplicates + quarantined + in flight.

    Args:
        batches: Batches with data.
        stored: Market messages in the raw tables.
        duplicates: Messages (market and ``bad``) of records that were there already; not stored.
        quarantined: Messages in ``quarantine``.
        holes: Records that were never seen, by ``bseq``.
        gaps: Rows in ``gaps``.
        undecodable: Kinesis records that were no record of ours (a row each in ``quarantine``,
            not counted in ``quarantined``: nobody knows how many messages they held).
        streams_replaced: How often the stream was another one than before. What the old one held
            and the archive had not read is lost: gap rows say so.
        not_revised: Dirty minutes that were left out because there were too many.
        by_table: Rows of each table.
    """

    batches: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    holes: int = 0
    gaps: int = 0
    undecodable: int = 0
    streams_replaced: int = 0
    not_revised: int = 0
    by_table: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            **{n: getattr(self, n) for n in self.__slots__ if n != "by_table"},
            "by_table": dict(self.by_table),
        }


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """The state after one batch.

    Args:
        query_id: Spark's id of the query that made it; empty before the first batch.
        batch_id: Its batch.
        totals: Counters, this batch included.
        marks: Last ``bseq`` of each epoch and bucket.
        stream: Which stream was read: its name and when it was made.
        positions: Last sequence number of each of its shards that was read.
        files: The files of this batch by table.
        committed_ns: Wall time of the commit.
        dirty: Bars that have to be looked at again.
        closed: Per symbol the end of the last bar that came, market ns.
        ended: Ends of the last minutes, market ns, and when each was first seen to be over, wall
            ns.
        awaited: After the stream was replaced: per symbol that has not come yet the last moment
            that the lake knew of it, market ns.
        broken: Buckets that came and did not go on with the record after the last one known.
        missing: After records were lost: per symbol of their bucket that has not come since the
            last moment before, market ns, if there was one.
    """

    query_id: str = ""
    batch_id: int = -1
    totals: Totals = field(default_factory=Totals)
    marks: Marks = field(default_factory=dict)
    stream: str = ""
    positions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Sequence[FileInfo]] = field(default_factory=dict)
    committed_ns: int = 0
    dirty: Dirty = field(default_factory=Dirty)
    closed: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)
    awaited: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[int, ...] = ()
    missing: Mapping[str, int | None] = field(default_factory=dict)

    def holds(self, query_id: str, batch_id: int) -> bool:
        """Whether a batch is in the lake already."""
        return query_id == self.query_id and batch_id <= self.batch_id

    def to_table(self) -> pa.Table:
        """The one row of ``_archive``."""
        state = {
            "totals": self.totals.to_dict(),
            "marks": self.marks,
            "stream": self.stream,
            "positions": self.positions,
            "committed_ns": self.committed_ns,
            "dirty": self.dirty.to_dict(),
            "closed": self.closed,
            "ended": self.ended,
            "awaited": self.awaited,
            "broken": self.broken,
            "missing": self.missing,
        }
        files = {name: [f.to_dict() for f in infos] for name, infos in self.files.items()}
        at = pa.scalar(self.committed_ns // 1000, pa.timestamp("us")).cast(TIME)
        row = {
            "query_id": self.query_id,
            "batch_id": self.batch_id,
            "committed_at": at.as_py(),
            "state": orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS).decode(),
            "files": orjson.dumps(files).decode(),
            "date": at.as_py().date(),
        }
        return pa.Table.from_pylist([row], schema=ARCHIVE_STATE.schema)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ArchiveState:
        """The state of a row of ``_archive``."""
        state = orjson.loads(row["state"])
        return cls(
            query_id=row["query_id"],
            batch_id=row["batch_id"],
            totals=Totals(**state["totals"]),
            marks={e: {int(b): n for b, n in m.items()} for e, m in state["marks"].items()},
            stream=state["stream"],
            positions=state["positions"],
            files={
                name: [FileInfo.from_dict(f) for f in infos]
                for name, infos in orjson.loads(row["files"]).items()
            },
            committed_ns=state["committed_ns"],
            dirty=Dirty.from_dict(state.get("dirty", {})),  # older states know none of these
            closed=state.get("closed", {}),
            ended={int(end): ns for end, ns in state.get("ended", {}).items()},
            awaited=state.get("awaited", {}),
            broken=tuple(state.get("broken", ())),
            missing=state.get("missing", {}),
        )


def load(query: LakeQuery) -> ArchiveState:
    """The state that the lake holds; an empty one before the first batch.

    Raises:
        LakeError: The lake cannot be read.
    """
    rows = query.dataset(ARCHIVE_STATE.name).to_table().to_pylist()
    return ArchiveState.from_row(rows[0]) if rows else ArchiveState()


def advance(marks: Marks, accepted: Ranges) -> tuple[dict[str, dict[int, int]], int]:
    """Marks after a batch, and how many records it showed to be missing.

    >>> advance({"e": {1: 5}}, {"e": {1: [(6, 7), (9, 9)], 2: [(1, 3)]}})
    ({'e': {1: 9, 2: 3}}, 1)
    """
    out = {epoch: dict(buckets) for epoch, buckets in marks.items()}
    holes = 0
    for epoch, buckets in accepted.items():
        known = out.pop(epoch, {})  # taken out and put in at the end: the quietest come first
        for bucket, ranges in buckets.items():
            last = known.get(bucket, 0)
            seen = sum(high - low + 1 for low, high in ranges)
            top = max(high for _, high in ranges)
            holes += top - last - seen
            known[bucket] = top
        out[epoch] = known
    for epoch in list(out)[: max(0, len(out) - MAX_EPOCHS)]:
        del out[epoch]
    return out, holes


def union(parts: Iterable[Ranges]) -> tuple[dict[str, dict[int, list[tuple[int, int]]]], bool]:
    """The ranges of several readers together, and whether two of them took the same record.

    >>> union([{"e": {1: [(1, 2)]}}, {"e": {1: [(3, 4)]}}])
    ({'e': {1: [(1, 2), (3, 4)]}}, False)
    >>> union([{"e": {1: [(1, 2)]}}, {"e": {1: [(2, 4)]}}])[1]
    True
    """
    out: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for part in parts:
        for epoch, buckets in part.items():
            for bucket, ranges in buckets.items():
                out.setdefault(epoch, {}).setdefault(bucket, []).extend(ranges)
    overlap = False
    for buckets_out in out.values():
        for merged in buckets_out.values():
            merged.sort()
            overlap |= any(a[1] >= b[0] for a, b in itertools.pairwise(merged))
    return out, overlap
