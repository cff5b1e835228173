"""Deciding on the driver where the next batch of a stream ends: all shards, within a budget.

The ends in one shard are found by :mod:`pipelines.kinesis.ends`; here it is decided which shards
there are (splits, merges, a stream made anew, records that are gone) and which of them may be read
now. Failures that may pass are mended or waited for inside: an exception would end the query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.errors import (
    DataLoss,
    StreamError,
    StreamMissing,
    StreamReplaced,
    StreamUnavailable,
)
from pipelines.kinesis.begin import Begin
from pipelines.kinesis.budget import ReadBudget
from pipelines.kinesis.cursor import Cursor, RawRecord, ShardCursor
from pipelines.kinesis.ends import EndFinder, Found, Limit
from pipelines.kinesis.lag import with_lag
from pipelines.kinesis.offsets import (
    LATEST,
    TRIM_HORIZON,
    Position,
    Shard,
    ShardOffset,
    ShardRange,
    StreamOffset,
    childless,
    follow,
    is_symbolic,
    lost,
    without_lost,
)
from pipelines.kinesis.service import Gate, created_ms, list_shards, name_of

log = logging.getLogger(__name__)

_CHECK_STREAM_S = 10.0
_LIST_AGAIN_S = 1.0
_RETENTION_MS = 24 * 3_600_000  # the shortest that Kinesis has
_REQUEST_TIMEOUT_S = 5.0
_LONGEST_WAIT_S = 5.0
_BEGIN_WAIT_S = 60.0

OpenCursor = Callable[[str, Position, bool], Cursor]


class BatchPlanner:
    """Decides the ends of the batches of one run of a query.

    Args:
        client: boto3 Kinesis client.
        stream: Name or ARN of the stream.
        begin: Where to begin without a checkpoint.
        native_time: Whether the service can find a place by time.
        fetch_size: Records per GetRecords where pages are read through.
        reads_per_s: GetRecords per shard and second that driver and executor may use together;
            ``None`` for no limit. An embedded Kinesis has none of its own, so what is behind the
            first page of a backlog there is not counted.
        keep_bytes: Records of a batch are kept at hand up to this size, in each shard.
        keep_bytes_in_all: The same in all shards together.
        subscribe: Makes what opens cursors that are pushed their records, for the stream that
            there is now; it polls by default.
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
        keep_bytes: int = 900_000,
        keep_bytes_in_all: int = 8_000_000,
        subscribe: Callable[[], OpenCursor] | None = None,
        fail_on_data_loss: bool = True,
        restart_when_replaced: bool = False,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._stream = stream
        self._name = name_of(stream)
        self._begin = begin
        self._native_time = native_time
        self._fetch_size = fetch_size
        self._budget = ReadBudget(reads_per_s)
        self._keep_bytes = keep_bytes
        self._keep_in_all = keep_bytes_in_all
        self._gate = Gate()
        self._subscribe = subscribe
        self._open_pushed = subscribe and subscribe()
        self._fail_on_data_loss = fail_on_data_loss
        self._restart_when_replaced = restart_when_replaced
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._created_ms = 0
        self._checked_at = float("-inf")
        self._listed_at = float("-inf")
        self._shards: list[Shard] = []
        self._stale = True
        self._first: Mapping[str, ShardOffset] | None = None
        self._asked_ms: int | None = None  # when the first end was asked for: what LATEST means
        self._latest_is_now = True  # it was answered at once, and this is the first look
        self._finders: dict[str, EndFinder] = {}
        self._missed_ms: int | None = None  # the stream of which a shard was missing
        self._turn = 0  # which shard comes first, where not all may have a part
        self._stop_at_ms: int | None = None
        self._kept: dict[ShardRange, Sequence[RawRecord]] = {}
        self._newest: dict[str, Any] | None = None
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="kinesis-plan")

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for finder in self._finders.values():
            finder.close()

    def stop_at_now(self) -> None:
        """Let no batch hold anything that arrives after this moment."""
        self._stop_at_ms = self._clock_ms()
        # That nothing was pushed would not say that nothing is there.
        self._subscribe = self._open_pushed = None

    def report(self) -> dict[str, Any] | None:
        """The newest end and the lag by shard, from memory."""
        if self._newest is None:
            return None
        shards = self._newest["shards"]
        known = self._finders.items()
        return with_lag(self._newest, {s: f.last_lag for s, f in known if s in shards})

    def at_hand(self, part: ShardRange) -> Sequence[RawRecord] | None:
        """All records of a range, if the last plan had them in hand."""
        return self._kept.get(part)

    def plan(self, start: Mapping[str, Any], limit: Limit) -> dict[str, Any]:
        """The end of the batch that begins at an offset; the offset itself when nothing is new.

        The symbolic begin is answered with the places that it stands for, at least. ``LATEST`` is
        the moment of the first call, whenever the service answers: it is waited for, and if it does
        not come the query fails before anything is logged.

        Args:
            start: Offset in JSON form, or the symbolic begin.
            limit: The most it may hold.

        Raises:
            DataLoss: A shard is gone that was not read to its end.
            StreamReplaced: The stream is another one of the same name.
            StreamError: The service refuses for good.
        """
        if self._asked_ms is None:
            self._asked_ms = self._clock_ms()
        latest = self._begin.kind == LATEST and is_symbolic(start)
        try:
            places = self._awaited(start) if latest else self._places(start)
        except (StreamUnavailable, StreamMissing) as error:
            missing = isinstance(error, StreamMissing) and not self._restart_when_replaced
            if missing or self._stop_at_ms is not None or latest:
                raise  # "nothing new" would end it as if all were read, or be the begin itself
            log.warning("%s: no batch now: %s", self._name, error)
            return dict(start)
        shards = self._readable([shard for shard, place in places.items() if not place.done])
        self._turn += 1
        first = self._turn % max(1, len(shards))
        found: dict[str, Found] = {}
        moved = False
        for parts in limit.among(shards[first:] + shards[:first]):
            now = self._look(parts, places)
            self._latest_is_now = False  # what is looked at later began before
            moved = any(_moved(places[shard], one.place) for shard, one in now.items())
            found |= now
            if moved:
                break
        self._stale = self._stale or any(one.place.done for one in found.values())
        ends = {**places, **{shard: one.place for shard, one in found.items()}}
        # Children that begin are logged at once: later their parent may be forgotten.
        moved = moved or places.keys() != start.get("shards", places).keys()
        moved = moved or start.get("created_ms", self._created_ms) != self._created_ms
        # Spark logs a first batch even if it is empty: with the begin resolved in it, LATEST stays
        # the moment at which the query began, whatever restarts before the first record.
        if not moved and not is_symbolic(start):
            return dict(start)
        for shard in [s for s, one in found.items() if one.place.done and s in self._finders]:
            self._finders.pop(shard).close()
        self._keep(found)
        self._newest = StreamOffset(self._name, self._created_ms, ends).to_dict()
        return self._newest

    def _awaited(self, start: Mapping[str, Any]) -> Mapping[str, ShardOffset]:
        """The places that the begin stands for, as soon as the service tells, within bounds."""
        deadline = self._monotonic() + _BEGIN_WAIT_S
        while True:
            try:
                return self._places(start)
            except StreamUnavailable as error:
                self._latest_is_now = False
                if self._monotonic() >= deadline:
                    raise
                log.warning("%s: the query cannot begin yet: %s", self._name, error)
                self._sleep(1.0)

    def _readable(self, shards: list[str]) -> list[str]:
        """Those of the shards whose budget lets them be read, now or in a moment."""
        wait_s = max((self._budget.wait_s(s, now_s=self._monotonic()) for s in shards), default=0)
        if wait_s > 0:
            # "Nothing new" would send the query to sleep until its next trigger, and end one of
            # AvailableNow.
            at_most = wait_s if self._stop_at_ms is not None else _LONGEST_WAIT_S
            self._sleep(min(wait_s, at_most))
        return [s for s in shards if self._budget.wait_s(s, now_s=self._monotonic()) <= 0]

    def _look(
        self, parts: Mapping[str, Limit], places: Mapping[str, ShardOffset]
    ) -> dict[str, Found]:
        """What is found in each shard that answers, each with its part of the limit."""
        shards = list(parts)
        missed: list[str] = []
        listed = {shard.id: shard for shard in self._shards}

        def look(shard: str) -> Found | None:
            finder, place = self._finder(shard), places[shard]
            latest = (
                self._first is not None
                and self._latest_is_now
                and self._begin.kind == LATEST
                and place.end.kind == "time"
            )
            try:
                return finder.next_end(listed.get(shard), place, parts[shard], latest=latest)
            except (StreamUnavailable, StreamMissing) as error:
                missing = isinstance(error, StreamMissing)
                again = not self._restart_when_replaced or self._missed_ms == self._created_ms
                if self._stop_at_ms is not None or (missing and again):
                    raise
                if missing:  # the stream may be another one; if it is not, this is an error
                    self._checked_at, self._stale = float("-inf"), True
                    missed.append(shard)
                log.warning("%s: shard not looked at: %s", self._name, error)
                return None

        outcomes = self._pool.map(look, shards) if len(shards) > 1 else map(look, shards)
        found = {}
        for shard, one in zip(shards, outcomes, strict=True):
            if one is not None:
                found[shard] = one
                reads = one.reads + one.left
                if self._open_pushed is not None:
                    reads = one.left
                elif not self._native_time and (one.reads > 1 or not one.caught_up):
                    reads = 1
                self._budget.charge(shard, reads, now_s=self._monotonic())
        self._missed_ms = self._created_ms if missed else None
        return found

    def _keep(self, found: Mapping[str, Found]) -> None:
        """Keep the records of this batch at hand, where they are not too many."""
        self._kept = {}
        size = 0
        for shard, one in found.items():
            if one.records and one.place.end.exact:
                size += sum(len(record.data) for record in one.records)
                if size > self._keep_in_all:
                    return
                place = one.place
                part = ShardRange(shard, place.begin, place.end, place.done)
                self._kept[part] = one.records

    def _finder(self, shard: str) -> EndFinder:
        finder = self._finders.get(shard)
        if finder is None:
            finder = self._finders[shard] = EndFinder(
                shard,
                self._open_pushed or self._polling,
                native_time=self._native_time and self._open_pushed is None,
                fetch_size=self._fetch_size,
                keep_bytes=self._keep_bytes,
                # Where no place is found by time, it is no Kinesis, and has rules of its own.
                retention_ms=_RETENTION_MS if self._native_time else None,
                clock_ms=self._clock_ms,
            )
        finder.stop_at_ms = self._stop_at_ms
        return finder

    def _polling(self, shard: str, place: Position, latest: bool) -> ShardCursor:
        return ShardCursor(
            self._client,
            self._stream,
            shard,
            place,
            native_time=self._native_time,
            latest=latest,
            timeout_s=_REQUEST_TIMEOUT_S,
            gate=self._gate,
        )

    def _places(self, start: Mapping[str, Any]) -> Mapping[str, ShardOffset]:
        """Where the batch begins in each shard, looked up anew where that may have changed."""
        known = None if is_symbolic(start) else StreamOffset.from_dict(start)
        self._check_stream()
        if known is not None and self._monotonic() - self._listed_at >= _LIST_AGAIN_S:
            # The listing may lag behind what a shard that ended already says.
            self._stale = self._stale or bool(childless(known.shards, self._shards))
        if self._stale:
            self._shards = list_shards(
                self._client, self._stream, timeout_s=_REQUEST_TIMEOUT_S, gate=self._gate
            )
            self._stale = False
            self._listed_at = self._monotonic()
        if known is None:
            if self._first is None:
                asked_ms = self._clock_ms() if self._asked_ms is None else self._asked_ms
                first = self._begin.resolve(self._shards, now_ms=asked_ms)
                self._first = self._without_lost(first)
            return self._first
        if known.created_ms != self._created_ms or known.stream != self._name:
            return self._anew(known)
        places = self._without_lost(known.shards)
        following = follow(places, self._shards)
        if late := _begun_late(places, following, self._shards):
            self._lose(
                f"{self._name}: shards {late} begin so late that the service has forgotten their "
                "parents: what they held before their oldest records may be gone"
            )
        return following

    def _check_stream(self) -> None:
        """Look, now and then, whether the stream is another one by now."""
        if self._monotonic() - self._checked_at < _CHECK_STREAM_S:
            return
        made_ms = created_ms(
            self._client, self._stream, timeout_s=_REQUEST_TIMEOUT_S, gate=self._gate
        )
        self._stale = self._stale or made_ms != self._created_ms
        self._created_ms = made_ms
        self._checked_at = self._monotonic()

    def replaced(self, offset: Mapping[str, Any]) -> bool:
        """Whether what an offset in JSON form stands for went with its stream, and may be left out.

        Not while the service does not say.
        """
        if not self._restart_when_replaced or is_symbolic(offset):
            return False
        made_ms = StreamOffset.from_dict(offset).created_ms
        if made_ms != self._created_ms:
            try:
                self._check_stream()
            except StreamError as error:
                log.warning("%s: not known whether it was made anew: %s", self._name, error)
                return False
        return made_ms != self._created_ms

    def _without_lost(self, places: Mapping[str, ShardOffset]) -> Mapping[str, ShardOffset]:
        """The places, without those in shards that are gone before they were read to their end.

        Raises:
            DataLoss: There are such, and the query is to fail of it.
        """
        gone = lost(places, self._shards)
        if not gone:
            return places
        ends = ", ".join(
            f"{shard} behind {places[shard].end}" if shard in places else f"all of {shard}"
            for shard in gone
        )
        self._lose(
            f"{self._name}: shards {gone} are gone and were not read to their end: missing {ends}"
        )
        return without_lost(places, self._shards)

    def _lose(self, what: str) -> None:
        """Say what is lost, or may be.

        Raises:
            DataLoss: The query is to fail of it.
        """
        if self._fail_on_data_loss:
            raise DataLoss(f"{what}; failOnDataLoss=false goes on without")
        log.warning("%s; going on (failOnDataLoss=false)", what)

    def _anew(self, known: StreamOffset) -> dict[str, ShardOffset]:
        text = (
            f"the checkpoint belongs to stream {known.stream} made at {known.created_ms} ms, "
            f"this is {self._name} made at {self._created_ms} ms"
        )
        if not self._restart_when_replaced:
            raise StreamReplaced(f"{text}; onStreamReplaced=restart begins with its oldest record")
        log.warning("%s; beginning with its oldest record", text)
        for finder in self._finders.values():
            finder.close()
        self._finders.clear()
        self._open_pushed = self._subscribe and self._subscribe()
        return Begin(TRIM_HORIZON).resolve(self._shards, now_ms=self._clock_ms())


def _moved(before: ShardOffset, after: ShardOffset) -> bool:
    """Whether there is something to log."""
    return after.done or (after.end, after.end_ms) != (before.end, before.end_ms)


def _begun_late(
    places: Mapping[str, ShardOffset], following: Iterable[str], shards: Sequence[Shard]
) -> list[str]:
    """Shards that begin now, though their parents are forgotten already."""
    begun = set(following) - places.keys()
    listed = {shard.id for shard in shards}
    return sorted(s.id for s in shards if s.id in begun and listed.isdisjoint(s.parents))
