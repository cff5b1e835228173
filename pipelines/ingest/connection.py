"""The life of one connection: handshake, subscription, reading, leaving. Used by the producer."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from pipelines.clock import wall_ns
from pipelines.errors import FeedTransient
from pipelines.events import MINUTE_NS
from pipelines.ingest.alpaca_protocol import (
    AlpacaProtocol,
    Authenticated,
    Connected,
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
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.market_clock import fetch_clock
from pipelines.ingest.sender import Sender
from pipelines.ingest.watch import StalenessWatch, market_open

log = logging.getLogger(__name__)

POLL_S = 0.1
QUIET_S = 2.0
"""After so much silence since the subscription nothing from before it is on its way any more."""

GOODBYE_S = 1.0
WARN_EVERY_S = 10.0
RATE_WINDOW_S = 5.0


class Meter:
    """Counts messages, for people."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()
        self.last_ns: int | None = None
        self.stalls = 0

    def add(self, count: int, *, now_s: float, received_ns: int) -> None:
        """Messages came."""
        self.last_ns = received_ns
        if self._counts and now_s - self._counts[-1][0] < 0.1:
            began_s, so_far = self._counts[-1]
            self._counts[-1] = (began_s, so_far + count)
        else:
            self._counts.append((now_s, count))
            while now_s - self._counts[0][0] > RATE_WINDOW_S:
                self._counts.popleft()

    def rate(self, now_s: float) -> float:
        """Messages per second of the last five seconds."""
        recent = [(at, n) for at, n in list(self._counts) if now_s - at <= RATE_WINDOW_S]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(1.0, now_s - recent[0][0])


class Connection:
    """One connection, used once; :meth:`run` opens it and returns or raises when it is over.

    Args:
        config: Settings of the producer.
        intake: Takes the messages.
        tracker: Told about subscriptions.
        sender: Makes room.
        lock: Guards intake and tracker.
        watch: Judges silence; lives longer than a connection.
        meter: Counts messages.
        asked: Per symbol, the wall time at which it was first subscribed; kept up here, lives
            longer than a connection.
        wanted: The symbols to subscribe, now.
        leaving: Whether to leave.
        on_state: Told the state, and what is wrong though it goes on.
    """

    def __init__(
        self,
        config: ProducerConfig,
        *,
        intake: Intake,
        tracker: GapTracker,
        sender: Sender,
        lock: threading.Lock,
        watch: StalenessWatch,
        meter: Meter,
        asked: dict[str, int],
        wanted: Callable[[], tuple[str, ...]],
        leaving: Callable[[], bool],
        on_state: Callable[[str, str | None], None],
    ) -> None:
        self._config = config
        self._intake = intake
        self._tracker = tracker
        self._sender = sender
        self._lock = lock
        self._watch = watch
        self._meter = meter
        self._asked = asked
        self._wanted = wanted
        self._leaving = leaving
        self._on_state = on_state
        self._symbols = wanted()
        self._fresh: set[str] = set()
        self._protocol = AlpacaProtocol(
            Credentials(config.key, config.secret),
            dict.fromkeys(config.channels, self._symbols),
            binary=config.codec == "msgpack",
        )
        self._clock_known = False
        self._settled = False
        self._acked_ns: int | None = None
        self._acked_s = 0.0
        self._heartbeat_s = 0.0
        self._warned_s = float("-inf")
        self._refusal: str | None = None
        self.had_data = False

    @property
    def subscribed(self) -> frozenset[str]:
        """Symbols that the server says are subscribed."""
        return self._protocol.subscribed

    def run(self) -> None:
        """Open, stream, and say goodbye when we are to leave.

        Raises:
            FeedFatal: The feed refused us for good.
            FeedTransient: The connection ended.
        """
        config = self._config
        stream = AlpacaStream(
            config.url,
            self._protocol,
            binary=config.codec == "msgpack",
            connect_timeout_s=config.connect_timeout_s,
            ping_s=config.ping_s,
        )
        with contextlib.closing(stream):
            self._on_state("authenticating", None)
            deadline_s = time.monotonic() + config.connect_timeout_s
            while not self._leaving():
                self._apply_symbols()
                received_ns, events = stream.receive(POLL_S)
                for event in events:
                    self._handle(event, received_ns)
                now_s = time.monotonic()
                if not self._settled and now_s > deadline_s:
                    raise FeedTransient("the feed did not answer the handshake in time")
                if self._sender.failure is not None:
                    raise self._sender.failure
                self._tick(now_s, quiet=not events)
            self._say_goodbye(stream)

    def declare_open_gaps(self) -> None:
        """Write the gap rows that still wait for a message, before the end; the caller locks."""
        if not self._intake.clock_known:
            return  # the state remembers; the next run declares it
        now_ns = wall_ns()
        until = self._acked_ns if self._acked_ns is not None else now_ns
        rows = self._tracker.close(self._intake.clock.market_ns(until) + 1)
        self._intake.write_gaps(rows, wall_ns=now_ns)

    def _handle(self, event: Event, received_ns: int) -> None:
        if isinstance(event, Data):
            self._take(event, received_ns)
        elif isinstance(event, Subscribed):
            self._subscribed(event)
        elif isinstance(event, Authenticated):
            asked_ns = wall_ns()
            for symbol in self._symbols:
                self._asked.setdefault(symbol, asked_ns)
        elif isinstance(event, Malformed):
            log.warning("a frame that cannot be read was quarantined: %s", event.reason)
            with self._lock:
                self._intake.take_malformed(event.reason, event.raw, received_ns=received_ns)
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, Connected):
            log.info("connected to %s", self._config.url)

    def _take(self, data: Data, received_ns: int) -> None:
        self._learn_clock()
        self._wait_for_room()
        with self._lock:
            self._intake.take(data.messages, received_ns=received_ns)
        now_s = time.monotonic()
        self._meter.add(len(data.messages), now_s=now_s, received_ns=received_ns)
        self._watch.heard(now_s)
        self.had_data = True

    def _wait_for_room(self) -> None:
        """Back-pressure: with the queue full the socket is not read, and the feed has to wait."""
        if self._intake.unsent < self._config.max_queued:
            return
        self._meter.stalls += 1
        while self._intake.unsent >= self._config.max_queued and not self._leaving():
            if time.monotonic() - self._warned_s > WARN_EVERY_S:
                self._warned_s = time.monotonic()
                log.warning("%d messages wait for the stream: not reading", self._intake.unsent)
            self._sender.room.clear()
            self._sender.wake()
            self._sender.room.wait(POLL_S)
            if self._sender.failure is not None:
                raise self._sender.failure

    def _subscribed(self, event: Subscribed) -> None:
        self._learn_clock()
        clock = self._intake.clock
        with self._lock:
            begun = self._fresh | (self._asked.keys() - self._tracker.known)
            begun &= event.symbols - {"*"}
            for symbol in begun:
                self._tracker.begin(symbol, clock.market_ns(self._asked[symbol]))
            self._fresh -= begun
            self._intake.use(event.symbols)
        if begun:
            self._sender.save()  # whoever comes after a kill must know what was subscribed
        if event.settled:
            if not self._settled:
                log.info("subscribed to %d symbols", len(event.symbols))
                self._watch.connected(time.monotonic())
            self._settled = True
            self._on_state("streaming", self._refusal)

    def _refused(self, event: Refused) -> None:
        shown = ", ".join(event.symbols[:10]) + (", …" if len(event.symbols) > 10 else "")
        self._refusal = f"{event.message}; not subscribed: {shown}"
        log.error("%s", self._refusal)
        self._forget(set(event.symbols) - self._protocol.subscribed)

    def _learn_clock(self) -> None:
        """The market clock, once per connection: before the first message is taken."""
        if self._clock_known:
            return
        self._acked_ns, self._acked_s = wall_ns(), time.monotonic()
        clock = fetch_clock(
            self._config.clock_url,
            timeout_s=self._config.connect_timeout_s,
            stopped=self._leaving,
        )
        with self._lock:
            self._intake.clock, self._intake.clock_known = clock, True
            begun_again = self._tracker.rewind(clock.market_ns(self._acked_ns) + MINUTE_NS)
            unwanted = self._tracker.waiting - set(self._symbols)
        for symbol in self._asked.keys() & set(begun_again):
            self._asked[symbol] = self._acked_ns
        if begun_again:
            log.warning("the market began again: %d symbols begin again", len(begun_again))
        self._clock_known = True
        if "*" not in self._symbols:
            self._forget(unwanted | (self._asked.keys() - set(self._symbols)))

    def _apply_symbols(self) -> None:
        wanted = self._wanted()
        if wanted == self._symbols:
            return
        removed = [symbol for symbol in self._symbols if symbol not in wanted]
        added = [symbol for symbol in wanted if symbol not in self._symbols]
        self._symbols = wanted
        self._refusal = None
        self._forget(removed)
        if self._protocol.asked:
            now_ns = wall_ns()
            self._asked.update(dict.fromkeys(added, now_ns))
            self._fresh.update(added)
        self._protocol.set_subscriptions(dict.fromkeys(self._config.channels, wanted))

    def _forget(self, gone: Iterable[str]) -> None:
        """Symbols that are subscribed no more: what they missed until now is declared now."""
        symbols = list(gone)
        for symbol in symbols:
            self._asked.pop(symbol, None)
            self._fresh.discard(symbol)
        if not self._clock_known:
            return  # done when it is
        now_ns = wall_ns()
        with self._lock:
            rows = self._tracker.close(self._intake.clock.market_ns(now_ns) + 1, only=symbols)
            self._intake.write_gaps(rows, wall_ns=now_ns)

    def _tick(self, now_s: float, *, quiet: bool) -> None:
        if not self._settled:
            return
        if quiet:
            self._close_gaps_when_quiet(now_s)
            self._judge_silence(now_s)
        if now_s - self._heartbeat_s >= self._config.heartbeat_s:
            self._heartbeat_s = now_s
            with self._lock:
                self._intake.heartbeat(wall_ns=wall_ns())

    def _close_gaps_when_quiet(self, now_s: float) -> None:
        if not self._tracker.open or now_s - self._acked_s < QUIET_S:
            return
        with self._lock:
            self.declare_open_gaps()

    def _judge_silence(self, now_s: float) -> None:
        if not self._watch.stale(now_s):
            return
        if market_open(self._intake.clock, wall_ns()):
            self._watch.gave_up()
            raise FeedTransient("the feed is silent though the market is open")
        self._watch.connected(now_s)

    def _say_goodbye(self, stream: AlpacaStream) -> None:
        """Close in order; what the server sent before it heard of it is still taken.

        Raises:
            FeedTransient: The server did not close in order: something may be missed.
        """
        deadline_s = time.monotonic() + GOODBYE_S
        stream.say_goodbye()
        while not stream.closed:
            if time.monotonic() > deadline_s:
                raise FeedTransient("the feed did not close in order")
            received_ns, events = stream.receive(POLL_S)
            for event in events:
                if isinstance(event, (Data, Malformed)):
                    self._handle(event, received_ns)
