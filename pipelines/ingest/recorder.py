"""Writes everything that a feed sends to a tape: one connection, no stream, nothing changed.

What was not received because a connection broke stands in the tape as a note. The tape can be read
while it is written, and our exchange plays it again.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import FeedTransient
from pipelines.events import Message
from pipelines.ingest import lease
from pipelines.ingest.alpaca_protocol import (
    AlpacaProtocol,
    Credentials,
    Data,
    Event,
    Failed,
    Malformed,
    Refused,
    Subscribed,
)
from pipelines.ingest.alpaca_stream import AlpacaStream
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.intake import printed, raw_of
from pipelines.retry import delays
from pipelines.tape import TapeHeader, TapeWriter, channel_of

log = logging.getLogger(__name__)

POLL_S = 0.1
GOODBYE_S = 1.0


def header_of(config: ProducerConfig, *, started_ns: int) -> TapeHeader:
    """The first line of a tape recorded with these settings."""
    return TapeHeader(
        feed=config.url.rstrip("/").rsplit("/", 1)[-1],
        source=config.url,
        started_ns=started_ns,
        symbols=tuple(dict.fromkeys(s for has in config.subscriptions.values() for s in has)),
        channels=tuple(config.subscriptions),
    )


class Recorder:
    """Records until it is stopped.

    Args:
        config: The feed, the keys and what to subscribe.
        tape: Takes what comes; closed by its owner.
        rng: Jitter of the delays.
        now_ns: The wall clock.

    Attributes:
        state: ``connecting``, ``recording``, ``backing_off`` or ``stopped``.
        problem: What is wrong though it goes on.
    """

    def __init__(
        self,
        config: ProducerConfig,
        tape: TapeWriter,
        *,
        rng: random.Random | None = None,
        now_ns: Callable[[], int] = wall_ns,
    ) -> None:
        self._config = config
        self._tape = tape
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._now_ns = now_ns
        self._stop = threading.Event()
        self._counts: Counter[str] = Counter()
        self._raw_frames = self._gaps = 0
        self._heard_ns = 0
        self._lost: str | None = None
        self._streamed = False
        self.state = "connecting"
        self.problem: str | None = None

    def run(self) -> None:
        """Record. Blocks; a broken connection is made anew for ever.

        Raises:
            FeedFatal: The feed refuses us for good.
        """
        config = self._config
        backoff = None
        try:
            while not self._stop.is_set():
                self.state, self._streamed = "connecting", False
                try:
                    with lease.held(
                        config.lock_dir, url=config.url, key=config.key, index=config.index
                    ):
                        self._once()
                except FeedTransient as error:
                    if self._streamed or backoff is None:
                        backoff = delays(
                            first_s=config.backoff_first_s,
                            cap_s=config.backoff_cap_s,
                            rng=self._rng,
                        )
                    self.state, self.problem = "backing_off", str(error)
                    if self._heard_ns:
                        self._lost = self._lost or str(error)
                    log.warning("not recording: %s", error)
                    self._stop.wait(next(backoff))
        finally:
            self.state = "stopped"

    def stop(self) -> None:
        """Say goodbye to the feed and end."""
        self._stop.set()

    def stats(self) -> dict[str, Any]:
        """State and counters, as JSON types."""
        return {
            "state": self.state,
            "problem": self.problem,
            "messages": sum(self._counts.values()),
            "by_channel": dict(self._counts),
            "raw_frames": self._raw_frames,
            "gaps": self._gaps,
        }

    def _once(self) -> None:
        config = self._config
        binary = config.codec == "msgpack"
        protocol = AlpacaProtocol(
            Credentials(config.key, config.secret), config.subscriptions, binary=binary
        )
        stream = AlpacaStream(
            config.url,
            protocol,
            binary=binary,
            connect_timeout_s=config.connect_timeout_s,
            ping_s=config.ping_s,
        )
        with contextlib.closing(stream):
            deadline_s = time.monotonic() + config.connect_timeout_s
            while not self._stop.is_set():
                self._take(stream)
                if not self._streamed and time.monotonic() > deadline_s:
                    raise FeedTransient("the feed did not answer the handshake in time")
            deadline_s = time.monotonic() + GOODBYE_S
            stream.say_goodbye()
            while not stream.closed and time.monotonic() < deadline_s:
                self._take(stream)

    def _take(self, stream: AlpacaStream) -> None:
        received_ns, events = stream.receive(POLL_S)
        for event in events:
            self._handle(event, received_ns)
        self._tape.flush_if_due(self._now_ns())

    def _handle(self, event: Event, received_ns: int) -> None:
        if isinstance(event, Data):
            self._heard_ns = received_ns
            self._write(event.messages, received_ns)
        elif isinstance(event, Malformed):
            self._heard_ns = received_ns
            self._write_raw(event.raw, received_ns)
        elif isinstance(event, Subscribed) and event.settled:
            self._note_gap(received_ns)
            self._streamed, self.state = True, "recording"
            self._heard_ns = received_ns
        elif isinstance(event, Refused):
            self.problem = event.message
            log.error("%s", event.message)
        elif isinstance(event, Failed):
            raise event.error

    def _note_gap(self, now_ns: int) -> None:
        self.problem = None if self._lost else self.problem
        if self._lost is not None:
            self._gaps += 1
            self._tape.write_gap(since_ns=self._heard_ns, reason=self._lost, wall_ns=now_ns)
            self._lost = None

    def _write(self, messages: Sequence[Any], received_ns: int) -> None:
        for plain, group in groupby(messages, lambda message: isinstance(message, dict)):
            if plain:
                self._write_messages(list(group), received_ns)
                continue
            for message in group:
                self._write_raw(raw_of(message), received_ns)

    def _write_messages(self, messages: Sequence[Message], received_ns: int) -> None:
        """Into the tape; what msgpack cannot hold is kept raw, alone."""
        try:
            self._tape.write_messages(messages, wall_ns=received_ns)
        except (TypeError, ValueError, OverflowError):
            if len(messages) == 1:
                self._write_raw(printed(messages[0]), received_ns)
                return
            for message in messages:
                self._write_messages([message], received_ns)
        else:
            self._counts.update(map(channel_of, messages))

    def _write_raw(self, raw: bytes, received_ns: int) -> None:
        self._raw_frames += 1
        self._tape.write_raw(raw, wall_ns=received_ns)
