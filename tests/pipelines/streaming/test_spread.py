"""The spread meter against an oracle that looks at every instant."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, SECOND_NS
from pipelines.streaming.spread import MAX_IN_FORCE_NS, SpreadMeter

QUOTES = st.lists(
    st.tuples(
        st.integers(0, 179),
        st.sampled_from([0.0, 99.0, 100.0]),
        st.sampled_from([100.0, 101.0, 90.0]),
    ),
    max_size=20,
)


def _bps(bid, ask):
    return None if bid <= 0 or ask <= 0 or ask < bid else (ask - bid) / ((ask + bid) / 2) * 1e4


@given(QUOTES)
def test_close_of_three_minutes_equals_sampling_each_second(quotes):
    quotes = sorted(quotes, key=lambda q: q[0])
    meter = SpreadMeter()
    expected, got = [], []
    for minute in range(3):
        for second, bid, ask in (q for q in quotes if q[0] // 60 == minute):
            meter.quote(second * SECOND_NS, bid=bid, ask=ask)
        got.append(meter.close(minute * MINUTE_NS))
        seen = []
        for second in range(minute * 60, minute * 60 + 60):
            in_force = [q for q in quotes if q[0] <= second]
            if in_force and (bps := _bps(*in_force[-1][1:])) is not None:
                seen.append(bps)
        expected.append(sum(seen) / len(seen) if seen else None)
    assert got == [None if e is None else pytest.approx(e, abs=1e-9) for e in expected]


def test_close_after_a_quiet_night_gives_none():
    meter = SpreadMeter()
    meter.quote(0, bid=99, ask=101)
    assert meter.close(MAX_IN_FORCE_NS) is None


def test_quote_of_the_next_minute_before_close_leaves_the_minute_alone():
    meter = SpreadMeter()
    meter.quote(0, bid=99, ask=101)
    meter.quote(MINUTE_NS + 1, bid=100, ask=100)
    assert meter.close(0) == pytest.approx(200)


@given(QUOTES, st.integers(0, 20))
def test_meter_restored_from_json_goes_on_alike(quotes, cut):
    whole, parts = SpreadMeter(), SpreadMeter()
    for i, (second, bid, ask) in enumerate(quotes):
        if i == cut:
            state, parts = orjson.loads(orjson.dumps(parts.state())), SpreadMeter()
            parts.restore(state)
        whole.quote(second * SECOND_NS, bid=bid, ask=ask)
        parts.quote(second * SECOND_NS, bid=bid, ask=ask)
    assert [whole.close(m * MINUTE_NS) for m in range(3)] == [
        parts.close(m * MINUTE_NS) for m in range(3)
    ]
