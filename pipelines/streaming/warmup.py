"""Where a symbol begins that the query ``signals`` meets for the first time.

Its window is the last 512 bars of history that ended before its first message's market time; and
what the lake holds decisions on is not decided again by a query whose checkpoint is new. Bars
before a hole of more than :data:`MAX_HOLE_NS` are of another market (a replay of another year that
the lake also holds): none of them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import FeedTransient, LakeError, RaytapeError
from pipelines.events import BAR, DAY_NS, MINUTE_NS, parse_time_ns, reject_reason
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.lake.query import LakeHistory, LakeQuery
from pipelines.ports import BarHistory
from pipelines.retry import delays
from pipelines.streaming.bars import GAPPED_BARS
from pipelines.streaming.derived import Derived
from pipelines.streaming.parts import Start

MAX_HOLE_NS = 10 * DAY_NS
"""Time without a bar that no market has, holidays included."""

_ATTEMPTS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Warmup:
    """Finds the start of symbols; travels to the executors.

    Args:
        lake_uri: The lake, asked where ``history`` is ``None``.
        storage_options: Its credentials and endpoint.
        history: Bars of the past.
        symbols: Symbols whose bars are fetched in one go where history can.
        bars: So many bars for each.
        decided: Per symbol the last bar with a decision in the lake, its start in ns, and the
            wall time of the last decision, ns.
        spec: The features whose window is filled.
    """

    lake_uri: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    history: BarHistory | None = None
    symbols: tuple[str, ...] = ()
    bars: int = 512
    decided: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    spec: FeatureSpec = FEATURE_SPEC

    def loader(self, *, sleep: Callable[[float], None] = time.sleep) -> StartLoader:
        """What an executor asks."""
        return StartLoader(self, sleep=sleep)


class StartLoader:
    """Finds starts; keeps the bars of the moment that it fetched last.

    Args:
        warmup: Where to look.
        sleep: Waits between attempts.
    """

    def __init__(self, warmup: Warmup, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._warmup = warmup
        self._sleep = sleep
        self._before_ns: int | None = None
        self._fetched: dict[str, Sequence[Mapping[str, Any]]] = {}

    def start(self, symbol: str, before_ns: int) -> Start:
        """Where a symbol begins whose history ends at a market time.

        A history that fails costs the warm start, not the signals: it is logged, and the features
        are ``None`` until enough bars have come. Bars that nobody could compute with are left out.
        """
        before_ns -= before_ns % MINUTE_NS
        try:
            found = self._bars(symbol, before_ns)
        except RaytapeError as error:
            _log.error("%s begins cold, no history: %s", symbol, error)
            found = []
        good = [message for message in found if _can_be_used(message, symbol)]
        if len(good) < len(found):
            _log.warning("%s: %d bars of its history are odd", symbol, len(found) - len(good))
        spec = self._warmup.spec
        builder, derived = FeatureBuilder(spec), Derived()
        starts: list[int] = []
        for message in good[-self._warmup.bars :]:
            bar = ClosedBar.from_message(message)
            if bar.start_ns + MINUTE_NS > before_ns or (starts and bar.start_ns <= starts[-1]):
                continue
            if starts and bar.start_ns - starts[-1] > MAX_HOLE_NS:
                builder, derived, starts = FeatureBuilder(spec), Derived(), []
            builder.push(bar)
            derived.push(bar)
            starts.append(bar.start_ns)
        if starts and before_ns - starts[-1] > MAX_HOLE_NS:
            _log.info("%s begins cold, history ended long before: %s", symbol, starts[-1])
            builder, derived, starts = FeatureBuilder(spec), Derived(), []
        decided_ns, known_ns = self._warmup.decided.get(symbol, (0, 0))
        return Start(
            window=builder.state(),
            starts=tuple(starts[-GAPPED_BARS:]),
            decided_ns=decided_ns,
            known_ns=known_ns,
            derived=derived.state() if starts else (),
        )

    def _bars(self, symbol: str, before_ns: int) -> Sequence[Mapping[str, Any]]:
        if self._before_ns == before_ns and symbol in self._fetched:
            return self._fetched.pop(symbol)
        warmup = self._warmup
        history = warmup.history or LakeHistory(LakeQuery(warmup.lake_uri, warmup.storage_options))
        backoff = delays(first_s=0.2, cap_s=1.0, rng=random.Random())  # noqa: S311 - jitter
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._fetch(history, symbol, before_ns)
            except FeedTransient:
                if attempt == _ATTEMPTS:
                    raise
                self._sleep(next(backoff))
        return []

    def _fetch(
        self, history: BarHistory, symbol: str, before_ns: int
    ) -> Sequence[Mapping[str, Any]]:
        many = getattr(history, "bars_many", None)
        limit = self._warmup.bars
        if many is None or symbol not in self._warmup.symbols:
            return history.bars(symbol, before_ns=before_ns, limit=limit)
        self._fetched = dict(many(self._warmup.symbols, before_ns=before_ns, limit=limit))
        self._before_ns = before_ns
        return self._fetched.pop(symbol, [])


def _can_be_used(message: Mapping[str, Any], symbol: str) -> bool:
    """Whether a bar of history passes the rule for bars of the stream, but for its age."""
    try:
        ns = parse_time_ns(message["t"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return reject_reason({**message, "T": BAR, "S": symbol}, market_ns=ns) is None


def decided_in(query: LakeQuery) -> dict[str, tuple[int, int]]:
    """Per symbol the last bar that the lake holds a decision on, and when that was made.

    Raises:
        LakeError: The lake cannot be read.
    """
    rows = query.sql(
        "SELECT symbol, max(event_time_ns) AS bar_ns, max(epoch_us(known_at)) AS known_us "
        "FROM signals GROUP BY symbol"
    ).to_pylist()
    if any(row["bar_ns"] is None for row in rows):
        raise LakeError("a row of signals has no event time")
    return {row["symbol"]: (row["bar_ns"], row["known_us"] * 1000) for row in rows}
