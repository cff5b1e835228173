"""Bars that turned out to be others: the next revision of bar and features, and no new signal.

The archive says which bars to look at (:mod:`pipelines.lake.dirty`). Each is made anew from what
the lake knows now; if it says something else than its newest row in ``features``, it becomes the
next revision of that row, with the features over the bars before it as they stand now. The row is
committed, then the items ``bar`` and ``features`` of that revision are published, with indicators;
the roll-ups that hold it follow (:mod:`pipelines.streaming.redone`). Nothing that was known before
is changed: :mod:`pipelines.lake.views` tells what was known when.

To look twice changes nothing, so a look that is cut short is simply repeated. What was committed
and not published is published before anything else is committed; so a driver that takes over
publishes the last batch once more, whether it needs to or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Protocol

import pyarrow as pa

from pipelines.clock import wall_ns
from pipelines.errors import Fenced, LakeError, StreamError
from pipelines.events import (
    DAY_NS,
    MARKET_DAY_BEGINS_NS,
    MINUTE_NS,
    format_time_ns,
    market_day,
)
from pipelines.features.bar import ClosedBar
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.lake.dirty import Dirty
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter
from pipelines.ports import ItemSink
from pipelines.streaming.bars import GAPPED_BARS
from pipelines.streaming.known import Known, Minutes
from pipelines.streaming.outbox import (
    Indicators,
    features_table,
    indicators_of,
    items_of,
)
from pipelines.streaming.rebuild import Row, current_bar, same_bar, touches
from pipelines.streaming.redone import SYMBOLS, Redone
from pipelines.streaming.remade import DEEP, Remake, bar_of_row
from pipelines.streaming.rows import derived_items
from pipelines.streaming.warmup import StartLoader

QUERY: Final = "revisions"
_FEATURES: Final = "features"
_FOLLOWING: Final = GAPPED_BARS - 1
"""Bars after a gap whose features look back over it."""
_REST: Final = 4
_LONGEST_REST_S: Final = 30.0
_PUBLISH_AGAIN_NS: Final = DAY_NS
_WAIT_FOR_FEATURES_NS: Final = DAY_NS

_log = logging.getLogger(__name__)


class ToLookAt(Protocol):
    """Where dirty bars come from; :class:`pipelines.streaming.archive.Archive` is one."""

    def look(self) -> Dirty:
        """The bars to look at, as of now."""
        ...

    def looked_at(self, done: Dirty) -> None:
        """Forget these, but not what became dirty again since the look began."""
        ...


@dataclass(frozen=True, slots=True)
class _Work:
    """What is looked at together of one symbol and trading day.

    Args:
        symbol: The symbol.
        day: The trading day.
        minutes: Its minutes, ascending.
        done: What is no longer dirty after that.
        corrected_ns: Corrections of the day that were received up to then are seen with it.
    """

    symbol: str
    day: int
    minutes: tuple[int, ...]
    done: Dirty
    corrected_ns: int | None = None


class Revisions:
    """One driver's revisions. Passes do not overlap, whoever calls :meth:`run`.

    Args:
        writer: The lake.
        archive: Says what is dirty.
        sink: ``market-signals``.
        history: Bars from before the lake began, for the features' window.
        spec: The features.
        assumed_spread_bps: ``spread_bps`` of a bar without quotes.
        limit: Minutes of one pass, about.
        clock: Wall time, nanoseconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        archive: ToLookAt,
        sink: ItemSink,
        history: StartLoader,
        spec: FeatureSpec = FEATURE_SPEC,
        *,
        assumed_spread_bps: float = 2.0,
        limit: int = 500,
        clock: Callable[[], int] = wall_ns,
    ) -> None:
        self._writer = writer
        self._archive = archive
        self._sink = sink
        self._spec = spec
        self._remake = Remake(spec, history, assumed_spread_bps=assumed_spread_bps)
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self.rest_s = 0.0
        """How long to wait at least before the next pass, so that on a busy machine the queries go
        first: four times what the last one took, and not at all if it left something."""
        self._lake = LakeQuery(writer.uri, writer.storage_options)
        self._redone = Redone(self._lake)
        self._generation = 0
        self._seen_ns: dict[tuple[str, int], int] = {}  # last correction of a symbol's day
        self._unpublished: list[dict[str, Any]] = []
        self._featureless_ns: dict[str, int] = {}  # since when, wall time
        self._stats: dict[str, Any] = {
            "passes": 0, "looked_at": 0, "revisions": 0, "rollups": 0, "unknown": 0,
            "given_up": 0, "last_pass_ms": None,
        }  # fmt: skip

    def open(self) -> None:
        """Take over from any older driver; the first pass publishes what it may have left.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(QUERY, tables=(_FEATURES,))
        last = self._writer.last_batch(_FEATURES, QUERY)
        if last is None:
            return
        self._redone.find()
        try:
            rows = self._writer.read_batch(_FEATURES, QUERY, last)
        except LakeError as error:
            _log.info("the last revisions were published long ago: %s", error)
            return
        if rows is not None and rows.num_rows:
            known_ns = int(rows["known_at"][0].value) * 1000
            if self._clock() - known_ns < _PUBLISH_AGAIN_NS:
                self._unpublished = _items(rows, self._indicators(rows))

    def run(self, *, stopped: Callable[[], bool] = lambda: False) -> int:
        """Look at what is dirty, as much as one pass may.

        Args:
            stopped: Asked between groups of symbols; whether to leave the rest.

        Returns:
            How many minutes were looked at. What the query ``signals`` has not come to yet waits.

        Raises:
            Fenced: A newer driver does this now.
            LakeError: The lake cannot be read or written.
            StreamError: The items could not be stored.
        """
        with self._lock:
            return self._pass(stopped)

    def settle(self, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Pass until nothing is due that can be done now; whether it came to that.

        Args:
            stopped: Asked between groups of symbols; whether to leave the rest.

        Raises:
            Fenced: A newer driver does this now.
            LakeError: The lake cannot be read or written.
            StreamError: The items could not be stored.
        """
        while not stopped():
            if self.run(stopped=stopped) == 0 and self._redone.settled:
                return True
        return False

    def _pass(self, stopped: Callable[[], bool]) -> int:
        started = time.perf_counter()
        self.rest_s = 0.0
        self._publish()
        self._publish_redone()
        dirty = self._archive.look()
        looked = 0
        failed: Exception | None = None
        if len(dirty):
            with self._asked() as known:
                for works in self._together(self._plan(dirty, known)):
                    if stopped() or looked >= self._limit:
                        break
                    looked += sum(len(work.minutes) for work in works)
                    failed = self._try(works) or failed
            self._stats["passes"] += 1
            self._stats["looked_at"] += looked
            self._stats["last_pass_ms"] = (time.perf_counter() - started) * 1000
        if self._redone.waiting:
            with self._asked() as known:
                self._redone.look(known.newest(self._redone.since()))
        if failed is not None:
            raise failed
        if looked < self._limit:  # else more is waiting
            self.rest_s = min(_REST * (time.perf_counter() - started), _LONGEST_REST_S)
        return looked

    def _try(self, works: Sequence[_Work]) -> Exception | None:
        """Look at some; where that fails, symbol by symbol, so that one does not stop the others.

        Returns:
            What went wrong with one of them, whose minutes stay dirty.
        """
        try:
            with self._asked() as known:  # anew: it sees what was committed before
                self._revise(works, known)
        except (Fenced, LakeError, StreamError):
            raise
        except Exception as error:  # noqa: BLE001 - raised when the others are done
            by_symbol = [list(own) for _, own in groupby(works, attrgetter("symbol"))]
            if len(by_symbol) == 1:
                _log.exception("bars of %s", works[0].symbol)
                return error
            failed = [self._try(own) for own in by_symbol]
            return next((one for one in failed if one is not None), None)
        for work in works:
            self._archive.looked_at(work.done)
            if work.corrected_ns is not None:
                self._seen_ns[work.symbol, work.day] = work.corrected_ns
        return None

    @contextmanager
    def _asked(self) -> Iterator[Known]:
        with self._lake.held() as lake:
            yield Known(lake, window=DEEP)

    def _publish_redone(self) -> None:
        """Publish the roll-ups that are ready: those of the pass before."""
        while spans := self._redone.due():
            payloads = self._redone.payloads(spans)
            self._sink.put_items(list(derived_items(payloads)))
            self._redone.published(spans)
            self._stats["rollups"] += sum(len(payload["rollups"]) for payload in payloads)

    def stats(self) -> dict[str, Any]:
        """Counters since this driver started, JSON types."""
        return dict(self._stats)

    def _plan(self, dirty: Dirty, known: Known) -> Iterator[_Work]:
        """What can be looked at now: day by day, the newest first, and by symbol.

        What belongs to a symbol that is given up is no longer dirty at once.
        """
        newest = known.newest(_since(dirty))
        after = known.after(dirty.after)
        lasts: dict[str, int] = {}
        minutes: dict[tuple[int, str], set[int]] = {}
        ends: dict[tuple[int, str], set[int]] = {}  # by the day that is looked at last
        for symbol in sorted({*dirty.minutes, *dirty.days, *dirty.after}):
            last = lasts[symbol] = newest.get(symbol, -1)
            if self._given_up(symbol, last):
                del lasts[symbol]
                all_of_it = dirty.of(symbol)
                self._stats["given_up"] += len(all_of_it)
                self._archive.looked_at(all_of_it)
                continue
            closed = {m for m in dirty.minutes.get(symbol, ()) if m <= last}
            for end, following in after.get(symbol, {}).items():
                if len(following) >= _FOLLOWING:  # else the last of them is still to come
                    closed.update(following[:_FOLLOWING])
                    ends.setdefault((_day(following[0]), symbol), set()).add(end)
            for minute in closed:
                minutes.setdefault((_day(minute), symbol), set()).add(minute)
        days = {day for day, _ in (*minutes, *ends)}
        for day in sorted(days.union(*dirty.days.values()), reverse=True):
            corrected = [symbol for symbol in lasts if day in dirty.days.get(symbol, ())]
            found = known.corrected(corrected, day) if corrected else {}
            for symbol, last in lasts.items():
                own = minutes.get((day, symbol), set())
                if symbol in corrected:
                    work = self._corrected(symbol, day, found.get(symbol, {}), last)
                    own = own.difference(work.minutes)
                    yield work
                rest = sorted(own)
                for begin in range(0, len(rest), self._limit):  # a pass is bounded
                    few = tuple(rest[begin : begin + self._limit])
                    yield _Work(symbol, day, few, Dirty({symbol: set(few)}))
                if those := ends.get((day, symbol)):
                    yield _Work(symbol, day, (), Dirty(after={symbol: those}))

    def _corrected(self, symbol: str, day: int, found: Mapping[int, int], last: int) -> _Work:
        """The minutes of a day that were corrected since they were looked at, as far as closed."""
        seen_ns = self._seen_ns.get((symbol, day), 0)
        fresh = {m for m, at_ns in found.items() if at_ns > seen_ns}
        now = {m for m in fresh if m <= last}
        done = Dirty({symbol: now})
        if later := fresh - now:
            corrected_ns = min(found[m] for m in later) - 1
        else:
            done = Dirty({symbol: now}, {symbol: {day}})
            corrected_ns = max(found.values(), default=0)
        return _Work(symbol, day, tuple(sorted(now)), done, corrected_ns)

    def _together(self, works: Iterable[_Work]) -> Iterator[list[_Work]]:
        """Those of a trading day, about as many minutes as a pass may do."""
        together: list[_Work] = []
        minutes, symbols = 0, set[str]()
        for work in works:
            minutes += len(work.minutes)
            symbols.add(work.symbol)
            other_day = bool(together) and together[0].day != work.day
            if other_day or (together and (minutes > self._limit or len(symbols) > SYMBOLS)):
                yield together
                together, minutes, symbols = [], len(work.minutes), {work.symbol}
            together.append(work)
        if together:
            yield together

    def _given_up(self, symbol: str, last: int) -> bool:
        """Whether a symbol has had no features for so long that it never may have any."""
        if last >= 0:
            self._featureless_ns.pop(symbol, None)
            return False
        now = self._clock()
        return now - self._featureless_ns.setdefault(symbol, now) > _WAIT_FOR_FEATURES_NS

    def _revise(self, works: Sequence[_Work], known: Known) -> None:
        """Look at minutes of one trading day; one commit for all that changed."""
        wanted: dict[str, set[int]] = {}
        for work in works:
            if work.minutes:
                wanted.setdefault(work.symbol, set()).update(work.minutes)
        if not wanted:
            return
        found = known.of({symbol: sorted(minutes) for symbol, minutes in wanted.items()})
        looked = {symbol: self._changed(minutes) for symbol, minutes in found.items()}
        changed = {symbol: bars for symbol, bars in looked.items() if bars}
        if not changed:
            return
        payloads = list(self._payloads(changed, found, known))
        rows = features_table(payloads, known_ns=self._clock())
        self._writer.commit(
            _FEATURES,
            rows,
            query_id=QUERY,
            batch_id=self._writer.next_batch(_FEATURES, QUERY),
            generation=self._generation,
        )
        self._stats["revisions"] += rows.num_rows
        _log.info("%d bars revised of %s", rows.num_rows, ", ".join(changed))
        for symbol, bars in changed.items():
            self._redone.touch(symbol, bars)
        self._unpublished = _items(rows, indicators_of(payloads))
        self._publish()

    def _changed(self, found: Minutes) -> dict[int, ClosedBar]:
        """The bars that are others than their newest rows say."""
        bars: dict[int, ClosedBar] = {}
        for minute in found.wanted:
            start_ns = minute * MINUTE_NS
            bar = current_bar(
                start_ns,
                vendor=found.vendor.get(minute, ()),
                trades=found.trades.get(minute, ()),
                corrected_at_ns=found.corrected_at_ns.get(minute),
                complete=not touches(found.gaps, start_ns, start_ns + MINUTE_NS),
            )
            if bar is None:
                self._stats["unknown"] += 1
            else:
                bars[minute] = bar
        starts = self._starts(found, bars)
        return {
            minute: bar
            for minute, bar in bars.items()
            if (row := found.features.get(minute)) is None
            or not same_bar(bar, row)
            or (row["gap"] and not self._gapped(found, starts, bar.start_ns))
        }

    def _payloads(
        self,
        changed: Mapping[str, Mapping[int, ClosedBar]],
        found: Mapping[str, Minutes],
        known: Known,
    ) -> Iterator[dict[str, Any]]:
        """What :func:`features_table` takes, for each changed bar, oldest first by symbol."""
        unmeasured = {
            symbol: [
                minute
                for minute in bars
                if (row := found[symbol].features.get(minute)) is None or row["spread_assumed"]
            ]
            for symbol, bars in changed.items()
        }
        spreads = known.spreads({s: minutes for s, minutes in unmeasured.items() if minutes})
        for symbol, bars in changed.items():
            yield from self._payloads_of(symbol, bars, found[symbol], spreads.get(symbol, {}))

    def _payloads_of(
        self,
        symbol: str,
        changed: Mapping[int, ClosedBar],
        found: Minutes,
        spreads: Mapping[int, float | None],
    ) -> Iterator[dict[str, Any]]:
        rows = found.features
        starts = self._starts(found, changed)
        wanted: dict[int, ClosedBar] = {}
        for minute, bar in changed.items():
            row = rows.get(minute)
            measured = None if row is None or row["spread_assumed"] else row["spread_bps"]
            wanted[minute] = replace(bar, spread_bps=spreads.get(minute, measured))
        for made in self._remake.walk(symbol, found, wanted):
            row = rows.get(made.bar.start_ns // MINUTE_NS)
            yield {
                "symbol": symbol,
                "event_time": format_time_ns(made.bar.start_ns),
                "bar": made.bar.data(),
                "values": made.row.values,
                "fingerprint": self._spec.fingerprint,
                "warm": made.row.warm,
                "spread_assumed": made.row.spread_assumed,
                "gap": self._gapped(found, starts, made.bar.start_ns),
                "revision": 1 if row is None else row["revision"] + 1,
                "indicators": made.indicators,
            }

    def _indicators(self, rows: pa.Table) -> Indicators:
        """The indicators of rows that were committed, over the bars as they stand now."""
        days: dict[int, dict[str, dict[int, ClosedBar]]] = {}
        for row in rows.to_pylist():
            minute = row["event_time_ns"] // MINUTE_NS
            bars = days.setdefault(_day(minute), {}).setdefault(row["symbol"], {})
            bars[minute] = bar_of_row(row)
        indicators: dict[tuple[str, int], Mapping[str, float | None]] = {}
        with self._asked() as known:
            for by_symbol in days.values():
                found = known.of({symbol: sorted(bars) for symbol, bars in by_symbol.items()})
                for symbol, bars in by_symbol.items():
                    for made in self._remake.walk(symbol, found[symbol], bars):
                        indicators[symbol, made.bar.start_ns] = made.indicators
        return indicators

    @staticmethod
    def _starts(found: Minutes, bars: Iterable[int]) -> list[int]:
        rows: Sequence[Row] = [*found.before[-GAPPED_BARS:], *found.between]
        return sorted({row["event_time_ns"] for row in rows} | {m * MINUTE_NS for m in bars})

    @staticmethod
    def _gapped(found: Minutes, starts: Sequence[int], start_ns: int) -> bool:
        """Whether a gap touches one of the last bars up to this one, as the signals have it."""
        at = starts.index(start_ns)
        begin_ns = starts[max(0, at - GAPPED_BARS + 1)]
        return touches(found.gaps, begin_ns, start_ns + MINUTE_NS)

    def _publish(self) -> None:
        """Publish what was committed; until that is done, nothing else is."""
        if self._unpublished:
            self._sink.put_items(self._unpublished)
            self._unpublished = []


def _items(rows: pa.Table, indicators: Indicators) -> list[dict[str, Any]]:
    return list(items_of(rows, TABLES["signals"].schema.empty_table(), indicators))


def _since(dirty: Dirty) -> dict[str, int]:
    """The first dirty minute of each symbol."""
    found = ((s, m) for of in (dirty.minutes, dirty.after) for s, m in of.items() if m)
    firsts: dict[str, int] = {}
    for symbol, minutes in found:
        first = min(minutes)
        firsts[symbol] = min(first, firsts.get(symbol, first))
    for symbol, days in dirty.days.items():
        begin = (min(days) * DAY_NS + MARKET_DAY_BEGINS_NS) // MINUTE_NS
        firsts[symbol] = min(begin, firsts.get(symbol, begin))
    return firsts


def _day(minute: int) -> int:
    return market_day(minute * MINUTE_NS)
