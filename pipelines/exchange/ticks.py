"""Trades and quotes walked inside minute bars. Pure, vectorised over bars.

In: bars. Out: per bar its trades, which touch open, high, low and close exactly and sum to its
volume, and quotes around them (one before each trade that brackets it, one after). All times lie
strictly inside the minute, ascend, and no two of the market are equal. A bar's ticks depend on
seed, symbol and minute only, so history and the live stream agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.events import MINUTE_NS
from pipelines.exchange import noise
from pipelines.exchange.market import Block
from pipelines.exchange.moments import QUANTUM_NS
from pipelines.exchange.noise import Floats, Ints, Keys
from pipelines.exchange.pauses import tick_of

ROUND_LOT = 100
"""Shares; a smaller trade is an odd lot."""

_PATH, _SIZE, _TIME, _QUOTE, _SHAPE = range(5)
AMEND = 5
"""Noise of a bar that others may draw from."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars as flat columns, shape ``(B,)`` each.

    Args:
        symbol: Row of the symbol.
        key: Its noise key of this minute.
        start_ns: Start of the minute.
        open: USD, like the next three.
        high: Highest price.
        low: Lowest price.
        close: Last price.
        volume: Shares, those of auctions included.
        trades: How many.
        spread_bps: Typical quoted spread.
        depth: Typical shares at the best bid and ask.
        opening: Shares of an auction that is the first trade, or 0.
        closing: Shares of an auction that is the last trade, or 0.
    """

    symbol: Ints
    key: Keys
    start_ns: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Ints
    trades: Ints
    spread_bps: Floats
    depth: Floats
    opening: Ints
    closing: Ints


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades of bars, shape ``(B, K)``; of bar ``b`` the first ``bars.trades[b]`` are real.

    Args:
        price: USD.
        size: Shares; 0 beyond the bar's trades.
        vwap: Volume-weighted average price per bar, shape ``(B,)``, rounded to 1e-6 USD.
    """

    price: Floats
    size: Ints
    vwap: Floats


@dataclass(frozen=True, slots=True)
class Ticks:
    """Ticks of one minute over all symbols in time order, flat columns of shape ``(N,)``.

    A trade uses ``price`` and ``size``; a quote ``price`` (bid), ``size`` (bid size), ``ask``,
    ``ask_size``. ``odd_lot`` says which trades the tape marks as odd lots. Those make no price of
    a bar, so the trades that make the bar's own count as round lots, however small they are.
    """

    time_ns: Ints
    symbol: Ints
    is_trade: np.ndarray[tuple[int], np.dtype[np.bool_]]
    odd_lot: np.ndarray[tuple[int], np.dtype[np.bool_]]
    price: Floats
    size: Ints
    ask: Floats
    ask_size: Ints
    number: Ints


def bars_of(block: Block, keys: Keys, columns: slice) -> Bars:
    """The bars of some minutes of a block.

    Args:
        block: A session.
        keys: Noise key per symbol of the block.
        columns: Which of its minutes.
    """
    symbol, minute = np.nonzero(block.present[:, columns])
    start_ns = block.starts_ns[columns][minute]
    nothing = np.zeros(len(symbol), dtype=np.int64)
    opening, closing = block.opening, block.closing
    return Bars(
        symbol=symbol.astype(np.int64),
        key=noise.at(keys[symbol], start_ns // MINUTE_NS),
        start_ns=start_ns,
        open=block.open[:, columns][symbol, minute],
        high=block.high[:, columns][symbol, minute],
        low=block.low[:, columns][symbol, minute],
        close=block.close[:, columns][symbol, minute],
        volume=block.volume[:, columns][symbol, minute],
        trades=block.trades[:, columns][symbol, minute],
        spread_bps=block.spread_bps[:, columns][symbol, minute],
        depth=block.depth[:, columns][symbol, minute],
        opening=nothing if opening is None else opening[:, columns][symbol, minute],
        closing=nothing if closing is None else closing[:, columns][symbol, minute],
    )


def walk(bars: Bars, *, width: int) -> Trades:
    """The trades of bars.

    Args:
        bars: The bars; each has at least the trades that its prices need.
        width: Columns of the result, at least the most trades of a bar. The same width gives
            bit-equal averages whatever bars are asked together.
    """
    index = np.arange(width)
    count = bars.trades[:, None]
    price = _path(bars, index)
    weight = 0.05 - np.log(noise.uniform(noise.at(bars.key, _SIZE)[:, None], index))
    share = np.cumsum(np.where(index < count, weight, 0.0), axis=1)
    share /= share[:, -1:]
    ordinary = bars.volume - bars.opening - bars.closing
    spare = np.maximum(ordinary - bars.trades, 0)[:, None]
    edges = np.floor(share * spare).astype(np.int64)
    size = np.diff(edges, axis=1, prepend=0) + (index < np.minimum(count, ordinary[:, None]))
    size[:, 0] += bars.opening
    size[np.arange(len(size)), bars.trades - 1] += bars.closing
    notional = np.sum(price * size, axis=1)
    vwap = np.where(bars.volume > 0, notional / np.maximum(bars.volume, 1), bars.close)
    # Rounding must not lift it out of the bar.
    vwap = np.clip(np.round(vwap, 6), bars.low, bars.high)
    return Trades(price=price, size=size, vwap=vwap)


def _path(bars: Bars, index: Ints) -> Floats:
    """Prices from open over both extremes to close, with noise, inside the bar; ``(B, K)``."""
    n, o, h, low, c = bars.trades, bars.open, bars.high, bars.low, bars.close
    u = noise.uniform(noise.at(bars.key, _SHAPE)[:, None], np.arange(3))
    low_first = u[:, 0] < np.where(c >= o, 0.75, 0.25)
    first, second = np.where(low_first, low, h), np.where(low_first, h, low)
    # Of three trades only one is free, for the extreme that is neither open nor close.
    only = np.where(h > np.maximum(o, c), h, low)
    free = np.maximum(n - 2, 0)
    at_1 = np.where(n >= 4, 1 + (u[:, 1] * (free - 1)).astype(np.int64), np.minimum(free, 1))
    at_2 = np.where(n >= 4, at_1 + 1 + (u[:, 2] * (n - 2 - at_1)).astype(np.int64), at_1)
    first = np.where(n >= 4, first, np.where(n == 3, only, o))
    second = np.where(n >= 4, second, first)

    k = index[None, :].astype(np.float64)
    a, b, last = at_1[:, None], at_2[:, None], (n - 1)[:, None]
    e1, e2, start, end = first[:, None], second[:, None], o[:, None], c[:, None]
    path = np.where(
        k <= a,
        start + (e1 - start) * k / np.maximum(a, 1),
        np.where(
            k <= b,
            e1 + (e2 - e1) * (k - a) / np.maximum(b - a, 1),
            e2 + (end - e2) * (k - b) / np.maximum(last - b, 1),
        ),
    )
    wiggle = noise.uniform(noise.at(bars.key, _PATH)[:, None], index) - 0.5
    path += wiggle * (0.4 * (h - low))[:, None]
    tick = tick_of(o)[:, None]
    path = np.clip(np.round(np.round(path / tick) * tick, 6), low[:, None], h[:, None])
    path = np.where(k == a, e1, np.where(k == b, e2, path))
    path = np.where(k == last, end, path)
    path[:, 0] = o
    return path


def minute_ticks(bars: Bars, trades: Trades) -> Ticks:
    """Trades and quotes of one minute in time order.

    Args:
        bars: Bars of one minute, at most one per symbol, fewer than 1,024 symbols.
        trades: Their trades.
    """
    rows, width = trades.price.shape
    time_ns = _times(bars, width)
    quote = noise.at(noise.at(bars.key, _QUOTE)[:, None], np.arange(width))
    price = trades.price
    tick = tick_of(bars.open)[:, None]
    typical = np.maximum(bars.open * bars.spread_bps / 1e4 / tick[:, 0] - 1.0, 0.0)[:, None]
    lots = np.clip(bars.depth / ROUND_LOT, 0.0, 1e6)[:, None]

    columns = np.zeros((rows, width, 3, 4))  # per trade: quote, trade, quote; each four numbers
    buys = (quote & np.uint64(1)).astype(bool)
    for slot, shift in ((0, 1), (2, 31)):
        part = quote >> np.uint64(shift)
        draw = ((part & np.uint64(0xFFFF)).astype(np.float64) + 0.5) / 65536.0
        spread = (1.0 + np.floor(-np.log(draw) * typical)) * tick
        at_ask = buys if slot == 0 else ~buys
        bid = np.where(at_ask, np.maximum(np.round(price - spread, 6), 0.0), price)
        ask = np.where(at_ask, price, np.round(price + spread, 6))
        bid_size = ROUND_LOT * (1.0 + np.floor(lots * _exponential((part >> _S16) & _M7)))
        ask_size = ROUND_LOT * (1.0 + np.floor(lots * _exponential((part >> _S23) & _M7)))
        columns[:, :, slot, 0], columns[:, :, slot, 1] = bid, bid_size
        columns[:, :, slot, 2], columns[:, :, slot, 3] = ask, ask_size
    columns[:, :, 1, 0], columns[:, :, 1, 1] = price, trades.size

    odd_lot = np.repeat((trades.size < ROUND_LOT) & ~_makes_price(bars, price), 3, axis=1)
    real = np.repeat(np.arange(width) < bars.trades[:, None], 3, axis=1)
    row, slot_index = np.nonzero(real)
    order = np.argsort(time_ns[real], kind="stable")
    row, slot_index = row[order], slot_index[order]
    flat = columns.reshape(rows, width * 3, 4)[row, slot_index]
    return Ticks(
        time_ns=time_ns[real][order],
        symbol=bars.symbol[row],
        is_trade=slot_index % 3 == 1,
        odd_lot=odd_lot[row, slot_index],
        price=flat[:, 0],
        size=flat[:, 1].astype(np.int64),
        ask=flat[:, 2],
        ask_size=flat[:, 3].astype(np.int64),
        number=slot_index // 3,
    )


def auctions(
    bars: Bars, walked: Ticks, *, opening: list[str], closing: list[str]
) -> dict[int, list[str]]:
    """Positions of the trades that are auctions, and the conditions given for each kind."""
    found: dict[int, list[str]] = {}
    for shares, number, conditions in (
        (bars.opening, np.zeros_like(bars.trades), opening),
        (bars.closing, bars.trades - 1, closing),
    ):
        for b in np.flatnonzero(shares).tolist():
            print_ = walked.is_trade & (walked.symbol == bars.symbol[b])
            for at in np.flatnonzero(print_ & (walked.number == number[b])).tolist():
                found[at] = conditions
    return found


_S16, _S23, _M7 = (np.array(n, dtype=np.uint64) for n in (16, 23, 127))
_QUANTILES = -np.log((np.arange(128) + 0.5) / 128)


def _exponential(bits: Keys) -> Floats:
    """Exponential numbers of mean 1 out of seven bits."""
    result: Floats = _QUANTILES[bits.astype(np.int64)]
    return result


def _makes_price(bars: Bars, price: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which trades are the first, the last or at an extreme of their bar; ``(B, K)``."""
    index = np.arange(price.shape[1])
    ends = (index == 0) | (index == bars.trades[:, None] - 1)
    makes: np.ndarray[Any, np.dtype[np.bool_]] = (
        ends | (price == bars.high[:, None]) | (price == bars.low[:, None])
    )
    return makes


def _times(bars: Bars, width: int) -> Ints:
    """Ascending times of the ``3 * width`` slots of each bar, shape ``(B, 3 * width)``."""
    slots = np.arange(3 * width + 1)
    used = 3 * bars.trades[:, None]
    gap = -np.log(noise.uniform(noise.at(bars.key, _TIME)[:, None], slots))
    place = np.cumsum(np.where(slots <= used, gap, 0.0), axis=1)
    place = (place / place[:, -1:])[:, :-1]
    quanta = MINUTE_NS // QUANTUM_NS
    steps = np.floor(place * (quanta - used - 2)).astype(np.int64) + slots[:-1] + 1
    times: Ints = bars.start_ns[:, None] + steps * QUANTUM_NS + bars.symbol[:, None]
    return times
