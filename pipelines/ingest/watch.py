"""Whether a silent feed is a broken feed. Pure.

Silence means nothing while the market is closed, where a symbol trades once in a while, or in a
symbol that is halted. So ticks (trades and quotes) and minute bars are judged apart, each by the
activity that was learned per symbol and part of the session: a silence is suspicious when so many
messages as :data:`USUAL_MESSAGES` should have come in it. What has been learned nothing about gets
more patience. Other channels are quiet by nature and never judged.

A silence that ended with a message was a quiet time, and is learned from; one that ended with a
reconnect is not. With each reconnect that did not bring data soon the patience doubles, until
something was learned.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from pipelines import calendar
from pipelines.clock import MarketClock
from pipelines.events import BAR, MINUTE_NS, QUOTE, SECOND_NS, TRADE

TICKS, BARS = "ticks", "bars"
GROUPS = {TRADE: TICKS, QUOTE: TICKS, BAR: BARS}
"""Group of a message type; what stands here not is never missed."""

USUAL_MESSAGES = {TICKS: 50.0, BARS: 5.0}
"""So many expected messages that did not come are suspicious."""

FEW_MESSAGES = 5.0
"""So many expected messages that did not come are no quiet, though no reason to reconnect."""

UNLEARNED_PATIENCE = 8.0
LEARNED_AFTER = 20
MEMORY_S, MEMORY_MESSAGES = 120.0, 2 * LEARNED_AFTER
"""What lies longer ago than both is forgotten."""

MAX_DOUBLINGS = 6

HALTS = frozenset("2HP")
RESUMPTIONS = frozenset("3TQ")

FIRST_LAST_NS = 30 * MINUTE_NS
OPENING, MIDDAY, CLOSING = "opening", "midday", "closing"


class Activity:
    """Messages per second of one symbol, in one part of the session.

    >>> activity = Activity()
    >>> for _ in range(100):
    ...     activity.learn(2, over_s=1.0)
    >>> round(activity.rate, 6), activity.learned
    (2.0, True)
    """

    __slots__ = ("_count", "_ever", "_time_s")

    def __init__(self) -> None:
        self._ever = 0
        self._count = 0.0
        self._time_s = 0.0

    def learn(self, messages: int, *, over_s: float) -> None:
        """So many messages came in this time; what lies long ago is forgotten."""
        memory_s = max(MEMORY_S, MEMORY_MESSAGES / self.rate) if self._count else MEMORY_S
        kept = math.exp(-over_s / memory_s)
        self._ever += messages
        self._count = self._count * kept + messages
        self._time_s = self._time_s * kept + over_s

    @property
    def learned(self) -> bool:
        """Whether enough was seen to judge by."""
        return self._ever >= LEARNED_AFTER and self._time_s > 0

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self._count / self._time_s if self._time_s else 0.0


class _Group:
    """What is known of the ticks, or of the bars."""

    def __init__(self, usual: float) -> None:
        self.usual = usual
        self.pending: dict[str, int] = {}
        self.learned: dict[tuple[str, str], Activity] = {}
        self.last_s: float | None = None
        self.folded_s = 0.0

    def expected_rate(self, phase: str, leave_out: Iterable[str]) -> float | None:
        """Messages per second of all symbols, or ``None`` when nothing was learned.

        A symbol that is not known in this part of the session counts with its least activity.
        """
        here: dict[str, float] = {}
        elsewhere: dict[str, float] = {}
        for (symbol, when), activity in self.learned.items():
            if activity.learned and when == phase:
                here[symbol] = activity.rate
            elif activity.learned:
                elsewhere[symbol] = min(elsewhere.get(symbol, math.inf), activity.rate)
        rates = elsewhere | here
        if not rates:
            return None
        for symbol in leave_out:
            rates.pop(symbol, None)
        return sum(rates.values())


class StalenessWatch:
    """Judges the silence of a feed.

    Args:
        stale_s: Least silence of ticks, in an open market, that means a broken feed.
        stale_bars_s: The same for minute bars.

    >>> watch = StalenessWatch(stale_s=30, stale_bars_s=180)
    >>> watch.connected(0.0, groups=["ticks"])
    >>> for second in range(60):
    ...     watch.heard({("t", "SPY"): 10}, float(second), phase="midday")
    >>> watch.stale(80.0, phase="midday"), watch.stale(91.0, phase="midday")
    (None, 'no trades and quotes for 32 s')
    >>> watch.gave_up(); watch.connected(91.0, groups=["ticks"])  # and it is silent again
    >>> watch.stale(150.0, phase="midday"), watch.stale(152.0, phase="midday")
    (None, 'no trades and quotes for 61 s')
    """

    def __init__(self, *, stale_s: float, stale_bars_s: float) -> None:
        self._least_s = {TICKS: stale_s, BARS: stale_bars_s}
        self._groups = {name: _Group(usual) for name, usual in USUAL_MESSAGES.items()}
        self._watched: frozenset[str] = frozenset()
        self._halted: set[str] = set()
        self._fruitless = 0
        self._connected_s = 0.0

    @property
    def halted(self) -> frozenset[str]:
        """Symbols that do not trade now; their silence means nothing."""
        return frozenset(self._halted)

    def connected(self, now_s: float, *, groups: Iterable[str] = (TICKS, BARS)) -> None:
        """Data of these groups may come from now on."""
        self._watched = frozenset(groups)
        self._connected_s = now_s
        for group in self._groups.values():
            group.last_s = group.folded_s = now_s
            group.pending.clear()

    def quiet_time(self, now_s: float) -> None:
        """The market is closed: what is silent now is not suspicious, and nothing is learned."""
        self.connected(now_s, groups=self._watched)
        self._fruitless = 0

    def heard(self, counts: Mapping[tuple[str, str], int], now_s: float, *, phase: str) -> None:
        """Messages came: how many, per type and symbol."""
        for (kind, symbol), count in counts.items():
            name = GROUPS.get(kind)
            if name is not None:
                group = self._groups[name]
                group.pending[symbol] = group.pending.get(symbol, 0) + count
                group.last_s = now_s
                if self._fruitless and self._cured(name, now_s, phase):
                    self._fruitless = 0
        for group in self._groups.values():
            if group.last_s == now_s and now_s - group.folded_s >= 1.0:
                self._fold(group, now_s, phase)

    def keep(self, symbols: Iterable[str]) -> None:
        """Forget all symbols but these: they are subscribed no more."""
        kept = set(symbols)
        for group in self._groups.values():
            for key in [key for key in group.learned if key[0] not in kept]:
                del group.learned[key]
        self._halted &= kept

    def status(self, symbol: str, code: str) -> None:
        """A trading status: halted symbols are not waited for."""
        if code in HALTS:
            self._halted.add(symbol)
        elif code in RESUMPTIONS:
            self._halted.discard(symbol)

    def gave_up(self) -> None:
        """The connection was ended for its silence."""
        self._fruitless += 1
        self._watched = frozenset()

    def stale(self, now_s: float, *, phase: str) -> str | None:
        """What has been silent for too long, in an open market, or ``None``."""
        for name in sorted(self._watched, reverse=True):
            group = self._groups[name]
            silent_s = now_s - group.last_s if group.last_s is not None else 0.0
            if silent_s > self._least_s[name] and silent_s > self.limit_s(name, phase):
                what = "minute bars" if name == BARS else "trades and quotes"
                return f"no {what} for {silent_s:.0f} s"
        return None

    def suspicious(self, now_s: float, *, phase: str) -> bool:
        """Whether something should have come already, in an open market: this is no quiet."""
        if self._fruitless:
            return True
        for name in self._watched:
            group = self._groups[name]
            rate = group.expected_rate(phase, self._halted)
            if rate and group.last_s is not None and rate * (now_s - group.last_s) >= FEW_MESSAGES:
                return True
        return False

    def limit_s(self, name: str, phase: str) -> float:
        """Silence of a group that is still no matter, seconds."""
        group, least_s = self._groups[name], self._least_s[name]
        rate = group.expected_rate(phase, self._halted)
        if rate is None:
            limit_s = UNLEARNED_PATIENCE * least_s
        elif rate <= 0:
            limit_s = math.inf  # all that used to speak is halted
        else:
            limit_s = max(least_s, group.usual / rate)
        return limit_s * float(2 ** min(self._fruitless, MAX_DOUBLINGS))

    def _cured(self, name: str, now_s: float, phase: str) -> bool:
        """Whether reconnecting helped; a message that comes long after it came by itself."""
        soon = now_s - self._connected_s <= self._least_s[name]
        return soon or self._groups[name].expected_rate(phase, ()) is not None

    def _fold(self, group: _Group, now_s: float, phase: str) -> None:
        over_s, group.folded_s = now_s - group.folded_s, now_s
        for symbol in {*group.pending, *(s for s, p in group.learned if p == phase)}:
            activity = group.learned.setdefault((symbol, phase), Activity())
            if symbol not in self._halted:
                activity.learn(group.pending.get(symbol, 0), over_s=over_s)
        group.pending.clear()


def groups_of(subscriptions: Mapping[str, Any]) -> frozenset[str]:
    """Groups that can be heard with these subscriptions.

    >>> sorted(groups_of({"trades": ["SPY"], "statuses": ["SPY"]}))
    ['ticks']
    """
    has = {channel for channel, symbols in subscriptions.items() if symbols}
    found = {TICKS} if has & {"trades", "quotes"} else set()
    return frozenset(found | ({BARS} if "bars" in has else set()))


def phase_at(clock: MarketClock, wall_ns: int) -> str | None:
    """Which part of the regular session runs, or ``None`` outside of it.

    >>> from pipelines.clock import LIVE
    >>> from pipelines.events import parse_time_ns
    >>> times = "2024-07-03T13:40:00Z", "2024-07-03T15:00:00Z", "2024-07-04T15:00:00Z"
    >>> [phase_at(LIVE, parse_time_ns(time)) for time in times]
    ['opening', 'midday', None]
    """
    if clock.simulated and not clock.is_open(wall_ns):
        return None
    market_ns = clock.market_ns(wall_ns)
    sessions = clock.sessions if clock.simulated else _sessions(_year(market_ns))
    i = bisect_right(sessions, (market_ns, 2**63)) - 1
    if i < 0 or market_ns >= sessions[i][1]:
        return None
    opens, closes = sessions[i]
    if market_ns < opens + FIRST_LAST_NS:
        return OPENING
    return CLOSING if market_ns >= closes - FIRST_LAST_NS else MIDDAY


@cache
def _sessions(year: int) -> tuple[tuple[int, int], ...]:
    return calendar.sessions(date(year, 1, 1), date(year, 12, 31))


def _year(market_ns: int) -> int:
    return datetime.fromtimestamp(market_ns / SECOND_NS, UTC).year
