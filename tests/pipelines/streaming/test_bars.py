"""The fold of one symbol: laws over any cut of the stream, and each rule by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import partial
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import DAY_NS, MINUTE_NS, SECOND_NS, Record, effective_ns, parse_time_ns
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.market import remaining
from pipelines.exchange.playback import Playback
from pipelines.exchange.synthetic import SyntheticMarket
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder, batch
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, SPECS
from pipelines.streaming import bars as bars_module
from pipelines.streaming import derived as derived_module
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.derived import Derived
from pipelines.streaming.parts import Part, Start, op_of_trade
from pipelines.streaming.reduce import add

T0 = parse_time_ns("2011-01-03T14:30:00Z")


def cold(_before_ns: int) -> Start:
    return Start()


def bar(minute: int, close: float = 10.0, volume: float = 5.0):
    return ["b", T0 + minute * MINUTE_NS, close, close, close, close, volume, 1, close]


def trade(second: float, price: float = 10.0, size: float = 5.0, conditions=("@",)):
    return op_of_trade(T0 + int(second * SECOND_NS), price, size, conditions)


def quote(second: float, bid: float = 9.99, ask: float = 10.01):
    return ["q", T0 + int(second * SECOND_NS), bid, ask]


def gap(from_s: float | None, to_s: float):
    from_ns = None if from_s is None else T0 + int(from_s * SECOND_NS)
    return ["g", from_ns, T0 + int(to_s * SECOND_NS)]


def parts(*ops_at: tuple[float, list], epoch: str = "run-1") -> list[Part]:
    """One part per ``(second, ops)``; wall time runs like market time."""
    return [
        Part(epoch, i, int(s * SECOND_NS), T0 + int(s * SECOND_NS), ops)
        for i, (s, ops) in enumerate(ops_at, start=1)
    ]


def fold(stream, state=None, start_of=cold):
    return (state or SymbolState()).fold(stream, start_of=start_of)


@st.composite
def streams(draw):
    """Records of about four minutes: trades, quotes, most vendor bars, gaps, heartbeats."""
    ops = []
    for minute in range(draw(st.integers(1, 4))):
        for second in sorted(draw(st.lists(st.integers(0, 59), max_size=5))):
            at = minute * 60 + second
            price = draw(st.sampled_from([9.99, 10.0, 10.5]))
            ops.append((at, draw(st.sampled_from([trade(at, price), quote(at), gap(at - 9, at)]))))
        if draw(st.booleans()):
            ops.append(((minute + 1) * 60 + 0.5, bar(minute)))
    ops.sort(key=lambda x: x[0])
    return parts(*((at, [op]) for at, op in ops), (400, []), (410, []))


@settings(max_examples=80, deadline=None)
@given(streams(), st.lists(st.integers(0, 30), max_size=4))
def test_fold_cut_into_batches_anywhere_gives_the_same(stream, cuts):
    whole = SymbolState()
    expected = fold(stream, whole)
    state, got = SymbolState(), []
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    for begin, end in pairwise(edges):
        got += fold(stream[begin:end], state)
        state = SymbolState.from_bytes(state.to_bytes())
    assert got == expected
    assert state.to_bytes() == whole.to_bytes()


@settings(max_examples=50, deadline=None)
@given(streams(), st.data())
def test_fold_with_records_repeated_gives_the_same(stream, data):
    repeated = []
    for i, part in enumerate(stream):
        repeated.append(part)
        repeated += stream[max(0, i - data.draw(st.integers(0, 3))) : i + 1]
    assert fold(repeated) == fold(stream)


@settings(max_examples=50, deadline=None)
@given(streams())
def test_fold_closes_each_minute_once_and_forward(stream):
    starts = [closed.bar.start_ns for closed in fold(stream)]
    assert starts == sorted(set(starts))


def test_vendor_bar_closes_its_minute_with_the_spread_of_its_quotes():
    (closed,) = fold(parts((1, [quote(0)]), (60.5, [bar(0)])))
    assert closed.bar.source == "vendor"
    assert closed.bar.spread_bps == pytest.approx(20.0)
    assert not closed.row.spread_assumed
    assert closed.reason == "warming_up"


def test_bar_without_quotes_assumes_the_spread():
    (closed,) = SymbolState(assumed_spread_bps=7.0).fold(parts((60, [bar(0)])), start_of=cold)
    assert closed.row.values[-1] == 7.0
    assert closed.row.spread_assumed


def test_own_bar_stands_in_five_wall_seconds_after_the_minute():
    stream = parts(
        (1, [trade(1, 10.0, 3)]), (2, [trade(2, 12.0, 4)]), (3, [trade(3, 11.0, 5)]),
        (4, [trade(4, 99.0, 6, ["@", "I"])]), (60, []), (64.9, []), (65, []), (66, [bar(0)]),
    )  # fmt: skip
    state = SymbolState()
    assert fold(stream[:6], state) == []
    (closed,) = fold(stream[6:], state)
    own = closed.bar
    assert own.source == "trades"
    assert (own.open, own.high, own.low, own.close, own.volume) == (10.0, 12.0, 10.0, 11.0, 18.0)
    assert own.trade_count == 4
    assert state.counters["stand_ins"] == 1
    assert state.counters["late_bars"] == 1


def test_minute_of_odd_lots_alone_makes_no_bar():
    assert fold(parts((1, [trade(1, conditions=["I"])]), (60, []), (70, []))) == []


def test_vendor_bar_of_the_next_minute_closes_the_missing_one_first():
    closed = fold(parts((1, [trade(1)]), (121, [bar(1)])))
    assert [c.bar.source for c in closed] == ["trades", "vendor"]


def test_vendor_bar_that_differs_from_the_trades_is_counted():
    state = SymbolState()
    fold(parts((1, [trade(1, 10.0, 5)]), (61, [bar(0), trade(61, 11.0), bar(1)])), state)
    assert state.counters["mismatches"] == 1


def test_vendor_bar_of_a_minute_with_a_gap_is_not_compared():
    state = SymbolState()
    fold(parts((9, [gap(None, 9), trade(10)]), (61, [bar(0), trade(61)]), (121, [bar(1)])), state)
    assert state.counters["mismatches"] == 0
    fold(parts((130, []), (131, []), (132, []), (133, [trade(133, 7.0)]), (181, [bar(2)])), state)
    assert state.counters["mismatches"] == 1


def test_bar_brings_how_far_our_own_lies_from_the_vendors():
    stream = parts((1, [trade(1, 10.0, 6)]), (61, [bar(0)]), (121, [bar(1)]))
    compared, alone = (c.derived["stats"]["own_bar"] for c in fold(stream))
    assert compared["agrees"] is False
    assert compared["differences"] == {
        "open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0, "volume": pytest.approx(0.2),
    }  # fmt: skip
    assert alone["agrees"] is alone["differences"] is None


def test_bar_brings_the_statistics_of_the_trades_that_make_a_price():
    stream = parts(
        (1, [trade(1, 10.0), trade(2, 12.0), trade(3, 99.0, conditions=["I"])]), (61, [bar(0)]),
    )  # fmt: skip
    (closed,) = fold(stream)
    stats = closed.derived["stats"]
    assert (stats["count"], stats["min"], stats["max"], stats["mean"]) == (2, 10.0, 12.0, 11.0)
    assert stats["sliding"]["5m"]["bars"] == 1


def test_first_bar_after_history_has_its_indicators():
    derived = Derived()
    for m in range(-300, 0):
        close = 10 + (m % 7) / 100
        derived.push(ClosedBar(T0 + m * MINUTE_NS, close, close, close, close, 5))
    start = replace(history(300), derived=derived.state())
    (closed,) = fold(parts((60.5, [bar(0)])), start_of=lambda _: start)
    assert None not in closed.derived["indicators"].values()


def test_window_without_its_last_minute_closes_by_time_once_no_minute_waits():
    state = SymbolState(derived=partial(Derived, lateness_ns=30 * SECOND_NS))
    stream = parts(
        (60, [bar(0)]), (239, [trade(239)]), (329, []), (330, []), (334, []), (335.1, []),
    )  # fmt: skip
    closed = []
    for part in stream[:-2]:
        closed += fold([part], state)
        assert state.rolled() == []
    closed += fold(stream[-2:], state)  # our own bar stands in first
    assert [c.bar.source for c in closed] == ["vendor", "trades"]
    (five,) = state.rolled()
    assert (five["bar"]["window"], five["event_time"]) == ("5m", "2011-01-03T14:30:00Z")
    assert five["bar"]["volume"] == 10.0
    assert state.rolled() == []


def test_forming_bar_is_given_at_most_so_often_and_never_once_it_closed():
    state, every = SymbolState(), SECOND_NS
    fold(parts((60, [bar(0)]), (61, [trade(61, 11.0, 2)])), state)
    first = state.forming(every_ns=every)
    assert (first["event_time"], first["bar"]["close"]) == ("2011-01-03T14:31:00Z", 11.0)
    assert first["values"]["log_return_1"] == pytest.approx(np.log(11 / 10))
    state = SymbolState.from_bytes(state.to_bytes())
    fold([Part("run-1", 3, int(61.5 * SECOND_NS), T0 + 62 * SECOND_NS, [trade(62, 12.0)])], state)
    assert state.forming(every_ns=every) is None
    fold([Part("run-1", 4, 62 * SECOND_NS, T0 + 63 * SECOND_NS, [])], state)
    assert state.forming(every_ns=every)["bar"]["close"] == 12.0
    fold([Part("run-1", 5, 121 * SECOND_NS, T0 + 121 * SECOND_NS, [bar(1)])], state)
    assert state.forming(every_ns=every) is None


def of_version_1(state: SymbolState, **lacks: None) -> bytes:
    """What the first version wrote: all but the window was one document."""
    data = state.to_bytes()
    size = 4 + int.from_bytes(data[:4], "big")
    head = orjson.loads(data[4:size])
    window = data[size + head["derived"] :]
    head |= {"v": 1, "derived": state._derived.state()}
    text = orjson.dumps({k: v for k, v in head.items() if k not in lacks})
    return len(text).to_bytes(4, "big") + text + window


@settings(max_examples=50, deadline=None)
@given(streams(), st.data())
def test_state_of_the_first_version_goes_on_as_it_was(stream, data):
    cut = data.draw(st.integers(0, len(stream)))
    state = SymbolState()
    fold(stream[:cut], state)
    again = SymbolState.from_bytes(of_version_1(state))
    assert fold(stream[cut:], again) == fold(stream[cut:], state)
    assert again.to_bytes() == state.to_bytes()


def test_state_that_no_bar_touches_keeps_what_follows_from_bars_as_it_is(monkeypatch):
    state = SymbolState()
    fold(parts((60, [bar(0)])), state)
    before = state.to_bytes()
    made: list[object] = []
    monkeypatch.setattr(derived_module, "_OfBars", lambda *_: made.append(1))
    monkeypatch.setattr(bars_module, "FeatureBuilder", lambda *_, **__: made.append(1))
    again = SymbolState.from_bytes(before)
    fold([Part("run-1", 9, 10**18, T0 + 61 * SECOND_NS, [trade(61, 12.0)])], again)
    assert again.to_bytes() != before
    assert not made


def test_state_of_an_older_version_goes_on_without_what_it_lacks():
    state = SymbolState()
    fold(parts((60, [bar(0)])), state)
    again = SymbolState.from_bytes(of_version_1(state, derived=None))
    later = [Part("run-1", 9, 10**18, T0 + 121 * SECOND_NS, [bar(1)])]
    assert fold(later, again)[0].derived["stats"]["count"] == 0


def test_state_of_a_newer_version_is_refused_by_its_version():
    data = SymbolState().to_bytes()
    newer = data.replace(b'"v":2', b'"v":3', 1)
    assert newer != data
    with pytest.raises(ValueError, match="state of version 3; this code reads 2"):
        SymbolState.from_bytes(newer)


def test_real_exchange_bars_agree_with_our_own():
    market = SyntheticMarket(DEFAULT_SYMBOLS, seed=7, start_date=date(2025, 1, 2))
    sessions = remaining(market.playable(), after_ns=None, max_minutes=10)
    playback = Playback(market, sessions, seed=7, messages_per_minute=120)
    states: dict[str, SymbolState] = {}
    compared = 0
    while (batch := playback.due(2**62)) is not None:
        for i, text in enumerate(batch.json()):
            message = orjson.loads(text)
            ns = effective_ns(message)
            rows: dict[str, list] = {}
            add(Record(f"{ns}-{i}", 1, 1, ns, ns, [message]), rows)
            for symbol, found in rows.items():
                fold([Part(*part) for part in found], states.setdefault(symbol, SymbolState()))
                compared += message["T"] == "b"
    assert compared == 200
    assert sum(state.counters["compared"] for state in states.values()) == 200
    assert max(len(state.to_bytes()) for state in states.values()) < 8_000
    assert sum(state.counters["mismatches"] for state in states.values()) == 0


def test_bar_at_or_before_the_last_is_late_and_ignored():
    state = SymbolState()
    assert len(fold(parts((121, [bar(1), bar(1), bar(0)])), state)) == 1
    assert state.counters["late_bars"] == 2


def test_gap_flags_three_bars_and_no_more():
    stream = parts(
        *((60 * m + 60, [bar(m)]) for m in range(5)), (310, [gap(300, 310)]),
        *((60 * m + 60, [bar(m)]) for m in range(5, 10)),
    )  # fmt: skip
    flags = [c.gap for c in fold(stream)]
    assert flags == [False] * 5 + [True] * 3 + [False] * 2
    assert [c.reason for c in fold(stream)][5] == "gap"


def test_gap_without_beginning_at_the_start_of_a_minute_flags_nothing():
    assert [c.gap for c in fold(parts((0, [gap(None, 0)]), (60, [bar(0)])))] == [False]
    assert [c.gap for c in fold(parts((30, [gap(None, 30)]), (60, [bar(0)])))] == [True]


def history(n: int) -> Start:
    builder = FeatureBuilder()
    for m in range(-n, 0):
        builder.push(ClosedBar(T0 + m * MINUTE_NS, 10, 10, 10, 10 + (m % 7) / 100, 5))
    return Start(builder.state(), tuple(T0 + m * MINUTE_NS for m in (-3, -2, -1)))


def test_first_bar_after_history_is_warm():
    asked = []

    def start_of(before_ns: int) -> Start:
        asked.append(before_ns)
        return history(512)

    (closed,) = fold(parts((60.5, [bar(0)])), start_of=start_of)
    assert closed.row.warm
    assert closed.reason is None
    assert asked == [T0]  # not what the record itself brings


def test_market_that_starts_anew_with_a_new_producer_begins_anew():
    state = SymbolState()
    day = [Part("a", 1, 10**18, T0 + 10**13, [["b", T0 + 10**13, *bar(0)[2:]]])]
    assert len(fold(day, state)) == 1
    asked = []
    again = [Part("b", 1, 10**18 + 1, T0 + 60 * SECOND_NS, [bar(0)])]
    closed = fold(again, state, start_of=lambda ns: asked.append(ns) or Start())
    assert len(closed) == 1
    assert asked == [T0]
    assert closed[0].row.values[0] is None


@pytest.mark.parametrize(
    ("away_ns", "anew"),
    [
        (4 * MINUTE_NS, False),
        (7 * MINUTE_NS, True),
        (60 * MINUTE_NS, True),
        (DAY_NS, True),  # T0 is a Monday's open: a whole session was missed
        (5000 * DAY_NS, True),  # synthetic after a replay
    ],
)
def test_new_producer_after_missed_open_minutes_begins_from_history(away_ns, anew):
    state, asked = SymbolState(), []
    fold(parts((60.5, [bar(0)])), state)
    then = T0 + MINUTE_NS + away_ns
    later = ["b", then, *bar(0)[2:]]
    part = Part("b", 1, 10**18, then + MINUTE_NS // 2, [later])
    (closed,) = fold([part], state, start_of=lambda ns: asked.append(ns) or Start())
    assert asked == ([then] if anew else [])
    assert (closed.row.values[0] is None) is anew


def test_new_producer_next_morning_goes_on():
    close = T0 + 390 * MINUTE_NS
    state, asked = SymbolState(), []
    fold([Part("a", 1, 1, close, [["b", close - MINUTE_NS, *bar(0)[2:]]])], state)
    morning = Part("b", 1, 2, T0 + DAY_NS + MINUTE_NS, [["b", T0 + DAY_NS, *bar(0)[2:]]])
    (closed,) = fold([morning], state, start_of=lambda ns: asked.append(ns) or Start())
    assert asked == []
    assert closed.row.values[0] is not None


def test_running_producer_of_a_quiet_symbol_goes_on():
    state = SymbolState()
    fold(parts((60.5, [bar(0)])), state)
    late = Part("run-1", 9, 10**18, T0 + 61 * MINUTE_NS, [bar(60)])
    (closed,) = fold([late], state, start_of=lambda _: pytest.fail("asked"))
    assert closed.row.values[0] is not None


def test_gap_of_a_producer_that_begins_from_history_flags_its_first_bars():
    state = SymbolState()
    fold(parts((60.5, [bar(0)])), state)
    back = parts(
        (3610, [gap(61, 3610)]), (3660, [bar(60)]), (3720, [bar(61)]), (3780, [bar(62)]),
        (3840, [bar(63)]), epoch="run-2",
    )  # fmt: skip
    before = Start(starts=tuple(T0 + m * MINUTE_NS for m in (57, 58, 59)))
    assert [c.gap for c in fold(back, state, start_of=lambda _: before)] == [True] * 3 + [False]


def test_new_producer_in_the_same_market_goes_on():
    state = SymbolState()
    first = fold(parts((60, [bar(0)])), state)
    then = fold(parts((120, [bar(1)]), epoch="run-2"), state)
    assert len(first) == len(then) == 1
    assert then[0].row.values[0] is not None


def test_bars_decided_before_are_marked_and_fill_the_window():
    start = Start(decided_ns=T0 + MINUTE_NS, known_ns=200 * SECOND_NS)
    stream = parts((60, [bar(0)]), (120, [bar(1)]), (180, [bar(2)]))
    closed = fold(stream, start_of=lambda _: start)
    assert [c.decided for c in closed] == [True, True, False]
    assert closed[2].row.values[0] is not None


def test_state_after_much_noise_stays_bounded():
    stream = [
        Part(f"run-{i}", 1, i, T0 + i * MINUTE_NS, [trade(60 * i), gap(i, i + 1), quote(60 * i)])
        for i in range(2000)
    ]
    state = SymbolState()
    for part in stream:
        fold([part], state)
    assert len(state.to_bytes()) < 100_000


def test_state_of_another_version_is_refused():
    data = SymbolState().to_bytes().replace(b'"v":2', b'"v":9')
    with pytest.raises(ValueError, match="version 9"):
        SymbolState.from_bytes(data)


def _minutes(n: int) -> list[ClosedBar]:
    rng = np.random.default_rng(5)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.05, n)), 2)
    return [
        ClosedBar(T0 + i * MINUTE_NS, c, c + 0.02 * (i % 3), c - 0.03, c, 10.0 + i % 7, 3, c)
        for i, c in enumerate(close.tolist())
    ]


def _closing(bars, first: int):
    """Each bar as its message right after its minute; ``first`` is the number of the first."""
    ops = [["b", b.start_ns, b.open, b.high, b.low, b.close, b.volume, 3, 1] for b in bars]
    return parts(*((60 * (first + i + 1), [op]) for i, op in enumerate(ops)))


def _history(bars, spec):
    """History that ends where it is asked to, as the warm-up gives it."""

    def start_of(before_ns: int) -> Start:
        builder, starts = FeatureBuilder(spec), []
        for known in bars:
            if known.start_ns + MINUTE_NS <= before_ns:
                builder.push(known)
                starts.append(known.start_ns)
        return Start(window=builder.state(), starts=tuple(starts[-3:]))

    return start_of


def _expected(bars, spec):
    return batch(
        close=[b.close for b in bars], volume=[b.volume for b in bars], spread_bps=2.0,
        high=[b.high for b in bars], low=[b.low for b in bars],
        start_ns=[b.start_ns for b in bars], spec=spec,
    )  # fmt: skip


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_fold_of_each_spec_warmed_up_and_restarted_equals_the_batch_at_every_bar(spec):
    bars = _minutes(130)
    state, closed = SymbolState(spec), []
    for i, part in enumerate(_closing(bars[70:], 70)):
        closed += fold([part], state, _history(bars[:70], spec))
        if i % 20 == 7:
            state = SymbolState.from_bytes(state.to_bytes(), spec)
    got = np.array([c.row.values for c in closed], dtype=float)
    np.testing.assert_allclose(got, _expected(bars, spec)[70:], rtol=0, atol=1e-9)
    assert {c.row.spec.fingerprint for c in closed} == {spec.fingerprint}


@pytest.mark.parametrize("back", [False, True])
def test_state_of_other_features_goes_on_over_history_without_losing_a_bar(back):
    bars = _minutes(100)
    before, after = (EXTENDED_SPEC, FEATURE_SPEC) if back else (FEATURE_SPEC, EXTENDED_SPEC)
    stream = _closing(bars[70:], 70)
    state = SymbolState(before)
    fold(stream[:15], state, _history(bars[:70], before))
    state = SymbolState.from_bytes(state.to_bytes(), after)
    closed = fold(stream, state, _history(bars[:85], after))  # the first 15 are repeats
    got = np.array([c.row.values for c in closed], dtype=float)
    np.testing.assert_allclose(got, _expected(bars, after)[85:], rtol=0, atol=1e-9)


def test_state_of_other_features_is_cold_where_history_lacks_its_last_bar():
    bars = _minutes(100)
    stream = _closing(bars[70:], 70)
    state = SymbolState()
    fold(stream[:15], state, _history(bars[:70], FEATURE_SPEC))
    state = SymbolState.from_bytes(state.to_bytes(), EXTENDED_SPEC)
    first, *_ = fold(stream, state, _history(bars[:84], EXTENDED_SPEC))
    assert not first.row.warm
