"""What moves the synthetic market: factors, volatility, jumps. Pure, addressed, vectorised.

A symbol's log return is ``beta × market + sector_beta × sector + own``. Each of the three has fat
tails (Student-t) and a volatility of its own with long memory; so returns have no memory, their
sizes have a long one, and symbols move together, those of a sector most. Once in a while a symbol
jumps, overnight or in the session; seldom so far that trading pauses.

Days are one chain from a base date: the part overnight and the part in the session are drawn
apart, so a gap at the open says nothing of the day. A level is pulled back to the profile's price,
so that it stays plausible over years.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.exchange import noise
from pipelines.exchange.noise import Floats, Ints, Keys
from pipelines.exchange.profiles import SECTORS, SymbolProfile

MARKET_VOLATILITY = 0.0085
"""Standard deviation of the market factor's daily log return."""

SECTOR_VOLATILITY = 0.0055
"""Standard deviation of a sector factor's daily log return."""

OVERNIGHT_VARIANCE = 0.25
"""Part of a day's variance that lies between the close and the next open."""

_PULL = 0.005
"""Part of the distance to the profile's price that is closed each day."""

SHOCK = 0.055
"""Least log return of a shock: more than the price bands of most symbols allow at once."""

_DAY_SCALES, _DAY_DEVIATION = (3, 12, 48, 192), 0.58
_MINUTE_SCALES, _MINUTE_DEVIATION = (6, 24, 96, 384), 0.34
_NIGHT, _DAY, _DAY_MOOD, _MINUTE, _MINUTE_MOOD, _JUMP = range(6)


@dataclass(frozen=True, slots=True)
class Days:
    """What happens to each symbol on civil days 0 to D-1, shape ``(S, D)`` each.

    Args:
        night: Log return from the close before to the open.
        session: Log return from the open to the close, its jump included.
        jump: The part of it that is a jump.
        jump_at: Where in the session it comes, 0 to 1.
    """

    night: Floats
    session: Floats
    jump: Floats
    jump_at: Floats


class Factors:
    """The moving parts of some symbols.

    Args:
        symbols: Their names.
        profiles: Their profiles, in the same order.
        seed: Seed of every number.
    """

    def __init__(
        self, symbols: Sequence[str], profiles: Sequence[SymbolProfile], *, seed: int
    ) -> None:
        self._own_keys = noise.keys(seed, *symbols)
        self._market_key = noise.keys(seed, "(market)")
        self._sector_keys = noise.keys(seed, *(f"(sector:{s})" for s in SECTORS))
        self._sector = np.array([SECTORS.index(p.sector) for p in profiles], dtype=np.int64)
        self._market_part = np.array([p.beta for p in profiles]) * MARKET_VOLATILITY
        self._sector_part = np.array([p.sector_beta for p in profiles]) * SECTOR_VOLATILITY
        self._own_part = np.array([p.own_volatility for p in profiles])
        self._jumps = np.array([p.jumps_per_day for p in profiles])
        self._shocks = np.array([p.shocks_per_day for p in profiles])
        squares = self._market_part**2 + self._sector_part**2 + self._own_part**2
        self.daily_volatility: Floats = np.sqrt(squares)
        """Standard deviation of each symbol's daily log return without jumps, shape ``(S,)``."""

    def days(self, count: int, trading: NDArray[np.bool_]) -> Days:
        """The civil days 0 to ``count`` - 1; ``trading`` says which of them are weekdays."""
        day = np.arange(count)
        night_part = OVERNIGHT_VARIANCE**0.5
        day_part = (1.0 - OVERNIGHT_VARIANCE) ** 0.5
        night = night_part * self._sum(day, _NIGHT, _day_mood)
        session = day_part * self._sum(day, _DAY, _day_mood)
        typical = self.daily_volatility[:, None]
        u = noise.uniform(noise.at(self._own_keys, _JUMP)[:, None, None], day[:, None] * 4 + _FOUR)
        side = np.where(u[..., 2] < 0.5, 1.0, -1.0)
        often, seldom = self._jumps[:, None] / 2, self._shocks[:, None]
        kind = u[..., 0]
        overnight = (kind < often) * side * typical * (0.8 - np.log(u[..., 1]))
        # In the session a jump is small most of the time, and its tail is that of a power law.
        small = np.minimum(0.3 * u[..., 1] ** -0.4, 5.0) * typical
        inside = ((kind >= often) & (kind < 2 * often)) * side * small
        inside += (kind > 1.0 - seldom) * side * SHOCK * (1.0 + 0.6 * u[..., 1])
        inside = inside * trading
        return Days(
            night=(night + overnight) * trading,
            session=session * trading + inside,
            jump=inside,
            jump_at=u[..., 3],
        )

    def minutes(self, address: Ints, *, day: int, shape: Floats) -> tuple[Floats, Floats]:
        """Log returns of the minutes of one session, not yet led to its close, and volatility.

        Args:
            address: Number of each minute since the epoch, shape ``(M,)``.
            day: Civil day of the session.
            shape: Volatility of each minute over the day's mean, shape ``(M,)``.

        Returns:
            The returns, and the standard deviation that each was drawn with over the profile's
            typical one; shape ``(S, M)`` both.
        """
        scale = shape * ((1.0 - OVERNIGHT_VARIANCE) / len(address)) ** 0.5
        days = np.array([day])

        def volatility(keys: Keys) -> Floats:
            return _minute_mood(keys, address) * _day_mood(keys, days)

        parts = self._parts(address, _MINUTE, volatility)
        variance = np.stack([(part * vol) ** 2 for part, vol, _ in parts]).sum(axis=0)
        moves = np.stack([part * vol * drawn for part, vol, drawn in parts]).sum(axis=0)
        typical = self.daily_volatility[:, None]
        return moves * scale, np.sqrt(variance) / typical * shape

    def _sum(self, address: Ints, purpose: int, mood: Mood) -> Floats:
        parts = self._parts(address, purpose, lambda keys: mood(keys, address))
        total: Floats = np.stack([part * vol * drawn for part, vol, drawn in parts]).sum(axis=0)
        return total

    def _parts(
        self, address: Ints, purpose: int, volatility: Volatility
    ) -> list[tuple[Floats, Floats, Floats]]:
        """Of market, sector and own noise: the symbols' part, volatility and number drawn."""
        found = []
        for keys, row, part in (
            (self._market_key, None, self._market_part),
            (self._sector_keys, self._sector, self._sector_part),
            (self._own_keys, None, self._own_part),
        ):
            drawn = noise.student(noise.at(keys, purpose)[:, None], address)
            vol = volatility(keys[:, None])
            if row is not None:
                drawn, vol = drawn[row], vol[row]
            found.append((part[:, None], vol, drawn))
        return found


Mood = Callable[[Keys, Ints], Floats]
Volatility = Callable[[Keys], Floats]
_FOUR = np.arange(4)


def _day_mood(keys: Keys, day: Ints) -> Floats:
    key = noise.at(keys, _DAY_MOOD)
    return noise.mood(key, day, scales=_DAY_SCALES, deviation=_DAY_DEVIATION)


def _minute_mood(keys: Keys, address: Ints) -> Floats:
    key = noise.at(keys, _MINUTE_MOOD)
    return noise.mood(key, address, scales=_MINUTE_SCALES, deviation=_MINUTE_DEVIATION)


def levels(days: Days, drift: Floats, trading: NDArray[np.bool_]) -> Floats:
    """Log distance of each symbol to its profile's price at each open and close.

    Args:
        days: What happens on each day.
        drift: What news adds to each session, shape ``(S, D)``.
        trading: Which days are weekdays.

    Returns:
        Shape ``(D, 2, S)``: at the open, at the close.
    """
    count = len(trading)
    night, session = days.night.T, (days.session + drift).T
    keep = np.where(trading, 1.0 - _PULL, 1.0)
    out = np.zeros((count, 2, night.shape[1]))
    level = np.zeros(night.shape[1])
    for i in range(count):
        level = level * keep[i] + night[i]
        out[i, 0] = level
        level = level + session[i]
        out[i, 1] = level
    return out
