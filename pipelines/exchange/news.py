"""News of the synthetic market: what is said about a symbol, when, and how it is meant. Pure.

Each item has a sentiment from -1 to 1, which its headline expresses in words, as news do; it is
no field of the message, because Alpaca's has none. When asked for, the price drifts in the quarter
of an hour after an item, by the sentiment times ``drift_bps``; so there is something to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.events import MINUTE_NS, Message, format_time_ns
from pipelines.exchange import moments, noise
from pipelines.exchange.noise import Floats, Ints
from pipelines.exchange.profiles import SymbolProfile

DRIFT_MINUTES = 15
"""How long a price drifts after an item."""

_PER_DAY = 4
"""Most items of a symbol and session."""

_STREAM = 32
_DRAWS = 6

_GOOD = (
    "{name} raises its outlook for the year",
    "{name} beats estimates as demand grows",
    "Analysts lift their targets for {name}",
    "{name} wins a large order",
)
_PLAIN = (
    "{name} to present at an industry conference",
    "What to watch at {name} this week",
    "{name} names a new head of operations",
    "{name} trades in line with its peers",
)
_BAD = (
    "{name} cuts its outlook for the year",
    "{name} misses estimates as costs rise",
    "Analysts lower their targets for {name}",
    "{name} recalls a product",
)
_PLAIN_BELOW = 0.2
_STRONG_ABOVE = 0.6


@dataclass(frozen=True, slots=True)
class Item:
    """One item of news.

    Args:
        at_ns: When it is published, market time.
        symbol: Whom it is about; a recorded one may name several, with commas.
        sentiment: -1 to 1.
        headline: What it says.
        sector: The symbol's sector.
        told: The message as it was recorded, if it was.
    """

    at_ns: int
    symbol: str
    sentiment: float
    headline: str
    sector: str
    told: Message | None = None

    def message(self) -> Message:
        """As the news feed has it, times as text."""
        if self.told is not None:
            return dict(self.told)
        when = format_time_ns(self.at_ns)
        number = self.at_ns // moments.QUANTUM_NS
        return {
            "T": "n",
            "id": number,
            "headline": self.headline,
            "summary": f"{self.headline} ({self.sector}).",
            "author": "Raytape Newsroom",
            "created_at": when,
            "updated_at": when,
            "content": f"<p>{self.headline}.</p>",
            "url": f"https://news.example/{number}",
            "symbols": [self.symbol],
            "source": "raytape",
        }


class Newsroom:
    """Writes the news of some symbols.

    Args:
        symbols: Their names.
        profiles: Their profiles, in the same order.
        seed: Seed of every number.
        drift_bps: How far a price drifts after an item of full sentiment.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        profiles: Sequence[SymbolProfile],
        *,
        seed: int,
        drift_bps: float = 0.0,
    ) -> None:
        self._symbols = tuple(symbols)
        self._profiles = tuple(profiles)
        self._chance = np.array([p.news_per_day for p in profiles]) / _PER_DAY
        self._keys = noise.at(noise.keys(seed, *symbols), _STREAM)
        self._drift = drift_bps / 1e4

    def of_session(self, session: tuple[int, int], *, day: int) -> list[Item]:
        """The items of one session, in order of time."""
        said, place, sentiment, words = self._drawn(np.array([day]))
        minutes = (session[1] - session[0]) // MINUTE_NS
        found = []
        for row, slot in zip(*(axis.tolist() for axis in np.nonzero(said[:, 0])), strict=True):
            offset = _minute(place[row, 0, slot], minutes) + words[row, 0, slot]
            name, mood = self._symbols[row], float(sentiment[row, 0, slot])
            found.append(
                Item(
                    at_ns=moments.unique_ns(
                        session[0] + int(offset * MINUTE_NS), row=row, kind=moments.NEWS
                    ),
                    symbol=name,
                    sentiment=round(mood, 3),
                    headline=_headline(name, mood, float(words[row, 0, slot])),
                    sector=self._profiles[row].sector,
                )
            )
        return sorted(found, key=lambda item: item.at_ns)

    def drift(self, session: tuple[int, int], *, day: int) -> Floats:
        """What news adds to the log return of each minute, shape ``(S, M)``."""
        minutes = (session[1] - session[0]) // MINUTE_NS
        out = np.zeros((len(self._symbols), minutes))
        if self._drift:
            said, place, sentiment, _ = self._drawn(np.array([day]))
            for row, slot in zip(*np.nonzero(said[:, 0]), strict=True):
                first = _minute(place[row, 0, slot], minutes) + 1
                step = self._drift * sentiment[row, 0, slot] / DRIFT_MINUTES
                out[row, first : first + DRIFT_MINUTES] += step
        return out

    def drift_of_days(self, count: int) -> Floats:
        """What news adds to the log return of each civil day's session, shape ``(S, count)``."""
        if not self._drift:
            return np.zeros((len(self._symbols), count))
        said, _, sentiment, _ = self._drawn(np.arange(count))
        result: Floats = self._drift * np.sum(said * sentiment, axis=2)
        return result

    def _drawn(self, days: Ints) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
        """Whether there is an item, where in the session, its sentiment, its words.

        Shape ``(S, len(days), 4)`` each.
        """
        address = (days[:, None] * _PER_DAY + np.arange(_PER_DAY)) * _DRAWS
        keys = self._keys[:, None, None]
        u = [noise.uniform(keys, address + i) for i in range(4)]
        # The difference of two uniform numbers: seldom extreme.
        sentiment = noise.uniform(keys, address + 4) - u[2]
        return u[0] < self._chance[:, None, None], u[1], sentiment, u[3]


def _minute(place: float, minutes: int) -> int:
    """Minute of an item: late enough for a price to exist, early enough for its drift to end."""
    return 1 + int(place * (minutes - DRIFT_MINUTES - 2))


def _headline(name: str, sentiment: float, draw: float) -> str:
    pool = _PLAIN if abs(sentiment) < _PLAIN_BELOW else _GOOD if sentiment > 0 else _BAD
    text = pool[int(draw * len(pool))].format(name=name)
    return f"{text}, shares move" if abs(sentiment) > _STRONG_ABOVE else text
