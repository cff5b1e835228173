from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS
from pipelines.exchange import noise, ticks
from pipelines.exchange.market import needed_trades

WIDTH = 60


@st.composite
def bars(draw: st.DrawFn) -> ticks.Bars:
    """Bars of one minute: any shape, also flat ones and ones with less volume than trades."""
    count = draw(st.integers(1, 8))
    rows = []
    for _ in range(count):
        prices = draw(st.lists(st.integers(1, 60_000), min_size=4, max_size=4))
        if draw(st.booleans()):
            prices = [prices[0]] * 4
        low, *middle, high = sorted(p / 100 for p in prices)
        o, c = middle if draw(st.booleans()) else (draw(st.sampled_from([low, high])), middle[0])
        need = int(needed_trades(*(np.array([x]) for x in (o, high, low, c)))[0])
        trades = draw(st.integers(need, WIDTH))
        volume = draw(st.integers(1, 10_000_000) if trades == need else st.integers(trades, 10**8))
        auction = draw(st.sampled_from([0, 1, 50_000]))
        first, last = draw(st.sampled_from([(0, 0), (auction, 0), (0, auction), (7, auction)]))
        rows.append((o, high, low, c, volume + first + last, trades, first, last))
    o, h, low_, c, v, n, first, last = (np.array(x) for x in zip(*rows, strict=True))
    seed = draw(st.integers(0, 1000))
    return ticks.Bars(
        symbol=np.arange(count),
        key=noise.keys(seed, *(str(i) for i in range(count))),
        start_ns=np.full(count, 29_000_000 * MINUTE_NS),
        open=o, high=h, low=low_, close=c, volume=v, trades=n,
        spread_bps=np.full(count, draw(st.sampled_from([0.3, 3.0, 100.0]))),
        depth=np.full(count, draw(st.sampled_from([1.0, 500.0, 1e9]))),
        opening=first, closing=last,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(bars())
def test_walk_any_bar_touches_its_prices_and_sums_to_its_volume(made: ticks.Bars) -> None:
    walked = ticks.walk(made, width=WIDTH)
    for i, n in enumerate(made.trades.tolist()):
        prices, sizes = walked.price[i, :n], walked.size[i, :n]
        assert prices[0] == made.open[i]
        assert prices[-1] == made.close[i]
        assert prices.max() == made.high[i]
        assert prices.min() == made.low[i]
        assert sizes.sum() == made.volume[i]
        ordinary = made.volume[i] - made.opening[i] - made.closing[i]
        assert (sizes >= (1 if ordinary >= n else 0)).all()
        assert prices.size and sizes[0] >= made.opening[i]
        assert sizes[-1] >= made.closing[i]
        assert not walked.size[i, n:].any()
        assert made.low[i] <= walked.vwap[i] <= made.high[i]


@settings(max_examples=100, deadline=None)
@given(bars())
def test_minute_ticks_any_bars_have_unique_ascending_times_inside_the_minute(
    made: ticks.Bars,
) -> None:
    got = ticks.minute_ticks(made, ticks.walk(made, width=WIDTH))
    assert (np.diff(got.time_ns) > 0).all()
    assert got.time_ns[0] > made.start_ns[0]
    assert got.time_ns[-1] < made.start_ns[0] + MINUTE_NS
    assert len(got.time_ns) == 3 * made.trades.sum()


@settings(max_examples=100, deadline=None)
@given(bars())
def test_minute_ticks_any_bars_have_quotes_that_bracket_the_trades(made: ticks.Bars) -> None:
    got = ticks.minute_ticks(made, ticks.walk(made, width=WIDTH))
    book: dict[int, tuple[float, float]] = {}
    rows = zip(got.symbol, got.is_trade, got.price, got.ask, strict=True)
    for symbol, is_trade, price, ask in rows:
        if is_trade:
            bid, offer = book[symbol]
            assert bid <= price <= offer
        else:
            tick = 0.0001 if made.open[symbol] < 1 else 0.01
            assert ask - price >= tick - 1e-9
            assert price >= 0
            book[symbol] = (price, ask)


@settings(max_examples=50, deadline=None)
@given(bars())
def test_walk_of_one_bar_alone_or_in_company_is_the_same(made: ticks.Bars) -> None:
    together = ticks.walk(made, width=WIDTH)
    for i in range(len(made.trades)):
        one = ticks.Bars(*(getattr(made, name)[i : i + 1] for name in ticks.Bars.__slots__))
        alone = ticks.walk(one, width=WIDTH)
        assert (alone.price == together.price[i]).all()
        assert (alone.size == together.size[i]).all()
        assert alone.vwap[0] == together.vwap[i]
