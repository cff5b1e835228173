"""A session at the REST interface: trades, quotes and bars are asked for again and again.

The worst of the sources, for when no websocket will have us. Each round asks for what lies between
the last one and a moment that is old enough (``rest_lag_s``) for nothing to come after it; the two
ends of neighbouring rounds overlap by an instant, and what stands in both is taken once. So nothing
is missed while it runs, it only comes seconds late. Statuses and limits are not to be had here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pipelines.clock import wall_ns
from pipelines.errors import FeedTransient
from pipelines.events import BAR, MINUTE_NS, QUOTE, SECOND_NS, TRADE, Message, effective_ns
from pipelines.ingest.reception import POLL_S, Reception
from pipelines.ingest.subscriptions import ALL, Subscriptions, symbols_of

log = logging.getLogger(__name__)

KIND_OF = {"trades": TRADE, "quotes": QUOTE, "bars": BAR}
MAX_ROUND_NS = 60 * SECOND_NS
SLOWER_AFTER_429 = 2.0
SLOWEST_S = 60.0
TOO_MANY_REQUESTS = 429
FRAME = 1_000


class RestTicks(Protocol):
    """What :class:`pipelines.history.RestHistory` offers of the past."""

    def pages(
        self, kind: str, symbols: Sequence[str], *, start_ns: int, end_ns: int
    ) -> Iterable[list[Message]]:
        """Messages of one type in an interval, both ends included; bars go by their start."""
        ...


class Polling:
    """One stay at REST.

    Args:
        client: Asks.
        reception: Takes what comes.
        wanted: What to subscribe, now.
        now_s: A steady clock.
    """

    def __init__(
        self,
        client: RestTicks,
        reception: Reception,
        *,
        wanted: Callable[[], Subscriptions],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._reception = reception
        self._config = reception.config
        self._wanted = wanted
        self._now_s = now_s
        self._asking = wanted()
        self._interval_s = self._config.rest_poll_s
        self._until: dict[str, int] = {}
        self._seen = Seen()
        self._idle = threading.Event()

    @property
    def subscriptions(self) -> Subscriptions:
        """The channels that REST has."""
        return {c: has for c, has in self._asking.items() if c in KIND_OF}

    def run(self) -> None:
        """Poll until we are to leave.

        Raises:
            FeedFatal: Wrong keys, or a plan without this feed.
            FeedTransient: The server failed.
        """
        reception = self._reception
        reception.on_state("authenticating", None)
        if ALL in symbols_of(self._asking):
            raise FeedTransient("REST cannot be asked for '*'; name the symbols")
        self._begin()
        next_s = self._now_s()
        while not reception.leaving():
            self._follow_wishes()
            if self._now_s() >= next_s:
                next_s = self._now_s() + self._interval_s
                self._round()
                if not reception.settled:
                    reception.granted(self.subscriptions, settled=True)
            reception.tick(quiet=True)
            self._idle.wait(min(POLL_S, max(0.0, next_s - self._now_s())))

    def _begin(self) -> None:
        self._reception.asks()
        now_ns = self._reception.market_ns()
        self._until = dict.fromkeys(symbols_of(self.subscriptions), now_ns)

    def _follow_wishes(self) -> None:
        wanted = self._wanted()
        if wanted == self._asking:
            return
        self._asking = wanted
        self._reception.changes(wanted, asked=True)
        now_ns = self._reception.market_ns()
        symbols = symbols_of(self.subscriptions)
        self._until = {symbol: self._until.get(symbol, now_ns) for symbol in symbols}
        self._reception.granted(self.subscriptions, settled=True)

    def _round(self) -> None:
        """Ask for what came since the last round; a long time in parts."""
        rate = self._reception.market_rate()
        end_ns = self._reception.market_ns() - int(self._config.rest_lag_s * rate * SECOND_NS)
        try:
            for start_ns, symbols in self._groups().items():
                begin_ns = start_ns
                while begin_ns < end_ns and not self._reception.leaving():
                    stop_ns = min(end_ns, begin_ns + int(MAX_ROUND_NS * max(1.0, rate)))
                    self._take(self._fetch(symbols, begin_ns, stop_ns))
                    self._until |= dict.fromkeys(symbols, stop_ns)
                    begin_ns = stop_ns
        except FeedTransient as error:
            if self._reception.leaving():
                return
            if error.code != TOO_MANY_REQUESTS or not self._reception.settled:
                raise
            self._interval_s = min(SLOWEST_S, self._interval_s * SLOWER_AFTER_429)
            log.warning("REST: too many requests; asking every %.0f s", self._interval_s)

    def _groups(self) -> dict[int, list[str]]:
        """Symbols by the time up to which they have been asked for."""
        groups: dict[int, list[str]] = {}
        for symbol, until in self._until.items():
            groups.setdefault(until, []).append(symbol)
        return groups

    def _fetch(self, symbols: Sequence[str], start_ns: int, end_ns: int) -> list[Message]:
        """All of one interval in the order of a feed; bars by their end."""
        found: list[Message] = []
        for channel, has in self.subscriptions.items():
            chosen, kind = [s for s in symbols if s in has], KIND_OF[channel]
            shift = MINUTE_NS if kind == BAR else 0
            if chosen:
                for page in self._client.pages(
                    kind, chosen, start_ns=start_ns - shift, end_ns=end_ns - shift
                ):
                    found += page
        return in_order(self._seen.fresh(found, symbols, end_ns=end_ns))

    def _take(self, messages: Sequence[Message]) -> None:
        for i in range(0, len(messages), FRAME):
            self._reception.take(messages[i : i + FRAME], wall_ns())


class Seen:
    """Drops what was handed over in the round before; rounds share one instant.

    >>> seen = Seen()
    >>> bar = {"T": "b", "S": "SPY", "t": "1970-01-01T00:01:00Z", "c": 1.0}
    >>> [len(seen.fresh([bar], ["SPY"], end_ns=n * MINUTE_NS)) for n in (2, 3)]
    [1, 0]
    """

    def __init__(self) -> None:
        self._edge: dict[str, dict[str, int]] = {}

    def fresh(
        self, messages: Iterable[Message], symbols: Iterable[str], *, end_ns: int
    ) -> list[Message]:
        """Messages that were not in the last round; two alike in one round are both kept.

        Args:
            messages: What was fetched.
            symbols: Of which symbols.
            end_ns: Up to which time.
        """
        left = {symbol: self._edge.pop(symbol, {}) for symbol in symbols}
        kept = []
        for message in messages:
            before, late = left[message["S"]], _at(message) >= end_ns
            key = repr(sorted(message.items())) if before or late else ""
            if before.get(key, 0):
                before[key] -= 1
            else:
                kept.append(message)
            if late:
                edge = self._edge.setdefault(message["S"], {})
                edge[key] = edge.get(key, 0) + 1
        return kept


def in_order(messages: Iterable[Message]) -> list[Message]:
    """As a feed would have published them; at the same time, bars come last."""
    return sorted(messages, key=lambda message: (_at(message), message["T"] == BAR))


def _at(message: Message) -> int:
    try:
        return effective_ns(message)
    except (KeyError, TypeError, ValueError):
        return 0  # kept: whoever stores it says what is wrong with it
