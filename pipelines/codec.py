"""Bytes to nouns and back: frames of the feed, records and items of the streams.

In: bytes or text. Out: the plain dicts of :mod:`pipelines.events`. What cannot be decoded raises
:class:`~pipelines.errors.MalformedFrame` with the raw bytes, so that nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack
import orjson

from pipelines.errors import MalformedFrame
from pipelines.events import Message, Record, format_time_ns, parse_time_ns

STREAM_VERSION = 1
TIME_KEYS = ("t", "created_at", "updated_at")
"""Keys of a message that hold a time: RFC 3339 text in JSON, a Timestamp extension in msgpack."""


def decode_json_frame(frame: bytes | str) -> list[Message]:
    """Messages of one JSON frame: an array of objects.

    Raises:
        MalformedFrame: No JSON, or not an array. (An element that is no object stays inside: the
            caller quarantines it alone.)
    """
    try:
        messages = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        try:
            messages = json.loads(frame)  # takes NaN: one bad number does not spoil the frame
        except (ValueError, RecursionError):
            raise MalformedFrame(f"no JSON: {error}", raw=_raw(frame)) from error
    if not isinstance(messages, list):
        raise MalformedFrame("not an array of messages", raw=_raw(frame))
    return messages


def decode_msgpack_frame(frame: bytes) -> list[Message]:
    """Messages of one msgpack frame, with times as the RFC 3339 text that JSON frames carry.

    Raises:
        MalformedFrame: No msgpack, or not an array.
    """
    try:
        messages = msgpack.unpackb(frame, timestamp=2)  # 2: nanoseconds as int
    except Exception as error:  # msgpack raises a dozen unrelated types on bad input
        raise MalformedFrame(f"no msgpack: {error}", raw=_raw(frame)) from error
    if not isinstance(messages, list):
        raise MalformedFrame("not an array of messages", raw=_raw(frame))
    _times_as_text(messages)
    return messages


def _times_as_text(messages: Sequence[Any]) -> None:
    for message in messages:
        if isinstance(message, dict):
            for key in TIME_KEYS:
                value = message.get(key)
                if type(value) is int:
                    message[key] = _time_text(value)


def _time_text(ns: int) -> str | int:
    try:
        return format_time_ns(ns)
    except (ValueError, OverflowError, OSError):
        return ns  # a year that no calendar has: the message is quarantined alone


def encode_json(value: Any) -> bytes:
    """Anything of JSON types as JSON, on one line."""
    return orjson.dumps(value)


def decode_json(text: bytes) -> Any:
    """The value of JSON text.

    Raises:
        MalformedFrame: No JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedFrame(f"no JSON: {error}", raw=bytes(text)) from error


def encode_json_frame(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """One JSON frame of messages."""
    return orjson.dumps(messages)


def with_timestamps(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a message, ready for msgpack: its times as Timestamps.

    A text that is no time (a fault, perhaps on purpose) stays the text that it is.
    """
    copy = dict(message)
    for key in TIME_KEYS:
        value = copy.get(key)
        if isinstance(value, str):
            try:
                copy[key] = msgpack.Timestamp.from_unix_nano(parse_time_ns(value))
            except ValueError:
                continue
    return copy


def encode_msgpack_frame(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """One msgpack frame of messages whose times are RFC 3339 text; they travel as Timestamps."""
    packed: bytes = msgpack.packb([with_timestamps(message) for message in messages])
    return packed


def encode_msgpack(value: Any) -> bytes:
    """Anything of msgpack's types."""
    packed: bytes = msgpack.packb(value)
    return packed


class MsgpackStream:
    """The values of msgpack text in pieces, each as soon as it is whole.

    The messages in an array that is a value, or inside one, get their times as text.

    Args:
        tail: What another one, whose text this one goes on with, had left.
        times_as_text: Whether they do; else the times stay numbers, ns.
    """

    def __init__(self, tail: bytes = b"", *, times_as_text: bool = True) -> None:
        self._times_as_text = times_as_text
        self._unpacker = msgpack.Unpacker(timestamp=2, max_buffer_size=0)
        self._unpacker.feed(tail)
        self._fed, self._whole = len(tail), 0
        self.tail = tail
        """What is no whole value yet."""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The values that a piece makes whole.

        Raises:
            MalformedFrame: No msgpack.
        """
        unpacker = self._unpacker
        unpacker.feed(chunk)
        self._fed += len(chunk)
        try:
            for value in unpacker:
                if self._times_as_text and isinstance(value, list):
                    for inner in value:
                        if isinstance(inner, list):
                            _times_as_text(inner)
                self._whole = unpacker.tell()  # later it tells of the value that is not whole
                yield value
        except MalformedFrame:
            raise
        except Exception as error:  # msgpack raises a dozen unrelated types on bad input
            raise MalformedFrame(f"no msgpack: {error}", raw=_raw(chunk)) from error
        left = self._fed - self._whole
        text = chunk if left <= len(chunk) else self.tail + chunk
        self.tail = text[len(text) - left :]


def encode_action(action: Mapping[str, Any], *, binary: bool) -> bytes:
    """A client's request (auth, subscribe, unsubscribe) as one frame: msgpack or JSON."""
    if binary:
        packed: bytes = msgpack.packb(dict(action))
        return packed
    return orjson.dumps(action)


def encode_record(record: Record) -> bytes:
    """Kinesis data of a record: one JSON document, version 1."""
    return orjson.dumps(
        {
            "v": STREAM_VERSION,
            "epoch": record.epoch,
            "bucket": record.bucket,
            "bseq": record.bseq,
            "kinds": record.kinds,
            "sent_at_ns": record.sent_at_ns,
            "market_ns": record.market_ns,
            "messages": record.messages,
        }
    )


def decode_record(data: bytes) -> Record:
    """The record of Kinesis data made by :func:`encode_record`.

    Every field has its type in what is returned; what the messages are is each reader's to judge.

    Raises:
        MalformedFrame: Not a record of version 1, or a field of it is missing or of a wrong type.
    """
    doc = _document(data, "record")
    record = Record(
        epoch=doc.get("epoch", ""),
        bucket=doc.get("bucket", -1),
        bseq=doc.get("bseq", 0),
        sent_at_ns=doc.get("sent_at_ns", -1),
        market_ns=doc.get("market_ns", -1),
        messages=doc.get("messages", ()),
    )
    wrong = [
        name
        for name, good in (
            ("epoch", type(record.epoch) is str and record.epoch != ""),
            ("bucket", _is_count(record.bucket) and record.bucket < 2**31),
            ("bseq", _is_count(record.bseq) and record.bseq > 0),
            ("sent_at_ns", _is_count(record.sent_at_ns)),
            ("market_ns", _is_count(record.market_ns)),
            ("messages", type(record.messages) is list),
        )
        if not good
    ]
    if wrong:
        raise MalformedFrame(f"no record: {', '.join(wrong)}", raw=bytes(data))
    return record


def encode_items(items: Sequence[Mapping[str, Any]]) -> bytes:
    """Kinesis data of items for ``market-signals``."""
    return orjson.dumps({"v": STREAM_VERSION, "items": items})


def decode_items(data: bytes) -> list[dict[str, Any]]:
    """Items of one ``market-signals`` record, each with its texts, its time and its data.

    Raises:
        MalformedFrame: Not an item record of version 1, or a field of an item is missing or of a
            wrong type.
    """
    items = _document(data, "items").get("items")
    if not isinstance(items, list):
        raise MalformedFrame("no items: not a list", raw=bytes(data))
    for item in items:
        wrong = _wrong_field(item) if isinstance(item, dict) else "not an object"
        if wrong is not None:
            raise MalformedFrame(f"no item: {wrong}", raw=bytes(data))
    return items


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        doc = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedFrame(f"no {what}: {error}", raw=bytes(data)) from error
    if not isinstance(doc, dict) or "v" not in doc:
        raise MalformedFrame(f"no {what}: no object with a version", raw=bytes(data))
    if doc["v"] != STREAM_VERSION:
        raise MalformedFrame(f"{what} of unknown version {doc['v']!r:.40}", raw=bytes(data))
    return doc


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63  # a bool is none


def _wrong_field(item: Mapping[str, Any]) -> str | None:
    for name in ("id", "kind", "symbol", "event_time"):
        if type(item.get(name)) is not str:
            return name
    if not isinstance(item.get("data"), dict):
        return "data"
    try:
        parse_time_ns(item["event_time"])
    except (ValueError, IndexError, OverflowError):
        return "event_time"
    return None


def _raw(frame: bytes | str) -> bytes:
    return frame.encode(errors="surrogatepass") if isinstance(frame, str) else bytes(frame)
