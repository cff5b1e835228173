"""What the stream holds of what this run, and earlier ones that were killed, made. Pure.

Counts a record when the stream has it for certain, once, whoever put it how often. When the
stream was made anew it holds nothing: what has to be put again is taken off the counts and counted
again when it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipelines.ingest.journal import Entry
from pipelines.ingest.state import ProducerState
from pipelines.ports import Acked, Put, PutResult, Shelved

THROTTLED = "ProvisionedThroughputExceededException"
"""The error code that means "not stored" for certain."""


Marks = Mapping[str, Mapping[int, int]]
"""Per epoch and bucket, the last record."""


class Progress:
    """Follows acknowledgements; the caller locks.

    Args:
        before: What earlier runs stored, as of now.
        epoch: This run.
        pending: Records of earlier runs that are put again, oldest first.
    """

    def __init__(self, before: ProducerState, *, epoch: str, pending: Iterable[Entry] = ()) -> None:
        self.epoch = epoch
        self.stream = before.stream
        self.journaled = False
        self._totals = replace(before, bseqs={}, marks={}, positions={}, older={})
        self._positions = dict(before.positions)
        self._in_doubt: set[str] = set()
        self._lanes: dict[str, dict[int, int]] = {epoch: {}}
        self._left: dict[str, int] = {}
        lanes = before.lanes()
        for entry in pending:
            run = entry.shelved.epoch
            self._lanes.setdefault(run, lanes.get(run, {}))
            self._left[run] = self._left.get(run, 0) + 1

    def holds(self, epoch: str, bucket: int, bseq: int) -> bool:
        """Whether the stream holds a record for certain."""
        lane = self._lanes.get(epoch)
        return lane is None or bseq <= lane.get(bucket, 0)

    def missing(self, held: Marks, entries: Iterable[Entry]) -> int:
        """Records that were stored and are neither held by the lake nor among these."""
        count = sum(
            max(0, bseq - held.get(run, {}).get(bucket, 0))
            for run, lane in self._lanes.items()
            for bucket, bseq in lane.items()
        )
        for entry in entries:
            shelved = entry.shelved
            if shelved.epoch in self._lanes:
                count -= shelved.bseq <= self._lanes[shelved.epoch].get(shelved.bucket, 0)
        return count

    def settled(
        self, puts: Sequence[Put], results: Sequence[PutResult] | None, acked: Sequence[Acked]
    ) -> None:
        """Note what became of records that were put.

        Args:
            puts: The records.
            results: One per record, or ``None`` when nothing is known of any.
            acked: Those that the stream holds for certain.
        """
        messages = records = n_bytes = gaps = 0
        for record in acked:
            if self.holds(record.epoch, record.bucket, record.bseq):
                continue
            self._lanes[record.epoch][record.bucket] = record.bseq
            self._finish(record.epoch)
            messages += record.note.n_messages
            gaps += record.note.n_gaps
            n_bytes += record.n_bytes
            records += 1
        self._add(messages, records, n_bytes, gaps)
        if results is None:
            self._in_doubt.update(put.key for put in puts)
        else:
            self._note_positions(puts, results)

    def gave_up(self, shelved: Shelved) -> None:
        """A record cannot be put, ever: what is behind it goes on."""
        lane = self._lanes.get(shelved.epoch)
        if lane is not None and shelved.bseq > lane.get(shelved.bucket, 0):
            lane[shelved.bucket] = shelved.bseq
            self._finish(shelved.epoch)

    def begin_stream(self, identity: str, *, held: Marks, resent: Sequence[Entry]) -> None:
        """The stream is another one, empty: nothing of these records is stored any more.

        Args:
            identity: Which stream it is.
            held: Per epoch and bucket, the last record that need not be put again.
            resent: The records that are put again.
        """
        self.stream = identity
        self._positions, self._in_doubt = {}, set()
        old, self._left = self._lanes, {}
        self._lanes = {self.epoch: dict(held.get(self.epoch, {}))}
        messages = records = n_bytes = gaps = 0
        for entry in resent:
            shelved = entry.shelved
            run = shelved.epoch
            self._lanes.setdefault(run, dict(held.get(run, {})))
            if run != self.epoch:
                self._left[run] = self._left.get(run, 0) + 1
            was = old.get(run)
            if was is None or shelved.bseq <= was.get(shelved.bucket, 0):
                messages += entry.n_market
                gaps += entry.n_gaps
                n_bytes += entry.n_bytes
                records += 1
        self._add(-messages, -records, -n_bytes, -gaps)

    def snapshot(self, marks: Mapping[str, int]) -> ProducerState:
        """The state to save.

        Args:
            marks: Per symbol, the market time up to which the stream accounts for it, ns.
        """
        older = {run: _text(of) for run, of in self._lanes.items() if run != self.epoch}
        return replace(
            self._totals,
            epoch=self.epoch,
            positions=dict(self._positions),
            bseqs=_text(self._lanes[self.epoch]),
            marks=dict(marks),
            older=older,
            stream=self.stream,
            journaled=self.journaled,
        )

    @property
    def catching_up(self) -> bool:
        """Whether records of earlier runs are still to be put again."""
        return bool(self._left)

    @property
    def totals(self) -> ProducerState:
        """The counts over all runs; of the rest of the state, nothing."""
        return self._totals

    def _finish(self, epoch: str) -> None:
        """A record of an earlier run is done; after its last one the run need not be named."""
        if epoch == self.epoch:
            return
        self._left[epoch] -= 1
        if self._left[epoch] <= 0:
            del self._left[epoch], self._lanes[epoch]

    def _add(self, messages: int, records: int, n_bytes: int, gaps: int) -> None:
        totals = self._totals
        self._totals = replace(
            totals,
            messages=max(0, totals.messages + messages),
            records=max(0, totals.records + records),
            n_bytes=max(0, totals.n_bytes + n_bytes),
            gaps=max(0, totals.gaps + gaps),
        )

    def _note_positions(self, puts: Sequence[Put], results: Sequence[PutResult]) -> None:
        for put, result in zip(puts, results, strict=True):
            if result.error is None:
                self._in_doubt.discard(put.key)
            elif result.error != THROTTLED:
                self._in_doubt.add(put.key)
        if self._in_doubt:
            return  # a record in doubt may lie before these positions: whoever restarts must see it
        for result in results:
            if result.shard is not None and result.sequence is not None:
                known = self._positions.get(result.shard)
                if known is None or int(result.sequence) > int(known):
                    self._positions[result.shard] = result.sequence


def _text(lane: Mapping[int, int]) -> dict[str, int]:
    return {str(bucket): bseq for bucket, bseq in lane.items()}
