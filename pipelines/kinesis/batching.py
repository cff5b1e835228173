"""Messages to records: one queue per bucket, batches by time and size, and the order rule. Pure.

PutRecords keeps no order among its entries and may store some of them and refuse others. So a
bucket has at most one unacknowledged record; what failed is put again, byte for byte, before
anything newer of its bucket. Behind it stands the bucket's *backlog*: records that were sealed
already (spilled to a journal, or left over by a killed run), and behind that what waits.
Nothing here blocks, sleeps or talks to anyone, but for ``load``, which fetches a shelved record.
"""

from __future__ import annotations

import random
import reprlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipelines import codec
from pipelines.events import Message, Record, malformed
from pipelines.ports import Acked, Put, PutResult, Sealer, Shelved
from pipelines.retry import delays

MAX_PUT_RECORDS = 500
MAX_PUT_BYTES = 4_900_000
"""Limits of one PutRecords call: 500 entries and 5 MB with their keys."""

MIN_RECORD_BYTES = 2000
"""A record limit below this could not hold the note about an oversized message."""

RETRY_FIRST_S = 0.05
RETRY_CAP_S = 2.0

RECORDS_PER_S = 500
"""Up to so many records a second messages do not linger: few messages, or few buckets, go at once.

Beyond it, records grow instead of becoming more. A shard takes 1,000 records a second, and every
record costs each of its readers something.
"""

MAX_STRETCH = 8.0
"""The linger grows up to so many times while shards throttle: fewer and larger records."""

SPILL_MESSAGES = 4000
"""Most messages of a record that is sealed to be shelved."""


@dataclass(slots=True)
class _Bucket:
    """State of one bucket: what waits, and the one record that is on its way."""

    waiting: list[Message] = field(default_factory=list)
    backlog: deque[Put | Shelved] = field(default_factory=deque)
    record: Put | None = None
    sent: bool = False
    last_bseq: int = 0


@dataclass(slots=True)
class _Lane:
    """State of one shard, or of a bucket whose shard is not known: when to try again."""

    not_before_s: float = 0.0
    backoff: Iterator[float] | None = None


class Batcher:
    """Makes the records of one epoch.

    Args:
        epoch: Identity of this producer run.
        sealer: Has the last word on the messages of a record.
        linger_s: Longest wait of a message before its record is made, unless shards throttle.
        max_messages: Most messages of a record.
        max_bytes: Most bytes of a record's data.
        rng: Jitter of the retries.
        load: Fetches a shelved record; ``None`` from it means that it is lost.

    Attributes:
        lost: Messages of shelved records that could not be loaded.
        throttled: Records that were refused, one by one.

    >>> from pipelines.kinesis.batching import PlainSealer
    >>> batcher = Batcher(epoch="e", sealer=PlainSealer(), linger_s=0.04, max_messages=10,
    ...                   max_bytes=900_000, rng=random.Random(1))
    >>> batcher.queue(7).append({"T": "t", "S": "SPY"})
    >>> puts = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    >>> [put.key for put in puts], batcher.next_puts(9.0, wall_ns=1, market_ns=1)
    (['7'], [])
    >>> batcher.settle(puts, [PutResult(sequence="1", shard="s")], 0.1)[0].bseq, batcher.unsent
    (1, 0)
    """

    def __init__(
        self,
        *,
        epoch: str,
        sealer: Sealer,
        linger_s: float,
        max_messages: int,
        max_bytes: int,
        rng: random.Random,
        load: Callable[[Shelved], Put | None] | None = None,
    ) -> None:
        if max_bytes < MIN_RECORD_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_RECORD_BYTES}, got {max_bytes}")
        self._epoch = epoch
        self._sealer = sealer
        self._linger_s = linger_s
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._rng = rng
        self._load = load
        self._buckets: dict[int, _Bucket] = {}
        self._shard_of: dict[int, str] = {}
        self._lanes: dict[str, _Lane] = {}
        self._stretch = 1.0
        self._next_cut_s = 0.0
        self._first = 0
        self._sealed = 0  # messages of sealed records in memory
        self._shelved = 0  # messages of sealed records that are shelved
        self.lost = 0
        self.throttled = 0

    def queue(self, bucket: int) -> list[Message]:
        """The queue of a bucket; always the same list, to append to."""
        return self._buckets.setdefault(bucket, _Bucket()).waiting

    @property
    def in_memory(self) -> int:
        """Messages in memory that the stream does not hold for certain yet."""
        return self._sealed + sum([len(b.waiting) for b in list(self._buckets.values())])

    @property
    def waiting(self) -> int:
        """Of these, the ones that stand behind the one record of their bucket to be put."""
        records = [bucket.record for bucket in list(self._buckets.values())]
        return self.in_memory - sum([record.n_messages for record in records if record])

    @property
    def unsent(self) -> int:
        """Messages that the stream does not hold for certain yet, in memory or shelved."""
        return self._shelved + self.in_memory

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until records may be made again; ``None``: they may, at any message."""
        return self._next_cut_s - now_s if self._next_cut_s > now_s else None

    def next_puts(
        self, now_s: float, *, wall_ns: int, market_ns: int, flush: bool = False
    ) -> list[Put]:
        """The records to put now, in one PutRecords call; empty when nothing is due.

        Args:
            now_s: A steady clock, seconds.
            wall_ns: Wall time, written into the records made now.
            market_ns: Market time, likewise.
            flush: Make records of everything that waits, however young.

        Returns:
            At most 500 records and 5 MB; call again for more. Every one of them must be settled.
        """
        puts: list[Put] = []
        size = 0
        cut = flush or now_s >= self._next_cut_s
        numbers = list(self._buckets)
        for number in numbers[self._first :] + numbers[: self._first]:
            bucket = self._buckets[number]
            if bucket.sent or now_s < self._not_before_s(number):
                continue
            if bucket.record is None:
                self._take_backlog(bucket)
            record = bucket.record
            full = len(bucket.waiting) >= self._max_messages
            if record is None and not (bucket.waiting and (cut or full)):
                continue
            # What is sealed here is put at once: held back, it would stand in no journal.
            most = size + len(str(number)) + (len(record.data) if record else self._max_bytes)
            if puts and (most > MAX_PUT_BYTES or len(puts) == MAX_PUT_RECORDS):
                self._first = numbers.index(number)  # the next call begins here: no bucket starves
                return puts
            if record is None:
                limit = self._max_messages
                record = bucket.record = self._seal(number, bucket, limit, wall_ns, market_ns)
            size += len(record.data) + len(record.key)
            bucket.sent = True
            puts.append(record)
        if cut and puts:
            self._next_cut_s = now_s + linger_of(len(puts), self._linger_s, self._stretch)
        return puts

    def settle(
        self, puts: Sequence[Put], results: Sequence[PutResult] | None, now_s: float
    ) -> list[Acked]:
        """Tell what became of records of :meth:`next_puts`.

        Args:
            puts: The records, as they were given out.
            results: One per record, or ``None`` when nothing is known of any.
            now_s: The steady clock, seconds.

        Returns:
            Those that the stream holds for certain; the others come again after a back-off.
        """
        acked = []
        stored: set[str] = set()
        failed: set[str] = set()
        outcomes = results if results is not None else [PutResult(error="unknown")] * len(puts)
        for put, result in zip(puts, outcomes, strict=True):
            number = int(put.key)
            bucket = self._buckets[number]
            if bucket.record is not put or not bucket.sent:
                raise ValueError(f"a record of bucket {number} that is not on its way was settled")
            bucket.sent = False
            if result.error is not None:
                failed.add(self._lane_of(number))
                continue
            if result.shard is not None:
                self._shard_of[number] = result.shard
            stored.add(self._lane_of(number))
            bucket.record = None
            self._sealed -= put.n_messages
            acked.append(Acked(number, put.bseq, len(put.data), put.note, put.epoch))
        self._hold_back(failed, stored, now_s)
        if results is not None:
            self.throttled += len(puts) - len(acked)
            relaxed = max(1.0, self._stretch * 0.8)
            self._stretch = min(MAX_STRETCH, self._stretch * 2) if failed else relaxed
        return acked

    def spill(self, *, wall_ns: int, market_ns: int, everything: bool = False) -> list[Put]:
        """Make records of what waits behind others, to be shelved and put later, in order.

        Args:
            wall_ns: Wall time, written into the records.
            market_ns: Market time, likewise.
            everything: Of what waits behind nothing, too.

        Returns:
            Records that stand in the backlog, in memory until :meth:`shelve` is told their places.
        """
        puts = []
        for number, bucket in self._buckets.items():
            if bucket.record is None and not bucket.backlog and not everything:
                continue
            while bucket.waiting:
                limit = max(self._max_messages, SPILL_MESSAGES)
                put = self._seal(number, bucket, limit, wall_ns, market_ns)
                bucket.backlog.append(put)
                puts.append(put)
        return puts

    def shelve(self, places: Sequence[Shelved]) -> None:
        """Forget the data of records of :meth:`spill`: it is loaded when their turn comes."""
        found = {(shelved.bucket, shelved.epoch, shelved.bseq): shelved for shelved in places}
        for bucket in {shelved.bucket for shelved in places}:
            backlog = self._buckets[bucket].backlog
            for i, entry in enumerate(backlog):
                if isinstance(entry, Put):
                    place = found.get((bucket, entry.epoch, entry.bseq))
                    if place is not None:
                        backlog[i] = place
                        self._sealed -= entry.n_messages
                        self._shelved += place.n_messages

    def restore(self, records: Sequence[Shelved]) -> None:
        """Put these records again, in this order, before anything newer of their buckets.

        Records that wait already are not doubled. None may be on its way.

        Raises:
            ValueError: A record of such a bucket is on its way.
        """
        per_bucket: dict[int, list[Shelved]] = {}
        for shelved in records:
            per_bucket.setdefault(shelved.bucket, []).append(shelved)
        for number, restored in per_bucket.items():
            bucket = self._buckets.setdefault(number, _Bucket())
            if bucket.sent:
                raise ValueError(f"a record of bucket {number} is on its way")
            waiting = [bucket.record, *bucket.backlog] if bucket.record else [*bucket.backlog]
            known = {(entry.epoch, entry.bseq) for entry in restored}
            kept = [e for e in waiting if e and (e.epoch, e.bseq) not in known]
            gone = [e for e in waiting if e and (e.epoch, e.bseq) in known]
            self._sealed -= sum(e.n_messages for e in gone if isinstance(e, Put))
            self._shelved -= sum(e.n_messages for e in gone if isinstance(e, Shelved))
            self._shelved += sum(e.n_messages for e in restored)
            ordered = sorted([*restored, *kept], key=_age_in(kept, restored, newest=self._epoch))
            bucket.record, bucket.backlog = None, deque(ordered)

    def _take_backlog(self, bucket: _Bucket) -> None:
        """The next record of the backlog is the one to put; what cannot be loaded is lost."""
        while bucket.backlog and bucket.record is None:
            entry = bucket.backlog.popleft()
            if isinstance(entry, Put):
                bucket.record = entry
                return
            self._shelved -= entry.n_messages
            bucket.record = self._load(entry) if self._load is not None else None
            if bucket.record is None:
                self.lost += entry.n_messages
            else:
                self._sealed += bucket.record.n_messages

    def _lane_of(self, number: int) -> str:
        return self._shard_of.get(number) or f"bucket {number}"

    def _not_before_s(self, number: int) -> float:
        lane = self._lanes.get(self._lane_of(number))
        return lane.not_before_s if lane is not None else 0.0

    def _hold_back(self, failed: set[str], stored: set[str], now_s: float) -> None:
        """Back off per shard: from the first delay on where some were stored, longer where none."""
        for name in stored - failed:
            self._lanes.pop(name, None)
        for name in failed:
            lane = self._lanes.setdefault(name, _Lane())
            if lane.backoff is None or name in stored:
                lane.backoff = delays(first_s=RETRY_FIRST_S, cap_s=RETRY_CAP_S, rng=self._rng)
            lane.not_before_s = now_s + next(lane.backoff)

    def _seal(self, number: int, bucket: _Bucket, limit: int, wall_ns: int, market_ns: int) -> Put:
        """Make the next record of a bucket from what waits."""
        count = min(len(bucket.waiting), limit)
        while True:
            messages, note = self._sealer.seal(bucket.waiting[:count], market_ns)
            record = Record(
                epoch=self._epoch,
                bucket=number,
                bseq=bucket.last_bseq + 1,
                sent_at_ns=wall_ns,
                market_ns=market_ns,
                messages=messages,
            )
            try:
                data = codec.encode_record(record)
            except TypeError:  # a value that JSON cannot hold came in by msgpack
                bucket.waiting[:count] = map(_storable, bucket.waiting[:count])
                continue
            if len(data) <= self._max_bytes:
                break
            if count > 1:
                count //= 2
            else:
                bucket.waiting[0] = _cut_short(bucket.waiting[0], keep=self._max_bytes // 2)
        del bucket.waiting[:count]
        self._sealer.commit(note)
        bucket.last_bseq += 1
        self._sealed += count
        return Put(str(number), data, self._epoch, bucket.last_bseq, count, note)


def _age_in(
    kept: Sequence[Put | Shelved], restored: Sequence[Shelved], *, newest: str
) -> Callable[[Put | Shelved], tuple[int, int]]:
    """Oldest run first, then by number; a run that is not restored is older than those that are."""
    named = {entry.epoch for entry in restored}
    runs = [e.epoch for e in kept if e.epoch not in named] + [e.epoch for e in restored]
    rank = {run: i for i, run in enumerate(dict.fromkeys(r for r in runs if r != newest))}
    return lambda entry: (rank.get(entry.epoch, len(rank)), entry.bseq)


def linger_of(n_records: int, linger_s: float, stretch: float = 1.0) -> float:
    """Seconds from one making of records to the next: short when few, longer under throttling.

    >>> linger_of(1, 0.04), linger_of(20, 0.04), linger_of(64, 0.04), linger_of(1, 0.04, 2.0)
    (0.002, 0.04, 0.04, 0.08)
    """
    if stretch > 1:
        return linger_s * stretch
    return min(linger_s, n_records / RECORDS_PER_S)


class PlainSealer:
    """Seals records as they are and notes how many messages they hold."""

    def seal(self, messages: Sequence[Message], market_ns: int) -> tuple[Sequence[Message], int]:  # noqa: ARG002
        """The messages, and their number."""
        return messages, len(messages)

    def commit(self, note: int) -> None:
        """Nothing to remember."""


def _storable(message: Message) -> Message:
    try:
        codec.encode_json_frame([message])
    except TypeError as error:
        try:
            raw = repr(message).encode(errors="backslashreplace")
        except RecursionError:  # nested deep
            raw = reprlib.repr(message).encode(errors="backslashreplace")
        return malformed(f"not_storable: {error}", raw=raw, received_ns=int(message.get("r", 0)))
    return message


def _cut_short(message: Message, *, keep: int) -> Message:
    raw = codec.encode_json_frame([message])
    reason = f"oversize: {len(raw)} bytes"
    return malformed(reason, raw=raw[:keep], received_ns=int(message.get("r", 0)))
