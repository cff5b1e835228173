"""The law of gaps over any interruption, without a socket."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.clock import MarketClock
from pipelines.events import bucket_of, effective_ns, format_time_ns
from pipelines.ingest.gaps import GapTracker, account
from pipelines.ingest.intake import Intake

BASE_NS = 1_700_000_040_000_000_000
MINUTE_NS = 60_000_000_000
SYMBOLS = ("SPY", "AAPL", "TSLA")
FAR = MarketClock(rate=1, wall_origin_ns=0, sessions=((BASE_NS, BASE_NS + MINUTE_NS),))


def _trade(symbol, at_ns, **changed):
    return {"T": "t", "S": symbol, "p": 1.0, "s": 1, "t": format_time_ns(at_ns), **changed}


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
        inside = sum(g["from_ns"] < at_ns < g["to_ns"] for g in gaps if g["S"] == symbol)
        assert inside + ((message["T"], symbol, message["t"]) in stored) == 1


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
    assert queues.waiting == {}
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
    assert [(row["S"], row["to_ns"]) for row in rows] == [("AAPL", 200), ("SPY", 201)]
