"""What a run takes over from the one before: counts, marks, and records to put again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.errors import StreamError
from pipelines.ingest import state as states
from pipelines.ingest.journal import Entry, Journal
from pipelines.ingest.state import ProducerState
from pipelines.ports import RecordSink, Shelved, StoredMarks, TailReader

log = logging.getLogger(__name__)

NOWHERE = (0, 0, 0)
"""A place of no journal: its files are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What is taken over.

    Args:
        state: Counts and marks of what the stream holds.
        pending: Records that it lacks, oldest first.
    """

    state: ProducerState
    pending: tuple[Entry, ...] = ()

    @property
    def messages(self) -> int:
        """Market messages that were received, and are stored or will be."""
        return self.state.messages + sum(entry.n_market for entry in self.pending)


def inherit(
    saved: ProducerState | None,
    journal: Journal | None,
    *,
    epoch: str,
    sink: RecordSink,
    tail: TailReader | None,
    lake: StoredMarks | None,
    on_failure: Callable[[str], bool],
) -> Inheritance:
    """Find out how far the earlier runs came.

    Args:
        saved: The last state, if there is one.
        journal: Their records.
        epoch: The new run.
        sink: Says whether the stream is there.
        tail: Reads what they put after the state was saved.
        lake: Knows what is stored, if no state says it.
        on_failure: Told why the stream cannot be read; waits; whether to try again.
    """
    if saved is None:
        return _without_state(journal, epoch=epoch, lake=lake)
    whole = journal is not None and journal.torn == 0 and saved.journaled
    if whole and not _there(sink):
        tail = None
    state = _recovered(saved, tail, on_failure, whole=whole)
    lanes = state.lanes()
    pending = _with_lost([entry for entry in _entries(journal) if _lacks(lanes, entry)], lanes)
    if pending:
        log.info("%d records of the last run are put again", len(pending))
    return Inheritance(state, pending)


def _recovered(
    saved: ProducerState,
    tail: TailReader | None,
    on_failure: Callable[[str], bool],
    *,
    whole: bool,
) -> ProducerState:
    """The saved state as of what the stream holds.

    With a whole journal the stream need not answer: what the state does not count is put again,
    and counted then. Else positions that it does not know any more (it lost data, or was made
    anew) must not hold us up: every other attempt reads all that it holds, which says the same,
    only slower.
    """
    positions = saved.positions
    while tail is not None:
        try:
            return replace(states.recover(saved, tail), positions=positions)
        except StreamError as error:
            log.warning("cannot read what the last run wrote: %s", error)
            if whole:
                break
            saved = replace(saved, positions={} if saved.positions else positions)
            if not on_failure(str(error)):
                break
    return replace(saved, positions=positions)


def _there(sink: RecordSink) -> bool:
    try:
        sink.identity()
    except StreamError as error:
        log.warning("the stream is not there; the journal says what the last run wrote: %s", error)
        return False
    return True


def _without_state(journal: Journal | None, *, epoch: str, lake: StoredMarks | None) -> Inheritance:
    """A journal without a state: what the lake does not hold is put again; twice is harmless."""
    held: Mapping[str, Mapping[int, int]] = {}
    entries = _entries(journal)
    if entries and lake is not None:
        try:
            held = lake.marks()
        except Exception as error:  # noqa: BLE001 (whatever a lake raises: then all is put again)
            log.warning("the lake does not say what it holds: %r", error)
    runs = {entry.shelved.epoch for entry in entries}
    older = {run: {str(b): n for b, n in held.get(run, {}).items()} for run in runs}
    state = ProducerState(epoch=epoch, older=older)
    return Inheritance(state, tuple(e for e in entries if _lacks(state.lanes(), e)))


def _entries(journal: Journal | None) -> list[Entry]:
    return list(journal.entries()) if journal is not None else []


def _with_lost(
    pending: Sequence[Entry], lanes: Mapping[str, Mapping[int, int]]
) -> tuple[Entry, ...]:
    """The records, and where one is missing between them an entry that leads nowhere.

    Its turn comes like that of the others; then it is found that it cannot be read.
    """
    last = {(run, bucket): bseq for run, of in lanes.items() for bucket, bseq in of.items()}
    out: list[Entry] = []
    for entry in pending:
        here = entry.shelved
        lane = (here.epoch, here.bucket)
        out += (
            Entry(Shelved(here.bucket, here.epoch, bseq, 0, NOWHERE), 0, 0, 0)
            for bseq in range(last.get(lane, 0) + 1, here.bseq)
        )
        out.append(entry)
        last[lane] = max(here.bseq, last.get(lane, 0))
    return tuple(out)


def _lacks(lanes: Mapping[str, Mapping[int, int]], entry: Entry) -> bool:
    lane = lanes.get(entry.shelved.epoch)
    return lane is not None and entry.shelved.bseq > lane.get(entry.shelved.bucket, 0)
