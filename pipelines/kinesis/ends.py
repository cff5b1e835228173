"""Finding where the next batch ends in one shard, with as few reads as possible.

No call of Kinesis tells a shard's tip. What is expected to be little is read on behind the last
end: one GetRecords, whose last record is the new end, and the records are at hand, so that nobody
needs to read them again. Where more is expected, it is asked for what arrived in the last moments
instead (an iterator AT_TIMESTAMP just behind now): still one GetRecords, and only that moment is
read twice. A backlog is cut by arrival time, because a shard takes at most 1 MB/s; where nothing
is behind the cut, a closed shard ends at the number that the service lists. A limit in records, and
a service that cannot find a place by time (embedded Kinesis), are read through page by page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from pipelines.errors import StreamError, StreamUnavailable
from pipelines.kinesis.cursor import FIRST_PAGE, Cursor, Page, RawRecord
from pipelines.kinesis.lag import Lag, Pace
from pipelines.kinesis.offsets import Position, Shard, ShardOffset, shares, span_ms

log = logging.getLogger(__name__)

_TIP_PAGE = 1000
_TIP_WINDOW_MS = 100
_EMPTY_PAGES = 20  # the service walks through empty stretches of a shard in steps
_LITTLE = 256 * 1024  # bytes that may be read through to find the tip, whoever reads them again
_PAGE_BYTES = 8_000_000
_FAR_MS = 2_000
_SEEN_EVERY_MS = 3_600_000  # how often it is logged that nothing came; each time is an empty batch
_CLOCKS_MS = 600_000  # by which ours and the service's may differ where nothing is known of it


@dataclass(frozen=True, slots=True)
class Limit:
    """How much one batch may hold at most; ``None`` is all.

    Args:
        records: Records in all shards together.
        max_bytes: Bytes in all shards together, about.
    """

    records: int | None = None
    max_bytes: int | None = None

    def among(self, shards: Sequence[str]) -> list[dict[str, Limit]]:
        """The part of each shard; of fewer records than shards some have one, or else the next.

        >>> [{s: part.records for s, part in turn.items()} for turn in Limit(3).among("ab")]
        [{'a': 2, 'b': 1}]
        >>> [{s: part.records for s, part in turn.items()} for turn in Limit(2).among("abc")]
        [{'a': 1, 'b': 1}, {'c': 1}]
        """
        size = None if self.max_bytes is None else max(1, self.max_bytes // max(1, len(shards)))
        if self.records is None or not shards:
            return [{shard: Limit(max_bytes=size) for shard in shards}]
        at_once = min(self.records, len(shards))
        parts = shares(self.records, at_once)
        turns = [shards[first : first + at_once] for first in range(0, len(shards), at_once)]
        return [
            {shard: Limit(most, size) for shard, most in zip(turn, parts, strict=False)}
            for turn in turns
        ]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a batch ends in one shard.

    Args:
        place: The end.
        reads: Reads that finding it took.
        lag: How far that is behind the tip.
        records: All records of the batch, if they are at hand.
        left: Reads that executors will need for them.
        caught_up: Nothing more was there.
    """

    place: ShardOffset
    reads: int
    lag: Lag
    records: Sequence[RawRecord] | None = None
    left: int = 0
    caught_up: bool = False


class EndFinder:
    """Finds the ends in one shard, batch after batch; used by one thread at a time.

    Args:
        shard: Name of the shard.
        open_cursor: Makes a cursor at a position; ``latest`` begins with what arrives from now on.
        native_time: Whether the service can find a place by time.
        fetch_size: Records per GetRecords where pages are read through.
        keep_bytes: Records of a batch are kept at hand up to this size.
        retention_ms: How long the service keeps a record at least, if that is known.
        clock_ms: Wall clock, milliseconds.
    """

    def __init__(
        self,
        shard: str,
        open_cursor: Callable[[str, Position, bool], Cursor],
        *,
        native_time: bool,
        fetch_size: int,
        keep_bytes: int,
        retention_ms: int | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._shard = shard
        self._open_cursor = open_cursor
        self._native_time = native_time
        self._fetch_size = fetch_size
        self._keep_bytes = keep_bytes
        self._retention_ms = retention_ms
        self._clock_ms = clock_ms
        self._cursor: Cursor | None = None
        self._fresh = True  # it has given no page yet
        self._whole = True  # nothing had expired between its place and the page that it gave first
        self._latest = False
        self._opened = False
        self._pace: Pace | None = None
        self._tip_at_ms: int | None = None  # when the tip was last reached, our clock
        self._ahead_ms: int | None = None  # the service's clock is at least so far ahead of ours
        self._last: int | None = None  # the ending sequence number of a shard that is closed
        self._reads = 0
        self._most_bytes = float("inf")  # of this batch
        self.stop_at_ms: int | None = None
        self.last_lag = Lag(0, None)

    def close(self) -> None:
        """Let go of its cursor."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def next_end(
        self, listed: Shard | None, place: ShardOffset, limit: Limit, *, latest: bool = False
    ) -> Found:
        """The end of the batch that begins at a place.

        Args:
            listed: The shard as the service lists it.
            place: Where the batch begins.
            limit: The most it may hold.
            latest: The place is a time that means now: begin with what arrives from now on.

        Raises:
            StreamError: The service refused; ``StreamUnavailable`` if it may not later on.
        """
        self._latest = latest and not self._opened
        self._most_bytes = limit.max_bytes or float("inf")
        self._reads = 0
        try:
            self._last = None if listed is None else listed.last
            ends_early = self._last is not None and self.stop_at_ms is not None
            if not self._native_time or limit.records is not None or ends_early:
                found = self._read_on(place, limit)
            else:
                found = self._find_tip(place, limit)
        except StreamError:
            self.close()
            raise
        self.last_lag = found.lag
        return found

    def _at(self, place: ShardOffset) -> Cursor:
        if self._cursor is None or self._cursor.position != place.end:
            self.close()
            # LATEST means now, once; whoever comes back later must not skip what came meanwhile.
            self._cursor = self._open_cursor(self._shard, place.end, self._latest)
            self._opened, self._latest = True, False
            self._fresh, self._whole = True, not place.end.exact or self._unexpired(place)
        return self._cursor

    def _unexpired(self, place: ShardOffset) -> bool:
        """Whether what came behind a place must all be there still, however quiet it was."""
        if self._retention_ms is None:
            return False
        return self._now_ms() < place.end_ms + self._retention_ms - _CLOCKS_MS

    def _now_ms(self) -> int:
        """About now on the service's clock, not much earlier however old the last record was."""
        return self._clock_ms() + max(self._ahead_ms or 0, -_CLOCKS_MS // 2)

    def _read_on(self, place: ShardOffset, limit: Limit, *, one_page: bool = False) -> Found:
        """Read through what follows a place, up to the tip or the limit."""
        cursor = self._at(place)
        taken: list[RawRecord] | None = []
        count = size = 0
        begun_ms = self._tip_at_ms
        while True:
            wanted = self._fetch_size
            if limit.records is not None:
                wanted = min(wanted, limit.records - count)
            asked_ms = self._now_ms()
            page = self._page(cursor, wanted)
            seamless = self._whole and (page.seamless or self._fresh)
            # A subscription that was renewed does not say what expired before it was.
            seamless = seamless or (cursor.pushed and self._unexpired(place))
            self._fresh = False
            self._whole = self._whole or bool(page.records)
            due = self._due(page.records)
            count += len(due)
            size += sum(len(record.data) for record in due)
            if due:
                first = count == len(due) and (seamless or not place.begin.exact)
                place = _through(place, due, first_known=first)
            if taken is not None and (count == len(due)) and not seamless:
                taken = None  # whoever reads the range looks whether its begin is still there
            if taken is not None:
                taken = [*taken, *due] if size <= self._keep_bytes else None
            if len(due) < len(page.records):
                self.close()
                return self._found(_until(place, page.records[len(due)]), taken, count, ms=0)
            if page.closed:
                if not count and not seamless and place.end.exact and self._last is not None:
                    # Whoever reads up to the end of the shard sees whether something expired.
                    place = replace(place, end=Position("after", self._last))
                return self._found(replace(place, done=True), taken, count, ms=0)
            if page.at_tip:
                self._measure(begun_ms, count, size)
                if not count and seamless:
                    place = self._seen(place, asked_ms)
                return self._found(place, taken, count, ms=0)
            full = (limit.records is not None and count >= limit.records) or (
                limit.max_bytes is not None and size >= limit.max_bytes
            )
            waiting = cursor.pushed and not page.records
            if full or one_page or waiting:
                return self._found(place, taken, count, ms=self._behind(page, place))

    def _find_tip(self, place: ShardOffset, limit: Limit) -> Found:
        """The end of the next batch in a shard of a service that can find a place by time.

        Args:
            place: Where it begins.
            limit: The most it may hold.
        """
        last = self._last
        if self._expected_bytes() <= max(self._keep_bytes, _LITTLE) or self._ahead_ms is None:
            found = self._read_on(place, limit, one_page=True)
            if found.caught_up or found.place.done:
                return found
            place = found.place
        if limit.max_bytes is not None and place.end_ms:
            cut_ms = place.end_ms + span_ms(limit.max_bytes)
            if self._service_now_ms() > cut_ms:
                page = self._probe(cut_ms, size=1)
                cut = self._due(page.records) if page else ()
                if cut and place.end < Position("after", int(cut[-1].sequence)):
                    behind = max(0, self._service_now_ms() - cut[-1].arrival_ms)
                    return self._found(_through(place, cut), None, None, ms=behind)
                if page is None and last is not None:  # nobody knows how much is left
                    return self._read_on(place, limit)
        elif last is not None and limit.max_bytes is not None:
            return self._read_on(place, limit)
        if last is not None:
            end = replace(place, end=Position("after", last), done=True)
            return self._found(end, None, None, ms=0)
        probe_ms = self._service_now_ms() - _TIP_WINDOW_MS
        if (stop_ms := self._stop_ms()) is not None:
            probe_ms = min(probe_ms, stop_ms)
        page = self._probe(probe_ms, size=_TIP_PAGE)
        seen = self._due(page.records) if page else ()
        if page and seen and place.end < Position("after", int(seen[-1].sequence)):
            self._learn(len(seen), sum(len(r.data) for r in seen), _TIP_WINDOW_MS)
            if page.at_tip:
                self._tip_at_ms = self._clock_ms()
            return self._found(_through(place, seen), None, None, ms=page.behind_ms)
        return self._read_on(place, limit, one_page=True)

    def _found(
        self,
        place: ShardOffset,
        records: Sequence[RawRecord] | None,
        count: int | None,
        *,
        ms: int,
    ) -> Found:
        """The answer.

        Args:
            place: The end.
            records: The batch's records, if they are at hand.
            count: How many they are, if that is known.
            ms: How far behind the tip they end.
        """
        left = 0
        if count is None:
            expected = min(self._expected_bytes(), self._most_bytes)
            left = 1 + (int(expected // _PAGE_BYTES) if expected < float("inf") else 0)
        elif count and records is None:
            # The record before the first is read as well, to see that nothing is gone.
            behind = count + 1 - min(self._fetch_size, FIRST_PAGE)
            left = 1 + max(0, -(-behind // self._fetch_size))
        lag = Lag() if ms == 0 else (self._pace.lag(ms) if self._pace else Lag(ms, None))
        if ms == 0:
            self._tip_at_ms = self._clock_ms()
        return Found(place, self._reads, lag, records or None, left, caught_up=ms == 0)

    def _seen(self, place: ShardOffset, at_ms: int) -> ShardOffset:
        """The place, from time to time with the moment up to which nothing came behind it.

        A driver that begins there when the record before it has expired knows by that what is gone.
        """
        known = self._retention_ms is not None and place.end.exact
        if not known or at_ms - place.end_ms < _SEEN_EVERY_MS:
            return place
        return replace(place, end_ms=at_ms)

    def _behind(self, page: Page, place: ShardOffset) -> int:
        """Milliseconds that a place lies behind the tip, 1 at least."""
        if page.behind_ms:
            return page.behind_ms
        return max(1, self._clock_ms() - (place.end_ms or self._clock_ms()))

    def _measure(self, since_ms: int | None, count: int, size: int) -> None:
        if since_ms is not None and self._clock_ms() > since_ms:
            self._learn(count, size, self._clock_ms() - since_ms)

    def _learn(self, count: int, size: int, ms: int) -> None:
        newer = Pace(count / ms, size / ms)
        self._pace = newer if self._pace is None else self._pace.blend(newer)

    def _expected_bytes(self) -> float:
        """Bytes that have arrived since the tip was last reached, as the pace says."""
        if self._tip_at_ms is None and self.last_lag.ms > _FAR_MS:
            return float("inf")
        if self._pace is None or self._tip_at_ms is None:
            return 0.0
        return self._pace.bytes_per_ms * max(0, self._clock_ms() - self._tip_at_ms)

    def _probe(self, at_ms: int, *, size: int) -> Page | None:
        """The first records that arrived at or after a time; ``None`` if there are none yet."""
        cursor = self._open_cursor(self._shard, Position("time", at_ms), False)
        try:
            for _ in range(_EMPTY_PAGES):
                page = self._page(cursor, size)
                if page.records or page.at_tip:
                    return page
        except StreamUnavailable:
            raise
        except StreamError as error:
            # A time that the service has not reached yet; what else it may be, reading on tells.
            log.info("%s: no place at %d ms: %s", self._shard, at_ms, error)
            self._ahead_ms = None
        finally:
            cursor.close()
        return None

    def _page(self, cursor: Cursor, size: int) -> Page:
        self._reads += 1
        page = cursor.page(size)
        if page.records:
            # Bounds the difference of the clocks from below, so that no time asked for lies ahead.
            ahead_ms = page.records[-1].arrival_ms + page.behind_ms - self._clock_ms()
            self._ahead_ms = ahead_ms if self._ahead_ms is None else max(self._ahead_ms, ahead_ms)
        return page

    def _service_now_ms(self) -> int:
        """Now on the service's clock, not later than it is; 0 while nothing is known of it."""
        return 0 if self._ahead_ms is None else self._clock_ms() + self._ahead_ms

    def _stop_ms(self) -> int | None:
        """When an AvailableNow query ends, on the service's clock where that is ahead of ours."""
        return None if self.stop_at_ms is None else self.stop_at_ms + max(0, self._ahead_ms or 0)

    def _due(self, records: Sequence[RawRecord]) -> Sequence[RawRecord]:
        """The records before the moment at which an AvailableNow query ends."""
        stop_ms = self._stop_ms()
        if stop_ms is None or not records or records[-1].arrival_ms <= stop_ms:
            return records
        return list(takewhile(lambda record: record.arrival_ms <= stop_ms, records))


def _through(
    place: ShardOffset, records: Sequence[RawRecord], *, first_known: bool = False
) -> ShardOffset:
    begin = place.begin
    if first_known:
        # Whoever reads the range begins at a record that was there, not behind one that may be
        # trimmed by then.
        begin = Position("at", int(records[0].sequence))
    end = Position("after", int(records[-1].sequence))
    return replace(place, begin=begin, end=end, end_ms=records[-1].arrival_ms)


def _until(place: ShardOffset, record: RawRecord) -> ShardOffset:
    before = Position("at", int(record.sequence))
    return replace(place, begin=place.begin if place.begin.exact else before, end=before)
