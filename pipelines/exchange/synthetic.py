"""The synthetic market: correlated, seeded, any session of any day without those before it.

What moves it is in :mod:`pipelines.exchange.factors`; news that leads it in
:mod:`pipelines.exchange.news`; bands and pauses in :mod:`pipelines.exchange.pauses`. Here all of
it becomes minute bars: the returns of the minutes are led from the day's open to its close;
volume, volatility and spread are high at both ends of the day and follow each other; the day
begins and ends with an auction. Numbers are addressed, not drawn in order
(:mod:`pipelines.exchange.noise`): a symbol moves the same in whatever company it is played.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from pipelines import calendar
from pipelines.errors import ConfigError
from pipelines.events import DAY_NS, MINUTE_NS
from pipelines.exchange import news, noise, pauses
from pipelines.exchange.factors import Factors, levels
from pipelines.exchange.market import Block, Session, needed_trades, quoting
from pipelines.exchange.noise import Floats, Ints
from pipelines.exchange.pauses import on_tick, tick_of
from pipelines.exchange.profiles import profile

BASE_DATE = date(2000, 1, 3)
"""Where the daily chain begins; the market has no history before."""

SESSIONS_AHEAD = 504
"""Sessions that are announced by default: two years of trading."""

OPENING_PART, CLOSING_PART, REOPENING_PART = 0.012, 0.08, 0.004
"""Shares of the auctions over those of a typical day."""

_CACHED_BLOCKS = 64
_RANGE, _VOLUME, _COUNT, _OPEN, _SPREAD, _AUCTION = range(16, 22)
_PAIR = np.arange(2)


class SyntheticMarket:
    """A market of made-up prices, as a :class:`~pipelines.exchange.market.BarSource`.

    Args:
        symbols: What is traded.
        seed: Seed of every number.
        start_date: First day to play.
        max_sessions: Sessions to play.
        trades_per_minute: Mean number of trades per symbol and minute. It stays the same all day:
            it is a load that somebody asked for; the day's shape is in the sizes.
        profiles: Fields of profiles that differ, as
            :func:`~pipelines.exchange.profiles.read_profiles` gives them.
        news_drift_bps: How far a price drifts in the quarter of an hour after an item of news of
            full sentiment; 0: news means nothing.

    Raises:
        ConfigError: The start lies before :data:`BASE_DATE`, or a profile makes no sense.
    """

    mode = "synthetic"

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        seed: int,
        start_date: date,
        max_sessions: int = SESSIONS_AHEAD,
        trades_per_minute: float = 40.0,
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
        news_drift_bps: float = 0.0,
    ) -> None:
        if start_date <= BASE_DATE:
            raise ConfigError(f"exchange start_date={start_date}: must be after {BASE_DATE}")
        self.name = "synthetic"
        self.symbols = tuple(symbols)
        self.profiles = tuple(profile(symbol, profiles) for symbol in symbols)
        self._start_date = start_date
        self._max_sessions = max_sessions
        self._trades_per_minute = trades_per_minute
        self._price = np.array([p.price_usd for p in self.profiles])
        self._shares = np.array([p.daily_shares for p in self.profiles])
        self._keys = noise.keys(seed, *symbols)
        self._news = news.Newsroom(self.symbols, self.profiles, seed=seed, drift_bps=news_drift_bps)
        self._factors = Factors(symbols, self.profiles, seed=seed)
        self._days = self._factors.days(1, np.zeros(1, dtype=np.bool_))
        self._levels = np.zeros((0, 2, len(self.symbols)))
        self._blocks: OrderedDict[Session, Block] = OrderedDict()

    def playable(self) -> tuple[Session, ...]:
        """``max_sessions`` regular sessions from the start date on."""
        found: list[Session] = []
        year = self._start_date.year
        while len(found) < self._max_sessions:
            first = max(self._start_date, date(year, 1, 1))
            found += _sessions_of_year(year, first, date(year, 12, 31))
            year += 1
        return tuple(found[: self._max_sessions])

    def sessions(self, start_ns: int, end_ns: int) -> tuple[Session, ...]:
        """All regular sessions since the base date with a minute in the range."""
        first = max(_day(start_ns), date(BASE_DATE.year, 1, 4))
        last = min(_day(end_ns), date(self._start_date.year + 10, 12, 31))
        found: list[Session] = []
        for year in range(first.year, last.year + 1):
            found += _sessions_of_year(
                year, max(first, date(year, 1, 1)), min(last, date(year, 12, 31))
            )
        return tuple(s for s in found if s[1] > start_ns and s[0] <= end_ns)

    def news(self, session: Session) -> list[news.Item]:
        """The news of one session, in order of time."""
        return self._news.of_session(session, day=_number(session[0]))

    def block(self, session: Session) -> Block:
        """The bars of one session."""
        block = self._blocks.get(session)
        if block is None:
            block = self._make(session)
            # A reader in a worker thread may have made the same block meanwhile: they are equal.
            self._blocks[session] = block
            while len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def _make(self, session: Session) -> Block:
        opens, closes = session
        minutes = (closes - opens) // MINUTE_NS
        starts = opens + np.arange(minutes, dtype=np.int64) * MINUTE_NS
        address = starts // MINUTE_NS

        path, moves, volatility = self._path(session, address)
        path, bands, paused = pauses.find(path)
        close = on_tick(path[:, 1:])
        opened = np.concatenate((on_tick(path[:, :1]), close[:, :-1]), axis=1)
        step = noise.at(self._stream(_OPEN), address) % np.uint64(3)
        opened[:, 1:] += (tick_of(opened) * (step.astype(np.float64) - 1.0))[:, 1:]
        opened = on_tick(opened)

        typical = self._factors.daily_volatility[:, None] / np.sqrt(minutes) * volatility
        reach = -np.log(noise.uniform(noise.at(self._stream(_RANGE), address)[..., None], _PAIR))
        high = np.maximum(opened, close) * np.exp(0.3 * typical * reach[..., 0])
        low = np.minimum(opened, close) * np.exp(-0.3 * typical * reach[..., 1])
        high = np.maximum(np.minimum(on_tick(high), bands.high), np.maximum(opened, close))
        low = np.minimum(np.maximum(on_tick(low), bands.low), np.minimum(opened, close))

        activity = (0.4 + 0.6 * np.minimum(np.abs(moves) / typical, 5.0)) * volatility**0.5
        lot = np.exp(0.4 * noise.normal(self._stream(_VOLUME), address) - 0.08) * activity
        part = 1.0 - OPENING_PART - CLOSING_PART
        volume = part * (self._shares / minutes)[:, None] * _volume_shape(minutes) * lot
        spread = 0.8 + 0.4 * noise.uniform(self._stream(_COUNT), address)
        count = np.round(self._trades_per_minute * spread).astype(np.int64)
        trades = np.maximum(count, needed_trades(opened, high, low, close))
        shares = np.maximum(np.round(volume).astype(np.int64), trades)
        opening, closing = self._auctions(address, paused)
        shares += opening + closing
        for pause in paused:
            for column in (opened, high, low, close, shares, trades):
                column[pause.row, pause.first : pause.reopens] = 0
        noisy = np.exp(0.2 * noise.normal(self._stream(_SPREAD), address))
        spread_bps, depth = quoting(self.profiles, volatility * noisy)
        return Block(
            session, starts, opened, high, low, close, shares, trades,
            spread_bps=spread_bps, depth=depth, opening=opening, closing=closing,
            bands=bands, pauses=tuple(paused),
        )  # fmt: skip

    def _path(self, session: Session, address: Ints) -> tuple[Floats, Floats, Floats]:
        """Price at the open and after each minute, log returns, volatility of each minute.

        The first has shape ``(S, M + 1)``, the others ``(S, M)``.
        """
        minutes, number = len(address), _number(session[0])
        if number >= len(self._levels):
            self._extend(number + 366)
        shape = _volatility_shape(minutes)
        moves, volatility = self._factors.minutes(address, day=number, shape=shape)
        first, last = self._levels[number]
        jump, at = self._days.jump[:, number], self._days.jump_at[:, number]
        drift = self._news.drift(session, day=number)
        weight = shape**2 / np.sum(shape**2)
        missing = last - first - jump - drift.sum(axis=1) - moves.sum(axis=1)
        moves += weight * missing[:, None] + drift
        moves[np.arange(len(jump)), (at * minutes).astype(np.int64)] += jump
        walked = np.concatenate((np.zeros((len(jump), 1)), np.cumsum(moves, axis=1)), axis=1)
        return (self._price * np.exp(first))[:, None] * np.exp(walked), moves, volatility

    def _auctions(self, address: Ints, paused: Sequence[pauses.Pause]) -> tuple[Ints, Ints]:
        """Shares of the auction at the beginning and at the end of each minute, mostly 0."""
        lot = np.exp(0.3 * noise.normal(self._stream(_AUCTION), address)) * self._shares[:, None]
        opening = np.zeros(lot.shape, dtype=np.int64)
        closing = np.zeros(lot.shape, dtype=np.int64)
        opening[:, 0] = np.round(OPENING_PART * lot[:, 0])
        closing[:, -1] = np.round(CLOSING_PART * lot[:, -1])
        for pause in paused:
            opening[pause.row, pause.reopens] = round(
                REOPENING_PART * float(lot[pause.row, pause.reopens])
            )
        return opening, closing

    def _stream(self, purpose: int) -> noise.Keys:
        return noise.at(self._keys, purpose)[:, None]

    def _extend(self, count: int) -> None:
        """Make the daily chain of so many civil days."""
        trading = (np.arange(count) + BASE_DATE.weekday()) % 7 < 5
        self._days = self._factors.days(count, trading)
        drift = self._news.drift_of_days(count) * trading
        self._levels = levels(self._days, drift, trading)


def _volatility_shape(minutes: int) -> Floats:
    """Volatility of each minute of a session, mean square 1: a U that leans to the left."""
    x = (np.arange(minutes) + 0.5) / minutes
    shape = 0.7 + 0.6 * np.exp(-x / 0.04) + 0.85 * np.exp(-x / 0.2) + 0.35 * np.exp(-(1 - x) / 0.1)
    result: Floats = shape / np.sqrt(np.mean(shape**2))
    return result


def _volume_shape(minutes: int) -> Floats:
    """Volume of each minute of a session without the auctions, mean 1."""
    x = (np.arange(minutes) + 0.5) / minutes
    shape = 0.6 + 0.7 * np.exp(-x / 0.05) + 0.8 * np.exp(-x / 0.2) + 1.2 * np.exp(-(1 - x) / 0.06)
    result: Floats = shape / shape.mean()
    return result


def _sessions_of_year(year: int, first: date, last: date) -> list[Session]:
    """Sessions of one year between two days: the calendar of a whole year is made once."""
    whole = calendar.sessions(date(year, 1, 1), date(year, 12, 31))
    return [s for s in whole if first <= _day(s[0]) <= last]


def _number(ns: int) -> int:
    """Number of a civil day since the base date."""
    return (_day(ns) - BASE_DATE).days


def _day(ns: int) -> date:
    """UTC date, which is New York's date during a regular session."""
    return datetime.fromtimestamp(min(ns, 250 * 365 * DAY_NS) // 1_000_000_000, UTC).date()
