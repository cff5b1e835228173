"""What is quarantined: one rule for every reader, and what passes it can be computed with."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.codec import encode_record
from pipelines.events import EVENT_TYPES, MAX_NUMBER, Record, is_gap, reject_reason
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.parse import parse_records
from pipelines.streaming.parts import Start
from pipelines.streaming.reduce import parts_of, reduce

AT = "2011-01-03T14:30:01Z"
NOW_NS = 1_294_065_002_000_000_000
TRADE = {"T": "t", "S": "SPY", "i": 7, "x": "D", "p": 126.5, "s": 100, "c": ["@"], "z": "C"}
QUOTE = {"T": "q", "S": "SPY", "bx": "U", "bp": 87.6, "bs": 1, "ax": "Q", "ap": 87.7, "as": 4}
BAR = {"T": "b", "S": "SPY", "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5, "v": 10, "n": 3, "vw": 1.2}
KINDS = {"t": TRADE, "q": QUOTE, "b": BAR}


def reason(kind, **changes):
    return reject_reason(KINDS[kind] | {"t": AT} | changes, market_ns=NOW_NS)


@pytest.mark.parametrize(
    ("kind", "changes", "wanted"),
    [
        ("t", {}, None),
        ("q", {}, None),
        ("b", {}, None),
        ("t", {"c": None, "i": None, "x": None, "z": None}, None),
        ("b", {"n": None, "vw": None}, None),
        ("b", {"n": 0, "vw": 0, "v": 0}, None),
        ("q", {"bp": 0, "bs": 0}, None),
        ("t", {"c": 7}, "bad_type:c"),
        ("t", {"c": "@I"}, "bad_type:c"),
        ("t", {"c": [["a"]]}, "bad_type:c"),
        ("t", {"i": "seven"}, "bad_type:i"),
        ("t", {"i": 2**63}, "bad_type:i"),
        ("t", {"x": 4}, "bad_type:x"),
        ("q", {"ax": 4}, "bad_type:ax"),
        ("q", {"c": [None]}, "bad_type:c"),
        ("b", {"n": "x"}, "bad_type:n"),
        ("b", {"n": 3.5}, "bad_type:n"),
        ("b", {"n": -1}, "bad_type:n"),
        ("b", {"vw": "y"}, "bad_type:vw"),
        ("b", {"vw": 1e300}, "bad_type:vw"),
        ("t", {"r": "now"}, "bad_type:r"),
        ("t", {"p": True}, "bad_number:p"),
        ("t", {"p": 0}, "bad_number:p"),
        ("t", {"p": 1e300}, "bad_number:p"),
        ("t", {"p": 1e-300}, "bad_number:p"),
        ("t", {"p": math.nan}, "bad_number:p"),
        ("t", {"s": 1e13}, "bad_number:s"),
        ("q", {"bp": -1}, "bad_number:bp"),
        ("q", {"ap": math.inf}, "bad_number:ap"),
        ("b", {"v": 1e300}, "bad_number:v"),
    ],
)
def test_reject_reason_of_a_changed_message_names_what_is_wrong(kind, changes, wanted):
    assert reason(kind, **changes) == wanted


@pytest.mark.parametrize("gap", [{}, {"S": 5}, {"to_ns": "x"}, {"from_ns": -1}, {"S": None}])
def test_gap_without_what_it_needs_is_none(gap):
    whole = {"T": "gap", "S": "SPY", "from_ns": 1, "to_ns": 2}
    assert is_gap(whole)
    assert is_gap(whole | gap) is (gap == {})


JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=3),
    st.floats(), st.sampled_from([1e300, 1e-300, MAX_NUMBER, 0, -0.0]),
    st.lists(st.one_of(st.text(max_size=2), st.integers(0, 9), st.lists(st.none())), max_size=2),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from("tqb"),
            st.dictionaries(
                st.sampled_from(
                    [
                        "p",
                        "s",
                        "c",
                        "i",
                        "x",
                        "z",
                        "n",
                        "vw",
                        "v",
                        "o",
                        "h",
                        "l",
                        "bp",
                        "ap",
                        "bs",
                        "as",
                        "bx",
                        "ax",
                        "r",
                        "S",
                        "T",
                        "t",
                    ]
                ),
                JSON,
                max_size=2,
            ),
        ),
        max_size=4,
    )
)
def test_any_message_is_stored_and_folded_or_quarantined_by_all_readers_alike(drawn):
    messages = [KINDS[kind] | {"t": AT} | changes for kind, changes in drawn]
    record = Record("run", 1, 1, NOW_NS, NOW_NS, messages)
    data = encode_record(record)
    counts = parse_records([(data, 1)], marks={}).counts
    assert counts.stored + counts.quarantined == len(messages)
    state = SymbolState()
    folded = 0
    for batch in reduce([pa.record_batch({"data": pa.array([data], pa.binary())})]):
        for row in batch.to_pylist():
            parts = parts_of([(row["first_ns"], row["parts"])])
            folded += sum(op[0] in "tqb" for part in parts for op in part.ops)
            state.fold(parts, start_of=lambda _: Start())
            state = SymbolState.from_bytes(state.to_bytes())
            state.fold([], start_of=lambda _: Start())
    kinds = [m["T"] for m in messages]
    other = sum(isinstance(k, str) and k in EVENT_TYPES for k in kinds)
    assert counts.stored - other <= folded <= counts.stored
    assert state.counters["skipped"] == 0
