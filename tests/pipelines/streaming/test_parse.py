"""Every message ends in exactly one place."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.codec import encode_record
from pipelines.events import MINUTE_NS, Record, parse_time_ns, reject_reason
from pipelines.lake.archive_state import advance
from pipelines.lake.tables import TABLES
from pipelines.streaming.notice import Notice
from pipelines.streaming.parse import ParsedBatch, Parser, parse_records
from tests.pipelines.ticks import NOW_NS as TICKS_NS
from tests.pipelines.ticks import SYMBOLS, records

NOW_NS = 1_294_065_000_000_000_000
_AT = "2011-01-03T14:30:00Z"
_GOOD: dict[str, dict[str, Any]] = {
    "t": {"T": "t", "S": "SPY", "p": 1.5, "s": 1, "t": _AT},
    "q": {"T": "q", "S": "SPY", "bp": 0, "bs": 0, "ap": 1, "as": 1, "t": _AT},
    "b": {"T": "b", "S": "SPY", "o": 1, "h": 1, "l": 1, "c": 1, "v": 0, "t": _AT},
    "hb": {"T": "hb", "market_ns": 1, "symbols": []},
}


def parse(*records: Record | bytes, marks: Any = None) -> ParsedBatch:
    batch = [(r if isinstance(r, bytes) else encode_record(r), 1) for r in records]
    return parse_records(batch, marks=marks or {})


def test_parse_of_each_type_fills_every_column(tape):
    status = {"T": "s", "S": "SPY", "sc": "T", "t": "2011-01-03T14:30:00Z", "r": 9}
    news = {"T": "n", "id": 4, "symbols": ["SPY"], "updated_at": "2011-01-03T14:30:00Z", "r": 9}
    found = parse(tape.record(tape.trade(), tape.quote(), tape.bar(), status, news))
    assert found.counts.stored == 5
    assert {n: t.num_rows for n, t in found.tables.items()} == {
        "trades": 1, "quotes": 1, "bars": 1, "events": 2,
    }  # fmt: skip
    for name, rows in found.tables.items():
        assert rows.schema == TABLES[name].schema
        if name != "events":
            assert all(column.null_count == 0 for column in rows.columns)
    trade = found.tables["trades"].to_pylist()[0]
    assert trade["event_time_ns"] % 1000 == 1
    assert trade["event_time"].microsecond == 1000
    assert (trade["epoch"], trade["bseq"], trade["position"]) == ("run-1", 1, 0)
    events = found.tables["events"].to_pylist()
    assert [e["symbol"] for e in events] == ["SPY", None]
    assert '"sc":"T"' in events[0]["payload"]
    assert '"r"' not in events[0]["payload"]


def test_parse_of_a_record_twice_counts_its_messages_as_duplicates(tape):
    record = tape.record(tape.trade(), tape.quote(), {"T": "hb", "market_ns": 1, "symbols": []})
    found = parse(record, record)
    assert (found.counts.stored, found.counts.duplicates) == (2, 2)


def test_parse_of_a_record_below_the_mark_stores_nothing(tape):
    record = tape.record(tape.trade())
    found = parse(record, marks={"run-1": {record.bucket: 1}})
    assert (found.counts.stored, found.counts.duplicates) == (0, 1)
    assert found.tables == {}


def test_parse_of_records_out_of_order_loses_none(tape):
    records = [tape.record(tape.trade()) for _ in range(5)]
    found = parse(*(records[i] for i in (0, 3, 1, 4, 2, 3, 1)))
    assert (found.counts.stored, found.counts.duplicates) == (5, 2)
    assert found.accepted == {"run-1": {records[0].bucket: [(1, 5)]}}


def test_parse_with_a_record_missing_shows_the_hole(tape):
    first = tape.record(tape.trade())
    tape.skip()
    found = parse(first, tape.record(tape.trade()))
    assert advance({}, found.accepted)[1] == 1


def test_parse_of_heartbeats_moves_the_mark_and_stores_nothing(tape):
    record = tape.record({"T": "hb", "market_ns": 1, "symbols": ["SPY"]})
    found = parse(record)
    assert found.tables == {}
    assert found.accepted == {"run-1": {record.bucket: [(1, 1)]}}


def test_parse_of_a_gap_makes_a_row(tape):
    gap = {
        "T": "gap",
        "S": "SPY",
        "from_ns": None,
        "to_ns": NOW_NS,
        "reason": "x",
    }
    row = parse(tape.record(gap)).tables["gaps"].to_pylist()[0]
    assert (row["symbol"], row["from_time"], row["backfilled"]) == ("SPY", None, False)
    assert str(row["date"]) == "2011-01-03"


def test_parse_of_a_filled_gap_makes_its_second_row_and_counts_no_gap(tape):
    gap = {"T": "gap", "S": "SPY", "from_ns": 1, "to_ns": NOW_NS, "reason": "x"}
    filled = gap | {"backfilled": True, "filled": {"t": 2, "q": 3, "b": "?"}}
    found = parse(tape.record(gap, filled))
    first, second = found.tables["gaps"].to_pylist()
    assert (first["backfilled"], first["filled_trades"]) == (False, None)
    assert second["backfilled"] is True
    counts = [second[f"filled_{kind}"] for kind in ("trades", "quotes", "bars")]
    assert counts == [2, 3, None]
    assert found.counts.gaps == 1


def test_parse_of_a_backfilled_message_marks_its_row(tape):
    found = parse(tape.record(tape.trade(), tape.trade(bf=True), tape.quote(bf=True), tape.bar()))
    marks = {name: rows["backfilled"].to_pylist() for name, rows in found.tables.items()}
    assert marks == {"trades": [False, True], "quotes": [True], "bars": [False]}
    assert found.counts.stored == 4


def test_parse_of_a_malformed_frame_keeps_its_bytes(tape):
    bad = {"T": "bad", "reason": "no msgpack", "raw": base64.b64encode(b"\x00\xff").decode()}
    found = parse(tape.record(bad, tape.trade()))
    row = found.tables["quarantine"].to_pylist()[0]
    assert (row["reason"], row["raw"], row["payload"]) == ("no msgpack", b"\x00\xff", None)
    assert (found.counts.stored, found.counts.quarantined) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"p": -1.0}, "bad_number:p"),
        ({"T": "?"}, "unknown_type"),
        ({"T": ["t"]}, "unknown_type"),
        ({"T": None}, "unknown_type"),
        ({"t": "2012-01-03T14:30:00Z"}, "future_event"),
        ({"t": "2010-01-03T14:30:00Z"}, "ancient_event"),
        ({"t": 5}, "bad_time"),
        ({"i": "seven"}, "bad_type:i"),
        ({"c": 5}, "bad_type:c"),
        ({"x": 4}, "bad_type:x"),
        ({"r": "now"}, "bad_type:r"),
    ],
)
def test_parse_of_a_bad_message_quarantines_it_alone(tape, changes, reason):
    found = parse(tape.record(tape.trade(), tape.trade(**changes), tape.trade()))
    assert (found.counts.stored, found.counts.quarantined) == (2, 1)
    row = found.tables["quarantine"].to_pylist()[0]
    assert row["reason"] == reason
    assert row["position"] == 1
    assert '"S":"SPY"' in row["payload"]
    assert str(row["date"]) == "2011-01-03"


def test_parse_of_something_that_is_no_message_quarantines_it(tape):
    found = parse(tape.record(tape.trade(), 5, None, ["t"]))
    assert (found.counts.stored, found.counts.quarantined) == (1, 3)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\x00", b"[]", b"5", b'{"v":2}', b'{"v":1,"epoch":1}',
     b'{"v":1,"epoch":"e","bucket":"x","bseq":1,"sent_at_ns":1,"market_ns":1,"messages":[]}',
     b'{"v":1,"epoch":"e","bucket":1,"bseq":0,"sent_at_ns":1,"market_ns":1,"messages":[]}'],
)  # fmt: skip
def test_parse_of_bytes_that_are_no_record_keeps_them(tape, raw):
    found = parse(raw, tape.record(tape.trade()))
    assert (found.counts.undecodable, found.counts.stored) == (1, 1)
    row = found.tables["quarantine"].to_pylist()[0]
    assert row["raw"] == raw
    assert row["epoch"] is None


_junk = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=4),
    st.just(["t"]),
)
_messages = st.lists(
    st.one_of(
        st.sampled_from(list(_GOOD.values())),
        st.dictionaries(st.sampled_from("TStpsicxzr"), _junk, max_size=4),
        _junk,
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    contents=st.lists(_messages, max_size=6),
    order=st.lists(st.integers(0, 5), max_size=12),
    cut=st.integers(0, 12),
)
def test_parse_counts_every_message_once_wherever_batches_are_cut(contents, order, cut):
    records = [
        Record("e", 1, number, NOW_NS, NOW_NS, part) for number, part in enumerate(contents, 1)
    ]
    played = [records[i] for i in order if i < len(records)]
    received = sum(
        not isinstance(m, dict) or m.get("T") not in ("hb", "gap")
        for r in played
        for m in r.messages
    )
    marks: dict[str, dict[int, int]] = {}
    stored = duplicates = quarantined = rows = 0
    for part in (played[:cut], played[cut:]):
        found = parse(*part, marks=marks)
        marks, _ = advance(marks, found.accepted)
        stored += found.counts.stored
        duplicates += found.counts.duplicates
        quarantined += found.counts.quarantined
        rows += sum(t.num_rows for t in found.tables.values())
    assert received == stored + duplicates + quarantined
    assert rows == stored + quarantined


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=30), st.lists(st.integers(1, 12), max_size=30))
def test_accepted_ranges_are_exactly_what_was_new(first, second):
    def take(numbers, marks):
        parser = Parser(marks)
        for bseq in numbers:
            parser.add(encode_record(Record("e", 1, bseq, 1, 1, [])), arrival_ns=1)
        return parser.accepted()

    marks: dict[str, dict[int, int]] = {}
    top = 0
    for numbers in (first, second):
        accepted = take(numbers, marks)
        new = {n for n in numbers if n > top}
        ranges = accepted.get("e", {}).get(1, [])
        assert {n for low, high in ranges for n in range(low, high + 1)} == new
        assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
        marks, holes = advance(marks, accepted)
        assert holes == (max(new) - top - len(new) if new else 0)
        top = max(new, default=top)


def test_quarantine_and_store_follow_reject_reason(tape):
    messages = [tape.trade(), tape.trade(p=0), tape.quote(bp=0), tape.bar(h=0.1)]
    record = tape.record(*messages)
    wanted = [reject_reason(m, market_ns=record.market_ns) for m in messages]
    found = parse(record)
    assert found.tables["quarantine"]["reason"].to_pylist() == [w for w in wanted if w]
    assert found.counts.stored == wanted.count(None)


def correction(tape: Any, **changes: Any) -> dict[str, Any]:
    at = tape.trade()["t"]
    return {
        "T": "c", "S": "SPY", "x": "D", "oi": 7, "op": 126.55, "os": 100, "oc": ["@"], "ci": 8,
        "cp": 126.5, "cs": 90, "cc": ["@"], "t": at, "z": "C", "r": 9,
    } | changes  # fmt: skip


def cancel(tape: Any, **changes: Any) -> dict[str, Any]:
    at = tape.trade()["t"]
    return {
        "T": "x", "S": "SPY", "i": 7, "x": "D", "p": 126.55, "s": 100, "a": "C", "t": at,
        "z": "C", "r": 9,
    } | changes  # fmt: skip


def test_parse_of_corrections_and_cancels_keeps_every_field_in_their_own_table(tape):
    found = parse(tape.record(correction(tape), cancel(tape)))
    assert found.counts.stored == 2
    first, second = found.tables["corrections"].to_pylist()
    assert None not in {k: v for k, v in first.items() if k != "action"}.values()
    assert (first["type"], first["original_id"], first["corrected_price"]) == ("c", 7, 126.5)
    assert (second["type"], second["original_id"], second["action"]) == ("x", 7, "C")
    assert second["corrected_price"] is None


@pytest.mark.parametrize("wrong", [{"cp": -1.0}, {"cs": None}, {"oi": "7"}, {"S": None}])
def test_parse_of_a_correction_that_cannot_be_applied_quarantines_it(tape, wrong):
    found = parse(tape.record(correction(tape, **wrong)))
    assert (found.counts.stored, found.counts.quarantined) == (0, 1)


def dirty_after(*records: Record, closed: Any = None) -> Any:
    notice = Notice(closed)
    parser = Parser({}, notice)
    for record in records:
        parser.add(encode_record(record), arrival_ns=1)
    parser.take()
    return notice.dirty.to_dict(), notice.closed


def test_trade_before_its_bar_makes_nothing_dirty_and_one_after_it_does(tape):
    minute = parse_time_ns(_AT) // MINUTE_NS
    end = {"SPY": (minute + 1) * MINUTE_NS}
    early = dirty_after(tape.record(tape.trade(), tape.bar()))
    assert early == ({"minutes": {}, "days": {}, "after": {}}, end)
    late = dirty_after(tape.record(tape.bar(), tape.trade()), closed={"KO": 5})
    assert late == ({"minutes": {"SPY": [minute]}, "days": {}, "after": {}}, end | {"KO": 5})
    of_an_earlier_batch = dirty_after(tape.record(tape.trade()), closed=end)
    assert of_an_earlier_batch[0]["minutes"] == {"SPY": [minute]}


def test_what_revises_a_bar_makes_it_dirty(tape):
    minute = parse_time_ns(_AT) // MINUTE_NS
    for message in (
        tape.trade(bf=True), tape.bar(bf=True), tape.bar() | {"T": "u"}, tape.bar(minute=0),
    ):  # fmt: skip
        closed = {"SPY": (minute + 1) * MINUTE_NS}
        dirty, after = dirty_after(tape.record(message), closed=closed)
        assert (dirty["minutes"], after) == ({"SPY": [minute]}, closed)
    for message in (correction(tape), cancel(tape)):
        dirty, _ = dirty_after(tape.record(message))
        assert dirty == {"minutes": {}, "days": {"SPY": [minute // 1440]}, "after": {}}


def whole(batch: list[bytes], cut: int, closed: dict[str, int], *, ticks: bool) -> Any:
    """Everything that two readers make of records, the second going on where the first ended."""
    with pytest.MonkeyPatch.context() as patch:
        if not ticks:
            patch.setattr("pipelines.streaming.parse.decode_ticks", lambda _: None)
        notice = Notice(closed)
        parser = Parser({}, notice)
        rows: dict[str, list[Any]] = {}
        for part in (batch[:cut], batch[cut:]):
            for data in part:
                parser.add(data, arrival_ns=1)
            for name, table in parser.take().items():
                assert table.schema == TABLES[name].schema
                rows.setdefault(name, []).extend(table.to_pylist())
        for found in rows.values():
            found.sort(key=lambda row: (row["bseq"], row["position"]))
        return rows, parser.counts, parser.accepted(), notice.dirty.to_dict(), notice.closed


@settings(max_examples=200, deadline=None)
@given(
    batch=records(),
    cut=st.integers(0, 6),
    closed=st.dictionaries(
        st.sampled_from(SYMBOLS), st.integers(0, 5).map(lambda n: TICKS_NS - n * MINUTE_NS)
    ),
)
def test_records_of_ticks_become_what_they_become_one_by_one(batch, cut, closed):
    assert whole(batch, cut, closed, ticks=True) == whole(batch, cut, closed, ticks=False)
