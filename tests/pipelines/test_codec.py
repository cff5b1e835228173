from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.codec import decode_items, decode_record, encode_items, encode_record
from pipelines.errors import MalformedFrame
from pipelines.events import Record, item

RECORD = {
    "v": 1, "epoch": "e", "bucket": 3, "bseq": 1, "kinds": "t", "sent_at_ns": 5, "market_ns": 6,
    "messages": [{"T": "t", "S": "SPY"}],
}  # fmt: skip
ITEM = {
    "id": "bar:SPY:1", "kind": "bar", "symbol": "SPY", "event_time": "2024-07-05T13:30:00Z",
    "data": {"close": 1.0},
}  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def test_record_read_back_is_the_record() -> None:
    record = Record(epoch="e", bucket=63, bseq=9, sent_at_ns=1, market_ns=2, messages=[{"T": "hb"}])
    assert decode_record(encode_record(record)) == record


def test_items_read_back_are_the_items() -> None:
    made = item("bar", symbol="SPY", event_time="2024-07-05T13:30:00Z", data={"close": 1.0})
    assert decode_items(encode_items([made])) == [made]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2), ("epoch", 1), ("epoch", None), ("bucket", "3"), ("bucket", True), ("bucket", -1),
        ("bseq", 1.5), ("bseq", None), ("bseq", 0), ("sent_at_ns", "now"), ("market_ns", []),
        ("messages", {}), ("messages", None), ("messages", "t"), ("market_ns", 2**63),
    ],
)  # fmt: skip
def test_record_whose_field_has_a_wrong_type_is_malformed(field: str, value: Any) -> None:
    data = orjson.dumps({**RECORD, field: value})
    with pytest.raises(MalformedFrame) as caught:
        decode_record(data)
    assert caught.value.raw == data


@pytest.mark.parametrize("field", [name for name in RECORD if name != "kinds"])
def test_record_that_lacks_a_field_is_malformed(field: str) -> None:
    with pytest.raises(MalformedFrame):
        decode_record(orjson.dumps({k: v for k, v in RECORD.items() if k != field}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 7), ("kind", None), ("symbol", ["SPY"]), ("data", []), ("data", None),
        ("event_time", None), ("event_time", "yesterday"), ("event_time", "2024-07-05T13:30:00"),
    ],
)  # fmt: skip
def test_item_whose_field_has_a_wrong_type_is_malformed(field: str, value: Any) -> None:
    with pytest.raises(MalformedFrame, match=field):
        decode_items(orjson.dumps({"v": 1, "items": [ITEM, {**ITEM, field: value}]}))


@pytest.mark.parametrize("field", list(ITEM))
def test_item_that_lacks_a_field_is_malformed(field: str) -> None:
    short = {k: v for k, v in ITEM.items() if k != field}
    with pytest.raises(MalformedFrame):
        decode_items(orjson.dumps({"v": 1, "items": [short]}))


@pytest.mark.parametrize("items", [None, {}, "abc", [1], [None], [[]]])
def test_items_that_are_no_list_of_objects_are_malformed(items: Any) -> None:
    with pytest.raises(MalformedFrame):
        decode_items(orjson.dumps({"v": 1, "items": items}))


@given(st.binary() | anything.map(orjson.dumps))
def test_bytes_of_any_kind_are_read_or_malformed_and_nothing_else(data: bytes) -> None:
    for decode in (decode_record, decode_items):
        with pytest.raises(MalformedFrame):
            decode(data)


@given(st.sampled_from(list(RECORD)), anything)
def test_record_of_any_field_is_read_or_malformed(field: str, value: Any) -> None:
    try:
        record = decode_record(orjson.dumps({**RECORD, field: value}))
    except MalformedFrame:
        return
    assert isinstance(record.messages, list)
    assert isinstance(record.bseq, int)


@given(st.sampled_from(list(ITEM)), anything)
def test_item_of_any_field_is_read_or_malformed(field: str, value: Any) -> None:
    try:
        (read,) = decode_items(orjson.dumps({"v": 1, "items": [{**ITEM, field: value}]}))
    except MalformedFrame:
        return
    assert isinstance(read["data"], dict)
