"""Deciding on the driver where the next batch of a stream ends, with as few reads as possible.

No call of Kinesis tells a shard's tip. While little arrives, the planner reads on behind its last
end: one GetRecords per shard and batch, whose last record is the new end. Once a page does not
reach the tip, it asks for what arrived in the last moments instead (an iterator AT_TIMESTAMP just
behind now): still one GetRecords, and only that moment is read twice. A backlog is cut by arrival
time, because a shard takes at most 1 MB/s. A limit in records, and a service that cannot find a
place by time (embedded Kinesis), are read through page by page.

Failures that may pass are mended or waited for inside: an exception would end the query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from pipelines.errors import DataLoss, StreamError, StreamReplaced, StreamUnavailable
from pipelines.kinesis.cursor import Page, RawRecord, ShardCursor, created_ms, list_shards
from pipelines.kinesis.offsets import (
    LATEST,
    TRIM_HORIZON,
    Begin,
    Position,
    Shard,
    ShardOffset,
    StreamOffset,
    follow,
    is_symbolic,
    lost,
    share,
    span_ms,
    without_lost,
)

log = logging.getLogger(__name__)

_QUIET_PAGE = 500  # more than this between two batches, and the tip is looked for by time
_TIP_PAGE = 1000
_TIP_WINDOW_MS = 100
_EMPTY_PAGES = 20  # the service walks through empty stretches of a shard in steps
_CHECK_STREAM_S = 10.0
_REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Limit:
    """How much one batch may hold at most; ``None`` is all.

    Args:
        records: Records in all shards together.
        max_bytes: Bytes in all shards together, about.
    """

    records: int | None = None
    max_bytes: int | None = None

    def for_one_of(self, shards: int) -> Limit:
        """The part of one shard."""
        return Limit(
            records=None if self.records is None else share(self.records, shards),
            max_bytes=None if self.max_bytes is None else share(self.max_bytes, shards),
        )


class BatchPlanner:
    """Decides the ends of the batches of one run of a query.

    Args:
        client: boto3 Kinesis client.
        stream: Name of the stream.
        begin: Where to begin without a checkpoint.
        native_time: Whether the service can find a place by time.
        fetch_size: Records per GetRecords where pages are read through.
        reads_per_s: GetRecords per shard and second that driver and executor may use together;
            ``None`` for no limit.
        fail_on_data_loss: Raise when a shard is gone that was not read to its end.
        restart_when_replaced: Begin with the oldest record of a stream made anew, or raise.
        clock_ms: Wall clock, milliseconds.
        monotonic: Monotonic clock, seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        client: Any,
        stream: str,
        *,
        begin: Begin,
        native_time: bool,
        fetch_size: int,
        reads_per_s: float | None = None,
        fail_on_data_loss: bool = True,
        restart_when_replaced: bool = False,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._stream = stream
        self._begin = begin
        self._native_time = native_time
        self._fetch_size = fetch_size
        # Per batch the driver reads once and the executor once.
        self._interval_s = 2.0 / reads_per_s if reads_per_s else 0.0
        self._fail_on_data_loss = fail_on_data_loss
        self._restart_when_replaced = restart_when_replaced
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._created_ms = 0
        self._checked_at = float("-inf")
        self._planned_at = float("-inf")
        self._shards: list[Shard] = []
        self._stale = True
        self._first: dict[str, ShardOffset] | None = None
        self._cursors: dict[str, ShardCursor] = {}
        self._busy: set[str] = set()
        self._stop_at_ms: int | None = None
        self._ahead_ms: int | None = None  # the service's clock is at least so far ahead of ours
        self._opened: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="kinesis-plan")
        self.newest: dict[str, Any] | None = None
        self.reads = 0

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def stop_at_now(self) -> None:
        """Let no batch hold anything that arrives after this moment."""
        self._stop_at_ms = self._clock_ms()

    def plan(self, start: Mapping[str, Any], limit: Limit) -> dict[str, Any]:
        """The end of the batch that begins at an offset; the offset itself when nothing is new.

        The symbolic begin is answered with the places that it stands for, at least.

        Args:
            start: Offset in JSON form, or the symbolic begin.
            limit: The most it may hold.

        Raises:
            DataLoss: A shard is gone that was not read to its end.
            StreamReplaced: The stream is another one of the same name.
            StreamError: The service refuses for good.
        """
        if not self._may_read():
            return dict(start)
        try:
            places = self._places(start)
        except StreamUnavailable as error:
            log.warning("%s: no batch now: %s", self._stream, error)
            return dict(start)
        open_ids = [shard for shard, place in places.items() if not place.done]
        part = limit.for_one_of(len(open_ids))
        if len(open_ids) == 1:
            moved = [self._advance(open_ids[0], places[open_ids[0]], part)]
        else:
            moved = list(
                self._pool.map(lambda shard: self._advance(shard, places[shard], part), open_ids)
            )
        self._stale = self._stale or any(place.done for place in moved)
        ends = places | dict(zip(open_ids, moved, strict=True))
        still = all(ends[shard].end == places[shard].end for shard in open_ids)
        # Spark logs a first batch even if it is empty: with the begin resolved in it, LATEST stays
        # the moment at which the query began, whatever restarts before the first record.
        if still and not any(place.done for place in moved) and not is_symbolic(start):
            return dict(start)
        self.newest = StreamOffset(self._stream, self._created_ms, ends).to_dict()
        return self.newest

    def _may_read(self) -> bool:
        now = self._monotonic()
        wait_s = self._planned_at + self._interval_s - now
        if wait_s > 0:
            if self._stop_at_ms is None:
                return False
            self._sleep(wait_s)  # "nothing new" would end the query here
        self._planned_at = self._monotonic()
        return True

    def _places(self, start: Mapping[str, Any]) -> dict[str, ShardOffset]:
        """Where the batch begins in each shard, looked up anew where that may have changed."""
        known = None if is_symbolic(start) else StreamOffset.from_dict(start)
        if self._monotonic() - self._checked_at >= _CHECK_STREAM_S:
            made_ms = created_ms(self._client, self._stream, timeout_s=_REQUEST_TIMEOUT_S)
            self._stale = self._stale or made_ms != self._created_ms
            self._created_ms = made_ms
            self._checked_at = self._monotonic()
        if self._stale:
            self._shards = list_shards(self._client, self._stream, timeout_s=_REQUEST_TIMEOUT_S)
            self._stale = False
        if known is None:
            if self._first is None:
                self._first = self._begin.resolve(self._shards, now_ms=self._clock_ms())
            return self._first
        if known.created_ms != self._created_ms or known.stream != self._stream:
            return self._anew(known)
        places: Mapping[str, ShardOffset] = known.shards
        if gone := lost(places, self._shards):
            text = f"{self._stream}: shards {gone} are gone and were not read to their end"
            if self._fail_on_data_loss:
                ends = ", ".join(f"{shard} behind {places[shard].end}" for shard in gone)
                raise DataLoss(f"{text}: missing {ends}")
            log.warning("%s; going on (failOnDataLoss=false)", text)
            places = without_lost(places, self._shards)
        return follow(places, self._shards)

    def _anew(self, known: StreamOffset) -> dict[str, ShardOffset]:
        text = (
            f"the checkpoint belongs to stream {known.stream} made at {known.created_ms} ms, "
            f"this is {self._stream} made at {self._created_ms} ms"
        )
        if not self._restart_when_replaced:
            raise StreamReplaced(f"{text}; onStreamReplaced=restart begins with its oldest record")
        log.warning("%s; beginning with its oldest record", text)
        self._cursors.clear()
        self._busy.clear()
        return Begin(TRIM_HORIZON).resolve(self._shards, now_ms=self._clock_ms())

    def _advance(self, shard: str, place: ShardOffset, limit: Limit) -> ShardOffset:
        """The end of the next batch in one shard; its place as it was when the service is away."""
        try:
            if not self._native_time or limit.records is not None:
                return self._read_on(shard, place, limit)[0]
            return self._find_tip(shard, place, limit)
        except StreamUnavailable as error:
            self._cursors.pop(shard, None)
            log.warning("%s: shard not looked at: %s", self._stream, error)
            return place

    def _cursor(self, shard: str, place: Position) -> ShardCursor:
        cursor = self._cursors.get(shard)
        if cursor is None or cursor.position != place:
            # LATEST means now, once; whoever comes back later must not skip what came meanwhile.
            latest = (
                self._first is not None
                and self._begin.kind == LATEST
                and place.kind == "time"
                and shard not in self._opened
            )
            cursor = self._new_cursor(shard, place, latest=latest)
            self._cursors[shard] = cursor
        self._opened.add(shard)
        return cursor

    def _new_cursor(self, shard: str, place: Position, *, latest: bool = False) -> ShardCursor:
        return ShardCursor(
            self._client,
            self._stream,
            shard,
            place,
            native_time=self._native_time,
            latest=latest,
            timeout_s=_REQUEST_TIMEOUT_S,
        )

    def _read_on(
        self, shard: str, place: ShardOffset, limit: Limit, *, page_size: int | None = None
    ) -> tuple[ShardOffset, bool]:
        """Read through what follows a place; the new place and whether it is the tip.

        Args:
            shard: Shard.
            place: Where the batch begins.
            limit: The most of it; ``None`` in both reads up to the tip.
            page_size: Read one page of so many records only.
        """
        cursor = self._cursor(shard, place.end)
        count = size = 0
        while True:
            wanted = page_size or self._fetch_size
            if limit.records is not None:
                wanted = min(wanted, limit.records - count)
            page = self._page(cursor, wanted)
            due = self._due(page.records)
            if due:
                place = _through(place, due)
            if len(due) < len(page.records):
                self._cursors.pop(shard)
                return _until(place, page.records[len(due)]), True
            count += len(due)
            size += sum(len(record.data) for record in due)
            if page.closed:
                return replace(place, done=True), True
            full = (limit.records is not None and count >= limit.records) or (
                limit.max_bytes is not None and size >= limit.max_bytes
            )
            if page.at_tip or full or page_size is not None:
                return place, page.at_tip

    def _find_tip(self, shard: str, place: ShardOffset, limit: Limit) -> ShardOffset:
        """The end of the next batch in one shard of a service that can find a place by time."""
        listed = next((s for s in self._shards if s.id == shard), None)
        if listed is not None and listed.last is not None:
            return self._read_on(shard, place, limit)[0]
        if shard not in self._busy or self._ahead_ms is None:
            place, at_tip = self._read_on(shard, place, limit, page_size=_QUIET_PAGE)
            if at_tip or place.done:
                return place
            self._busy.add(shard)
        if limit.max_bytes is not None and place.end_ms:
            cut_ms = place.end_ms + span_ms(limit.max_bytes)
            if self._service_now_ms() > cut_ms:
                cut = self._due(self._probe(shard, cut_ms, size=1))
                if cut and place.end < Position("after", int(cut[-1].sequence)):
                    return _through(place, cut, first_known=False)
        probe_ms = self._service_now_ms() - _TIP_WINDOW_MS
        if self._stop_at_ms is not None:
            probe_ms = min(probe_ms, self._stop_at_ms)
        found = self._due(self._probe(shard, probe_ms, size=_TIP_PAGE))
        if found and place.end < Position("after", int(found[-1].sequence)):
            return _through(place, found, first_known=False)
        self._busy.discard(shard)
        return self._read_on(shard, place, limit, page_size=self._fetch_size)[0]

    def _probe(self, shard: str, at_ms: int, *, size: int) -> Sequence[RawRecord]:
        """The first records that arrived at or after a time; none if there are none yet."""
        cursor = self._new_cursor(shard, Position("time", at_ms))
        try:
            for _ in range(_EMPTY_PAGES):
                page = self._page(cursor, size)
                if page.records or page.at_tip:
                    return page.records
        except StreamUnavailable:
            raise
        except StreamError as error:
            # A time that the service has not reached yet; what else it may be, reading on tells.
            log.info("%s: no place at %d ms: %s", self._stream, at_ms, error)
            self._ahead_ms = None
        return []

    def _page(self, cursor: ShardCursor, size: int) -> Page:
        page = cursor.page(size)
        self.reads += 1
        if page.records:
            # Bounds the difference of the clocks from below, so that no time asked for lies ahead.
            ahead_ms = page.records[-1].arrival_ms + page.behind_ms - self._clock_ms()
            self._ahead_ms = ahead_ms if self._ahead_ms is None else max(self._ahead_ms, ahead_ms)
        return page

    def _service_now_ms(self) -> int:
        """Now on the service's clock, not later than it is; 0 while nothing is known of it."""
        return 0 if self._ahead_ms is None else self._clock_ms() + self._ahead_ms

    def _due(self, records: Sequence[RawRecord]) -> Sequence[RawRecord]:
        """The records before the moment at which an AvailableNow query ends."""
        stop_ms = self._stop_at_ms
        if stop_ms is None or not records or records[-1].arrival_ms <= stop_ms:
            return records
        return list(takewhile(lambda record: record.arrival_ms <= stop_ms, records))


def _through(
    place: ShardOffset, records: Sequence[RawRecord], *, first_known: bool = True
) -> ShardOffset:
    begin = place.begin
    if first_known and not begin.exact:
        begin = Position("at", int(records[0].sequence))
    end = Position("after", int(records[-1].sequence))
    return replace(place, begin=begin, end=end, end_ms=records[-1].arrival_ms)


def _until(place: ShardOffset, record: RawRecord) -> ShardOffset:
    before = Position("at", int(record.sequence))
    return replace(place, begin=place.begin if place.begin.exact else before, end=before)
