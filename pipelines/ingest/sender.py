"""The thread between the batcher and the sink: puts what is due, settles it, saves the state.

One call to the sink is under way at a time. A sink that fails is tried again for ever; what comes
meanwhile waits in memory, then in the journal, and then the socket is not read. Before the first
put, after a failure and after a pause the sink is asked which stream it is: one that was made anew
gets from the journal what the lake does not hold, before anything newer.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import ConfigError, StreamError
from pipelines.ingest import edges
from pipelines.ingest import state as states
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.durable import JournaledBatcher
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.hot import HotBucket
from pipelines.ingest.intake import Intake
from pipelines.ingest.lost import LostRecords
from pipelines.ingest.progress import Progress
from pipelines.ports import Acked, Put, PutResult, RecordSink, StoredMarks
from pipelines.retry import delays

log = logging.getLogger(__name__)

WARN_EVERY_S = 10.0
MIN_WAIT_S = 0.0005
IDENTITY_AFTER_S = 0.5
"""After so long without a stored record the stream is asked who it is: none is made anew faster."""

QUARANTINE_BYTES = 32_000_000
"""So much may wait for the quarantine: what cannot be read is one message, of whatever size."""

PROBE_FIRST_S, PROBE_CAP_S = 0.1, 2.0
MARKS_WITHIN_S = 30.0
"""So long the lake is asked what it holds before everything in the journal is sent again."""


class Sender:
    """Sends until it is stopped.

    Args:
        batcher: Makes the records, and their journal.
        sink: Takes them.
        tracker: Hears what is stored.
        intake: Knows the market clock.
        lock: Guards batcher, progress and tracker.
        linger_s: Interval of looking when nothing wakes it.
        progress: What the stream holds.
        alarms: Told what is wrong.
        lake: Knows what need not be sent again; ``None``: nothing is known.
        state_path: Where the state is saved, or ``None``.
        save_s: Interval of saving it.
        rng: Jitter of the probes.
        now_s: A steady clock.
    """

    def __init__(
        self,
        batcher: JournaledBatcher,
        sink: RecordSink,
        *,
        tracker: GapTracker,
        intake: Intake,
        lock: threading.Lock,
        linger_s: float,
        progress: Progress,
        alarms: Alarms,
        lake: StoredMarks | None,
        state_path: Path | None,
        save_s: float,
        rng: random.Random,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._sink = sink
        self._tracker = tracker
        self._intake = intake
        self._lock = lock
        self._saving = threading.Lock()
        self._linger_s = linger_s
        self._progress = progress
        self._alarms = alarms
        self._lake = lake
        self._hot = HotBucket(alarms)
        self._lost = LostRecords()
        self._state_path = state_path
        self._save_s = save_s
        self._rng = rng
        self._now_s = now_s
        self._next_save_s = now_s()
        self._certain_s = float("-inf")
        self._doubtful = True
        self._probes: Iterator[float] | None = None
        self._flush = False
        self._eager = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._warned_s = float("-inf")
        self._put_ms: deque[float] = deque(maxlen=200)
        self.room = threading.Event()
        self.retries = 0
        self.error: str | None = None
        self.failure: Exception | None = None

    def start(self) -> None:
        """Start the thread; the state of the new epoch is on disk when this returns.

        Raises:
            ConfigError: It cannot be saved. With the state of the run before, a restart would
                take the records of this one for stored.
        """
        if not self.save():
            raise ConfigError(f"cannot write {self._state_path}; is the disk full?")
        self._thread.start()

    def wake(self) -> None:
        """Look at once: much is waiting."""
        self._wake.set()

    def nudge(self) -> None:
        """Something is waiting; it goes at once if nothing is on its way and little went lately."""
        if self._eager:
            self._wake.set()

    @property
    def catching_up(self) -> bool:
        """Whether records of earlier runs are still to be put again; the caller locks."""
        return self._progress.catching_up

    def has_room(self) -> bool:
        """Whether more may be taken in; what memory cannot hold goes to the journal first."""
        large = self._intake.raw_bytes >= QUARANTINE_BYTES
        if not (large or self._batcher.crowded):
            return True
        wall = wall_ns()
        with self._lock:
            room = self._batcher.has_room(
                wall_ns=wall,
                market_ns=self._intake.clock.market_ns(wall),
                stuck=self._doubtful,
                large=large,
            )
            return room and self._intake.raw_bytes < QUARANTINE_BYTES

    def finish(self, timeout_s: float) -> bool:
        """Send all that waits, then end; whether all of it was stored in time.

        What was not goes to the journal; the next run sends it first.
        """
        self._flush = True
        deadline = self._now_s() + timeout_s
        self._wake.set()
        while self._thread.is_alive() and self._now_s() < deadline:
            with self._lock:
                if self._batcher.unsent == 0:
                    break
            self.room.clear()
            self.room.wait(min(self._linger_s, max(0.0, deadline - self._now_s())))
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=max(1.0, deadline - self._now_s()))
        wall = wall_ns()
        with self._lock:
            stored = self._batcher.unsent == 0
            # Also while a put hangs: its record is in the journal, and nothing is put behind it.
            self._batcher.shelve_all(wall_ns=wall, market_ns=self._intake.clock.market_ns(wall))
        self.save()
        return stored

    def stats(self) -> dict[str, Any]:
        """Counters over all runs, and how puts fare."""
        with self._lock:
            totals = self._progress.totals
            put_ms = list(self._put_ms)
            batcher = self._batcher
            return {
                "acked": totals.messages,
                "records_acked": totals.records,
                "bytes_acked": totals.n_bytes,
                "gaps": totals.gaps,
                "retries": self.retries,
                "put_ms_p50": round(median(put_ms), 3) if put_ms else None,
                "in_memory": batcher.in_memory,
                "spilled": batcher.unsent - batcher.in_memory,
                "spilled_total": batcher.spilled,
                "replayed_records": batcher.replayed,
                "lost_records": batcher.lost,
                "journal_bytes": batcher.journal_bytes,
                "alarms": self._alarms.to_list(),
            }

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.clear()
                self._eager = True  # a message that comes from here on wakes us
                if self._now_s() >= self._next_save_s:
                    self.save()
                if self._send_due():
                    continue
                wait_s = self._batcher.wait_s(self._now_s())
                if wait_s is not None:
                    self._eager = False
                self._wake.wait(self._linger_s if wait_s is None else max(MIN_WAIT_S, wait_s))
        except Exception as error:
            log.exception("the sender failed")
            self.failure = error
            self.room.set()

    def _send_due(self) -> bool:
        """One put, if something is due; whether to look again at once."""
        began = self._now_s()
        if self._batcher.unsent == 0:
            return False
        if (
            self._doubtful or began - self._certain_s > IDENTITY_AFTER_S
        ) and not self._same_stream():
            return False
        wall = wall_ns()
        with self._lock:
            puts = self._batcher.next_puts(
                began,
                wall_ns=wall,
                market_ns=self._intake.clock.market_ns(wall),
                flush=self._flush,
            )
            self._declare_lost(puts, wall_ns=wall)
        if not puts:
            return False
        began = self._now_s()
        results: Sequence[PutResult] | None
        try:
            results = self._sink.put(puts)
            error = next((r.error for r in results if r.error is not None), None)
        except StreamError as failed:
            results, error = None, str(failed)
            self._doubtful = True
        ended = self._now_s()
        self._settle(puts, results, ended, put_ms=(ended - began) * 1000)
        self._report(error)
        self.room.set()
        return error is None

    def _declare_lost(self, puts: Sequence[Put], *, wall_ns: int) -> None:
        """Records that the journal cannot give back: what they held lies in a gap from now on."""
        tracker = self._tracker
        for shelved in self._batcher.take_lost():
            self._lost.note(
                shelved.bucket,
                stored=tracker.acked,
                ends=tracker.acked_edges,
                made=tracker.marks,
            )
            self._intake.lost(shelved.n_market)
        if self._lost:
            self._intake.write_gaps(self._lost.rows(puts), wall_ns=wall_ns)

    def _settle(
        self,
        puts: Sequence[Put],
        results: Sequence[PutResult] | None,
        now_s: float,
        *,
        put_ms: float,
    ) -> None:
        with self._lock:
            acked: Sequence[Acked] = self._batcher.settle(puts, results, now_s)
            for record in acked:
                self._tracker.stored(record.note)
            self.retries += len(puts) - len(acked)
            self._put_ms.append(put_ms)
        if acked:
            self._certain_s = now_s
            self._hot.note(acked, now_s=now_s)

    def _same_stream(self) -> bool:
        """Make sure that the sink is the stream that we think it is; else begin it anew.

        Returns:
            Whether records may be put.
        """
        try:
            identity = self._sink.identity()
        except StreamError as error:
            self._doubtful = True
            self._report(str(error))
            self._probes = self._probes or delays(
                first_s=PROBE_FIRST_S, cap_s=PROBE_CAP_S, rng=self._rng
            )
            self._eager = False
            self._wait_out(next(self._probes))
            return False
        self._probes, self._doubtful = None, False
        self._certain_s = self._now_s()
        known = self._progress.stream
        if identity and known and identity != known:
            self._begin_anew(known, identity)
        elif identity:
            with self._lock:
                self._progress.stream = identity
        return True

    def _begin_anew(self, known: str, identity: str) -> None:
        log.error("the stream was made anew: it was %s, it is %s", known, identity)
        held = self._held_by_lake()
        with self._lock:
            count = self._batcher.replay(identity, held)
        log.warning("%d records that the lake does not hold are sent again", count)
        self.save()

    def _held_by_lake(self) -> Mapping[str, Mapping[int, int]]:
        """What the lake holds; nothing if it does not say, which sends more than is needed."""
        if self._lake is None:
            return {}
        deadline = self._now_s() + MARKS_WITHIN_S
        for delay_s in delays(first_s=PROBE_FIRST_S, cap_s=PROBE_CAP_S, rng=self._rng):
            try:
                return self._lake.marks()
            except Exception as error:  # noqa: BLE001 (whatever a lake raises ends no sender)
                self._report(f"the lake does not say what it holds: {error!r}")
                if self._now_s() + delay_s >= deadline or self._stop.wait(delay_s):
                    break
        return {}

    def _wait_out(self, seconds: float) -> None:
        """Wait, but not longer than until the end."""
        deadline = self._now_s() + seconds
        while not self._stop.is_set() and (left := deadline - self._now_s()) > 0:
            self._wake.clear()
            self._wake.wait(left)

    def _report(self, error: str | None) -> None:
        if error is None:
            if self.error is not None:
                log.info("the stream takes records again")
                self._alarms.off("stream_refuses")
            self.error = None
            return
        self.error = error
        self._alarms.on("stream_refuses", error)
        if self._now_s() - self._warned_s >= WARN_EVERY_S:
            self._warned_s = self._now_s()
            log.warning("the stream does not take records, trying again: %s", error)

    def save(self) -> bool:
        """Save the state now; whether it is saved. Any thread may, without the lock."""
        if self._state_path is None:
            return True
        with self._saving:
            return self._save_to(self._state_path)

    def _save_to(self, path: Path) -> bool:
        with self._lock:
            snapshot = replace(
                self._progress.snapshot(self._tracker.acked),
                edges=edges.to_json(self._tracker.acked_edges),
                unfilled=self._tracker.unfilled.to_json(),
            )
        self._next_save_s = self._now_s() + self._save_s
        try:
            states.save(path, snapshot)
        except OSError as error:  # an old one of this run is safe: a restart reads more
            self._alarms.on("state_not_saved", str(error))
            return False
        self._alarms.off("state_not_saved")
        return True
