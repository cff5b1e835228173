"""Records to parts: what is needed of each message, by the rule that every reader shares."""

from __future__ import annotations

from unittest.mock import Mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import GAP, HEARTBEAT, MINUTE_NS, Record, parse_time_ns
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.parts import Part, Start
from pipelines.streaming.reduce import add, parts_of, reduce
from tests.pipelines.ticks import records


def _parts(batches, *, live=False):
    out = {}
    for batch in reduce(batches, live=live):
        for row in batch.to_pylist():
            out.setdefault(row["symbol"], []).append((row["first_ns"], row["parts"]))
    return {symbol: parts_of(blobs) for symbol, blobs in out.items()}


def test_reduce_keeps_trades_quotes_bars_and_gaps_in_order(tape, rows_of):
    gap = {"T": GAP, "S": "SPY", "from_ns": 1, "to_ns": 2, "reason": "x"}
    record = tape.record(tape.quote(), tape.trade(c=["@"]), gap, tape.bar(), {"T": "s", "S": "SPY"})
    (part,) = _parts([rows_of([record])])["SPY"]
    assert [op[0] for op in part.ops] == ["q", "t", "g", "b"]
    assert part.ops[1][2:] == [126.55, 100, True]
    assert part.ops[3][2:] == [1.0, 2.0, 0.5, 1.5, 10.0, 3, 1.25]
    assert (part.epoch, part.bseq, part.market_ns) == (record.epoch, 1, record.market_ns)


def test_reduce_only_counts_what_was_backfilled(tape, rows_of):
    gap = {"T": GAP, "S": "SPY", "from_ns": 1, "to_ns": 2, "backfilled": True}
    record = tape.record(
        tape.trade(bf=True), tape.bar(bf=True), tape.quote(), tape.quote(bf=True, bp=-1), gap
    )
    (part,) = _parts([rows_of([record])])["SPY"]
    assert [list(op[:2]) for op in part.ops if op[0] == "f"] == [["f", 2]]
    assert [op[0] for op in part.ops] == ["f", "q"]


def test_state_takes_no_bar_from_what_was_backfilled(tape, rows_of):
    live = tape.record(tape.trade(), tape.bar())
    late = tape.record(tape.trade(bf=True), tape.bar(minute=1, bf=True))
    state = SymbolState()
    closed = state.fold(_parts([rows_of([live, late])])["SPY"], start_of=lambda _: Start())
    assert len(closed) == 1
    assert state.counters["backfilled"] == 2
    assert state.counters["late_trades"] == 0


def test_reduce_leaves_out_what_is_quarantined(tape, rows_of):
    bad = [
        tape.trade(p=-1), tape.quote(t="2012-01-01T00:00:00Z"), {"T": "?"},
        tape.bar(minute=9999), {"T": "bad", "reason": "x", "raw": ""},
    ]  # fmt: skip
    assert _parts([rows_of([tape.record(*bad), b"no record"])]) == {}


def test_reduce_gives_a_heartbeat_to_each_of_its_symbols(tape, rows_of):
    beat = {"T": HEARTBEAT, "market_ns": MINUTE_NS, "symbols": ["SPY", "XYZ"]}
    parts = _parts([rows_of([tape.record(beat)])])
    assert {symbol: [p.ops for p in of] for symbol, of in parts.items()} == {
        "SPY": [[]],
        "XYZ": [[]],
    }


def test_reduce_of_many_batches_gives_one_row_for_each_symbol(tape, rows_of):
    batches = [rows_of([tape.record(tape.trade())]) for _ in range(5)]
    (batch,) = reduce(batches)
    assert batch.num_rows == 1
    assert [p.bseq for p in _parts(batches)["SPY"]] == [1, 2, 3, 4, 5]


def test_parts_of_two_shards_come_in_order_of_sending(tape, rows_of):
    old, new = tape.record(tape.trade()), tape.record(tape.trade())
    blobs = [
        (row["first_ns"], row["parts"])
        for record in (new, old)
        for batch in reduce([rows_of([record])])
        for row in batch.to_pylist()
    ]
    assert [p.bseq for p in parts_of(blobs)] == [1, 2]


@pytest.mark.parametrize(
    "odd",
    [
        5, None, {"T": ["t"]}, {"T": HEARTBEAT}, {"T": HEARTBEAT, "symbols": 5},
        {"T": HEARTBEAT, "symbols": [["A"], 7]}, {"T": GAP, "S": "SPY"},
        {"T": GAP, "S": "SPY", "from_ns": 1, "to_ns": "x"},
    ],
)  # fmt: skip
def test_reduce_leaves_out_an_odd_message_and_keeps_the_rest(tape, rows_of, odd):
    (part,) = _parts([rows_of([tape.record(tape.trade(), odd, tape.bar())])])["SPY"]
    assert [op[0] for op in part.ops] == ["t", "b"]


def test_reduce_counts_a_message_that_breaks_the_code_and_goes_on(tape, rows_of, monkeypatch):
    broken = Mock(side_effect=[TypeError("unforeseen"), ["t", 1, 1.0, 1, True]])
    monkeypatch.setattr("pipelines.streaming.reduce._op", broken)
    (part,) = _parts([rows_of([tape.record(tape.bar(), tape.trade())])])["SPY"]
    assert [op[0] for op in part.ops] == ["x", "t"]
    state = SymbolState()
    state.fold([part], start_of=lambda _: Start())
    assert state.counters["skipped"] == 1


def test_live_parts_say_how_long_trades_and_quotes_took_and_others_do_not():
    ns = parse_time_ns("2024-07-01T14:00:00Z")
    at = {"S": "SPY", "t": "2024-07-01T14:00:00Z"}
    trade = {"T": "t", "p": 1.0, "s": 1, **at}
    messages = [
        {**trade, "r": ns + 20_000_000},
        {**trade, "r": ns + 50_000_000},
        {**trade, "r": ns + 90_000_000, "bf": True},
        trade,
        {**trade, "S": 7, "r": ns},
    ]
    record = Record(epoch="e", bucket=1, bseq=1, sent_at_ns=ns, market_ns=ns, messages=messages)
    live: dict[str, list] = {}
    add(record, live, live=True)
    replayed: dict[str, list] = {}
    add(record, replayed)
    assert live["SPY"][0][-1][-1] == ["l", 2, 70.0]
    assert live["SPY"][0][-1][:-1] == replayed["SPY"][0][-1]


@settings(max_examples=200, deadline=None)
@given(batch=records(), live=st.booleans())
def test_records_of_ticks_are_reduced_as_they_are_one_by_one(batch, live):
    def reduced(*, ticks: bool) -> dict[str, list[Part]]:
        with pytest.MonkeyPatch.context() as patch:
            if not ticks:
                patch.setattr("pipelines.streaming.reduce.decode_ticks", lambda _: None)
            return _parts([pa.record_batch({"data": pa.array(batch, pa.binary())})], live=live)

    assert reduced(ticks=True) == reduced(ticks=False)
