"""The law of gaps over any interruption, without a socket."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.clock import MarketClock
from pipelines.events import bucket_of, effective_ns, format_time_ns
from pipelines.ingest import edges
from pipelines.ingest.gaps import GapTracker, account
from pipelines.ingest.intake import Intake
from pipelines.ingest.unfilled import Unfilled

BASE_NS = 1_700_000_040_000_000_000
MINUTE_NS = 60_000_000_000
SYMBOLS = ("SPY", "AAPL", "TSLA")
FAR = MarketClock(rate=1, wall_origin_ns=0, sessions=((BASE_NS, BASE_NS + MINUTE_NS),))


def _trade(symbol, at_ns, **changed):
    return {"T": "t", "S": symbol, "p": 1.0, "s": 1, "t": format_time_ns(at_ns), **changed}


def _quote(symbol, at_ns, **changed):
    sides = {"bp": 1.0, "bs": 1, "ap": 9e3, "as": 1}
    return {"T": "q", "S": symbol, **sides, "t": format_time_ns(at_ns), **changed}


def _bar(symbol, at_ns):
    ohlc = {"o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1}
    return {"T": "b", "S": symbol, **ohlc, "t": format_time_ns(at_ns - MINUTE_NS)}


class _Queues:
    """The queues of a batcher; sealed whenever asked."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.waiting = {}
        self.written = []

    unsent = 0

    def queue(self, bucket):
        return self.waiting.setdefault(bucket, [])

    def seal(self):
        for waiting in self.waiting.values():
            messages, note = self.tracker.seal(list(waiting), BASE_NS + MINUTE_NS)
            self.tracker.commit(note)
            self.tracker.stored(note)
            self.written += messages
            waiting.clear()


tape_steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from(SYMBOLS)),
        st.tuples(st.just("bars"), st.permutations(SYMBOLS)),
        st.tuples(st.just("future"), st.sampled_from(SYMBOLS)),
    ),
    max_size=40,
)


@given(
    tape_steps, st.lists(st.tuples(st.integers(0, 130), st.integers(1, 30)), max_size=6), st.data()
)
@settings(max_examples=200, deadline=None)
def test_stored_and_declared_missed_make_up_the_tape(plan, outages, data):
    tape, now = [], BASE_NS
    for kind, what in plan:
        now += 1000
        if kind == "trade":
            tape.append(_trade(what, now))
        elif kind == "future":
            tape.append(_trade(what, now + 10**18, future=True))
        else:
            tape += [_bar(symbol, now) for symbol in what]
    tracker = GapTracker(dict.fromkeys(SYMBOLS, BASE_NS))
    queues = _Queues(tracker)
    intake = Intake(queues, tracker)
    intake.clock = FAR
    missed = {i for start, length in outages for i in range(start, start + length)}
    down = False
    for i, message in enumerate(tape):
        if i in missed:
            if not down:
                tracker.interrupted(SYMBOLS, reason="test")
            down = True
            continue
        down = False
        intake.take([dict(message)], received_ns=1)
        if data.draw(st.booleans()):
            queues.seal()
    intake.write_gaps(tracker.close(now + 1), wall_ns=1)
    queues.seal()
    stored = {(m["T"], m["S"], m["t"]) for m in queues.written if m["T"] != "gap"}
    gaps = [m for m in queues.written if m["T"] == "gap"]
    for message in tape:
        if message.get("future"):
            continue
        at_ns, symbol = effective_ns(message), message["S"]
        mine = [g for g in gaps if g["S"] == symbol]
        inside = sum(g["from_ns"] < at_ns < g["to_ns"] for g in mine)
        edge = any(at_ns in (g["from_ns"] + 1, g["to_ns"] - 1) for g in mine)
        here = (message["T"], symbol, message["t"]) in stored
        assert inside + here == 1 or (inside == here == edge == 1)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_ticks_that_share_an_instant_are_stored_or_filled_once_whoever_is_killed(data):
    """The feed repeats times; the connection breaks anywhere; the process forgets, and fills."""
    steps = st.tuples(st.sampled_from(SYMBOLS[:2]), st.sampled_from("tq"), st.integers(0, 1))
    tape, now = [], BASE_NS
    for i, (symbol, kind, step) in enumerate(data.draw(st.lists(steps, max_size=30))):
        now += step
        tape.append(_trade(symbol, now, i=i) if kind == "t" else _quote(symbol, now, bp=1 + i))
    tracker = GapTracker(dict.fromkeys(SYMBOLS[:2], BASE_NS - 1))
    queues = _Queues(tracker)
    intake = Intake(queues, tracker)
    intake.clock = FAR
    for message in tape:
        fate = data.draw(st.sampled_from(["came", "came", "came", "missed", "killed"]))
        if fate == "came":
            intake.take([dict(message)], received_ns=1)
            if data.draw(st.booleans()):
                queues.seal()
            continue
        queues.seal()
        if fate == "killed":
            saved = json.loads(json.dumps(edges.to_json(tracker.acked_edges)))
            unfilled = Unfilled(json.loads(json.dumps(tracker.unfilled.to_json())))
            tracker = GapTracker(tracker.acked, unfilled=unfilled, edges=edges.from_json(saved))
            queues.tracker = tracker
            intake = Intake(queues, tracker)
            intake.clock = FAR
        tracker.interrupted(SYMBOLS, reason="test")
    intake.write_gaps(tracker.close(now + 1), wall_ns=1)
    queues.seal()
    filled = [
        message
        for gap in tracker.unfilled.gaps()
        for kind in "tq"
        for message in filter(
            gap.missing(kind), [m for m in tape if (m["S"], m["T"]) == (gap.symbol, kind)]
        )
    ]
    got = [m for m in queues.written if m["T"] != "gap"] + filled
    name = lambda m: (m["T"], m["S"], m.get("i"), m.get("bp"))  # noqa: E731
    assert sorted(map(name, got), key=repr) == sorted(map(name, tape), key=repr)


def test_ticks_at_the_instant_of_the_cut_lie_inside_the_gap():
    tracker = GapTracker({"SPY": 5})
    first = _trade("SPY", BASE_NS, i=1)
    tracker.commit(tracker.seal([first], BASE_NS)[1])
    tracker.interrupted(["SPY"], reason="lost")
    again = _trade("SPY", BASE_NS + 9, i=4)
    rows = tracker.resume("SPY", BASE_NS + 9, message=again)
    (row, _), note = tracker.seal([*rows, again], BASE_NS + 9)
    assert (row["from_ns"], row["to_ns"]) == (BASE_NS - 1, BASE_NS + 10)
    (gap,) = note.filling.declared
    at_the_ends = [first, _trade("SPY", BASE_NS, i=2), _trade("SPY", BASE_NS + 9, i=3), again]
    assert [m["i"] for m in filter(gap.missing("t"), at_the_ends)] == [2, 3]


def test_first_message_dated_too_early_ends_no_gap_too_early():
    second = 1_000_000_000
    tracker = GapTracker({"SPY": BASE_NS, "AAPL": BASE_NS})
    tracker.interrupted(["SPY", "AAPL"], reason="lost")
    tracker.asked(BASE_NS + 20 * second)
    now_ns = BASE_NS + 21 * second
    early = _trade("SPY", now_ns - 5 * second, i=1)
    rows = tracker.resume("SPY", now_ns - 5 * second, message=early, now_ns=now_ns)
    assert {(row["S"], row["to_ns"]) for row in rows} == {("SPY", now_ns + 1), ("AAPL", now_ns + 1)}
    (row, _), note = tracker.seal([rows[0], early], now_ns)
    assert row["from_ns"] == BASE_NS
    assert not note.filling.declared[0].missing("t")(early)


def test_first_message_dated_ahead_ends_the_gap_where_it_is():
    """A feed that runs ahead of our clock has published up to there, and we missed it."""
    tracker = GapTracker({"SPY": BASE_NS})
    tracker.interrupted(["SPY"], reason="lost")
    tracker.asked(BASE_NS + 5)
    ahead_ns = BASE_NS + 5 * 1_000_000_000
    (row,) = tracker.resume("SPY", ahead_ns, message=_trade("SPY", ahead_ns), now_ns=BASE_NS + 9)
    assert row["to_ns"] == ahead_ns + 1


def test_subscription_begun_anew_passes_no_message_that_is_not_stored():
    tracker = GapTracker({"SPY": 5})
    old = [_trade("SPY", BASE_NS), _trade("SPY", BASE_NS + 1)]
    note = tracker.seal([old[0]], BASE_NS)[1]
    tracker.commit(note)
    tracker.begin("SPY", BASE_NS + 100, waiting=[old[1]], market_ns=BASE_NS + 100)
    tracker.stored(note)
    assert tracker.acked == {"SPY": BASE_NS}
    tracker.stored(tracker.seal([old[1]], BASE_NS + 1)[1])
    assert tracker.acked == {"SPY": BASE_NS + 100}


def test_subscription_begun_anew_twice_waits_for_all_that_came_before():
    tracker = GapTracker({"SPY": 5})
    notes = []
    for n in (0, 200):
        old = [_trade("SPY", BASE_NS + n)]
        notes.append(tracker.seal(old, BASE_NS + n)[1])
        tracker.commit(notes[-1])
        tracker.begin("SPY", BASE_NS + n + 100, market_ns=BASE_NS + n + 100)
    tracker.stored(notes[0])
    assert tracker.acked == {"SPY": BASE_NS}
    tracker.stored(notes[1])
    assert tracker.acked == {"SPY": BASE_NS + 300}


def test_symbol_without_unsent_messages_counts_from_its_subscription():
    tracker = GapTracker()
    tracker.begin("SPY", BASE_NS, waiting=[_trade("AAPL", BASE_NS)], market_ns=BASE_NS)
    assert tracker.acked == {"SPY": BASE_NS}


def test_message_from_the_future_is_no_bound_of_a_gap():
    tracker = GapTracker()
    record = [_trade("SPY", BASE_NS + 5), _trade("SPY", BASE_NS + 10**18)]
    assert tracker.seal(record, BASE_NS)[1].marks == {"SPY": BASE_NS + 5}


def test_sealing_twice_says_the_same():
    tracker = GapTracker({"SPY": 5})
    gap = {"T": "gap", "S": "SPY", "to_ns": BASE_NS, "reason": "x"}
    record = [gap, _trade("SPY", BASE_NS)]
    assert tracker.seal(record, BASE_NS) == tracker.seal(record, BASE_NS)
    assert "from_ns" not in gap


def test_record_read_back_accounts_like_the_record_written():
    tracker = GapTracker({"SPY": 5})
    gap = {"T": "gap", "S": "SPY", "to_ns": BASE_NS, "reason": "x"}
    messages, note = tracker.seal([gap, _trade("SPY", BASE_NS)], BASE_NS)
    assert account(messages, BASE_NS) == note


def test_market_that_begins_again_forgets_what_lies_ahead():
    tracker = GapTracker({"SPY": 100, "AAPL": 5})
    tracker.interrupted(["SPY", "AAPL"], reason="restart")
    assert tracker.rewind(50) == ["SPY"]
    assert tracker.waiting == {"AAPL"}
    tracker.begin("SPY", 40)
    assert tracker.acked == {"AAPL": 5, "SPY": 40}


def test_heartbeat_waits_until_the_gap_rows_are_written():
    tracker = GapTracker({"SPY": 5})
    queues = _Queues(tracker)
    intake = Intake(queues, tracker)
    intake.use(["SPY"])
    tracker.interrupted(["SPY"], reason="x")
    intake.heartbeat(wall_ns=BASE_NS)
    assert not any(queues.waiting.values())
    intake.take([_trade("SPY", BASE_NS)], received_ns=BASE_NS)
    intake.heartbeat(wall_ns=BASE_NS + 1)
    assert [m["T"] for m in queues.queue(bucket_of("SPY"))] == ["gap", "t", "hb"]


def test_message_dated_ahead_hides_nothing_that_is_missed_until_then():
    tracker = GapTracker({"SPY": BASE_NS})
    ahead = _trade("SPY", BASE_NS + 5 * 1_000_000_000)
    tracker.commit(tracker.seal([ahead], BASE_NS)[1])
    tracker.interrupted(["SPY"], reason="lost")
    rows = tracker.resume("SPY", BASE_NS + 10 * 1_000_000_000)
    (row,), _ = tracker.seal(rows, BASE_NS + 10 * 1_000_000_000)
    assert row["from_ns"] <= BASE_NS + 1_000_000_000


def test_gap_late_first_message_bounds_no_gap():
    tracker = GapTracker({"SPY": 100, "AAPL": 100})
    tracker.interrupted(["SPY", "AAPL"], reason="lost")
    assert tracker.resume("AAPL", 90) == []  # a late print, from before the interruption
    rows = tracker.resume("AAPL", 200) + tracker.resume("SPY", 201)
    assert [(row["S"], row["to_ns"]) for row in rows] == [("AAPL", 201), ("SPY", 201)]
