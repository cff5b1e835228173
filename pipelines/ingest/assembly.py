"""The parts between feed and sink, put together: what a run takes over, and how it goes on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.ingest import state as states
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.durable import JournaledBatcher, Shelf
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.journal import Journal
from pipelines.ingest.keeper import Keeper
from pipelines.ingest.progress import Progress
from pipelines.ingest.restart import inherit
from pipelines.ingest.sender import Sender
from pipelines.ports import BatcherFactory, RecordSink, StoredMarks, TailReader


@dataclass(frozen=True, slots=True)
class Parts:
    """What a producer works with.

    Args:
        intake: Takes messages.
        sender: Puts records; not started.
        keeper: Keeps the journal, if there is one; not started.
        before: Market messages that earlier runs received.
        restarted: Whether there was an earlier run.
    """

    intake: Intake
    sender: Sender
    keeper: Keeper | None
    before: int
    restarted: bool

    def start(self) -> None:
        """Start the threads."""
        self.sender.start()
        if self.keeper is not None:
            self.keeper.start()

    def finish(self, timeout_s: float) -> bool:
        """Send all that waits, then end; whether all of it was stored in time."""
        stored = self.sender.finish(timeout_s)
        if self.keeper is not None:
            self.keeper.stop()
        return stored


def assemble(
    config: ProducerConfig,
    *,
    epoch: str,
    sink: RecordSink,
    make_batcher: BatcherFactory,
    tail: TailReader | None,
    lake: StoredMarks | None,
    make_tracker: Callable[[states.ProducerState], GapTracker],
    lock: threading.Lock,
    alarms: Alarms,
    rng: random.Random,
    on_failure: Callable[[str], bool],
) -> tuple[GapTracker, Parts]:
    """Open the journal, take over from the last run, make the parts.

    Args:
        config: Settings of the producer.
        epoch: This run.
        sink: Takes the records.
        make_batcher: Makes the batcher.
        tail: Reads what the last run put after its state was saved.
        lake: Knows what is stored.
        make_tracker: Makes the tracker of a state's marks.
        lock: Will guard the parts.
        alarms: Told what is wrong.
        rng: Jitter.
        on_failure: Told why the stream cannot be read; waits; whether to try again.

    Raises:
        ConfigError: State or journal cannot be used.
    """
    saved = states.load(config.state_path) if config.state_path else None
    journal = None
    if config.journal_dir is not None:
        journal = Journal(config.journal_dir, max_bytes=config.journal_max_mb * 1_000_000)
    taken = inherit(
        saved, journal, epoch=epoch, sink=sink, tail=tail, lake=lake, on_failure=on_failure
    )
    tracker = make_tracker(taken.state)
    progress = Progress(taken.state, epoch=epoch, pending=taken.pending)
    shelf = Shelf(journal) if journal is not None else None
    batcher = JournaledBatcher(
        make_batcher(
            epoch=epoch,
            sealer=tracker,
            linger_s=config.batch_ms / 1000,
            max_messages=config.max_batch_messages,
            max_bytes=config.max_record_bytes,
            rng=rng,
            load=shelf,
        ),
        journal,
        progress=progress,
        alarms=alarms,
        spill_at=config.spill_at,
        max_queued=config.max_queued,
        shelf=shelf,
    )
    for note in batcher.resume(taken.pending):
        tracker.commit(note)  # what will be stored is no part of the gap of this restart
    intake = Intake(batcher, tracker)
    sender = Sender(
        batcher,
        sink,
        tracker=tracker,
        intake=intake,
        lock=lock,
        linger_s=config.batch_ms / 1000,
        progress=progress,
        alarms=alarms,
        lake=lake,
        state_path=config.state_path,
        save_s=config.state_save_s,
        rng=rng,
    )
    keeper = Keeper(journal, batcher, lake=lake, lock=lock) if journal is not None else None
    return tracker, Parts(intake, sender, keeper, taken.messages, saved is not None)
