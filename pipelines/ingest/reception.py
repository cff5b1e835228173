"""What a source hands what it gets to: room, market clock, gaps, silence. One per session.

A *session* is one stay at one source (a websocket connection, or a time of polling REST). The
source says what it asked, what it was granted and what came; the reception does everything that
does not depend on how it came.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import FeedTransient
from pipelines.events import MINUTE_NS, NEWS, SECOND_NS
from pipelines.ingest import meter, watch
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.market_clock import fetch_clock
from pipelines.ingest.sender import Sender
from pipelines.ingest.subscriptions import ALL, NEWS_CHANNEL, Subscriptions, symbols_of

log = logging.getLogger(__name__)

POLL_S = 0.1
QUIET_S = 2.0
"""After so much silence since the subscription nothing from before it is on its way any more."""

LAG_NS = SECOND_NS
"""Wall time that a feed may lag behind what it dates: what it says at once after we asked is newer
than this before we asked, or dated wrong."""

WARN_EVERY_S = 10.0
STATUS = "s"


class Desk:
    """The parts that outlive a session.

    Args:
        config: Settings of the producer.
        intake: Takes the messages.
        tracker: Told about subscriptions.
        sender: Makes room.
        lock: Guards intake and tracker.
        watch: Judges silence.
        meter: Counts messages.
        alarms: Told what is wrong.

    Attributes:
        asked: Per symbol, the wall time at which it was first subscribed.
        awaited: Symbols that are wanted, and miss messages until a source grants them.
    """

    def __init__(
        self,
        config: ProducerConfig,
        *,
        intake: Intake,
        tracker: GapTracker,
        sender: Sender,
        lock: threading.Lock,
        watch: watch.StalenessWatch,
        meter: meter.Meter,
        alarms: Alarms,
    ) -> None:
        self.config = config
        self.intake = intake
        self.tracker = tracker
        self.sender = sender
        self.lock = lock
        self.watch = watch
        self.meter = meter
        self.alarms = alarms
        self.asked: dict[str, int] = {}
        self.awaited: set[str] = set()

    def lost(self) -> Iterable[str]:
        """Symbols that miss messages from now on; those that were refused, since then."""
        known = self.tracker.known
        return known if ALL in self.asked else self.asked.keys() | (self.awaited & known)

    def clear(self) -> None:
        """Nobody wants anything: nothing is missed."""
        self.asked.clear()
        self.awaited.clear()


class Reception:
    """One session.

    Args:
        desk: What outlives it.
        wanted: What to subscribe.
        leaving: Whether to leave.
        on_state: Told the state, and what is wrong though it goes on.

    Attributes:
        had_data: Whether messages came.
        left_out: Per channel, what the source does not give us though we want it.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        wanted: Subscriptions,
        leaving: Callable[[], bool],
        on_state: Callable[[str, str | None], None],
    ) -> None:
        self.config = desk.config
        self.leaving = leaving
        self.on_state = on_state
        self._desk = desk
        self._intake, self._tracker, self._sender = desk.intake, desk.tracker, desk.sender
        self._lock, self._watch = desk.lock, desk.watch
        self._asked, self._awaited = desk.asked, desk.awaited
        self._wanted = wanted
        self._symbols = _tracked(wanted)
        self._fresh: set[str] = set()
        self._clock_known = False
        self._asked_ns: int | None = None
        self._acked_ns: int | None = None
        self._acked_s = 0.0
        self._heartbeat_s = 0.0
        self._warned_s = float("-inf")
        self._refusal: str | None = None
        self.left_out: Subscriptions = {}
        self.settled = False
        self.had_data = False

    def asks(self) -> None:
        """The subscription is about to be asked: messages may be published to us from now on."""
        asked_ns = self._asked_ns = wall_ns()
        for symbol in self._symbols:
            self._asked.setdefault(symbol, asked_ns)
        with self._lock:
            self._awaited |= self._tracker.waiting

    def changes(self, wanted: Subscriptions, *, asked: bool) -> None:
        """Another subscription is wanted from now on; ``asked``: the first was asked already."""
        before, self._symbols = self._symbols, _tracked(wanted)
        self._wanted = wanted
        self._refusal, self.left_out = None, {}
        self._forget([s for s in before if s not in self._symbols])
        if asked:
            added = [s for s in self._symbols if s not in before]
            self._asked.update(dict.fromkeys(added, wall_ns()))
            self._fresh.update(added)

    def granted(self, subscriptions: Subscriptions, *, settled: bool) -> None:
        """The source has subscribed us; ``settled``: to all that it will."""
        self._learn_clock()
        granted = set(_tracked(subscriptions))
        with self._lock:
            self._end_waiting(granted)
            begun = self._fresh | (self._asked.keys() - self._tracker.known)
            begun &= granted - {ALL}
            clock, now_ns = self._intake.clock, wall_ns()
            for symbol in begun:
                self._intake.begin(
                    symbol,
                    since_ns=clock.market_ns(self._asked[symbol]),
                    now_ns=clock.market_ns(now_ns),
                )
            self._fresh -= begun
            self._intake.use(granted - {NEWS})
        if begun:
            self._sender.save()  # whoever comes after a kill must know what was subscribed
        if not settled:
            return
        if not self.settled:
            log.info("subscribed to %d symbols", len(granted))
            self._watch.connected(time.monotonic(), groups=watch.groups_of(subscriptions))
        if ALL not in granted:
            self._watch.keep(granted)
        self.settled = True
        self.on_state("streaming", self._refusal)

    def refused(self, message: str, left_out: Subscriptions, *, granted: Subscriptions) -> None:
        """A part of the subscription is refused; the rest is kept."""
        symbols = symbols_of(left_out)
        shown = ", ".join(symbols[:10]) + (", …" if len(symbols) > 10 else "")
        self._refusal = f"{message}; not on {', '.join(left_out)}: {shown}"
        self.left_out = left_out
        log.error("%s", self._refusal)
        left = set(_tracked(left_out)) - set(_tracked(granted))
        self._forget(left)
        self._awaited |= left

    def take(self, messages: Sequence[Any], received_ns: int) -> None:
        """Messages came, in this order."""
        self._learn_clock()
        self._wait_for_room()
        counts = meter.count(messages)
        with self._lock:
            self._intake.take(messages, received_ns=received_ns)
        self._sender.nudge()
        now_s = time.monotonic()
        self._desk.meter.add(counts, now_s=now_s, received_ns=received_ns)
        phase = watch.phase_at(self._intake.clock, received_ns)
        if phase is None:
            self._watch.quiet_time(now_s)
        else:
            self._watch.heard(counts, now_s, phase=phase)
        if any(kind == STATUS for kind, _ in counts):
            self._note_halts(messages)
        if not self.had_data:
            self.had_data = True
            self._desk.alarms.off("stale_feed")

    def take_malformed(self, reason: str, raw: bytes, received_ns: int) -> None:
        """A frame came that cannot be read."""
        log.warning("a frame that cannot be read was quarantined: %s", reason)
        self._wait_for_room()
        with self._lock:
            self._intake.take_malformed(reason, raw, received_ns=received_ns)

    def tick(self, *, quiet: bool) -> None:
        """Do what is due; ``quiet``: nothing waits to be read.

        Raises:
            FeedTransient: The source is silent though it should not be.
        """
        if self._sender.failure is not None:
            raise self._sender.failure
        if not self.settled:
            return
        now_s = time.monotonic()
        if quiet:
            self._close_gaps_when_quiet(now_s)
            self._judge_silence(now_s)
        if now_s - self._heartbeat_s >= self.config.heartbeat_s:
            self._heartbeat_s = now_s
            with self._lock:
                self._intake.heartbeat(wall_ns=wall_ns())

    def declare_open_gaps(self, *, quiet_s: float = 0.0) -> None:
        """Write the gap rows that still wait for a message; the caller locks.

        Args:
            quiet_s: What was published less than so long ago may still be on its way.
        """
        if not self._intake.clock_known:
            return  # the state remembers; the next run declares it
        now_ns = wall_ns()
        until = max(self._acked_ns or 0, now_ns - int(quiet_s * SECOND_NS))
        rows = self._tracker.close(self._intake.clock.market_ns(until) + 1)
        self._intake.write_gaps(rows, wall_ns=now_ns)

    def market_ns(self) -> int:
        """Market time, now."""
        self._learn_clock()
        return self._intake.clock.market_ns(wall_ns())

    def market_rate(self) -> float:
        """Market seconds per wall second."""
        return self._intake.clock.rate

    def _note_halts(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if type(message) is dict and message.get("T") == STATUS:
                symbol, code = message.get("S"), message.get("sc")
                if isinstance(symbol, str) and isinstance(code, str):
                    self._watch.status(symbol, code)

    def _wait_for_room(self) -> None:
        """Back-pressure: with the queue full the source is not read, and the feed has to wait."""
        if self._sender.has_room():
            return
        self._desk.meter.stalls += 1
        while not self._sender.has_room() and not self.leaving():
            if time.monotonic() - self._warned_s > WARN_EVERY_S:
                self._warned_s = time.monotonic()
                log.warning("%d messages wait for the stream: not reading", self._intake.unsent)
            self._sender.room.clear()
            self._sender.wake()
            self._sender.room.wait(POLL_S)
            if self._sender.failure is not None:
                raise self._sender.failure

    def _learn_clock(self) -> None:
        """The market clock, once per session: before the first message is taken."""
        if self._clock_known:
            return
        self._acked_ns, self._acked_s = wall_ns(), time.monotonic()
        clock = fetch_clock(
            self.config.clock_url, timeout_s=self.config.connect_timeout_s, stopped=self.leaving
        )
        with self._lock:
            self._intake.clock, self._intake.clock_known = clock, True
            begun_again = self._tracker.rewind(clock.market_ns(self._acked_ns) + MINUTE_NS)
            self._note_asked()
            unwanted = self._tracker.waiting - set(self._symbols)
            if begun_again:
                self._intake.begin_again()
        for symbol in self._asked.keys() & set(begun_again):
            self._asked[symbol] = self._acked_ns
        if begun_again:
            log.warning("the market began again: %d symbols begin again", len(begun_again))
        self._clock_known = True
        if ALL not in self._symbols:
            self._forget(unwanted | (self._asked.keys() - set(self._symbols)))

    def _end_waiting(self, granted: set[str]) -> None:
        """Awaited symbols are granted now; the caller locks.

        One whose gap row is written already (up to its refusal, or to a message of a symbol that
        was granted before it) missed more until now.
        """
        came = self._awaited & (self._awaited if ALL in granted else granted)
        if not came:
            return
        self._awaited -= came
        self._acked_ns, self._acked_s = wall_ns(), time.monotonic()
        for symbol in came.intersection(self._symbols):
            self._asked.setdefault(symbol, self._acked_ns)
        missed = (came & self._tracker.known) - self._tracker.waiting
        if missed:
            self._tracker.interrupted(missed, reason="granted late")
            self._note_asked()

    def _note_asked(self) -> None:
        if self._asked_ns is not None:
            self._tracker.asked(self._intake.clock.market_ns(self._asked_ns - LAG_NS))

    def _forget(self, gone: Iterable[str]) -> None:
        """Symbols that are subscribed no more: what they missed until now is declared now."""
        symbols = list(gone)
        for symbol in symbols:
            self._asked.pop(symbol, None)
            self._awaited.discard(symbol)
            self._fresh.discard(symbol)
        if not self._clock_known:
            return  # done when it is
        now_ns = wall_ns()
        with self._lock:
            rows = self._tracker.close(self._intake.clock.market_ns(now_ns) + 1, only=symbols)
            self._intake.write_gaps(rows, wall_ns=now_ns)

    def _close_gaps_when_quiet(self, now_s: float) -> None:
        if not self._tracker.open or now_s - self._acked_s < QUIET_S:
            return
        phase = watch.phase_at(self._intake.clock, wall_ns())
        if not self.had_data and phase is not None and self._watch.suspicious(now_s, phase=phase):
            return  # nothing came, but it should: the gap is not over
        with self._lock:
            self.declare_open_gaps(quiet_s=QUIET_S)

    def _judge_silence(self, now_s: float) -> None:
        phase = watch.phase_at(self._intake.clock, wall_ns())
        if phase is None:
            self._watch.quiet_time(now_s)
        elif (silence := self._watch.stale(now_s, phase=phase)) is not None:
            self._watch.gave_up()
            self._desk.alarms.on("stale_feed", silence)
            raise FeedTransient(f"the feed is silent though the market is open: {silence}")


def _tracked(subscriptions: Subscriptions) -> tuple[str, ...]:
    """What gaps are told of: the symbols; of a news feed, the news as a whole."""
    return (NEWS,) if NEWS_CHANNEL in subscriptions else symbols_of(subscriptions)
