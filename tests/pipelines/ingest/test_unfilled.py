"""Gaps that wait to be filled: what the stream holds says, exactly, what is left to do."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import format_time_ns
from pipelines.ingest.gaps import GapTracker, account
from pipelines.ingest.unfilled import MAX_GAPS, Filling, Gap, Unfilled

BASE_NS = 1_700_000_040_000_000_000


def _trade(at: int, i: int = 0, **changed):
    t = format_time_ns(BASE_NS + at)
    return {"T": "t", "S": "SPY", "i": i, "p": 1.0, "s": 1, "t": t, **changed}


def _row(from_: int, to: int, **changed):
    bounds = {"from_ns": BASE_NS + from_, "to_ns": BASE_NS + to}
    return {"T": "gap", "S": "SPY", "reason": "x", **bounds, **changed}


def _gap(from_: int, to: int) -> Gap:
    return Gap("SPY", BASE_NS + from_, BASE_NS + to, "x")


def _stored(tracker: GapTracker, messages) -> None:
    _, note = tracker.seal(messages, BASE_NS)
    tracker.commit(note)
    tracker.stored(note)


def test_tracker_gap_row_that_is_stored_waits_to_be_filled() -> None:
    tracker = GapTracker({"SPY": BASE_NS})
    row = {"T": "gap", "S": "SPY", "to_ns": BASE_NS + 9, "reason": "x"}
    _, note = tracker.seal([row], BASE_NS)
    tracker.commit(note)
    assert len(tracker.unfilled) == 0
    tracker.stored(note)
    assert tracker.unfilled.gaps() == [_gap(0, 9)]


def test_tracker_first_subscription_is_no_gap_to_fill() -> None:
    tracker = GapTracker()
    _stored(tracker, [{"T": "gap", "S": "SPY", "to_ns": BASE_NS, "reason": "x"}])
    assert len(tracker.unfilled) == 0


def test_tracker_second_row_ends_a_gap_and_declares_none() -> None:
    tracker = GapTracker({"SPY": BASE_NS})
    _stored(tracker, [{"T": "gap", "S": "SPY", "to_ns": BASE_NS + 9, "reason": "x"}])
    out, note = tracker.seal([second := _row(0, 9, backfilled=True)], BASE_NS)
    assert (list(out), note.n_messages, note.n_gaps) == ([second], 0, 0)
    tracker.stored(note)
    assert len(tracker.unfilled) == 0
    tracker.stored(account([_row(0, 9)], BASE_NS))  # a record that was sent again
    assert len(tracker.unfilled) == 0


def test_tracker_what_speaks_of_the_past_moves_no_mark() -> None:
    tracker = GapTracker({"SPY": BASE_NS})
    late = [_trade(100, T=kind) for kind in "cxdu"]
    late += [_trade(200, bf=True), _row(0, 300, backfilled=True)]
    _, note = tracker.seal(late, BASE_NS)
    assert note.marks == {}
    assert note.n_messages == 5
    rows, note = tracker.seal(
        [_trade(50), _trade(200, bf=True), {"T": "gap", "S": "SPY", "to_ns": BASE_NS + 60}], BASE_NS
    )
    assert rows[2]["from_ns"] == BASE_NS + 49
    assert note.marks == {"SPY": BASE_NS + 59}


def test_tracker_bad_message_that_says_it_is_backfilled_is_no_step() -> None:
    tracker = GapTracker()
    _, note = tracker.seal([_trade(1, bf=True, t="?"), _trade(1, bf=True, p=-1)], BASE_NS)
    assert note.filling.steps == {}
    assert note.n_messages == 2


@given(
    st.lists(st.integers(1, 12), max_size=30),
    st.lists(st.integers(1, 10), max_size=12),
    st.integers(0, 2**32),
)
def test_unfilled_any_number_of_kills_leaves_no_message_out_and_none_twice(
    times: list[int], cuts: list[int], seed: int
) -> None:
    """Filling is cut into records; after any of them the process dies and begins again."""
    rng = random.Random(seed)
    history = [_trade(at, i) for i, at in enumerate(sorted(times))]
    inside = [i for i, at in enumerate(sorted(times)) if at < 12]
    written: list[int] = []
    gaps = Unfilled()
    gaps.stored(account([_row(0, 12)], BASE_NS).filling)
    todo = list(filter(gaps.gaps()[0].missing("t"), history))
    while cuts or todo:
        while todo:
            size = cuts.pop() if cuts else 3
            record, todo = todo[:size], todo[size:]
            marked = [{**m, "bf": True} for m in record]
            gaps.stored(account(marked, BASE_NS).filling)
            written += [m["i"] for m in record]
            if rng.random() < 0.5:
                break
        gaps = Unfilled(json.loads(json.dumps(gaps.to_json())))
        if not todo:
            cuts.clear()
        todo = list(filter(gaps.gaps()[0].missing("t"), history))
    assert written == inside
    (gap,) = gaps.gaps()
    assert (gap.done["t"].count if gap.done else 0) == len(inside)


def test_unfilled_step_goes_to_the_gap_that_holds_its_time() -> None:
    gaps = Unfilled()
    gaps.stored(Filling(declared=(_gap(0, 10), _gap(20, 30))))
    gaps.stored(account([_trade(25, bf=True)], BASE_NS).filling)
    assert [set(gap.done) for gap in gaps.gaps()] == [set(), {"t"}]


def test_unfilled_gives_up_the_oldest_beyond_its_bound() -> None:
    gaps = Unfilled()
    for n in range(MAX_GAPS + 1):
        gaps.stored(Filling(declared=(_gap(2 * n, 2 * n + 1),)))
    assert len(gaps) == MAX_GAPS
    assert gaps.gaps()[0] == _gap(2, 3)


def test_unfilled_market_that_began_again_leaves_nothing_to_fill() -> None:
    tracker = GapTracker({"SPY": BASE_NS + 1000})
    tracker.unfilled.stored(Filling(declared=(_gap(0, 10),)))
    tracker.rewind(BASE_NS)
    assert len(tracker.unfilled) == 0
