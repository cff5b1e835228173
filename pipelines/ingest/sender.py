"""The thread between the batcher and the sink: puts what is due, settles it, saves the state.

One call to the sink is under way at a time. A sink that fails is tried again for ever; the queue
grows meanwhile up to its limit, and then the socket is not read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import ConfigError, StreamError
from pipelines.ingest import state as states
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.state import ProducerState
from pipelines.ports import Put, PutResult, RecordBatcher, RecordSink

log = logging.getLogger(__name__)

WARN_EVERY_S = 10.0
MIN_WAIT_S = 0.001

THROTTLED = "ProvisionedThroughputExceededException"
"""The error code that means "not stored" for certain."""


class Sender:
    """Sends until it is stopped.

    Args:
        batcher: Makes the records.
        sink: Takes them.
        tracker: Hears what is stored.
        intake: Knows the market clock.
        lock: Guards batcher and tracker.
        linger_s: Interval of sending.
        state: What earlier runs stored; its epoch is this run's.
        state_path: Where the state is saved, or ``None``.
        save_s: Interval of saving it.
        now_s: A steady clock.
    """

    def __init__(
        self,
        batcher: RecordBatcher,
        sink: RecordSink,
        *,
        tracker: GapTracker,
        intake: Intake,
        lock: threading.Lock,
        linger_s: float,
        state: ProducerState,
        state_path: Path | None,
        save_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._sink = sink
        self._tracker = tracker
        self._intake = intake
        self._lock = lock
        self._saving = threading.Lock()
        self._linger_s = linger_s
        self._state = state
        self._state_path = state_path
        self._save_s = save_s
        self._now_s = now_s
        self._next_save_s = now_s()
        self._bseqs: dict[str, int] = {}
        self._positions: dict[str, str] = dict(state.positions)
        self._in_doubt: set[str] = set()
        self._flush = False
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
        """Start the thread; the state of the new epoch is on disk when this returns."""
        if self._state_path is not None:
            self.save()
            if not self._state_path.exists():
                raise ConfigError(f"cannot write {self._state_path}; is the disk full?")
        self._thread.start()

    def wake(self) -> None:
        """Look at once: much is waiting."""
        self._wake.set()

    def finish(self, timeout_s: float) -> bool:
        """Send all that waits, then end; whether all of it was stored in time."""
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
        self.save()
        with self._lock:
            return self._batcher.unsent == 0

    def stats(self) -> dict[str, Any]:
        """Counters over all runs, and how puts fare."""
        with self._lock:
            state = self._state
            put_ms = list(self._put_ms)
        return {
            "acked": state.messages,
            "records_acked": state.records,
            "bytes_acked": state.n_bytes,
            "gaps": state.gaps,
            "retries": self.retries,
            "put_ms_p50": round(median(put_ms), 3) if put_ms else None,
        }

    def _run(self) -> None:
        try:
            began_s = self._now_s()
            while not self._stop.is_set():
                self._save_when_due()
                if self._send_due():
                    continue
                # The time of the put itself is part of the interval: a message waits no longer.
                spent_s = self._now_s() - began_s
                self._wake.wait(max(MIN_WAIT_S, self._linger_s - spent_s))
                self._wake.clear()
                began_s = self._now_s()
        except Exception as error:
            log.exception("the sender failed")
            self.failure = error
            self.room.set()

    def _save_when_due(self) -> None:
        if self._now_s() >= self._next_save_s:
            self.save()

    def _send_due(self) -> bool:
        wall = wall_ns()
        with self._lock:
            puts = self._batcher.next_puts(
                self._now_s(),
                wall_ns=wall,
                market_ns=self._intake.clock.market_ns(wall),
                flush=self._flush,
            )
        if not puts:
            return False
        began = self._now_s()
        results: Sequence[PutResult] | None
        try:
            results = self._sink.put(puts)
            error = next((r.error for r in results if r.error is not None), None)
        except StreamError as failed:
            results, error = None, str(failed)
        ended = self._now_s()
        self._settle(puts, results, ended, put_ms=(ended - began) * 1000)
        self._report(error)
        self.room.set()
        return error is None

    def _settle(
        self,
        puts: Sequence[Put],
        results: Sequence[PutResult] | None,
        now_s: float,
        *,
        put_ms: float,
    ) -> None:
        with self._lock:
            acked = self._batcher.settle(puts, results, now_s)
            messages = n_bytes = gaps = 0
            for record in acked:
                self._tracker.stored(record.note)
                self._bseqs[str(record.bucket)] = record.bseq
                messages += record.note.n_messages
                gaps += record.note.n_gaps
                n_bytes += record.n_bytes
            self.retries += len(puts) - len(acked)
            self._put_ms.append(put_ms)
            if results is None:
                self._in_doubt.update(put.key for put in puts)
            else:
                self._note_positions(puts, results)
            self._state = replace(
                self._state,
                messages=self._state.messages + messages,
                records=self._state.records + len(acked),
                n_bytes=self._state.n_bytes + n_bytes,
                gaps=self._state.gaps + gaps,
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

    def _report(self, error: str | None) -> None:
        if error is None:
            if self.error is not None:
                log.info("the stream takes records again")
            self.error = None
            return
        self.error = error
        if self._now_s() - self._warned_s >= WARN_EVERY_S:
            self._warned_s = self._now_s()
            log.warning("the stream does not take records, trying again: %s", error)

    def save(self) -> None:
        """Save the state now. Any thread may, without the lock."""
        if self._state_path is None:
            return
        with self._saving:
            self._save_to(self._state_path)

    def _save_to(self, path: Path) -> None:
        with self._lock:
            snapshot = replace(
                self._state,
                positions=dict(self._positions),
                bseqs=dict(self._bseqs),
                marks=dict(self._tracker.acked),
                unfilled=self._tracker.unfilled.to_json(),
            )
        try:
            states.save(path, snapshot)
        except OSError as error:  # an old state is safe: more of the stream is read at the restart
            log.warning("the state is not saved: %s", error)
        self._next_save_s = self._now_s() + self._save_s
