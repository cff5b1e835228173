"""Trades that come late, are corrected or are cancelled; and the bars that change. Pure.

Only a trade that makes no price of its bar is ever touched: open, high, low and close of a bar
stay, its volume, count and average may change. Which ones is a matter of noise: the same ones
whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.events import MINUTE_NS, SECOND_NS, Message
from pipelines.exchange import noise, ticks
from pipelines.exchange.moments import CANCEL, CORRECTION, Event, unique_ns, when
from pipelines.exchange.pauses import tick_of

AFTER_S = (2.0, 50.0)
"""How long after its trade a correction or a cancellation comes."""

LATE_S = (0.05, 25.0)
"""How long after its minute a late trade comes; the updated bar follows at the half minute."""

CORRECTED_ID = 50_000
"""What is added to the id of a trade to name its correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Part of the trades that are amended, 0 to 1, together at most 1.

    Args:
        correction: Corrected later.
        cancel: Cancelled later.
        late: Published after their minute.
    """

    correction: float = 0.0
    cancel: float = 0.0
    late: float = 0.0

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return self.correction + self.cancel + self.late > 0


@dataclass(frozen=True, slots=True)
class Names:
    """What the messages of each row say of its symbol."""

    symbols: Sequence[str]
    tapes: Sequence[str]
    exchanges: str

    def exchange(self, number: int) -> str:
        """Where a tick of a number was printed."""
        return self.exchanges[number % len(self.exchanges)]


@dataclass(frozen=True, slots=True)
class Amended:
    """One minute with its amendments.

    Args:
        walked: The ticks that are published in time.
        bars: The bars as they are published right after the minute.
        trades: Their averages.
        events: What comes later, by publication; some of it in the minutes that follow.
    """

    walked: ticks.Ticks
    bars: ticks.Bars
    trades: ticks.Trades
    events: list[Event]


def first_number(start_ns: int) -> int:
    """Added to a tick's number in its minute, it makes ids that ascend through the day."""
    return (start_ns // MINUTE_NS % 1440) * 100_000 + 1


def amend(minute: Amended, *, rates: Rates, names: Names, start_ns: int, last: bool) -> Amended:
    """A minute and what becomes of its trades later.

    Args:
        minute: The minute as it was walked, without events.
        rates: How much of it is amended.
        names: For the messages.
        start_ns: Its start.
        last: Whether it is the last of its session: then no trade of it is late.
    """
    walked, bars = minute.walked, minute.bars
    row = np.searchsorted(bars.symbol, walked.symbol)
    u = noise.uniform(noise.at(bars.key[row], ticks.AMEND), walked.number)
    free = walked.is_trade & _free(walked, bars, row)
    corrected = free & (u < rates.correction)
    cancelled = free & ~corrected & (u < rates.correction + rates.cancel)
    late = free & ~corrected & ~cancelled & (u < rates.correction + rates.cancel + rates.late)
    if last:
        late[:] = False
    # How far into its chance a trade lies decides when its amendment comes.
    place = noise.uniform(noise.at(bars.key[row], ticks.AMEND + 1), walked.number)
    events = [
        _correction(walked, bars, i, int(row[i]), float(place[i]), names, start_ns)
        for i in np.flatnonzero(corrected).tolist()
    ]
    events += [
        _cancel(walked, i, float(place[i]), names, start_ns)
        for i in np.flatnonzero(cancelled).tolist()
    ]
    if not late.any():
        return replace(minute, events=sorted(events, key=when))
    for i in np.flatnonzero(late).tolist():
        due = start_ns + MINUTE_NS + _seconds(LATE_S, float(place[i]))
        trade = _trade(walked, i, names, start_ns)
        key = ("trades", trade["S"])
        events.append(Event(due, int(walked.time_ns[i]), key, trade))
    fewer, trades = _without(minute, walked, late, row)
    for b in np.flatnonzero(fewer.trades != bars.trades).tolist():
        whole = bar_message(bars, minute.trades, b, names, kind="u")
        due = start_ns + MINUTE_NS * 3 // 2
        events.append(Event(due, start_ns, ("updatedBars", whole["S"]), whole))
    return Amended(_some(walked, ~late), fewer, trades, sorted(events, key=when))


def bar_message(
    bars: ticks.Bars, trades: ticks.Trades, b: int, names: Names, *, kind: str
) -> Message:
    """One bar as a message of a kind, without its time."""
    return {
        "T": kind, "S": names.symbols[int(bars.symbol[b])],
        "o": float(bars.open[b]), "h": float(bars.high[b]), "l": float(bars.low[b]),
        "c": float(bars.close[b]), "v": int(bars.volume[b]), "n": int(bars.trades[b]),
        "vw": float(trades.vwap[b]), "t": None,
    }  # fmt: skip


def _free(walked: ticks.Ticks, bars: ticks.Bars, row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which ticks, taken as trades, make no price of their bar."""
    inside = (walked.number > 0) & (walked.number < bars.trades[row] - 1)
    free: NDArray[np.bool_] = (
        inside & (walked.price > bars.low[row]) & (walked.price < bars.high[row])
    )
    return free


def _trade(walked: ticks.Ticks, i: int, names: Names, start_ns: int) -> Message:
    row, number = int(walked.symbol[i]), int(walked.number[i]) + first_number(start_ns)
    return {
        "T": "t", "S": names.symbols[row], "i": number, "x": names.exchange(number),
        "p": float(walked.price[i]), "s": int(walked.size[i]),
        "c": ["@", "I"] if walked.odd_lot[i] else ["@"], "t": None, "z": names.tapes[row],
    }  # fmt: skip


def _correction(
    walked: ticks.Ticks, bars: ticks.Bars, i: int, b: int, place: float, names: Names, start_ns: int
) -> Event:
    """The correction of a trade: a tick more or less in price, or another size."""
    old = _trade(walked, i, names, start_ns)
    tick = float(tick_of(bars.open[b : b + 1])[0])
    step = tick if place * 2 % 1 < 0.5 else -tick
    price = min(max(round(old["p"] + step, 6), float(bars.low[b])), float(bars.high[b]))
    size = old["s"] if place < 0.5 else max(1, old["s"] // 2)
    message: Message = {
        "T": "c", "S": old["S"], "x": old["x"], "oi": old["i"], "op": old["p"], "os": old["s"],
        "oc": old["c"], "ci": old["i"] + CORRECTED_ID, "cp": price, "cs": size, "cc": old["c"],
        "t": None, "z": old["z"],
    }  # fmt: skip
    return _later(walked, i, place, ("corrections", old["S"]), message, CORRECTION)


def _cancel(walked: ticks.Ticks, i: int, place: float, names: Names, start_ns: int) -> Event:
    old = _trade(walked, i, names, start_ns)
    message: Message = {
        "T": "x", "S": old["S"], "i": old["i"], "x": old["x"], "p": old["p"], "s": old["s"],
        "a": "C" if place < 0.8 else "E", "t": None, "z": old["z"],
    }  # fmt: skip
    return _later(walked, i, place, ("cancelErrors", old["S"]), message, CANCEL)


def _later(
    walked: ticks.Ticks, i: int, place: float, key: tuple[str, str], message: Message, kind: int
) -> Event:
    near = int(walked.time_ns[i]) + _seconds(AFTER_S, place)
    at_ns = unique_ns(near, row=int(walked.symbol[i]), kind=kind)
    return Event(at_ns, at_ns, key, message)


def _seconds(span: tuple[float, float], place: float) -> int:
    return int((span[0] + (span[1] - span[0]) * place) * SECOND_NS)


def _without(
    minute: Amended, walked: ticks.Ticks, late: NDArray[np.bool_], row: NDArray[np.int64]
) -> tuple[ticks.Bars, ticks.Trades]:
    """The bars without their late trades."""
    bars, trades = minute.bars, minute.trades
    size = trades.size.copy()
    size[row[late], walked.number[late]] = 0
    count = bars.trades - np.bincount(row[late], minlength=len(bars.trades))
    volume = size.sum(axis=1)
    fewer = count != bars.trades
    vwap = np.sum(trades.price * size, axis=1) / np.maximum(volume, 1)
    vwap = np.where(fewer, np.clip(np.round(vwap, 6), bars.low, bars.high), trades.vwap)
    return replace(bars, trades=count, volume=volume), replace(trades, vwap=vwap)


def _some(walked: ticks.Ticks, keep: NDArray[np.bool_]) -> ticks.Ticks:
    return ticks.Ticks(*(getattr(walked, name)[keep] for name in ticks.Ticks.__slots__))
