"""Kinesis records to what the query ``signals`` needs of them: one row per symbol and batch.

Runs on executors where the records are read, so that a symbol's thousand quotes travel as one row.
What the archive quarantines is left out here by the same rule. What was backfilled is only counted:
its time is over, bars are closed on what was known then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from pipelines.codec import decode_record
from pipelines.errors import MalformedFrame
from pipelines.events import (
    BAR,
    GAP,
    HEARTBEAT,
    QUOTE,
    TRADE,
    Message,
    Record,
    bucket_of,
    is_gap,
    parse_time_ns,
    reject_reason,
)
from pipelines.streaming.columns import times_of
from pipelines.streaming.parts import Part, op_of_trade
from pipelines.ticks import Heartbeat, Quote, TickRecord, decode_ticks
from pipelines.workers import settle

GROUPS: Final = 16
"""Groups of symbols that are folded together, for Spark takes long to hand one to Python. They are
the keys of the state: another number needs another folder for the checkpoint."""

_ARROW: Final = pa.schema(
    [
        ("group", pa.int32()),
        ("symbol", pa.string()),
        ("first_ns", pa.int64()),
        ("parts", pa.binary()),
    ]
)

_NEEDED: Final = frozenset({TRADE, QUOTE, BAR})

# What bad data raises in code that believed it to be good.
_BAD_DATA: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_log = logging.getLogger(__name__)


def group_of(symbol: str) -> int:
    """Group of a symbol, the same for all symbols of a bucket.

    >>> group_of("AAPL"), group_of("SPY")
    (12, 15)
    """
    return bucket_of(symbol) % GROUPS


def reduce(batches: Iterable[pa.RecordBatch], *, live: bool = False) -> Iterator[pa.RecordBatch]:
    """Reduce one partition, whole shards in order.

    Args:
        batches: Rows with a column ``data``.
        live: Whether market time is wall time: then also how long messages took to arrive.
    """
    rows: dict[str, list[Any]] = {}
    for batch in batches:
        data = batch.column("data").to_pylist()
        records = [decode_ticks(one) for one in data]
        times = times_of([text for record in records if record for text in record.times()])
        clock = iter(() if times is None else times.tolist())
        for one, ticks in zip(data, records, strict=True):
            if ticks is not None and times is not None:
                add_ticks(ticks, clock, rows, live=live)
                continue
            try:
                record = decode_record(one)
            except MalformedFrame as error:
                _log.debug("left to the archive: %s", error)
                continue
            add(record, rows, live=live)
    if rows:
        yield pa.record_batch(
            [
                pa.array([group_of(symbol) for symbol in rows], pa.int32()),
                pa.array(list(rows), pa.string()),
                pa.array([parts[0][2] for parts in rows.values()], pa.int64()),
                pa.array([orjson.dumps(parts) for parts in rows.values()], pa.binary()),
            ],
            schema=_ARROW,
        )
    settle("reduce")


def add_ticks(
    record: TickRecord, clock: Iterator[int], rows: dict[str, list[Any]], *, live: bool = False
) -> None:
    """Append what a record of ticks says about each of its symbols, as :func:`add` does.

    Args:
        record: The record.
        clock: Gives the times of its trades and quotes, ns.
        rows: As in :func:`add`.
        live: Whether to say how long the messages took to arrive.
    """
    ops: dict[str, list[Any]] = {}
    took: dict[str, tuple[int, float]] = {}
    earliest, latest = record.earliest_ns, record.latest_ns
    for tick in record.messages:
        if isinstance(tick, Heartbeat):
            for symbol in tick.symbols:
                ops.setdefault(symbol, [])
            continue
        ns = next(clock)
        if live and tick.r is not None:
            count, total_ms = took.get(tick.S, (0, 0.0))
            took[tick.S] = count + 1, total_ms + (tick.r - ns) / 1e6
        if not earliest <= ns <= latest:
            continue
        done = ops.get(tick.S)
        if done is None:
            done = ops[tick.S] = []
        if isinstance(tick, Quote):
            done.append(["q", ns, tick.bp, tick.ap])
        else:
            done.append(op_of_trade(ns, tick.p, tick.s, tick.c or ()))
    _append(record, ops, took, rows)


def add(record: Record, rows: dict[str, list[Any]], *, live: bool = False) -> None:
    """Append what a record says about each of its symbols.

    A message that passes the rule and is nevertheless not understood would be read again at every
    restart: it is left out, and counted as ``("x",)`` in the parts of its symbol.

    Args:
        record: The record.
        rows: Per symbol its parts so far; each ``[epoch, bseq, sent_at_ns, market_ns, ops]``.
        live: Whether to say how long the messages took to arrive.
    """
    ops: dict[str, list[Any]] = {}
    for message in record.messages:
        try:
            _add(message, record.market_ns, ops)
        except _BAD_DATA:
            _log.exception("left out a message of %s/%s", record.bucket, record.bseq)
            symbol = message.get("S") if isinstance(message, dict) else None
            if type(symbol) is str:
                ops.setdefault(symbol, []).append(["x"])
    _append(record, ops, _latency(record) if live else {}, rows)


def _append(
    record: Record | TickRecord,
    ops: Mapping[str, list[Any]],
    took: Mapping[str, tuple[int, float]],
    rows: dict[str, list[Any]],
) -> None:
    for symbol, (count, total_ms) in took.items():
        if symbol in ops:
            ops[symbol].append(["l", count, total_ms])
    for symbol, done in ops.items():
        rows.setdefault(symbol, []).append(
            [record.epoch, record.bseq, record.sent_at_ns, record.market_ns, done]
        )


def _add(message: Message, market_ns: int, ops: dict[str, list[Any]]) -> None:
    if not isinstance(message, dict):
        return
    kind = message.get("T")
    if type(kind) is not str:
        return
    if kind in _NEEDED:
        if reject_reason(message, market_ns=market_ns) is None:
            done = ops.setdefault(message["S"], [])
            if not message.get("bf"):
                done.append(_op(kind, message))
            elif done and done[-1][0] == "f":
                done[-1][1] += 1
            else:
                done.append(["f", 1])
    elif kind == HEARTBEAT:
        for symbol in message.get("symbols") or ():
            if type(symbol) is str:
                ops.setdefault(symbol, [])
    elif kind == GAP and is_gap(message) and not message.get("backfilled"):
        op = ["g", message.get("from_ns"), message["to_ns"]]
        ops.setdefault(message["S"], []).append(op)


def _latency(record: Record) -> dict[str, tuple[int, float]]:
    """Per symbol how many trades and quotes came, and the sum of how long they took, ms."""
    found: dict[str, tuple[int, float]] = {}
    for message in record.messages:
        if not isinstance(message, dict) or message.get("T") not in (TRADE, QUOTE):
            continue
        received_ns = message.get("r")
        if message.get("bf") or type(received_ns) is not int:
            continue
        try:
            symbol, took_ms = message["S"], (received_ns - parse_time_ns(message["t"])) / 1e6
            count, total_ms = found.get(symbol, (0, 0.0))
        except _BAD_DATA:
            continue  # told by the loop over the same messages
        found[symbol] = count + 1, total_ms + took_ms
    return found


def parts_of(blobs: Sequence[tuple[int, bytes]]) -> list[Part]:
    """The parts of a symbol's rows of one batch, in the order of the stream.

    Args:
        blobs: ``first_ns`` and ``parts`` of each row. There is more than one only around a
            reshard, when records of the old and of a new shard meet.
    """
    return [Part(*part) for _, blob in sorted(blobs) for part in orjson.loads(blob)]


def _op(kind: str | None, message: Message) -> list[Any]:
    ns = parse_time_ns(message["t"])
    if kind == QUOTE:
        return ["q", ns, message["bp"], message["ap"]]
    if kind == TRADE:
        return op_of_trade(ns, message["p"], message["s"], message.get("c") or ())
    return [
        "b", ns, *(float(message[key]) for key in "ohlcv"), message.get("n"),
        message.get("vw") or None,
    ]  # fmt: skip
