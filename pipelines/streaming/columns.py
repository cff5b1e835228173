"""Messages to columns: how a market message becomes a row of each raw table. Pure.

In: messages that :func:`pipelines.events.reject_reason` let pass, with the record that each came
in. Out: Arrow tables. A value that no column of its type can hold takes its message out, with
the reason ``bad_type:<column>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.events import BAR, CANCEL, CORRECTION, QUOTE, TRADE, Message
from pipelines.lake.tables import TABLES, TIME, Table

_KEYS: dict[str, dict[str, str]] = {
    TRADE: {
        "symbol": "S",
        "price": "p",
        "size": "s",
        "trade_id": "i",
        "exchange": "x",
        "conditions": "c",
        "tape": "z",
    },
    QUOTE: {
        "symbol": "S",
        "bid_price": "bp",
        "bid_size": "bs",
        "bid_exchange": "bx",
        "ask_price": "ap",
        "ask_size": "as",
        "ask_exchange": "ax",
        "conditions": "c",
        "tape": "z",
    },
    BAR: {
        "symbol": "S",
        "open": "o",
        "high": "h",
        "low": "l",
        "close": "c",
        "volume": "v",
        "trade_count": "n",
        "vwap": "vw",
    },
    CORRECTION: {
        "type": "T",
        "symbol": "S",
        "exchange": "x",
        "tape": "z",
        "original_id": "oi",
        "original_price": "op",
        "original_size": "os",
        "original_conditions": "oc",
        "corrected_id": "ci",
        "corrected_price": "cp",
        "corrected_size": "cs",
        "corrected_conditions": "cc",
    },
    CANCEL: {
        "type": "T",
        "symbol": "S",
        "exchange": "x",
        "tape": "z",
        "original_id": "i",
        "original_price": "p",
        "original_size": "s",
        "action": "a",
    },
}
HOME = {
    TRADE: "trades",
    QUOTE: "quotes",
    BAR: "bars",
    CORRECTION: "corrections",
    CANCEL: "corrections",
}
"""Table of a message type; every other market type is at home in ``events``."""


@dataclass(slots=True)
class Records:
    """The records that rows point into: one entry in each list for each record."""

    epoch: list[str | None] = field(default_factory=list)
    bucket: list[int | None] = field(default_factory=list)
    bseq: list[int | None] = field(default_factory=list)
    sent_at_ns: list[int | None] = field(default_factory=list)

    def columns(self, record: Sequence[int]) -> Iterator[tuple[str, pa.Array]]:
        """The provenance columns of rows, given the number of each row's record."""
        index = pa.array(record, pa.int32())
        yield "epoch", pa.array(self.epoch, pa.string()).take(index)
        yield "bucket", pa.array(self.bucket, pa.int32()).take(index)
        yield "bseq", pa.array(self.bseq, pa.int64()).take(index)
        yield "sent_at_ns", pa.array(self.sent_at_ns, pa.int64()).take(index)


@dataclass(slots=True)
class Rows:
    """Rows of one table in the making: parallel lists, one entry for each message."""

    messages: list[Message] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)

    def keep(self, mask: Sequence[bool]) -> Rows:
        """Only the rows of which the mask says so."""
        return Rows(
            list(compress(self.messages, mask)),
            list(compress(self.times, mask)),
            list(compress(self.record, mask)),
            list(compress(self.position, mask)),
        )


_TIME: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$"

Reject = Callable[[Message, str, int, int], None]
"""Called with message, reason, record and position of a row that does not fit."""


def build(kind: str, rows: Rows, records: Records, *, reject: Reject) -> pa.Table:
    """The rows of a raw table.

    Args:
        kind: ``t``, ``q``, ``b``, ``c``, ``x``, or anything else for ``events``.
        rows: Its messages.
        records: Their records.
        reject: Told of every message that the columns cannot hold.
    """
    wanted = TABLES[HOME.get(kind, "events")]
    keys = _KEYS.get(kind)
    values = _payload_columns if keys is None else _key_columns(keys)
    while True:
        bad: dict[int, str] = {}
        columns: dict[str, Any] = {}
        for name, cells in values(rows.messages):
            columns[name] = _array(wanted, name, cells, bad)
        received = [m.get("r") for m in rows.messages]
        columns["received_at_ns"] = _array(wanted, "received_at_ns", received, bad)
        if "backfilled" in wanted.schema.names:
            late = [m.get("bf", False) for m in rows.messages]
            columns["backfilled"] = _array(wanted, "backfilled", late, bad)
        if not bad:
            break
        for row, reason in sorted(bad.items()):
            reject(rows.messages[row], reason, rows.record[row], rows.position[row])
        rows = rows.keep([row not in bad for row in range(len(rows.messages))])
    columns["event_time_ns"] = times = pa.array(rows.times, pa.int64())
    columns["event_time"] = to_time(times)
    columns["position"] = pa.array(rows.position, pa.int32())
    columns.update(records.columns(rows.record))
    columns["date"] = columns["event_time"].cast(pa.date32())
    for field_ in wanted.schema:  # a cancel has no corrected price
        if field_.name not in columns:
            columns[field_.name] = pa.nulls(len(rows.messages), field_.type)
    return pa.table([columns[n] for n in wanted.schema.names], schema=wanted.schema)


def to_time(nanoseconds: pa.Array) -> pa.Array:
    """Nanoseconds since the epoch as the lake's time, cut to the microsecond."""
    return pc.divide(nanoseconds, 1000).cast(pa.timestamp("us")).cast(TIME)


def times_of(texts: Sequence[str]) -> np.ndarray | None:
    """Nanoseconds since the epoch of many times; ``None`` if one has not the usual form.

    The same as :func:`pipelines.events.parse_time_ns` of each; int64, shape ``(len(texts),)``.

    >>> times_of(["2021-02-22T15:51:45.335689322Z", "1970-01-01T00:00:01Z"]).tolist()
    [1614009105335689322, 1000000000]
    >>> times_of(["2021-02-22T10:51:45-05:00"]) is None
    True
    """
    array = pa.array(texts, pa.string())
    if not pc.all(pc.match_substring_regex(array, _TIME)).as_py() and len(texts):
        return None
    try:
        times = array.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    found: np.ndarray = times.to_numpy(zero_copy_only=False)
    return found


def _key_columns(
    keys: dict[str, str],
) -> Callable[[Sequence[Message]], Iterator[tuple[str, list[Any]]]]:
    def columns(messages: Sequence[Message]) -> Iterator[tuple[str, list[Any]]]:
        for name, key in keys.items():
            yield name, [m.get(key) for m in messages]

    return columns


def _payload_columns(messages: Sequence[Message]) -> Iterator[tuple[str, list[Any]]]:
    yield "type", [m["T"] for m in messages]
    yield "symbol", [s if isinstance(s := m.get("S"), str) else None for m in messages]
    yield "payload", [payload(m) for m in messages]


def payload(message: Message) -> str:
    """A message as it came, as JSON text (our receipt stamp ``r`` is not part of it)."""
    return orjson.dumps({k: v for k, v in message.items() if k != "r"}).decode()


def _array(wanted: Table, name: str, cells: list[Any], bad: dict[int, str]) -> pa.Array | None:
    kind = wanted.schema.field(name).type
    try:
        return pa.array(cells, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for row, cell in enumerate(cells):
            try:
                pa.array([cell], kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                bad.setdefault(row, f"bad_type:{name}")
        return None
