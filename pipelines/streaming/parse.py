"""Kinesis records of ``market-data`` to rows of the raw tables. Pure, and the archive's hot path.

Every market message ends in exactly one of three places, and is counted there: stored in its
table, dropped as part of a record that was seen before, or quarantined with its reason. Gaps
become rows of ``gaps``; heartbeats only move the marks. What cannot be decoded at all goes to
``quarantine`` with its bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from pipelines.codec import decode_record
from pipelines.errors import MalformedFrame
from pipelines.events import (
    BAR,
    CANCEL,
    CORRECTION,
    DAY_NS,
    GAP,
    HEARTBEAT,
    MALFORMED,
    QUOTE,
    TRADE,
    UPDATED_BAR,
    Message,
    Record,
    is_gap,
    parse_time_ns,
    reject_reason,
)
from pipelines.lake.archive_state import Marks
from pipelines.lake.tables import TABLES
from pipelines.streaming.columns import HOME, Records, Rows, build, payload, to_time
from pipelines.streaming.notice import Notice
from pipelines.streaming.tick_rows import TickRows
from pipelines.ticks import Heartbeat, TickRecord, decode_ticks

_EPOCH_DAY = date(1970, 1, 1)
_CHUNK = 8192
"""So many messages are kept as objects before they become columns: few live objects keep the
garbage collector out of the hot path."""

_FILLED = {"filled_trades": TRADE, "filled_quotes": QUOTE, "filled_bars": BAR}
"""Columns of ``gaps``, and the message type that each counts."""

_REVISING = frozenset({BAR, UPDATED_BAR, CORRECTION, CANCEL})
"""Types that may say that a bar of the past is another one."""

_NO_RECORD = 0
"""Index of the record that stands for none: provenance of undecodable bytes is null."""


@dataclass(slots=True)
class Counts:
    """What became of the messages of one reader's part of a batch.

    Args:
        records: Kinesis records read.
        stored: Messages stored in trades, quotes, bars and events.
        duplicates: Messages in records that were seen before.
        quarantined: Messages quarantined.
        gaps: Gaps that were declared (the second row of a filled one is not counted).
        undecodable: Kinesis records that were no record of ours.
    """

    records: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    gaps: int = 0
    undecodable: int = 0


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """What :func:`parse_records` makes of a batch: rows by table, counters, accepted ranges."""

    tables: dict[str, pa.Table]
    counts: Counts
    accepted: dict[str, dict[int, list[tuple[int, int]]]]


def parse_records(batch: Iterable[tuple[bytes, int]], *, marks: Marks) -> ParsedBatch:
    """Parse a batch in one go.

    Args:
        batch: Data and arrival (wall ns) of each Kinesis record, in stream order.
        marks: Last ``bseq`` seen of each epoch and bucket before this batch.
    """
    parser = Parser(marks)
    for data, arrival_ns in batch:
        parser.add(data, arrival_ns=arrival_ns)
    return ParsedBatch(parser.take(), parser.counts, parser.accepted())


@dataclass(slots=True)
class _Quarantine:
    reason: list[str] = field(default_factory=list)
    symbol: list[str | None] = field(default_factory=list)
    payload: list[str | None] = field(default_factory=list)
    raw: list[bytes | None] = field(default_factory=list)
    detected_ns: list[int] = field(default_factory=list)
    day: list[date] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    position: list[int | None] = field(default_factory=list)
    received_at_ns: list[int | None] = field(default_factory=list)


class Parser:
    """Takes records one by one, keeps rows until they are taken.

    Args:
        marks: Last ``bseq`` seen of each epoch and bucket before this batch.
        notice: What is known of bars that are over; it has seen all once the rows were taken.
    """

    def __init__(self, marks: Marks, notice: Notice | None = None) -> None:
        self.counts = Counts()
        self.notice = notice or Notice()
        self.rows = 0
        self._marks = marks
        self._accepted: dict[tuple[str, int], list[list[int]]] = {}
        self._done: dict[str, list[pa.Table]] = {}
        self._clear()

    def _clear(self) -> None:
        self._kinds: dict[str, Rows] = {kind: Rows() for kind in (*HOME, "events")}
        self._ticks = TickRows()
        self._gaps = Rows()
        self._quarantine = _Quarantine()
        self._records = Records([None], [None], [None], [None])
        self._market_ns = [0]
        self._pending = 0

    def add(self, data: bytes, *, arrival_ns: int) -> None:
        """Take one Kinesis record that arrived at a wall time."""
        self.counts.records += 1
        ticks = decode_ticks(data)
        if ticks is not None:
            self._add_ticks(ticks, data)
            return
        try:
            record = decode_record(data)
        except MalformedFrame as error:
            self.counts.undecodable += 1
            self._reject_raw(str(error), bytes(data), arrival_ns)
            return
        if self._seen(record):
            self.counts.duplicates += sum(
                not isinstance(m, dict) or m.get("T") not in (HEARTBEAT, GAP)
                for m in record.messages
            )
            return
        self._check_ticks()
        self._sort_in(record, self._number(record), self._settled_ns(record))
        self._chunk()

    def _add_ticks(self, record: TickRecord, data: bytes) -> None:
        if self._seen(record):
            self.counts.duplicates += sum(not isinstance(m, Heartbeat) for m in record.messages)
            return
        settled_ns = self._settled_ns(record)
        self._ticks.add(record, self._number(record), data, settled_ns=settled_ns)
        self._chunk()

    def _check_ticks(self) -> None:
        """Judge the ticks that came; those of which one is not as it should be go one by one."""
        for number, (data, settled_ns) in self._ticks.check(self.notice).items():
            self._sort_in(decode_record(data), number, settled_ns)

    def _settled_ns(self, record: Record | TickRecord) -> int:
        market_ns, sent_at_ns = record.market_ns, record.sent_at_ns
        return self.notice.settled_ns(market_ns=market_ns, sent_at_ns=sent_at_ns)

    def _number(self, record: Record | TickRecord) -> int:
        """Remember a record that is taken; its number in the chunk."""
        self._market_ns.append(record.market_ns)
        self._records.epoch.append(record.epoch)
        self._records.bucket.append(record.bucket)
        self._records.bseq.append(record.bseq)
        self._records.sent_at_ns.append(record.sent_at_ns)
        self.rows += len(record.messages)
        self._pending += len(record.messages)
        return len(self._market_ns) - 1

    def _chunk(self) -> None:
        if self._pending >= _CHUNK:
            self._to_columns()

    def _sort_in(self, record: Record, number: int, settled_ns: int) -> None:
        kinds = self._kinds
        events = kinds["events"]
        notice, closed, market_ns = self.notice, self.notice.closed, record.market_ns
        for position, message in enumerate(record.messages):
            if not isinstance(message, dict):
                self._reject({"value": message}, "not_an_object", number, position)
                continue
            reason = reject_reason(message, market_ns=market_ns)
            if reason is None:
                kind = message["T"]
                rows = kinds.get(kind, events)
                rows.messages.append(message)
                ns = parse_time_ns(message["t"] if "t" in message else message["updated_at"])
                rows.times.append(ns)
                if kind == TRADE:
                    if ns < settled_ns or ns < closed.get(message["S"], 0) or message.get("bf"):
                        notice.dirty.minute(message["S"], ns)
                elif kind in _REVISING:
                    notice.other(kind, message, ns, settled_ns=settled_ns)
                rows.record.append(number)
                rows.position.append(position)
            elif reason == "unknown_type":
                self._producer_made(message, number, position)
            else:
                self._reject(message, reason, number, position)

    def _producer_made(self, message: Message, number: int, position: int) -> None:
        kind = message.get("T")
        if kind == HEARTBEAT:
            return
        if kind == GAP and is_gap(message):
            if _is_filled(message):
                self.notice.filled(message)
            self._gaps.messages.append(message)
            self._gaps.times.append(message["to_ns"])
            self._gaps.record.append(number)
            self._gaps.position.append(position)
        elif kind == MALFORMED:
            self._reject(message, str(message.get("reason", "malformed")), number, position)
        else:
            self._reject(message, "bad_gap" if kind == GAP else "unknown_type", number, position)

    def take(self) -> dict[str, pa.Table]:
        """The rows so far, by table (only those with rows); they are no longer kept here."""
        self._to_columns()
        done, self._done, self.rows = self._done, {}, 0
        return {name: pa.concat_tables(parts) for name, parts in done.items()}

    def _to_columns(self) -> None:
        self._check_ticks()
        made = list(self._ticks.tables(self._records))
        self.counts.stored += sum(table.num_rows for _, table in made)
        for kind, rows in self._kinds.items():
            if rows.messages:
                built = build(kind, rows, self._records, reject=self._reject)
                self.counts.stored += built.num_rows
                made.append((HOME.get(kind, "events"), built))
        if self._gaps.messages:
            self.counts.gaps += sum(not _is_filled(m) for m in self._gaps.messages)
            made.append(("gaps", self._gap_table()))
        if self._quarantine.reason:
            made.append(("quarantine", self._quarantine_table()))
        for name, part in made:
            if part.num_rows:
                self._done.setdefault(name, []).append(part)
        self._clear()

    def accepted(self) -> dict[str, dict[int, list[tuple[int, int]]]]:
        """The ``bseq`` that were accepted, as ascending, disjoint ranges."""
        out: dict[str, dict[int, list[tuple[int, int]]]] = {}
        for (epoch, bucket), ranges in self._accepted.items():
            merged: list[tuple[int, int]] = []
            for low, high in sorted(ranges):
                if merged and merged[-1][1] + 1 == low:
                    merged[-1] = (merged[-1][0], high)
                else:
                    merged.append((low, high))
            out.setdefault(epoch, {})[bucket] = merged
        return out

    def _seen(self, record: Record | TickRecord) -> bool:
        """Whether a record was seen before, in this batch or in one before; remembers it if not."""
        bseq = record.bseq
        if bseq <= self._marks.get(record.epoch, {}).get(record.bucket, 0):
            return True
        ranges = self._accepted.setdefault((record.epoch, record.bucket), [])
        if ranges and ranges[-1][1] + 1 == bseq:
            if any(low == bseq for low, _ in ranges):
                return True
            ranges[-1][1] = bseq
            return False
        if any(low <= bseq <= high for low, high in ranges):
            return True
        ranges.append([bseq, bseq])
        return False

    def _reject(self, message: Message, reason: str, number: int, position: int) -> None:
        self.counts.quarantined += 1
        kept = self._quarantine
        symbol, received = message.get("S"), message.get("r")
        raw = _raw(message)
        kept.reason.append(reason)
        kept.symbol.append(symbol if isinstance(symbol, str) else None)
        kept.payload.append(payload(message) if raw is None else None)
        kept.raw.append(raw)
        kept.detected_ns.append(self._records.sent_at_ns[number] or 0)
        kept.day.append(_EPOCH_DAY + timedelta(self._market_ns[number] // DAY_NS))
        kept.record.append(number)
        kept.position.append(position)
        kept.received_at_ns.append(received if _is_ns(received) else None)

    def _reject_raw(self, reason: str, raw: bytes, arrival_ns: int) -> None:
        kept = self._quarantine
        kept.reason.append(f"undecodable: {reason}"[:200])
        kept.symbol.append(None)
        kept.payload.append(None)
        kept.raw.append(raw)
        kept.detected_ns.append(arrival_ns)
        kept.day.append(_EPOCH_DAY + timedelta(arrival_ns // DAY_NS))
        kept.record.append(_NO_RECORD)
        kept.position.append(None)
        kept.received_at_ns.append(None)

    def _gap_table(self) -> pa.Table:
        messages = self._gaps.messages
        begins = pa.array([m["from_ns"] for m in messages], pa.int64())
        ends = pa.array([m["to_ns"] for m in messages], pa.int64())
        to_time_ = to_time(ends)
        columns: dict[str, Any] = {
            "symbol": pa.array([m["S"] for m in messages], pa.string()),
            "from_ns": begins,
            "to_ns": ends,
            "from_time": to_time(begins),
            "to_time": to_time_,
            "reason": pa.array([str(m.get("reason", "")) for m in messages], pa.string()),
            "backfilled": pa.array([_is_filled(m) for m in messages], pa.bool_()),
            **{
                name: pa.array([_filled(m, kind) for m in messages], pa.int64())
                for name, kind in _FILLED.items()
            },
            "position": pa.array(self._gaps.position, pa.int32()),
            "received_at_ns": pa.array(
                [r if _is_ns(r := m.get("r")) else None for m in messages], pa.int64()
            ),
            "date": to_time_.cast(pa.date32()),
        }
        columns.update(self._records.columns(self._gaps.record))
        schema = TABLES["gaps"].schema
        return pa.table([columns[n] for n in schema.names], schema=schema)

    def _quarantine_table(self) -> pa.Table:
        kept = self._quarantine
        columns: dict[str, Any] = {
            "reason": pa.array(kept.reason, pa.string()),
            "symbol": pa.array(kept.symbol, pa.string()),
            "payload": pa.array(kept.payload, pa.string()),
            "raw": pa.array(kept.raw, pa.binary()),
            "detected": to_time(pa.array(kept.detected_ns, pa.int64())),
            "position": pa.array(kept.position, pa.int32()),
            "received_at_ns": pa.array(kept.received_at_ns, pa.int64()),
            "date": pa.array(kept.day, pa.date32()),
        }
        columns.update(self._records.columns(kept.record))
        schema = TABLES["quarantine"].schema
        return pa.table([columns[n] for n in schema.names], schema=schema)


def _is_filled(gap: Message) -> bool:
    return gap.get("backfilled") is True


def _filled(gap: Message, kind: str) -> int | None:
    filled = gap.get("filled")
    count = filled.get(kind) if isinstance(filled, dict) else None
    return count if _is_ns(count) else None


def _is_ns(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _raw(message: Message) -> bytes | None:
    if message.get("T") != MALFORMED or not isinstance(message.get("raw"), str):
        return None
    try:
        return base64.b64decode(message["raw"], validate=True)
    except (binascii.Error, ValueError):
        return None
