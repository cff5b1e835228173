"""Two ways of reading a record say the same of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.codec import decode_record, encode_record
from pipelines.events import Record, reject_reason
from pipelines.ticks import Heartbeat, Quote, Trade, decode_ticks
from tests.pipelines.ticks import NOW_NS, messages, ticks

_OF_TIME = {None, "bad_time", "future_event", "ancient_event"}
_HEAD = {"v": 1, "epoch": "e", "bucket": 7, "bseq": 1, "sent_at_ns": 1, "market_ns": 1}
_KEYS = {
    Trade: {k: k for k in ("S", "t", "p", "s", "i", "x", "c", "z", "r")},
    Quote: {"as": "ask_size"} | {k: k for k in ("S", "t", "bp", "bs", "ap", "bx", "ax", "c", "r")},
}


def data_of(*held: Any) -> bytes:
    return encode_record(Record("e", 1, 1, NOW_NS, NOW_NS, list(held)))


@settings(max_examples=400, deadline=None)
@given(st.lists(messages, max_size=4))
def test_record_decoded_as_ticks_holds_what_the_rule_lets_pass(held):
    found = decode_ticks(data_of(*held))
    if found is None:
        return
    record = decode_record(data_of(*held))
    for message, tick in zip(record.messages, found.messages, strict=True):
        if type(tick) is Heartbeat:
            assert message["T"] == "hb"
            continue
        assert reject_reason(message, market_ns=record.market_ns) in _OF_TIME
        assert not message.get("bf")
        for key, name in _KEYS[type(tick)].items():
            value = getattr(tick, name)
            assert message.get(key) == (list(value) if isinstance(value, tuple) else value)


@settings(max_examples=200, deadline=None)
@given(st.lists(ticks.filter(lambda tick: not tick.get("bf")), max_size=4))
def test_record_of_good_ticks_is_decoded_as_such(held):
    found = decode_ticks(data_of(*held))
    passed = all(reject_reason(m, market_ns=NOW_NS) in _OF_TIME for m in held)
    assert (found is not None) is passed


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"v": None}, {"epoch": ""}, {"epoch": 1}, {"bucket": -1}, {"bucket": 2**31},
        {"bseq": 0}, {"bseq": 1.0}, {"bseq": True}, {"sent_at_ns": -1}, {"market_ns": 2**63},
        {"messages": None}, {"messages": {}}, {"messages": [5]}, {"messages": [{"T": "b"}]},
        {"messages": [{"T": "?"}]}, {"messages": [{}]},
    ],
)  # fmt: skip
def test_anything_else_is_left_to_the_rule(change):
    assert decode_ticks(orjson.dumps({**_HEAD, "messages": []})) is not None
    assert decode_ticks(orjson.dumps({**_HEAD, "messages": [], **change})) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"v":1', b'{"v":1,"epoch":"\xff"}'])
def test_bytes_that_are_no_json_are_left_to_the_rule(data):
    assert decode_ticks(data) is None


_TRADE = {"T": "t", "S": "SPY", "p": 1.5, "s": 1, "t": "2011-01-03T14:35:00Z"}
_ONE = orjson.dumps({**_HEAD, "messages": [_TRADE]})


def _deep(depth: int) -> bytes:
    return _ONE.replace(b'"p":1.5', b'"p":1.5,"zz":' + b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    "data",
    [
        _deep(100),
        _deep(2000),
        b'{"x":' * 3000,
        _ONE.replace(b'"v":1', b'"v":1,"zz":"\xff"'),
        _ONE.replace(b'"v":1', b'"v":1,"kinds":"\xff"'),
        _ONE.replace(b'"p":1.5', b'"p":1.5,"zz":1e999'),
    ],
    ids=["deep", "too deep", "never closed", "no text", "no text in kinds", "no number"],
)
def test_what_msgspec_would_pass_over_is_left_to_the_rule(data):
    assert decode_ticks(data) is None


_WHOLE = data_of(_TRADE, {"T": "hb", "symbols": ["SPY"], "market_ns": 1, "r": 1})


@settings(max_examples=1000, deadline=None)
@given(
    at=st.integers(0, len(_WHOLE) - 1),
    drop=st.integers(0, 3),
    put=st.binary(max_size=3) | st.sampled_from([b'"zz":1,', b"1e999", b"[", b'"', b"-", b"\xff"]),
)
def test_bytes_that_are_decoded_as_ticks_are_a_record_to_the_rule_too(at, drop, put):
    data = _WHOLE[:at] + put + _WHOLE[at + drop :]
    if decode_ticks(data) is not None:
        decode_record(data)
