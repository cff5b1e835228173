"""The synthetic market: correlated, seeded, any session of any day without those before it.

Daily levels follow one chain from a base date: market factor (its share is the symbol's beta) plus
the symbol's own noise, both with slowly changing volatility, pulled back to the profile's price so
that levels stay plausible. Inside a session minute returns of the same make are bridged from the
day's open to its close; volatility and volume are high at both ends of the day. Numbers are
addressed, not drawn in order (:mod:`pipelines.exchange.noise`): a symbol moves the same in
whatever company it is played.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np

from pipelines import calendar
from pipelines.errors import ConfigError
from pipelines.events import DAY_NS, MINUTE_NS
from pipelines.exchange import noise
from pipelines.exchange.market import Block, Session, needed_trades
from pipelines.exchange.noise import Floats, Ints
from pipelines.exchange.profiles import profile

BASE_DATE = date(2000, 1, 3)
"""Where the daily chain begins; the market has no history before."""

SESSIONS_AHEAD = 504
"""Sessions that are announced by default: two years of trading."""

MARKET_VOLATILITY = 0.009
"""Standard deviation of the market factor's daily log return."""

_PULL = 0.005
"""Part of the distance to the profile's price that is closed each day."""

_CACHED_BLOCKS = 64
_DAY, _DAY_VOL, _MINUTE, _MINUTE_VOL, _JUMP, _RANGE, _VOLUME, _COUNT = range(8)


class SyntheticMarket:
    """A market of made-up prices, as a :class:`~pipelines.exchange.market.BarSource`.

    Args:
        symbols: What is traded.
        seed: Seed of every number.
        start_date: First day to play.
        max_sessions: Sessions to play.
        trades_per_minute: Mean number of trades per symbol and minute.

    Raises:
        ConfigError: The start lies before :data:`BASE_DATE`.
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
    ) -> None:
        if start_date <= BASE_DATE:
            raise ConfigError(f"exchange start_date={start_date}: must be after {BASE_DATE}")
        self.name = "synthetic"
        self.symbols = tuple(symbols)
        self._start_date = start_date
        self._max_sessions = max_sessions
        self._trades_per_minute = trades_per_minute
        known = [profile(symbol) for symbol in symbols]
        self._price = np.array([p.price_usd for p in known])
        self._beta = np.array([p.beta for p in known])
        self._own = np.array([p.own_volatility for p in known])
        self._shares = np.array([p.daily_shares for p in known])
        self._keys = noise.keys(seed, *symbols)
        self._market_key = noise.keys(seed, "(market)")
        self._levels = np.zeros((0, len(known)))
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
        shape = (len(self.symbols), minutes)
        address = starts // MINUTE_NS

        moves, ratio = self._minute_returns(address)
        first, last = self._open_and_close(opens)
        variance = np.broadcast_to(_u_shape(minutes) ** 2, shape)
        weight = variance / variance.sum(axis=1, keepdims=True)
        moves += weight * (np.log(last / first) - moves.sum(axis=1))[:, None]
        close = np.round(first[:, None] * np.exp(np.cumsum(moves, axis=1)), 2)
        jump = noise.at(self._stream(_JUMP), address) % np.uint64(3)
        open_ = np.empty(shape)
        open_[:, 0] = np.round(first, 2)
        open_[:, 1:] = np.round(close[:, :-1] + 0.01 * (jump[:, 1:].astype(np.float64) - 1.0), 2)

        typical = self._volatility()[:, None] / np.sqrt(minutes) * ratio
        reach = -np.log(noise.uniform(noise.at(self._stream(_RANGE), address)[..., None], _PAIR))
        high = np.maximum(open_, close) * np.exp(0.35 * typical * reach[..., 0])
        low = np.minimum(open_, close) * np.exp(-0.35 * typical * reach[..., 1])
        high = np.maximum(np.round(high, 2), np.maximum(open_, close))
        low = np.minimum(np.round(low, 2), np.minimum(open_, close))

        activity = 1.0 + 0.6 * np.minimum(np.abs(moves) / typical, 4.0)
        lot = np.exp(0.35 * noise.normal(self._stream(_VOLUME), address)) * activity / 1.6
        volume = (self._shares / minutes)[:, None] * _u_shape(minutes) * lot
        spread = 0.8 + 0.4 * noise.uniform(self._stream(_COUNT), address)
        count = np.round(self._trades_per_minute * spread).astype(np.int64)
        trades = np.maximum(count, needed_trades(open_, high, low, close))
        shares = np.maximum(np.round(volume).astype(np.int64), trades)
        return Block(session, starts, open_, high, low, close, shares, trades)

    def _stream(self, purpose: int) -> noise.Keys:
        return noise.at(self._keys, purpose)[:, None]

    def _volatility(self) -> Floats:
        """Daily standard deviation of each symbol, shape ``(S,)``."""
        total: Floats = np.sqrt((self._beta * MARKET_VOLATILITY) ** 2 + self._own**2)
        return total

    def _minute_returns(self, address: Ints) -> tuple[Floats, Floats]:
        """Log returns before bridging, and volatility over typical, both ``(S, M)``."""
        minutes = len(address)
        shape = _u_shape(minutes)
        market_key = noise.at(self._market_key, _MINUTE)[:, None]
        cluster = np.exp(0.4 * _smooth(self._stream(_MINUTE_VOL), address))
        market = MARKET_VOLATILITY * noise.normal(market_key, address)
        own = self._own[:, None] * noise.normal(self._stream(_MINUTE), address)
        scale = shape / np.sqrt(minutes)
        return (self._beta[:, None] * market + own * cluster) * scale, shape * cluster

    def _open_and_close(self, opens_ns: int) -> tuple[Floats, Floats]:
        """First and last price of the session that opens then, before rounding, ``(S,)``."""
        number = (_day(opens_ns) - BASE_DATE).days
        if number >= len(self._levels):
            self._levels = self._chain(number + 366)
        before, after = self._levels[number - 1], self._levels[number]
        return self._price * np.exp(before + 0.3 * (after - before)), self._price * np.exp(after)

    def _chain(self, days: int) -> Floats:
        """Log distance of the close of each civil day to the profile's price, ``(days, S)``."""
        day = np.arange(days)
        trading = (day + BASE_DATE.weekday()) % 7 < 5
        market_key, keys = noise.at(self._market_key, _DAY)[:, None], self._stream(_DAY)
        mood = np.exp(0.35 * _smooth(noise.at(self._market_key, _DAY_VOL)[:, None], day))
        market = MARKET_VOLATILITY * mood * noise.normal(market_key, day)
        own = self._own[:, None] * noise.normal(keys, day)
        steps = ((self._beta[:, None] * market + own) * trading).T
        keep = np.where(trading, 1.0 - _PULL, 1.0)
        levels = np.zeros_like(steps)
        level = np.zeros(len(self.symbols))
        for i in range(days):
            level = level * keep[i] + steps[i]
            levels[i] = level
        return levels


_PAIR = np.arange(2)


def _u_shape(minutes: int) -> Floats:
    """Activity of each minute of a session, mean 1: high at both ends, shape ``(minutes,)``."""
    x = (np.arange(minutes) + 0.5) / minutes
    shape = 0.6 + 1.6 * np.exp(-x / 0.06) + 0.3 * (2 * x - 1) ** 4 + 0.9 * np.exp(-(1 - x) / 0.04)
    result: Floats = shape / shape.mean()
    return result


def _smooth(keys: noise.Keys, address: Ints) -> Floats:
    """Slowly changing noise, about standard normal: values 15 addresses apart, interpolated."""
    knot, part = np.divmod(address, 15)
    near, far = noise.normal(keys, knot), noise.normal(keys, knot + 1)
    x = part / 15.0
    result: Floats = (near * (1 - x) + far * x) / np.sqrt((1 - x) ** 2 + x**2)
    return result


def _sessions_of_year(year: int, first: date, last: date) -> list[Session]:
    """Sessions of one year between two days: the calendar of a whole year is made once."""
    whole = calendar.sessions(date(year, 1, 1), date(year, 12, 31))
    return [s for s in whole if first <= _day(s[0]) <= last]


def _day(ns: int) -> date:
    """UTC date, which is New York's date during a regular session."""
    return datetime.fromtimestamp(min(ns, 250 * 365 * DAY_NS) // 1_000_000_000, UTC).date()
