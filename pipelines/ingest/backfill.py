"""Fills declared gaps from the market's history, beside the live data and never before it.

A thread takes each gap whose row the stream holds, asks REST for its trades, quotes and bars once
the market has passed its end, and hands them on marked ``bf``, a bounded number at a time and only
while little waits for the stream. Then it writes the gap's row a second time, ``backfilled``. What
is left to do stands in :class:`~pipelines.ingest.unfilled.Unfilled`, so a restart goes on where the
stream ends. A gap that cannot be filled for long is given up, visibly; its row stays as it is.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from pipelines.clock import wall_ns
from pipelines.errors import FeedError
from pipelines.events import (
    BAR,
    GAP,
    MINUTE_NS,
    QUOTE,
    SECOND_NS,
    TRADE,
    Message,
    reject_reason,
)
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.unfilled import Gap, Key
from pipelines.ports import TickHistory
from pipelines.retry import delays

log = logging.getLogger(__name__)

CHANNEL_OF = {TRADE: "trades", QUOTE: "quotes", BAR: "bars"}
"""What can be asked for later, by message type, and the channel that it is missed from."""


class _Stopped(Exception):
    """We are to end."""


@dataclass(slots=True)
class _Attempts:
    """How a gap fared in this run."""

    since_s: float
    backoff: Iterator[float]
    not_before_s: float = 0.0
    handed: Counter[str] = field(default_factory=Counter)
    """Per type: messages of it that were handed on or are stored."""

    over: bool = False
    """Its second row was handed on."""


class Backfiller:
    """The thread.

    Args:
        history: The market's past.
        config: How.
        tracker: Knows the gaps.
        intake: Takes the messages.
        lock: Guards both.
        subscribed: Per channel, the symbols that are subscribed, or ``*``.
        ready: Whether the stream holds all that earlier runs made: only then it says what is left
            to be filled; asked with the lock held.
        rng: Jitter of the delays.
        now_s: A steady clock.
        now_ns: The wall clock.
    """

    def __init__(
        self,
        history: TickHistory,
        config: BackfillConfig,
        *,
        tracker: GapTracker,
        intake: Intake,
        lock: threading.Lock,
        subscribed: Callable[[], Mapping[str, Sequence[str]]],
        rng: random.Random,
        ready: Callable[[], bool] = lambda: True,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = wall_ns,
    ) -> None:
        self._history = history
        self._config = config
        self._tracker = tracker
        self._intake = intake
        self._lock = lock
        self._subscribed = subscribed
        self._ready = ready
        self._rng = rng
        self._now_s, self._now_ns = now_s, now_ns
        self._attempts: dict[Key, _Attempts] = {}
        self._done = self._failed = self._rejected = 0
        self._error: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backfill", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Hand nothing on any more; a request that is under way may still end by itself."""
        with self._lock:
            self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    def stats(self) -> dict[str, Any]:
        """Counters of this run; the caller locks."""
        return {
            "backfilled": self._intake.backfilled,
            "backfills_open": len(self._tracker.unfilled),
            "backfills_done": self._done,
            "backfills_failed": self._failed,
            "backfill_rejected": self._rejected,
            "backfill_error": self._error,
        }

    def _run(self) -> None:
        while not self._stop.wait(self._config.poll_s):
            try:
                self.work()
            except _Stopped:
                return
            except Exception as error:
                log.exception("filling gaps failed; the next attempt is in a minute")
                self._error = f"{type(error).__name__}: {error}"
                self._stop.wait(self._config.retry_cap_s)

    def work(self) -> None:
        """Fill what can be filled now."""
        for gaps in grouped(self._due()):
            try:
                self._fill(gaps)
            except FeedError as error:
                self._error = str(error)
                log.warning("%d gaps are not filled yet: %s", len(gaps), error)
                for gap in gaps:
                    attempts = self._attempts[gap.key]
                    attempts.not_before_s = self._now_s() + next(attempts.backoff)
                    if self._now_s() - attempts.since_s > self._config.give_up_s:
                        self._give_up(gap, str(error))

    def _due(self) -> list[Gap]:
        """Gaps whose time is over, for the market and for our own patience."""
        config, now_s = self._config, self._now_s()
        with self._lock:
            gaps = self._tracker.unfilled.gaps()
            clock, known = self._intake.clock, self._intake.clock_known and self._ready()
        self._forget(gaps)
        passed_ns = clock.market_ns(self._now_ns() - int(config.delay_s * SECOND_NS))
        due = []
        for gap in gaps:
            if gap.key not in self._attempts:
                backoff = delays(
                    first_s=config.retry_first_s, cap_s=config.retry_cap_s, rng=self._rng
                )
                handed = Counter({kind: step.count for kind, step in gap.done.items()})
                self._attempts[gap.key] = _Attempts(now_s, backoff, handed=handed)
            attempts = self._attempts[gap.key]
            settled = all(
                gap.done[kind].count if kind in gap.done else count == 0
                for kind, count in attempts.handed.items()
            )
            if gap.to_ns - gap.from_ns > config.max_gap_s * SECOND_NS:
                self._give_up(gap, f"longer than {config.max_gap_s:.0f} s")
            elif (
                known
                and settled
                and not attempts.over
                and now_s >= attempts.not_before_s
                and passed_ns >= gap.to_ns - 1
            ):
                due.append(gap)
        return due

    def _fill(self, gaps: Sequence[Gap]) -> None:
        """Fetch and hand on what is missing in gaps of different symbols, then end them.

        Raises:
            FeedError: The history cannot be had now.
        """
        for kind in CHANNEL_OF:
            wanted = [
                gap
                for gap in gaps  # one with nothing between its ends cannot be asked for
                if gap.begins_ns(kind) < gap.to_ns and kind in self._kinds(gap.symbol)
            ]
            if wanted:
                self._fill_kind(kind, wanted)
        for gap in gaps:
            self._end(gap)
        self._error = None

    def _fill_kind(self, kind: str, gaps: Sequence[Gap]) -> None:
        of_symbol = {gap.symbol: (gap, gap.missing(kind)) for gap in gaps}
        shift_ns = MINUTE_NS if kind == BAR else 0  # REST goes by the start of a bar
        for page in self._history.pages(
            kind,
            sorted(of_symbol),
            start_ns=min(gap.begins_ns(kind) for gap in gaps) - shift_ns,
            end_ns=max(gap.to_ns for gap in gaps) - 1 - shift_ns,
        ):
            missing = _missing(page, of_symbol)
            while chunk := list(islice(missing, self._config.chunk)):
                self._wait_my_turn()
                self._hand_on(kind, chunk, {s: gap for s, (gap, _) in of_symbol.items()})

    def _hand_on(self, kind: str, chunk: Sequence[Message], gaps: Mapping[str, Gap]) -> None:
        now_ns = self._now_ns()
        with self._lock:
            if self._stop.is_set():
                raise _Stopped
            market_ns = self._intake.clock.market_ns(now_ns)
            good = [m for m in chunk if reject_reason(m, market_ns=market_ns) is None]
            self._rejected += len(chunk) - len(good)
            # The market may have begun again meanwhile: then this is of another one.
            mine = [m for m in good if self._tracker.unfilled.get(gaps[m["S"]].key)]
            for message in self._intake.take_backfilled(mine, received_ns=now_ns):
                self._attempts[gaps[message["S"]].key].handed[kind] += 1

    def _end(self, gap: Gap) -> None:
        """Write the row that says that a gap is filled."""
        with self._lock:
            if self._stop.is_set():
                raise _Stopped
            if self._tracker.unfilled.get(gap.key) is None:
                return
            attempts = self._attempts[gap.key]
            row = {
                "T": GAP,
                "S": gap.symbol,
                "from_ns": gap.from_ns,
                "to_ns": gap.to_ns,
                "reason": gap.reason,
                "backfilled": True,
                "filled": {kind: attempts.handed[kind] for kind in CHANNEL_OF},
            }
            self._intake.write_gaps([row], wall_ns=self._now_ns())
            attempts.over = True
            self._done += 1
        log.info("gap of %s filled: %s", gap.symbol, row["filled"])

    def _give_up(self, gap: Gap, why: str) -> None:
        log.error("gap of %s (%d to %d) stays: %s", gap.symbol, gap.from_ns, gap.to_ns, why)
        with self._lock:
            self._tracker.unfilled.drop(gap.key)
        self._failed += 1

    def _forget(self, gaps: Sequence[Gap]) -> None:
        for key in self._attempts.keys() - {gap.key for gap in gaps}:
            del self._attempts[key]

    def _kinds(self, symbol: str) -> set[str]:
        """Types that are subscribed for a symbol; if it no longer is, for any."""
        subscribed = self._subscribed()
        channels = {c for c, of in subscribed.items() if symbol in of or "*" in of}
        wanted: Collection[str] = channels or set(subscribed) or set(CHANNEL_OF.values())
        return {kind for kind, channel in CHANNEL_OF.items() if channel in wanted}

    def _wait_my_turn(self) -> None:
        """Live data goes first."""
        while True:
            if self._stop.wait(self._config.interval_s):
                raise _Stopped
            with self._lock:
                if self._intake.unsent <= self._config.max_waiting:
                    return


def grouped(gaps: Iterable[Gap]) -> list[list[Gap]]:
    """Gaps that can be asked for together: of different symbols, about the same time and length.

    >>> s = 1_000_000_000
    >>> one, two = Gap("A", 10 * s, 20 * s), Gap("B", 12 * s, 20 * s)
    >>> again, long = Gap("A", 15 * s, 21 * s), Gap("C", 1, 20 * s)
    >>> [[gap.symbol for gap in group] for group in grouped([one, two, again, long])]
    [['A', 'B', 'C'], ['A']]
    """
    groups: dict[tuple[int, int, int], dict[str, Gap]] = {}
    for gap in gaps:
        length = ((gap.to_ns - gap.from_ns) // MINUTE_NS).bit_length()
        for turn in count():
            group = groups.setdefault((gap.to_ns // MINUTE_NS, length, turn), {})
            if gap.symbol not in group:
                group[gap.symbol] = gap
                break
    return [list(group.values()) for group in groups.values()]


def _missing(
    page: Iterable[Message], of_symbol: Mapping[str, tuple[Gap, Callable[[Message], bool]]]
) -> Iterator[Message]:
    for message in page:
        found = of_symbol.get(message["S"])
        if found is not None and found[1](message):
            yield message
