"""The producer: from the feed's socket to the records of ``market-data``, nothing lost in silence.

A reader thread (the one that calls :meth:`Producer.run`) takes frames from one connection and
queues their messages; a sender thread makes records and puts them. What the feed published while
we were not there is declared in gap rows (:mod:`pipelines.ingest.gaps`). A process that was killed
finds out from the stream itself how far it had come (:mod:`pipelines.ingest.state`).

Fatal refusals of the feed end in the state ``failed`` with their reason; everything else is tried
again for ever.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import FeedFatal, FeedTransient, StreamError
from pipelines.ingest import state as states
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.connection import Connection, Meter
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.sender import Sender
from pipelines.ingest.state import ProducerState
from pipelines.ingest.watch import StalenessWatch
from pipelines.ports import BatcherFactory, RecordSink, TailReader
from pipelines.retry import delays

log = logging.getLogger(__name__)

STOP_FLUSH_S = 2.0


class Producer:
    """One producer run; used once.

    Args:
        config: Its settings.
        sink: Takes the records; closed by its owner.
        make_batcher: Makes the batcher (:class:`pipelines.kinesis.batching.Batcher`).
        tail: Reads what a killed predecessor had written; without it, what was written after the
            last save of the state is declared as missed although it is stored.
        rng: Jitter of the delays.
    """

    def __init__(
        self,
        config: ProducerConfig,
        *,
        sink: RecordSink,
        make_batcher: BatcherFactory,
        tail: TailReader | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._sink = sink
        self._make_batcher = make_batcher
        self._tail = tail
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._epoch = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._finished = threading.Event()
        self._symbols = tuple(dict.fromkeys(config.symbols))
        self._stopping = False
        self._paused = False
        self._flush_s = STOP_FLUSH_S
        self._drained = False
        self._state = "connecting"
        self._error: str | None = None
        self._reconnects = 0
        self._before = 0
        self._asked: dict[str, int] = {}
        self._meter = Meter()
        self._watch = StalenessWatch(stale_s=config.stale_s)
        self._tracker = GapTracker()
        self._intake: Intake | None = None
        self._sender: Sender | None = None
        self._connection: Connection | None = None

    def run(self) -> None:
        """Stream until stopped. Blocks."""
        try:
            self._prepare()
            self._stream_for_ever()
            self._declare_rest()
        except Exception as error:
            log.exception("the producer failed")
            self._state, self._error = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            self._finish()

    def stop(self) -> None:
        """End soon: what is queued gets two seconds to be stored."""
        self._stopping = True
        self._changed.set()

    def drain(self, timeout_s: float) -> bool:
        """Stop reading, store everything queued and end; whether all was stored in time."""
        self._flush_s = timeout_s
        self.stop()
        self._finished.wait(timeout_s + STOP_FLUSH_S)
        return self._drained

    def pause(self) -> None:
        """Leave the feed until :meth:`resume`; what is missed meanwhile becomes a gap row."""
        self._paused = True
        self._changed.set()

    def resume(self) -> None:
        """Go on after :meth:`pause`, or try again after a fatal refusal."""
        self._paused = False
        if self._state == "failed":
            self._error = None
            self._state = "connecting"
        self._changed.set()

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change what is subscribed, without a new connection."""
        self._symbols = tuple(dict.fromkeys(symbols))
        self._changed.set()

    @property
    def finished(self) -> bool:
        """Whether :meth:`run` has ended."""
        return self._finished.is_set()

    def stats(self) -> dict[str, Any]:
        """State and counters, as JSON types."""
        intake, sender, connection = self._intake, self._sender, self._connection
        with self._lock:
            queued = intake.unsent if intake else 0
        counters: dict[str, Any] = {
            "acked": 0, "records_acked": 0, "bytes_acked": 0, "retries": 0, "put_ms_p50": None,
            "gaps": 0,
        }  # fmt: skip
        if sender:
            counters = sender.stats()
        error = self._error or (sender.error if sender else None)
        return {
            "state": self._state,
            "error": error,
            "epoch": self._epoch,
            "received": self._before + (intake.received if intake else 0),
            "malformed": intake.malformed if intake else 0,
            "queued": queued,
            "reconnects": self._reconnects,
            "stalls": self._meter.stalls,
            "last_message_wall_ns": self._meter.last_ns,
            "messages_per_s": round(self._meter.rate(time.monotonic()), 1),
            "symbols": sorted(connection.subscribed) if connection else list(self._symbols),
            "clock": intake.clock.to_dict() if intake else None,
            **counters,
        }

    def _prepare(self) -> None:
        config = self._config
        saved = states.load(config.state_path) if config.state_path else None
        before = self._recover(saved) if saved else ProducerState(epoch=self._epoch)
        self._before = before.messages
        self._tracker = GapTracker(before.marks)
        if saved:
            self._tracker.interrupted(
                [s for s in before.marks if "*" in self._symbols or s in self._symbols],
                reason="restart",
            )
        batcher = self._make_batcher(
            epoch=self._epoch,
            sealer=self._tracker,
            linger_s=config.batch_ms / 1000,
            max_messages=config.max_batch_messages,
            max_bytes=config.max_record_bytes,
            rng=self._rng,
        )
        self._intake = Intake(batcher, self._tracker)
        self._sender = Sender(
            batcher,
            self._sink,
            tracker=self._tracker,
            intake=self._intake,
            lock=self._lock,
            linger_s=config.batch_ms / 1000,
            state=replace(before, epoch=self._epoch, bseqs={}),
            state_path=config.state_path,
            save_s=config.state_save_s,
        )
        self._sender.start()

    def _recover(self, saved: ProducerState) -> ProducerState:
        """The saved state as of what the stream holds; asks until the stream can be read.

        Positions that the stream does not know any more (it lost data, or was made anew) must not
        hold us up: every other attempt reads all that it holds, which says the same, only slower.
        """
        backoff, positions = self._delays(), saved.positions
        while self._tail is not None and not self._stopping:
            try:
                return states.recover(saved, self._tail)
            except StreamError as error:
                saved = replace(saved, positions={} if saved.positions else positions)
                self._state, self._error = "backing_off", str(error)
                log.warning("cannot read what the last run wrote, trying again: %s", error)
                self._wait_out(next(backoff))
        return saved

    def _stream_for_ever(self) -> None:
        backoff = self._delays()
        while not self._stopping:
            if self._paused or self._state == "failed":
                self._state = "failed" if self._state == "failed" else "paused"
                self._wait(1.0)
                continue
            reason, streamed = self._stream_once()
            if streamed:
                backoff = self._delays()
            if self._stopping or self._paused or self._state == "failed":
                continue
            delay_s = next(backoff)
            self._state, self._error = "backing_off", reason
            self._reconnects += 1
            log.warning("disconnected (%s); connecting again in %.1f s", reason, delay_s)
            self._wait_out(delay_s)

    def _stream_once(self) -> tuple[str, bool]:
        """One connection, from its opening to its end; why it ended, and whether it had data."""
        intake, sender = self._parts()
        self._state = "connecting"
        connection = self._connection = Connection(
            self._config,
            intake=intake,
            tracker=self._tracker,
            sender=sender,
            lock=self._lock,
            watch=self._watch,
            meter=self._meter,
            asked=self._asked,
            wanted=lambda: self._symbols,
            leaving=lambda: self._stopping or self._paused,
            on_state=self._enter,
        )
        reason = "paused"
        try:
            connection.run()
        except FeedFatal as error:
            log.error("the feed refuses us for good: %s", error)  # noqa: TRY400 (no bug of ours)
            reason = self._error = str(error)
            self._state = "failed"
        except FeedTransient as error:
            reason = str(error)
        else:
            if self._stopping:
                with self._lock:
                    connection.declare_open_gaps()
                return reason, connection.had_data
        with self._lock:
            lost = self._tracker.known if "*" in self._asked else self._asked.keys()
            self._tracker.interrupted(lost, reason=reason)
        return reason, connection.had_data

    def _declare_rest(self) -> None:
        """The end, and we are not connected: what was missed until now is declared now."""
        intake, _ = self._parts()
        with self._lock:
            if self._tracker.open and intake.clock_known:
                now_ns = wall_ns()
                rows = self._tracker.close(intake.clock.market_ns(now_ns) + 1)
                intake.write_gaps(rows, wall_ns=now_ns)

    def _enter(self, state: str, error: str | None) -> None:
        self._state, self._error = state, error

    def _finish(self) -> None:
        stored = self._sender is None or self._sender.finish(self._flush_s)
        self._drained = stored
        if self._state != "failed":
            self._state = "stopped"
        log.info("stopped; %s", "all is stored" if stored else "not all could be stored")
        self._finished.set()

    def _parts(self) -> tuple[Intake, Sender]:
        if self._intake is None or self._sender is None:
            raise RuntimeError("run() prepares the parts first")
        return self._intake, self._sender

    def _wait(self, seconds: float) -> None:
        self._changed.wait(seconds)
        self._changed.clear()

    def _wait_out(self, seconds: float) -> None:
        """Wait the whole time, unless we are to leave."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not (self._stopping or self._paused):
            self._wait(left)

    def _delays(self) -> Iterator[float]:
        config = self._config
        return delays(first_s=config.backoff_first_s, cap_s=config.backoff_cap_s, rng=self._rng)
