"""Gap rows for what a stream held that was replaced before the archive had read it all.

Nobody knows how much that was. So for each symbol a gap is declared from the last that the lake
holds of it to the first that the new stream brings, when it brings it; except where the new stream
goes on with the record after the last one that the lake holds: then nothing was lost. That is told
once of each bucket, by the first records that come in it, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.events import MINUTE_NS, bucket_of
from pipelines.lake.archive_state import ArchiveState, Marks, Ranges
from pipelines.lake.query import LakeQuery
from pipelines.streaming.missing import TABLES_WITH_TIME, Gap, gap_table, times_of

REASON = "stream_replaced"

_LAST = """
    SELECT symbol, max(ns) AS ns FROM (
        SELECT symbol, max(event_time_ns) AS ns FROM trades
            WHERE date >= $first::DATE GROUP BY symbol
        UNION ALL SELECT symbol, max(event_time_ns) FROM quotes
            WHERE date >= $first::DATE GROUP BY symbol
        UNION ALL SELECT symbol, max(event_time_ns) + $minute FROM bars
            WHERE date >= $first::DATE GROUP BY symbol
    ) GROUP BY symbol
"""


def last_of(query: LakeQuery, *, days: int) -> dict[str, int]:
    """The newest moment that the lake knows of each symbol, market ns.

    Args:
        query: The lake.
        days: Only of symbols that came on the newest day or so many before it: the rest of the
            history is not read.

    Raises:
        LakeError: The lake cannot be read.
    """
    held = {day for name in TABLES_WITH_TIME for day in query.days(name)}
    first = max(held, default=date.max) - timedelta(days)
    rows = query.sql(_LAST, {"minute": MINUTE_NS, "first": first.isoformat()}).to_pylist()
    return {row["symbol"]: row["ns"] for row in rows}


def first_of(tables: Mapping[str, pa.Table], symbols: Iterable[str]) -> dict[str, int]:
    """The first moment of each of these symbols in rows that were just parsed, market ns."""
    times = times_of(tables)
    wanted = pa.array(list(symbols), pa.string())
    came = times.filter(pc.is_in(times["symbol"], value_set=wanted))
    first = came.group_by("symbol").aggregate([("event_time_ns", "min")])
    return dict(
        zip(first["symbol"].to_pylist(), first["event_time_ns_min"].to_pylist(), strict=True)
    )


def going_on(marks: Marks, accepted: Ranges) -> set[int]:
    """Buckets whose next record came.

    >>> sorted(going_on({"e": {1: 5, 2: 5}}, {"e": {1: [(6, 9)], 2: [(7, 7)]}, "f": {3: [(1, 1)]}}))
    [1]
    """
    return {
        bucket
        for epoch, buckets in accepted.items()
        for bucket, ranges in buckets.items()
        if ranges
        and marks.get(epoch, {}).get(bucket, 0) == ranges[0][0] - 1
        and bucket in marks.get(epoch, {})
    }


def judge(state: ArchiveState, accepted: Ranges) -> tuple[dict[str, int], tuple[int, ...]]:
    """What is awaited after the buckets of a batch were judged, and which did not go on.

    Nothing was lost of a bucket whose first record is the next one: its symbols are not awaited any
    longer. A bucket that began with another one stays broken, whatever comes after it.

    Args:
        state: Before the batch.
        accepted: The records of the batch.
    """
    if not state.awaited:
        return {}, ()
    came = {b for buckets in accepted.values() for b, ranges in buckets.items() if ranges}
    whole = going_on(state.marks, accepted) - set(state.broken)
    awaited = {s: ns for s, ns in state.awaited.items() if bucket_of(s) not in whole}
    return awaited, tuple(sorted((came - whole) | set(state.broken)))


def still_broken(state: ArchiveState) -> tuple[int, ...]:
    """Buckets with symbols that did not come before the stream was replaced once more."""
    awaited = {bucket_of(symbol) for symbol in state.awaited}
    return tuple(bucket for bucket in state.broken if bucket in awaited)


def gap_rows(awaited: Mapping[str, int], first: Mapping[str, int], *, wall_ns: int) -> pa.Table:
    """Rows of ``gaps`` for the awaited symbols that have come.

    Args:
        awaited: Per symbol the last moment before, market ns.
        first: Per symbol the first moment after.
        wall_ns: Now.
    """
    gaps = [Gap(s, awaited[s], ns) for s, ns in first.items() if awaited.get(s, ns) < ns]
    return gap_table(gaps, reason=REASON, wall_ns=wall_ns)
