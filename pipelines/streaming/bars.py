"""From ordered messages of one symbol to closed bars and their features. Pure.

This is the state of the query ``signals``.

The closed bar is the vendor's bar message. Our own bar from trades checks it, and stands in when
the vendor's did not come within 5 s of wall time after the end of its minute (as told by the
stamps of the records), or when a later one came first. Bars go forward only: one at or before
the last closed minute is counted as late and ignored.

A bar is *gapped* when a declared gap overlaps the time from the beginning of the third last bar
to the end of this one, that is when one of the three bars that the fastest features look at, or
what lay between them, may be incomplete. A gap without a beginning (the first subscription)
reaches back to the start of its minute: what was before is covered by history.

A new producer begins anew, from history, if its market is another one (it is back by more than
:data:`REWIND_NS`) or has gone on for more than :data:`JUMP_NS` of open hours since the last bar:
history has the bars that were missed, the window has not. The gap that it declares flags the
first bars all the same: the trades and quotes of its minute are missing.

Our own bar is compared with the vendor's only if no declared gap overlaps its minute.

The state is a function of the records alone, in whatever batches they come, and is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.streaming.derived import Derived, agree, differences
from pipelines.streaming.notice import REWIND_NS, STAND_IN_AFTER_NS
from pipelines.streaming.open_time import JUMP_NS, open_ns
from pipelines.streaming.parts import Decidable, Part, Start, StartOf
from pipelines.streaming.spread import SpreadMeter

GAPPED_BARS: Final = 3
"""Last bars in which a gap makes the features gapped."""

_MAX_EPOCHS: Final = 8
_MAX_MINUTES: Final = 512
_MAX_GAPS: Final = 32
_STATE_VERSION: Final = 2
_READABLE: Final = (1, _STATE_VERSION)
_COUNTERS: Final = (
    "late_bars", "stand_ins", "compared", "mismatches", "duplicates", "late_trades", "backfilled",
    "skipped",
)  # fmt: skip


class SymbolState:
    """Folds the parts of one symbol.

    Args:
        spec: The features.
        assumed_spread_bps: Spread of a bar without quotes.
        derived: Makes what else follows from the bars.
    """

    def __init__(
        self,
        spec: FeatureSpec = FEATURE_SPEC,
        *,
        assumed_spread_bps: float = 2.0,
        derived: Callable[[], Derived] = Derived,
    ) -> None:
        self._spec = spec
        self._assumed = assumed_spread_bps
        self._windowless = False  # whether its window is one of other features
        self._new_derived = derived
        self._made: FeatureBuilder | None = None  # of the window, when it is needed
        self._rolled: list[dict[str, Any]] = []
        self._marks: dict[str, int] = {}
        self._market_ns = self._sent_ns = self._formed_ns = 0
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self._begin(Start())

    def fold(self, parts: Iterable[Part], *, start_of: StartOf) -> list[Decidable]:
        """Take parts in; the bars that they closed, oldest first.

        Args:
            parts: In the order of the stream.
            start_of: Asked where to begin before the first part, and when the market starts anew.
        """
        closed: list[Decidable] = []
        for part in parts:
            mark = self._marks.get(part.epoch)
            if mark is not None and part.bseq <= mark:
                self.counters["duplicates"] += 1
                continue
            if not self._marks or (mark is None and self._elsewhere(part.market_ns)):
                self._begin(start_of(_history_end(part)))
            elif self._windowless:
                self._find_window(start_of)
            self._marks.pop(part.epoch, None)
            self._marks[part.epoch] = part.bseq
            while len(self._marks) > _MAX_EPOCHS:
                del self._marks[next(iter(self._marks))]
            self._market_ns, self._sent_ns = part.market_ns, part.sent_at_ns
            for op in part.ops:
                self._apply(op, part, closed)
            self._stand_in(part, closed)
            self._rolled += self._derived.idle(part.market_ns, pending=self._minutes)
        return closed

    def rolled(self) -> list[dict[str, Any]]:
        """Roll-ups that closed by time alone since the last call."""
        rolled, self._rolled = self._rolled, []
        return rolled

    def forming(self, *, every_ns: int) -> dict[str, Any] | None:
        """The bar that forms from trades, with its features, unless it was given shortly before.

        Its spread is the assumed one. It is never decided on.

        Args:
            every_ns: Least wall time between two, by the stamps of the records.
        """
        start = max(self._minutes, default=0)
        if self._sent_ns - self._formed_ns < every_ns or start <= max(self._starts, default=0):
            return None
        open_, high, low, close, volume, trades, paid, _ = self._minutes[start]
        if open_ is None:
            return None
        self._formed_ns = self._sent_ns
        vwap = paid / volume if volume > 0 else None
        bar = ClosedBar(start, open_, high, low, close, volume, trades, vwap, None, "trades")
        return {
            "event_time": bar.event_time,
            "at_ns": self._market_ns,
            "bar": bar.data(),
            "values": self._builder.preview(bar).named(),
        }

    def to_bytes(self) -> bytes:
        """Everything it knows; :meth:`from_bytes` goes on from there.

        Three pieces: what any record may change, what follows from the bars, and their window. The
        others stay as they are until a bar closes, which few batches of a symbol bring.
        """
        derived = self._derived.to_bytes()
        head = orjson.dumps(
            {
                "v": _STATE_VERSION,
                "spec": self._spec.fingerprint,
                "marks": list(self._marks.items()),
                "market_ns": self._market_ns,
                "starts": self._starts,
                "decided": [self._decided_ns, self._known_ns],
                "gaps": self._gaps,
                "minutes": list(self._minutes.items()),
                "spread": self._spread.state(),
                "counters": self.counters,
                "derived": len(derived),
                "formed_ns": self._formed_ns,
            }
        )
        window = self._window if self._made is None else self._made.state()
        return b"".join((len(head).to_bytes(4, "big"), head, derived, window))

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        spec: FeatureSpec = FEATURE_SPEC,
        *,
        assumed_spread_bps: float = 2.0,
        derived: Callable[[], Derived] = Derived,
    ) -> SymbolState:
        """The state that :meth:`to_bytes` wrote; of other features, all but their window.

        Raises:
            ValueError: Another version wrote it.
        """
        size = 4 + int.from_bytes(data[:4], "big")
        head = orjson.loads(data[4:size])
        if head["v"] not in _READABLE:
            raise ValueError(f"state of version {head['v']}; this code reads {_STATE_VERSION}")
        self = cls(spec, assumed_spread_bps=assumed_spread_bps, derived=derived)
        self._marks = dict(head["marks"])
        self._market_ns = head["market_ns"]
        self._starts = head["starts"]
        self._decided_ns, self._known_ns = head["decided"]
        self._gaps = head["gaps"]
        self._minutes = dict(head["minutes"])
        self._spread.restore(head["spread"])
        self.counters |= head["counters"]
        window = size
        if head["v"] == 1:
            self._derived.restore(head.get("derived", ()))  # none: an older one wrote it
        else:
            window += head["derived"]
            self._derived.from_bytes(data[size:window])
        self._formed_ns = head.get("formed_ns", 0)
        # Older versions wrote no spec: there was one.
        self._windowless = head.get("spec", FEATURE_SPEC.fingerprint) != spec.fingerprint
        if not self._windowless:
            self._window = data[window:]
        return self

    def _find_window(self, start_of: StartOf) -> None:
        """Go on with other features, over history; cold if that ends before the last bar."""
        self._windowless = False
        if self._starts:
            start = start_of(self._starts[-1] + MINUTE_NS)
            if start.starts[-1:] == (self._starts[-1],):
                self._builder.restore(start.window)

    @property
    def _builder(self) -> FeatureBuilder:
        made = self._made
        if made is None:
            made = self._made = FeatureBuilder(self._spec, assumed_spread_bps=self._assumed)
            made.restore(self._window)
        return made

    def _elsewhere(self, market_ns: int) -> bool:
        """Whether a new producer at a market time cannot go on with this window."""
        if market_ns < self._market_ns - REWIND_NS:
            return True
        last_ns = self._starts[-1] + MINUTE_NS if self._starts else self._market_ns
        return open_ns(last_ns, market_ns) > JUMP_NS

    def _begin(self, start: Start) -> None:
        self._windowless = False
        self._window = start.window
        self._made = None
        self._starts = list(start.starts[-GAPPED_BARS:])
        self._decided_ns, self._known_ns = start.decided_ns, start.known_ns
        self._gaps: list[list[int]] = []
        # Start of a minute: [open|None, high, low, close, volume, trades, sum of price*size,
        # wall time at which its end was first seen, 0 before]
        self._minutes: dict[int, list[Any]] = {}
        self._spread = SpreadMeter()
        self._derived = self._new_derived()
        self._derived.restore(start.derived)

    def _apply(self, op: Sequence[Any], part: Part, closed: list[Decidable]) -> None:
        kind = op[0]
        if kind == "q":
            self._spread.quote(op[1], bid=op[2], ask=op[3])
        elif kind == "t":
            self._trade(*op[1:])
        elif kind == "b":
            self._vendor_bar(op, part, closed)
        elif kind == "g":
            to_ns = op[2]
            from_ns = to_ns - to_ns % MINUTE_NS if op[1] is None else op[1]
            self._gaps = [*self._gaps[1 - _MAX_GAPS :], [from_ns, to_ns]]
        elif kind == "f":
            self.counters["backfilled"] += op[1]
        elif kind == "l":
            self._derived.latency(op[1], op[2])
        elif kind == "x":
            self.counters["skipped"] += 1

    def _trade(self, ns: int, price: float, size: float, in_price: bool) -> None:
        start = ns - ns % MINUTE_NS
        if self._starts and start <= self._starts[-1]:
            self.counters["late_trades"] += 1
            return
        minute = self._minutes.get(start)
        if minute is None:
            minute = self._minutes[start] = [None, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0]
            while len(self._minutes) > _MAX_MINUTES:
                del self._minutes[min(self._minutes)]
        if in_price:
            self._derived.trade(ns, price)
            if minute[0] is None:
                minute[0:4] = price, price, price, price
            else:
                minute[1] = max(minute[1], price)
                minute[2] = min(minute[2], price)
                minute[3] = price
        minute[4] += size
        minute[5] += 1
        minute[6] += price * size

    def _vendor_bar(self, op: Sequence[Any], part: Part, closed: list[Decidable]) -> None:
        start_ns, open_, high, low, close, volume, trades, vwap = op[1:]
        if self._starts and start_ns <= self._starts[-1]:
            self.counters["late_bars"] += 1
            return
        for earlier in sorted(s for s in self._minutes if s < start_ns):
            self._own_bar(earlier, part, closed)
        own = self._minutes.pop(start_ns, None)
        found = None
        if own is not None and own[0] is not None and self._gapless(start_ns):
            found = differences(own[:5], op[2:7])
            self.counters["compared"] += 1
            self.counters["mismatches"] += not agree(found)
        bar = ClosedBar(
            start_ns, open_, high, low, close, volume, trades, vwap, self._spread.close(start_ns)
        )
        self._close(bar, part, closed, found)

    def _gapless(self, start_ns: int) -> bool:
        end_ns = start_ns + MINUTE_NS
        return not any(from_ns < end_ns and to_ns > start_ns for from_ns, to_ns in self._gaps)

    def _stand_in(self, part: Part, closed: list[Decidable]) -> None:
        """Close minutes that have waited for the vendor's bar for too long."""
        due = []
        for start, minute in self._minutes.items():
            if part.market_ns < start + MINUTE_NS:
                continue
            if not minute[7]:
                minute[7] = part.sent_at_ns
            elif part.sent_at_ns - minute[7] >= STAND_IN_AFTER_NS:
                due.append(start)
        if due:
            for start in sorted(s for s in self._minutes if s <= max(due)):
                self._own_bar(start, part, closed)

    def _own_bar(self, start: int, part: Part, closed: list[Decidable]) -> None:
        open_, high, low, close, volume, trades, paid, _ = self._minutes.pop(start)
        if open_ is None:  # nothing but odd lots and the like: no price, no bar
            return
        self.counters["stand_ins"] += 1
        vwap = paid / volume if volume > 0 else None
        spread = self._spread.close(start)
        bar = ClosedBar(start, open_, high, low, close, volume, trades, vwap, spread, "trades")
        self._close(bar, part, closed)

    def _close(
        self,
        bar: ClosedBar,
        part: Part,
        closed: list[Decidable],
        found: Mapping[str, float] | None = None,
    ) -> None:
        self._starts = [*self._starts, bar.start_ns][-GAPPED_BARS:]
        row = self._builder.update(bar)
        begin, end = self._starts[0], bar.start_ns + MINUTE_NS
        self._gaps = [gap for gap in self._gaps if gap[1] > begin]
        gap = any(from_ns < end for from_ns, _ in self._gaps)
        decided = bar.start_ns <= self._decided_ns and part.sent_at_ns <= self._known_ns
        derived = self._derived.update(bar, closes=self._builder.closes, row=row, differences=found)
        closed.append(Decidable(bar, row, gap, part.market_ns, decided, derived))


def _history_end(part: Part) -> int:
    """Market time up to which history is taken: not what the stream is about to bring."""
    first: list[int] = [op[1] for op in part.ops if op[0] == "b"]
    return min([part.market_ns, *first])
