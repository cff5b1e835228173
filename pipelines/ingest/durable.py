"""A batcher whose records stand in the journal before they are put.

Three uses of the journal: what does not fit into memory waits there (*spill*); what a killed run
had not stored is put again (:meth:`JournaledBatcher.resume`); and what a stream lost that the lake
does not hold is put again (:meth:`JournaledBatcher.replay`). The caller locks; a record is written
in the same breath as it is made, so the journal has the order of the records of a bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableSequence, Sequence
from typing import Any

from pipelines.events import Message
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.journal import Entry, Journal
from pipelines.ingest.progress import Marks, Progress
from pipelines.ports import Acked, Put, PutResult, RecordBatcher, Shelved

log = logging.getLogger(__name__)


class Shelf:
    """Fetches shelved records, and remembers those that cannot be fetched.

    Args:
        journal: Where they lie.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.lost: list[Shelved] = []

    def __call__(self, shelved: Shelved) -> Put | None:
        """The record, or ``None``."""
        put = self._journal.load(shelved)
        if put is None:
            self.lost.append(shelved)
        return put


class JournaledBatcher:
    """A batcher and its journal.

    Args:
        batcher: Makes the records of this run.
        journal: Takes them; ``None``: memory is all there is.
        progress: Knows what the stream holds.
        alarms: Told what is wrong.
        spill_at: Messages in memory at which those that wait behind others are spilled.
        max_queued: Messages in memory at which nothing more is taken in.
        shelf: What the batcher fetches shelved records from.
    """

    def __init__(
        self,
        batcher: RecordBatcher,
        journal: Journal | None,
        *,
        progress: Progress,
        alarms: Alarms,
        spill_at: int,
        max_queued: int,
        shelf: Shelf | None = None,
    ) -> None:
        self._batcher = batcher
        self._shelf = shelf
        self._journal = journal
        self._progress = progress
        self._alarms = alarms
        self._spill_at = min(spill_at, max_queued)
        self._max_queued = max_queued
        self._written: dict[int, int] = {}  # per bucket, the last record given to the journal
        self._unwritten: list[Put] = []
        self._shelving = False
        self.spilled = 0
        self.replayed = 0
        self.lost = 0
        progress.journaled = journal is not None

    def queue(self, bucket: int) -> MutableSequence[Message]:
        """The queue of a bucket."""
        return self._batcher.queue(bucket)

    @property
    def unsent(self) -> int:
        """Messages that the stream does not hold for certain yet."""
        return self._batcher.unsent

    @property
    def in_memory(self) -> int:
        """Of these, the ones that are held in memory."""
        return self._batcher.in_memory

    @property
    def crowded(self) -> bool:
        """Whether memory is short; any thread may ask."""
        if self._journal is None:
            return self.in_memory >= self._max_queued
        return self._batcher.waiting >= self._spill_at

    @property
    def journal_bytes(self) -> int:
        """Disk that the journal takes."""
        return self._journal.size if self._journal is not None else 0

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until records may be made again; ``None``: they may, at any message."""
        return self._batcher.wait_s(now_s)

    def next_puts(
        self, now_s: float, *, wall_ns: int, market_ns: int, flush: bool = False
    ) -> list[Put]:
        """The records to put now; the new ones among them stand in the journal."""
        puts = self._batcher.next_puts(now_s, wall_ns=wall_ns, market_ns=market_ns, flush=flush)
        epoch, written = self._progress.epoch, self._written
        new = [p for p in puts if p.epoch == epoch and p.bseq > written.get(int(p.key), 0)]
        if new:
            self._write(new)
        return puts

    def take_lost(self) -> list[Shelved]:
        """Records whose turn came and that cannot be read; each is given out once."""
        if self._shelf is None or not self._shelf.lost:
            return []
        lost, self._shelf.lost = self._shelf.lost, []
        self.lost += len(lost)
        for shelved in lost:
            self._progress.gave_up(shelved)
            self._alarms.on(
                "journal_unreadable",
                f"{self.lost} records are lost; the last was record {shelved.bseq} of bucket "
                f"{shelved.bucket} at byte {shelved.place[1]} of file {shelved.place[0]}",
            )
        return lost

    def settle(
        self, puts: Sequence[Put], results: Sequence[PutResult] | None, now_s: float
    ) -> list[Acked]:
        """Tell what became of them; those that are stored now."""
        acked = self._batcher.settle(puts, results, now_s)
        self._progress.settled(puts, results, acked)
        if self._shelving and self.unsent == self.in_memory:
            self._shelving = False
            for alarm in ("spilling", "stream_replaced"):
                self._alarms.off(alarm)
        return acked

    def has_room(
        self, *, wall_ns: int, market_ns: int, stuck: bool = False, large: bool = False
    ) -> bool:
        """Whether more may be taken in; makes room on disk where memory is short.

        Args:
            wall_ns: Wall time.
            market_ns: Market time.
            stuck: Nothing can be put now, of any bucket.
            large: What waits takes more memory than its number tells.
        """
        if not (large or self.crowded):
            return True
        if self._journal is None:
            return not self.crowded
        self._spill(wall_ns=wall_ns, market_ns=market_ns, everything=stuck)
        return self._batcher.waiting < self._max_queued

    def shelve_all(self, *, wall_ns: int, market_ns: int) -> None:
        """The end has come before the stream took everything: the rest goes to the journal."""
        if self._journal is not None and self.in_memory:
            self._spill(wall_ns=wall_ns, market_ns=market_ns, everything=True)

    def resume(self, pending: Sequence[Entry]) -> Iterator[Any]:
        """Put records of earlier runs first; yields what each says."""
        self._batcher.restore([entry.shelved for entry in pending])
        for entry in pending:
            put = self._journal.load(entry.shelved) if self._journal is not None else None
            if put is not None:
                yield put.note

    def replay(self, identity: str, held: Marks) -> int:
        """The stream is another one, empty: put again what the lake does not hold.

        Args:
            identity: Which stream it is.
            held: What the lake holds.

        Returns:
            How many records go again. What neither lake nor journal has is a hole in the
            counters of the records, which the archive reports.
        """
        entries: list[Entry] = []
        if self._journal is not None:
            for entry in self._journal.entries():
                shelved = entry.shelved
                if shelved.bseq > held.get(shelved.epoch, {}).get(shelved.bucket, 0):
                    entries.append(entry)
        if missing := self._progress.missing(held, entries):
            self._alarms.on("lost_records", f"{missing} records are in no lake and no journal")
        self._alarms.on("stream_replaced", f"{identity}: {len(entries)} records are sent again")
        self._shelving = True
        self._progress.begin_stream(identity, held=held, resent=entries)
        self._batcher.restore([entry.shelved for entry in entries])
        self.replayed += len(entries)
        return len(entries)

    def prune(self, held: Marks) -> None:
        """Forget what the lake holds."""
        if self._journal is not None:
            self._journal.drop(
                lambda epoch, bucket, top: (
                    top <= held.get(epoch, {}).get(bucket, 0)
                    and self._progress.holds(epoch, bucket, top)
                )
            )

    def _spill(self, *, wall_ns: int, market_ns: int, everything: bool = False) -> None:
        if not self._has_disk():
            return
        puts = self._batcher.spill(wall_ns=wall_ns, market_ns=market_ns, everything=everything)
        if puts:
            self._write(puts, shelve=True)

    def _has_disk(self) -> bool:
        """Whether the journal may grow; by budget goes what the stream holds, oldest first."""
        journal = self._journal
        if journal is None:
            return False
        if not journal.has_room:
            while not journal.has_room and journal.drop(self._progress.holds, most=1):
                continue
        if journal.has_room:
            self._alarms.off("journal_full")
            return True
        self._alarms.on("journal_full", f"{journal.size / 1e6:,.0f} MB: the feed has to wait")
        return False

    def _write(self, puts: Sequence[Put], *, shelve: bool = False) -> None:
        """Into the journal; with a disk that takes nothing, they stay in memory and go on."""
        if self._journal is None:
            return
        self._has_disk()
        holds = self._progress.holds
        left = [p for p in self._unwritten if not holds(p.epoch, int(p.key), p.bseq)]
        for put in puts:
            self._written[int(put.key)] = put.bseq
        puts = [*left, *puts]
        try:
            places = self._journal.append(puts)
        except OSError as error:
            self._unwritten = puts
            self._progress.journaled = False
            self._alarms.on("journal_failed", str(error))
            return
        if self._unwritten:
            self._unwritten, self._progress.journaled = [], True
            self._alarms.off("journal_failed")
        if shelve:
            self._batcher.shelve(places)
            self._shelving = True
            self.spilled += sum(put.n_messages for put in puts)
            self._alarms.on("spilling", "messages wait on disk for the stream")
