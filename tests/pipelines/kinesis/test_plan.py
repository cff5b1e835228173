"""The shard planner: enough for every limit, never more than helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import bucket_of
from pipelines.kinesis.plan import (
    HEADROOM,
    MAX_SHARDS,
    READS_PER_S,
    Rates,
    Reader,
    plan_shards,
    shard_of,
)

SYMBOLS = [f"S{n}" for n in range(300)]
rates = st.dictionaries(st.sampled_from(SYMBOLS), st.floats(0, 3000), min_size=1, max_size=60)


@given(rates)
def test_plan_stays_within_every_limit_or_names_the_hot_symbol(of):
    plan = plan_shards(Rates(of), readers=(Reader("a", 1),), fan_out=1)
    assert plan.shards >= 1
    assert plan.shards >= max(need.shards for need in plan.needs) or plan.shards == MAX_SHARDS
    if not plan.hot and plan.shards < MAX_SHARDS:
        assert plan.busiest_share <= max(HEADROOM * 1.1001, 0)
    for symbol in plan.hot:
        together = sum(rate for s, rate in of.items() if bucket_of(s) == bucket_of(symbol))
        assert together * 160 > 0.3 * 1_000_000


@given(rates, st.floats(1, 5))
def test_plan_never_shrinks_when_the_load_grows(of, factor):
    small = plan_shards(Rates(of)).needs
    large = plan_shards(Rates({s: rate * factor for s, rate in of.items()})).needs
    at_least = {n.limit: n.shards for n in large}
    assert all(
        at_least.get(n.limit, n.shards) >= n.shards for n in small if "busiest" not in n.limit
    )


def test_plan_for_twenty_quiet_symbols_is_one_shard():
    assert plan_shards(Rates(dict.fromkeys(SYMBOLS[:20], 10.0))).shards == 1


def test_plan_with_many_pollers_counts_what_they_read():
    of = Rates(dict.fromkeys(SYMBOLS, 10.0))
    pollers = tuple(Reader(str(n), 0.5) for n in range(8))
    alone, shared = plan_shards(of), plan_shards(of, readers=pollers)
    assert shared.shards > alone.shards
    assert shared.needs[0].limit == "bytes read a second by 8 polling"
    assert shared.polling_fits
    assert not plan_shards(of, readers=(Reader("x", READS_PER_S + 1),)).polling_fits


def test_plan_names_a_symbol_that_is_too_hot_and_does_not_pile_up_shards():
    plan = plan_shards(Rates({**dict.fromkeys(SYMBOLS[:20], 10.0), "SPY": 9000.0}))
    assert plan.hot[0] == "SPY"
    assert plan.shards <= 6


@pytest.mark.parametrize("shards", [1, 2, 5, 64])
def test_shard_of_is_one_of_them(shards):
    assert {shard_of(bucket, shards) for bucket in range(64)} <= set(range(shards))


def test_plan_without_symbols_or_with_a_wrong_headroom_is_refused():
    with pytest.raises(ValueError, match="symbols"):
        plan_shards(Rates({}))
    with pytest.raises(ValueError, match="headroom"):
        plan_shards(Rates({"SPY": 1.0}), headroom=0)
