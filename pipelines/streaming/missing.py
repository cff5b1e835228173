"""Gap rows for records that never came: lost between the producer and the lake.

The counters of a bucket show a hole; what was in it nobody knows. So for each symbol of the bucket
a gap is declared, from its last moment before the hole to its first one after it. A symbol that has
not come since the hole is waited for, unless it was not heard of for days. This looks into the lake
and into the files of the batch, and only where there is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.events import DAY_NS, MINUTE_NS, bucket_of
from pipelines.lake.archive_state import Marks, Ranges
from pipelines.lake.tables import TABLES, TIME

REASON = "records_lost"

FORGOTTEN_NS = 10 * DAY_NS
"""A symbol that was not heard of for so long before the others is followed no longer."""

TABLES_WITH_TIME = ("trades", "quotes", "bars")
_COLUMNS = ("symbol", "event_time_ns", "epoch", "bucket", "bseq")

Since = Mapping[str, int | None]
"""Per symbol the last moment before a hole, market ns; ``None``: not seen for days, or ever."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Records of one bucket that never came.

    Args:
        epoch: Their producer run.
        bucket: Their bucket.
        low: Counter of the first.
        high: Counter of the last.
    """

    epoch: str
    bucket: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Gap:
    """What a symbol may have had, and nobody has.

    Args:
        symbol: Its symbol.
        from_ns: Its last moment before, market ns, if it was seen in the days before.
        to_ns: Its first moment after.
    """

    symbol: str
    from_ns: int | None
    to_ns: int


def holes_of(marks: Marks, accepted: Ranges) -> list[Hole]:
    """The holes that the records of a batch show, in the order of their counters.

    >>> holes_of({"e": {1: 5}}, {"e": {1: [(6, 7), (9, 9)], 2: [(3, 3)]}})
    [Hole(epoch='e', bucket=1, low=8, high=8), Hole(epoch='e', bucket=2, low=1, high=2)]
    """
    found = []
    for epoch, buckets in accepted.items():
        for bucket, ranges in buckets.items():
            last = marks.get(epoch, {}).get(bucket, 0)
            for low, high in ranges:
                if low > last + 1:
                    found.append(Hole(epoch, bucket, last + 1, low - 1))
                last = high
    return found


def gaps_of(
    holes: Sequence[Hole], rows: pa.Table, last: Callable[[], Mapping[str, int]]
) -> tuple[list[Gap], dict[str, int | None]]:
    """The gaps that holes left, and since when the symbols are waited for that have not come.

    Args:
        holes: Of one batch.
        rows: Of the batch, see :func:`times_of`; live ones.
        last: Asked for the last moment of each symbol before the batch, if there is a hole.
    """
    gaps: list[Gap] = []
    waiting: dict[str, int | None] = {}
    if not holes:
        return gaps, waiting
    before = last()
    since_ns = max(before.values(), default=0) - FORGOTTEN_NS
    seen = _by_symbol(rows, {hole.bucket for hole in holes})
    for hole in holes:
        known = {s for s, ns in before.items() if ns >= since_ns and bucket_of(s) == hole.bucket}
        for symbol in sorted(known | {s for s in seen if bucket_of(s) == hole.bucket}):
            of_run = [(bseq, ns) for epoch, bseq, ns in seen.get(symbol, ()) if epoch == hole.epoch]
            earlier = [ns for bseq, ns in of_run if bseq < hole.low]
            later = [ns for bseq, ns in of_run if bseq > hole.high]
            since = max(earlier, default=before.get(symbol))
            if not later:
                waiting.setdefault(symbol, since)
            else:
                gaps.append(_between(symbol, since, min(later)))
    return gaps, waiting


def ended(waiting: Since, first: Mapping[str, int]) -> list[Gap]:
    """The gaps of symbols that were waited for and have come.

    >>> ended({"SPY": 5, "QQQ": None}, {"SPY": 8, "KO": 9})
    [Gap(symbol='SPY', from_ns=5, to_ns=8)]
    """
    return [_between(s, since, first[s]) for s, since in sorted(waiting.items()) if s in first]


def _between(symbol: str, since: int | None, to_ns: int) -> Gap:
    """The gap between two moments; late trades may turn them round."""
    if since is None:
        return Gap(symbol, None, to_ns)
    return Gap(symbol, min(since, to_ns), max(since, to_ns))


def times_of(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Symbol, time and record of the live rows of raw tables; a bar is known at its end."""
    parts = []
    for name in TABLES_WITH_TIME:
        rows = tables.get(name)
        if rows is None:
            continue
        rows = rows.filter(pc.invert(pc.fill_null(rows["backfilled"], False))).select(_COLUMNS)
        if name == "bars":
            at = rows.column_names.index("event_time_ns")
            ends = pc.add(rows["event_time_ns"], MINUTE_NS)
            rows = rows.set_column(at, "event_time_ns", ends)
        parts.append(rows)
    return pa.concat_tables(parts or [TABLES["trades"].schema.empty_table().select(_COLUMNS)])


def gap_table(gaps: Iterable[Gap], *, reason: str, wall_ns: int) -> pa.Table:
    """Rows of ``gaps``, by symbol.

    Args:
        gaps: What to declare.
        reason: Why.
        wall_ns: Now.
    """
    schema = TABLES["gaps"].schema
    rows = []
    for gap in sorted(gaps, key=lambda gap: (gap.symbol, gap.to_ns)):
        ends = _time(gap.to_ns)
        rows.append(
            dict.fromkeys(schema.names)
            | {"symbol": gap.symbol, "from_ns": gap.from_ns, "to_ns": gap.to_ns}
            | {"from_time": None if gap.from_ns is None else _time(gap.from_ns), "to_time": ends}
            | {"reason": reason, "backfilled": False, "bucket": bucket_of(gap.symbol)}
            | {"received_at_ns": wall_ns, "date": ends.date()}
        )
    return pa.Table.from_pylist(rows, schema=schema)


def _time(ns: int) -> datetime:
    at: datetime = pa.scalar(ns // 1000, pa.timestamp("us")).cast(TIME).as_py()
    return at


def _by_symbol(rows: pa.Table, buckets: Iterable[int]) -> dict[str, list[tuple[str, int, int]]]:
    """Per symbol of these buckets ``(epoch, bseq, ns)`` of each row."""
    wanted = rows.filter(pc.is_in(rows["bucket"].cast(pa.int64()), pa.array(buckets, pa.int64())))
    found: dict[str, list[tuple[str, int, int]]] = {}
    columns = (wanted[name].to_pylist() for name in ("symbol", "epoch", "bseq", "event_time_ns"))
    for symbol, epoch, bseq, ns in zip(*columns, strict=True):
        found.setdefault(symbol, []).append((epoch, bseq, ns))
    return found
