"""Messages to records: one queue per bucket, batches by time and size, and the order rule. Pure.

PutRecords keeps no order among its entries and may store some of them and refuse others. So a
bucket has at most one unacknowledged record; what failed is put again, byte for byte, before
anything newer of its bucket. Nothing here blocks, sleeps or talks to anyone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines import codec
from pipelines.events import Message, Record, malformed
from pipelines.ports import Acked, Put, PutResult, Sealer
from pipelines.retry import delays

MAX_PUT_RECORDS = 500
MAX_PUT_BYTES = 4_900_000
"""Limits of one PutRecords call: 500 entries and 5 MB with their keys."""

MIN_RECORD_BYTES = 2000
"""A record limit below this could not hold the note about an oversized message."""

RETRY_FIRST_S = 0.1
RETRY_CAP_S = 5.0


@dataclass(slots=True)
class _Outstanding:
    """A record that was made and is not acknowledged."""

    put: Put
    bseq: int
    n_messages: int
    note: Any
    sent: bool = False


@dataclass(slots=True)
class _Bucket:
    """State of one bucket: what waits, and the one record that is on its way."""

    waiting: list[Message] = field(default_factory=list)
    record: _Outstanding | None = None
    last_bseq: int = 0
    not_before_s: float = 0.0
    backoff: Iterator[float] | None = None


class Batcher:
    """Makes the records of one epoch.

    Args:
        epoch: Identity of this producer run.
        sealer: Has the last word on the messages of a record.
        linger_s: Longest wait of a message before its record is made.
        max_messages: Most messages of a record.
        max_bytes: Most bytes of a record's data.
        rng: Jitter of the retries.

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
    ) -> None:
        if max_bytes < MIN_RECORD_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_RECORD_BYTES}, got {max_bytes}")
        self._epoch = epoch
        self._sealer = sealer
        self._linger_s = linger_s
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._rng = rng
        self._buckets: dict[int, _Bucket] = {}
        self._next_cut_s = 0.0
        self._first = 0

    def queue(self, bucket: int) -> list[Message]:
        """The queue of a bucket; always the same list, to append to."""
        return self._buckets.setdefault(bucket, _Bucket()).waiting

    @property
    def unsent(self) -> int:
        """Messages that the stream does not hold for certain yet."""
        return sum(
            len(b.waiting) + (b.record.n_messages if b.record else 0)
            for b in self._buckets.values()
        )

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
            full = len(bucket.waiting) >= self._max_messages
            if bucket.record is None and bucket.waiting and (cut or full):
                self._cut(number, bucket, wall_ns=wall_ns, market_ns=market_ns)
            record = bucket.record
            if record is None or record.sent or now_s < bucket.not_before_s:
                continue
            size += len(record.put.data) + len(record.put.key)
            if puts and (size > MAX_PUT_BYTES or len(puts) == MAX_PUT_RECORDS):
                self._first = numbers.index(number)  # the next call begins here: no bucket starves
                return puts
            record.sent = True
            puts.append(record.put)
        if cut and puts:
            self._next_cut_s = now_s + self._linger_s
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
        outcomes = results if results is not None else [PutResult(error="unknown")] * len(puts)
        for put, result in zip(puts, outcomes, strict=True):
            number = int(put.key)
            bucket = self._buckets[number]
            record = bucket.record
            if record is None or record.put is not put:
                raise ValueError(f"a record of bucket {number} that is not on its way was settled")
            if result.error is None:
                bucket.record, bucket.backoff, bucket.not_before_s = None, None, 0.0
                acked.append(Acked(number, record.bseq, len(put.data), record.note))
                continue
            record.sent = False
            if bucket.backoff is None:
                bucket.backoff = delays(first_s=RETRY_FIRST_S, cap_s=RETRY_CAP_S, rng=self._rng)
            bucket.not_before_s = now_s + next(bucket.backoff)
        return acked

    def _cut(self, number: int, bucket: _Bucket, *, wall_ns: int, market_ns: int) -> None:
        count = min(len(bucket.waiting), self._max_messages)
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
        put = Put(key=str(number), data=data)
        bucket.record = _Outstanding(put, bucket.last_bseq, count, note)


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
        raw = repr(message).encode(errors="backslashreplace")
        return malformed(f"not_storable: {error}", raw=raw, received_ns=int(message.get("r", 0)))
    return message


def _cut_short(message: Message, *, keep: int) -> Message:
    raw = codec.encode_json_frame([message])
    reason = f"oversize: {len(raw)} bytes"
    return malformed(reason, raw=raw[:keep], received_ns=int(message.get("r", 0)))
