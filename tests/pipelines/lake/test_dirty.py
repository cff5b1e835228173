"""Sets of dirty minutes and days."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.lake.dirty import Dirty

_SETS = st.dictionaries(
    st.sampled_from(["SPY", "KO", "BA"]), st.sets(st.integers(0, 9), min_size=1), max_size=3
)
_DIRTY = st.builds(Dirty, _SETS, _SETS, _SETS)


@given(_DIRTY, _DIRTY)
def test_plus_then_minus_leaves_what_was_only_in_the_first(a, b):
    assert set(a.plus(b).minus(b)) == set(a) - set(b)
    assert set(a.plus(b)) == set(a) | set(b)


@given(_DIRTY)
def test_dict_of_it_reads_back(dirty):
    assert Dirty.from_dict(dirty.to_dict()) == dirty
    assert Dirty.from_dict({}) == Dirty()


@given(_DIRTY, st.integers(0, 40))
def test_bounded_keeps_the_newest_minutes_and_all_days(dirty, limit):
    kept, left_out = dirty.bounded(limit)
    assert set(kept) <= set(dirty)
    assert len(kept) + left_out == len(dirty)
    assert (kept.days, kept.after) == (dirty.days, dirty.after)
    gone = [number for kind, _, number in dirty.minus(kept) if kind == "minute"]
    minutes = [number for kind, _, number in kept if kind == "minute"]
    assert not gone or not minutes or max(gone) <= min(minutes)
    assert len(kept) <= limit or not minutes
