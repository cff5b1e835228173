"""The judgement of silence, with a manual clock: faults 2 and 3."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clock import MarketClock
from pipelines.events import MINUTE_NS, SECOND_NS, parse_time_ns
from pipelines.ingest.watch import (
    BARS,
    LEARNED_AFTER,
    TICKS,
    Activity,
    StalenessWatch,
    groups_of,
    phase_at,
)

STALE_S, STALE_BARS_S = 30.0, 180.0
PHASE = "midday"


def _watch(*groups: str) -> StalenessWatch:
    watch = StalenessWatch(stale_s=STALE_S, stale_bars_s=STALE_BARS_S)
    watch.connected(0.0, groups=groups or (TICKS, BARS))
    return watch


def _play(watch, times, *, kind="t", symbol="SPY", until_s, poll_s=1.0):
    """Hear messages at these times, judge all the time; when it was stale first, or None."""
    now_s, waiting = 0.0, sorted(times, reverse=True)
    while now_s < until_s:
        now_s += poll_s
        while waiting and waiting[-1] <= now_s:
            watch.heard({(kind, symbol): 1}, waiting.pop(), phase=PHASE)
        if watch.stale(now_s, phase=PHASE):
            return now_s
    return None


@given(st.floats(0.5, 20), st.floats(600, 3000))
def test_mute_feed_of_any_activity_is_noticed_in_time(per_second, mute_s):
    times = [i / per_second for i in range(int(mute_s * per_second))]
    found = _play(_watch(TICKS), times, until_s=mute_s + 300)
    usual_s = 50 / per_second
    assert found is not None
    assert max(STALE_S, usual_s) - 2 / per_second <= found - mute_s <= max(STALE_S, usual_s) + 2.1


@given(st.integers(0, 10_000), st.floats(20, 900))
def test_quiet_symbol_once_it_is_known_is_left_alone(seed, mean_s):
    rng = random.Random(seed)
    watch, now_s, times = _watch(TICKS), 0.0, []
    for _ in range(LEARNED_AFTER + 200):
        now_s += rng.expovariate(1 / mean_s)
        times.append(now_s)
    for at_s in times[: LEARNED_AFTER + 10]:
        watch.heard({("t", "SPY"): 1}, at_s, phase=PHASE)
    later = times[LEARNED_AFTER + 10 :]
    last_s = times[LEARNED_AFTER + 9]
    for at_s in later:
        assert not watch.stale(at_s, phase=PHASE), at_s - last_s
        watch.heard({("t", "SPY"): 1}, at_s, phase=PHASE)
        last_s = at_s


def test_quiet_symbol_nothing_is_known_of_ends_few_connections():
    rng, watch, now_s, given_up = random.Random(4), _watch(TICKS), 0.0, 0
    for _ in range(40):
        next_s = now_s + rng.expovariate(1 / 900)
        while now_s < next_s:
            now_s = min(now_s + 5, next_s)
            if watch.stale(now_s, phase=PHASE):
                given_up += 1
                watch.gave_up()
                watch.connected(now_s, groups=[TICKS])
        watch.heard({("q", "SPY"): 1}, now_s, phase=PHASE)
    assert given_up <= 8  # in ten hours


def test_mute_feed_that_is_cured_costs_one_connection():
    watch, reconnects = _watch(TICKS), []
    for tick in range(20_000):
        now_s = tick / 10
        mute = 900 <= now_s < 1200 and not reconnects
        if not mute and tick % 2 == 0:
            watch.heard({("t", "SPY"): 1}, now_s, phase=PHASE)
        if watch.stale(now_s, phase=PHASE):
            reconnects.append(now_s)
            watch.gave_up()
            watch.connected(now_s, groups=[TICKS])
    assert reconnects == [pytest.approx(900 + STALE_S, abs=0.5)]


def test_mute_ticks_are_noticed_though_bars_come():
    watch = _watch(TICKS, BARS)
    for second in range(1200):
        if second < 600:
            watch.heard({("t", "SPY"): 5, ("q", "AAPL"): 5}, float(second), phase=PHASE)
        if second % 60 == 0:
            watch.heard({("b", "SPY"): 1, ("b", "AAPL"): 1}, float(second), phase=PHASE)
        if (why := watch.stale(float(second), phase=PHASE)) is not None:
            break
    assert why == "no trades and quotes for 31 s"
    assert second == 599 + 31


def test_mute_bars_are_noticed_though_ticks_come():
    watch = _watch(TICKS, BARS)
    for second in range(6000):
        watch.heard({("t", "SPY"): 5}, float(second), phase=PHASE)
        if second % 60 == 0 and second <= 3600:
            watch.heard({("b", "SPY"): 1}, float(second), phase=PHASE)
        if (why := watch.stale(float(second), phase=PHASE)) is not None:
            break
    assert "minute bars" in (why or "")
    assert 3600 + STALE_BARS_S < second <= 3600 + 320


def test_closed_market_is_never_stale_and_teaches_nothing():
    watch = _watch(TICKS)
    for second in range(300):
        watch.heard({("t", "SPY"): 5}, float(second), phase=PHASE)
    for second in range(300, 60_000, 10):
        watch.quiet_time(float(second))
        assert watch.stale(float(second), phase=PHASE) is None
    assert watch.stale(60_020.0, phase=PHASE) is None
    assert watch.stale(60_025.0, phase=PHASE) is not None


def test_quieter_part_of_the_session_has_its_own_patience():
    watch = _watch(TICKS)
    for second in range(600):
        watch.heard({("t", "SPY"): 5}, float(second), phase="opening")
    for second in range(600, 6000, 20):
        assert watch.stale(float(second), phase=PHASE) is None
        watch.heard({("t", "SPY"): 1}, float(second), phase=PHASE)
    assert watch.limit_s(TICKS, PHASE) > 10 * watch.limit_s(TICKS, "opening")


def test_halted_symbols_are_not_waited_for():
    watch = _watch(TICKS)
    for second in range(600):
        watch.heard({("t", "SPY"): 5}, float(second), phase=PHASE)
    watch.status("SPY", "H")
    assert watch.halted == {"SPY"}
    assert watch.stale(4000.0, phase=PHASE) is None
    watch.status("SPY", "T")
    assert watch.stale(4000.0, phase=PHASE) is not None


def test_symbols_that_left_are_not_waited_for():
    watch = _watch(TICKS)
    for second in range(600):
        watch.heard({("t", "SPY"): 50}, float(second), phase=PHASE)
        if second % 30 == 0:
            watch.heard({("t", "QUIET"): 1}, float(second), phase=PHASE)
    watch.keep(["QUIET"])
    assert watch.stale(1000.0, phase=PHASE) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 500)), min_size=1, max_size=60))
def test_activity_stays_within_what_was_seen(seen):
    activity = Activity()
    rates = []
    for count, over_s in seen:
        activity.learn(count, over_s=over_s)
        rates.append(count / over_s)
        assert min(rates) * 0.999 <= activity.rate <= max(rates) * 1.001


def test_groups_of_channels_that_are_quiet_by_nature_is_empty():
    assert groups_of({"statuses": ["SPY"], "lulds": ["SPY"], "news": ["*"]}) == frozenset()
    assert groups_of({"bars": ["SPY"], "trades": []}) == {BARS}


def test_phase_of_a_simulated_market_follows_its_clock():
    opens = parse_time_ns("2024-01-03T14:30:00Z")
    clock = MarketClock(rate=60, wall_origin_ns=0, sessions=((opens, opens + 390 * MINUTE_NS),))
    phases = [phase_at(clock, minute * SECOND_NS) for minute in (1, 29, 31, 200, 361, 389, 391)]
    assert phases == ["opening", "opening", "midday", "midday", "closing", "closing", None]
