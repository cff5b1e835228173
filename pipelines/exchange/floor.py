"""The trading floor: market, clock, tape and clients together, without any HTTP.

It opens the market, turns what is due into batches, writes each to the tape once and hands it to
every client that wants some of it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

from pipelines.clock import MarketClock
from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, SECOND_NS, Message
from pipelines.exchange.accounts import Account, Accounts
from pipelines.exchange.amendments import Rates
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.distortions import at_source
from pipelines.exchange.fakepaca import TestStream
from pipelines.exchange.fault_entries import load_faults
from pipelines.exchange.faults import FaultScript
from pipelines.exchange.frames import EVERYONE, Batch
from pipelines.exchange.latest import Latest
from pipelines.exchange.market import BarSource, Session, remaining
from pipelines.exchange.playback import Extras, Playback
from pipelines.exchange.profiles import read_profiles
from pipelines.exchange.record import Tape
from pipelines.exchange.recorded import RecordedMarket, RecordedPlayback
from pipelines.exchange.replay import ReplayMarket
from pipelines.exchange.state import PlayedMinutes
from pipelines.exchange.synthetic import SESSIONS_AHEAD, SyntheticMarket
from pipelines.tape import CHANNELS, TapeHeader, is_tape

_LOG = logging.getLogger(__name__)

State = Literal["waiting", "open", "finished"]
BATCH_MESSAGES = 500
"""Most ticks that are published before the clients' sockets get a turn."""


MOST_WAITING = 20_000
"""Messages that may wait for a client before a market at the clients' pace waits for it."""

FOR_EVER_NS = 2**63 - 1


class Listener(Protocol):
    """A client as the floor sees it."""

    def offer(self, batch: Batch) -> None:
        """Take what it wants of a batch; must not block."""
        ...

    def offer_raw(self, frame: bytes) -> None:
        """Take a frame as it is."""
        ...

    def stats(self) -> dict[str, Any]:
        """What it got and what waits for it."""
        ...


def market_of(config: ExchangeConfig, *, today: date) -> BarSource:
    """The market that a configuration describes.

    Raises:
        ConfigError: It cannot be played.
    """
    trades_per_minute = config.messages_per_minute / 3
    if config.replay is not None and is_tape(Path(config.replay)):
        return RecordedMarket(
            Path(config.replay),
            symbols=config.symbols,
            sessions=config.sessions,
            max_sessions=config.max_sessions,
        )
    if config.replay is not None:
        return ReplayMarket(
            Path(config.replay),
            symbols=config.symbols,
            sessions=config.sessions,
            max_sessions=config.max_sessions,
            seed=config.seed,
            trades_per_minute=trades_per_minute,
        )
    return SyntheticMarket(
        config.symbols,
        seed=config.seed,
        start_date=config.start_date or date(today.year - 1, 1, 1),
        max_sessions=config.max_sessions or SESSIONS_AHEAD,
        trades_per_minute=trades_per_minute,
        profiles=None if config.profiles is None else read_profiles(config.profiles),
        news_drift_bps=config.news_drift_bps,
    )


def player_of(
    source: BarSource,
    sessions: Sequence[Session],
    config: ExchangeConfig,
    *,
    before_minute: Callable[[int], None],
) -> Playback | RecordedPlayback:
    """What plays sessions of a market, with all that is published beside its ticks."""
    if isinstance(source, RecordedMarket):
        return RecordedPlayback(
            source.tape, sessions, symbols=config.symbols, before_minute=before_minute
        )
    return playback_of(
        source, sessions, config, extras=extras_of(config), before_minute=before_minute
    )


def playback_of(
    source: BarSource,
    sessions: Sequence[Session],
    config: ExchangeConfig,
    *,
    extras: Extras | None = None,
    before_minute: Callable[[int], None] = lambda _: None,
) -> Playback:
    """What walks the ticks of a market of bars."""
    return Playback(
        source,
        sessions,
        seed=config.seed,
        messages_per_minute=config.messages_per_minute,
        feed=config.feed,
        before_minute=before_minute,
        extras=extras,
    )


def extras_of(config: ExchangeConfig) -> Extras:
    """What a configuration wants to be published beside ticks and bars."""
    rates = Rates(
        correction=config.correction_rate,
        cancel=config.cancel_rate,
        late=config.late_trade_rate,
    )
    return Extras(notices=config.events, news=config.events, daily_bars=config.events, rates=rates)


def _accounts(config: ExchangeConfig) -> Accounts:
    anyone = Account(
        feeds=config.feeds,
        symbol_limit=config.symbol_limit,
        connection_limit=config.connection_limit,
    )
    return Accounts.load(config.accounts, anyone=anyone)


class Floor:
    """One market being played.

    Args:
        config: What to play.
        wall_ns: The wall clock.

    Raises:
        ConfigError: The market cannot be played.
    """

    def __init__(self, config: ExchangeConfig, *, wall_ns: Callable[[], int]) -> None:
        self.config = config
        self._wall_ns = wall_ns
        today = datetime.fromtimestamp(wall_ns() / SECOND_NS, UTC).date()
        self.source = market_of(config, today=today)
        if len(self.source.symbols) > 1000:
            raise ConfigError(f"exchange: {len(self.source.symbols)} symbols; at most 1000")
        self._played = PlayedMinutes(config.state_path)
        self._sessions = self._to_play()
        self._playback = player_of(
            self.source,
            self._sessions,
            config,
            before_minute=lambda ns: self._played.begin(self.source.name, ns),
        )
        self._tape = self._new_tape()
        self.state: State = "waiting"
        self.clock: MarketClock | None = None
        self.listeners: set[Listener] = set()
        self.slow_clients = 0
        self.accounts = _accounts(config)
        self.faults = FaultScript()
        if config.faults is not None:
            self.faults.add(load_faults(config.faults), wall_ns=wall_ns())
        self.rng = Random(config.seed)  # noqa: S311
        self.last = Latest()
        self.latest_ns = self.first_ns
        self._test_listeners: set[Listener] = set()
        self._test: TestStream | None = None
        self._published: Counter[str] = Counter()
        self._raw_frames = 0
        if self._playback.finished:
            _LOG.warning("market %s: every session was played already", self.source.name)
            self.state = "finished"
        elif config.open_on == "start":
            self.open()

    @property
    def first_ns(self) -> int:
        """Market time at which the first session that is left opens; now, when none is left."""
        if self._sessions:
            return self._sessions[0][0]
        return self.source.playable()[-1][1]

    def _new_tape(self) -> Tape | None:
        if self.config.record_dir is None:
            return None
        header = TapeHeader(
            feed=self.config.feed,
            source=self.source.name,
            started_ns=self._wall_ns(),
            symbols=tuple(self.source.symbols),
            channels=tuple(CHANNELS.values()),
        )
        return Tape(self.config.record_dir, header=header, max_mb=self.config.record_max_mb)

    def _to_play(self) -> tuple[tuple[int, int], ...]:
        after_ns = self._played.last(self.source.name)
        sessions = self.source.playable()
        if after_ns is not None and self.source.mode == "synthetic" and after_ns >= sessions[0][0]:
            # The market goes on: as many sessions ahead of the last minute as ahead of the first.
            ahead = self.source.sessions(after_ns, after_ns + 800 * 86_400 * SECOND_NS)
            sessions = ahead[: len(sessions)]
        return remaining(sessions, after_ns=after_ns, max_minutes=self.config.max_minutes)

    def open(self) -> None:
        """Open the market now, once."""
        if self.state != "waiting":
            return
        self.clock = MarketClock(
            rate=self.config.speed, wall_origin_ns=self._wall_ns(), sessions=self._sessions
        )
        self.state = "open"
        _LOG.info("market %s open at %g times its speed", self.source.name, self.config.speed)

    def listeners_of(self, feed: str) -> set[Listener]:
        """Who listens to a feed; the test stream is a market of its own."""
        return self._test_listeners if feed == "test" else self.listeners

    def all_listeners(self) -> tuple[Listener, ...]:
        """Who listens to anything."""
        return (*self.listeners, *self._test_listeners)

    def subscribed(self, feed: str) -> None:
        """A client of a feed has subscribed to something: its market begins."""
        if feed in ("iex", "sip"):
            self.open()
        elif feed == "test" and self._test is None:
            self._test = TestStream(
                seed=self.config.seed,
                interval_s=self.config.test_interval_s,
                now_ns=self._wall_ns(),
            )

    def market_ns(self) -> int:
        """Now on the market clock; before the opening, the moment of the opening."""
        if self.clock is None:
            return self.first_ns
        if self.config.pace == "clients":
            return self.latest_ns
        return self.clock.market_ns(self._wall_ns())

    def is_open(self) -> bool:
        """Whether a session is running."""
        return self.state == "open"

    def publish_due(self) -> bool:
        """Publish some of what is due.

        Returns:
            Whether more may be due: the caller lets others run and comes back at once.
        """
        wall = self._wall_ns()
        more = False
        if self.state == "open" and self.clock is not None and not self._held():
            now_ns = self.clock.market_ns(wall) if self.config.pace == "clock" else FOR_EVER_NS
            batch = self._playback.due(now_ns, limit=BATCH_MESSAGES)
            if batch is not None:
                self.publish(batch)
                self.latest_ns = max(self.latest_ns, self._playback.reached_ns)
                more = True
            elif (frame := self._playback.raw(now_ns)) is not None:
                self.inject_raw([frame], self.listeners)
                more = True
            elif self._playback.finished:
                self.state = "finished"
                _LOG.info("market %s finished", self.source.name)
        if self._test is not None:
            self._publish_test(wall)
        if self._tape is not None:
            self._tape.flush_if_due(wall)
        return more

    def _held(self) -> bool:
        """Whether a market at the clients' pace waits for one of them, or for the first."""
        if self.config.pace == "clock":
            return False
        waiting = [client["queued"] for client in (one.stats() for one in self.listeners)
                   if client.get("subscribed")]  # fmt: skip
        return not waiting or max(waiting) > MOST_WAITING

    def _announced_clock(self) -> MarketClock | None:
        """The clock; at the clients' pace one that stands where the market is, at its mean rate."""
        if self.clock is None or self.config.pace == "clock":
            return self.clock
        opened, wall = self.clock, self._wall_ns()
        played = sum(min(c, self.latest_ns) - o for o, c in self._sessions if o < self.latest_ns)
        rate = max(played / max(wall - opened.wall_origin_ns, 1), 1.0)
        origin = wall - int(played / rate)
        return MarketClock(rate=rate, wall_origin_ns=origin, sessions=self._sessions)

    def _publish_test(self, wall: int) -> None:
        if not self._test_listeners:
            self._test = None  # nobody listens: nothing is published, nothing is on the tape
        elif self._test is not None and (batch := self._test.due(wall)) is not None:
            self._hand_out(batch, self._test_listeners)

    def publish(self, batch: Batch) -> None:
        """Write a batch of the market to the tape and hand it to the clients."""
        if self.faults.windows:
            altered = at_source(batch, self.faults.windows)
            if altered is None:
                return
            batch = altered
        self._hand_out(batch, self.listeners)
        self.last.update(batch)
        if batch.times_ns:
            ends = MINUTE_NS if batch.keys[-1][0] == "bars" else 0
            self.latest_ns = max(self.latest_ns, batch.times_ns[-1] + ends)

    def _hand_out(self, batch: Batch, listeners: Iterable[Listener]) -> None:
        if self._tape is not None:
            self._tape.write(batch, wall_ns=self._wall_ns())
        self._published.update(map(itemgetter(0), batch.keys))
        for listener in tuple(listeners):
            listener.offer(batch)

    def inject(self, messages: Sequence[Message], raw_frames: Sequence[bytes]) -> None:
        """Publish messages and raw frames from outside, right now: faults, mostly."""
        if messages:
            self.publish(Batch.injected(messages))
        stocks = (one for one in self.all_listeners() if getattr(one, "feed", None) != "news")
        self.inject_raw(raw_frames, stocks)

    def inject_raw(self, frames: Sequence[bytes], listeners: Iterable[Listener]) -> None:
        """Write frames that are no messages to the tape and hand them to some clients."""
        to = tuple(listeners)
        for frame in frames:
            if self._tape is not None:
                self._tape.write_raw(frame, wall_ns=self._wall_ns())
            self._raw_frames += 1
            for listener in to:
                listener.offer_raw(frame)

    def announcement(self) -> dict[str, Any]:
        """The market clock as it is announced."""
        clock = self._announced_clock()
        return {
            "state": self.state,
            "clock": clock.to_dict() if clock else None,
            "mode": self.source.mode,
            "rate": clock.rate if clock else self.config.speed,
            "symbols": list(self.source.symbols),
            "tape": self._tape_state(),
        }

    def _tape_state(self) -> str:
        if self._tape is None:
            return "off"
        return "recording" if self._tape.stopped is None else f"stopped: {self._tape.stopped}"

    def stats(self) -> dict[str, Any]:
        """What was published, to whom, and the tape."""
        channels = {(c if c != EVERYONE else "unknown"): n for c, n in self._published.items()}
        return {
            "state": self.state,
            "market_ns": self.market_ns(),
            "published": sum(self._published.values()),
            "by_channel": channels,
            "raw_frames": self._raw_frames,
            "slow_clients": self.slow_clients,
            "clients": [listener.stats() for listener in self.all_listeners()],
            "tape": self._tape.stats() if self._tape else None,
        }

    def close(self) -> None:
        """End the tape."""
        if self._tape is not None:
            self._tape.close()
