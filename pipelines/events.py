"""The nouns on the wire and on the streams: messages, buckets, records, items. Pure.

A *message* is one Alpaca message as received, a dict with its short keys. A *record* is what one
Kinesis record of ``market-data`` holds: many messages of one symbol bucket. An *item* is what
``market-signals`` carries. The layout is version 1 of the stream format.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

Message = dict[str, Any]

BUCKETS = 64
"""Number of symbol buckets; a bucket is the partition key on ``market-data``."""

MINUTE_NS = 60_000_000_000
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS

TRADE, QUOTE, BAR = "t", "q", "b"
CORRECTION, CANCEL, UPDATED_BAR = "c", "x", "u"
EVENT_TYPES = frozenset("duslcxin")
"""Alpaca's other message types: what a correction or a cancel says goes to ``corrections``, the
others to ``events`` with their payload as it was."""
MARKET_TYPES = frozenset({TRADE, QUOTE, BAR}) | EVENT_TYPES

HEARTBEAT, GAP, MALFORMED = "hb", "gap", "bad"
"""Message types that the producer itself adds to a record.

``hb``: ``{"T":"hb","market_ns":int,"symbols":[...]}``, every second, in every bucket in use.
``gap``: ``{"T":"gap","S":symbol,"from_ns":int|null,"to_ns":int,"reason":str}``: messages of the
symbol whose :func:`effective_ns` lies strictly between were missed.
``bad``: ``{"T":"bad","reason":str,"raw":base64}``: a frame, or a part of one, that is no message.
"""

NEWS = "@news"
"""Stands for a symbol in the gap rows of the news: a news message may be about many symbols."""

MAX_RAW_BYTES = 512 * 1024
"""Raw bytes that a ``bad`` message keeps; a record has to fit one megabyte."""

MAX_AHEAD_NS = 5 * MINUTE_NS
MAX_BEHIND_NS = 7 * DAY_NS
"""An event dated further from the market time of its record than this is quarantined."""

MAX_NUMBER = 1e12
"""Largest price (USD), size or volume (shares): sums of products of a minute stay finite."""

MIN_PRICE_USD = 1e-9
"""Smallest price: ratios of prices stay finite."""


MARKET_DAY_BEGINS_NS = 5 * 3600 * SECOND_NS
"""Time of day, UTC, at which one trading day ends and the next begins: an hour at which nothing is
traded. Extended hours end at 20:00 in New York, in winter an hour after midnight UTC."""


def market_day(ns: int) -> int:
    """The trading day of a moment, as days since the epoch; trade ids are unique within it.

    >>> market_day(parse_time_ns("2011-01-04T00:30:00Z")) * DAY_NS == parse_time_ns(
    ...     "2011-01-03T00:00:00Z")
    True
    """
    return (ns - MARKET_DAY_BEGINS_NS) // DAY_NS


def bucket_of(symbol: str) -> int:
    """Bucket of a symbol: stable over runs, hosts and languages (CRC-32 modulo 64).

    >>> bucket_of("AAPL"), bucket_of("SPY")
    (28, 63)
    """
    return zlib.crc32(symbol.encode()) % BUCKETS


_SECONDS: dict[str, int] = {}
_PREFIXES: dict[int, str] = {}
_FRACTIONS: tuple[int, ...] = tuple(10 ** (9 - digits) for digits in range(10))
"""Nanoseconds of the last of so many decimals of a second."""


def parse_time_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with up to nine decimals.

    >>> parse_time_ns("2021-02-22T15:51:45.335689322Z")
    1614009105335689322
    >>> parse_time_ns("2021-02-22T15:51:45Z") == parse_time_ns("2021-02-22T10:51:45-05:00")
    True

    Raises:
        ValueError: The text is no RFC 3339 time.
    """
    prefix = text[:19]
    seconds = _SECONDS.get(prefix)
    if seconds is None:
        seconds = int(datetime.fromisoformat(prefix).replace(tzinfo=UTC).timestamp())
        if len(_SECONDS) > 4096:
            _SECONDS.clear()
        _SECONDS[prefix] = seconds
    if text[-1] == "Z":  # nearly every one: no more is done for it than it needs
        digits = text[20:-1]
        if digits.isdigit() and text[19] == "." and len(digits) <= 9:
            return seconds * SECOND_NS + int(digits) * _FRACTIONS[len(digits)]
    rest = text[19:]
    if rest == "Z":
        return seconds * SECOND_NS
    offset_s = 0
    if rest.endswith("Z"):
        rest = rest[:-1]
    elif len(rest) >= 6 and rest[-6] in "+-":
        sign = -1 if rest[-6] == "-" else 1
        offset_s = sign * (int(rest[-5:-3]) * 3600 + int(rest[-2:]) * 60)
        rest = rest[:-6]
    else:
        raise ValueError(f"no zone in time {text!r}")
    nanos = 0
    if rest:
        digits = rest[1:]
        if rest[0] != "." or not digits.isdigit() or len(digits) > 9:
            raise ValueError(f"bad fraction in time {text!r}")
        nanos = int(digits) * _FRACTIONS[len(digits)]
    return (seconds - offset_s) * SECOND_NS + nanos


def format_time_ns(ns: int) -> str:
    """RFC 3339 text of nanoseconds since the epoch, UTC, without trailing zeros.

    >>> format_time_ns(1614009105335689322), format_time_ns(1614009105000000000)
    ('2021-02-22T15:51:45.335689322Z', '2021-02-22T15:51:45Z')
    """
    seconds, nanos = divmod(ns, SECOND_NS)
    prefix = _PREFIXES.get(seconds)
    if prefix is None:
        prefix = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        if len(_PREFIXES) > 4096:
            _PREFIXES.clear()
        _PREFIXES[seconds] = prefix
    if not nanos:
        return prefix + "Z"
    return f"{prefix}.{nanos:09d}".rstrip("0") + "Z"


def effective_ns(message: Mapping[str, Any]) -> int:
    """Market time at which a message could first be known.

    A tick's own time; for a minute bar, whose ``t`` is its start, its end. Gap rows are stated in
    this time.

    >>> effective_ns({"T": "b", "t": "1970-01-01T00:01:00Z"}) == 2 * MINUTE_NS
    True
    """
    ns = parse_time_ns(message["t"] if "t" in message else message["updated_at"])
    return ns + MINUTE_NS if message["T"] == BAR else ns


def malformed(reason: str, *, raw: bytes, received_ns: int) -> Message:
    """The ``bad`` message of raw bytes that are no message.

    >>> malformed("no JSON", raw=b"[", received_ns=7)
    {'T': 'bad', 'reason': 'no JSON', 'raw': 'Ww==', 'r': 7}
    """
    if len(raw) > MAX_RAW_BYTES:
        reason = f"{reason} (first {MAX_RAW_BYTES} of {len(raw)} bytes)"
        raw = raw[:MAX_RAW_BYTES]
    text = base64.b64encode(raw).decode()
    return {"T": MALFORMED, "reason": reason, "raw": text, "r": received_ns}


def _bad_number(value: object, *, zero_ok: bool, least: float = 0.0) -> bool:
    """Whether a value is no number, or out of bounds; NaN is out of any."""
    if type(value) is not float and type(value) is not int:
        return True
    if value == 0:
        return not zero_ok
    return not least <= value <= MAX_NUMBER


def _bad_strings(value: object) -> bool:
    if type(value) is not list and type(value) is not tuple:
        return True
    return not {*map(type, value)} <= {str}


def _bad_count(value: object, *, least: int = 0) -> bool:
    return type(value) is not int or not least <= value < 2**63


_NUMBERS: dict[str, tuple[tuple[str, float, bool], ...]] = {
    TRADE: (("p", MIN_PRICE_USD, False), ("s", 0.0, True)),
    QUOTE: (
        ("bp", MIN_PRICE_USD, True),
        ("ap", MIN_PRICE_USD, True),
        ("bs", 0.0, True),
        ("as", 0.0, True),
    ),
    BAR: (*((key, MIN_PRICE_USD, False) for key in "ohlc"), ("v", 0.0, True)),
    CORRECTION: (("cp", MIN_PRICE_USD, False), ("cs", 0.0, True)),
    CANCEL: (),
}
_NUMBERS[UPDATED_BAR] = _NUMBERS[BAR]
"""What a message must have: key, least value, and whether it may be 0 instead."""

_STRINGS = {
    TRADE: ("x", "z"), QUOTE: ("bx", "ax", "z"), BAR: (), UPDATED_BAR: (),
    CORRECTION: ("x", "z"), CANCEL: ("x", "z", "a"),
}  # fmt: skip
_OTHERS: dict[str, tuple[tuple[str, Callable[[object], bool]], ...]] = {
    TRADE: (("c", _bad_strings), ("i", partial(_bad_count, least=-(2**63)))),
    QUOTE: (("c", _bad_strings),),
    BAR: (("n", _bad_count), ("vw", partial(_bad_number, zero_ok=True))),
    CORRECTION: (
        ("oi", partial(_bad_count, least=-(2**63))),
        ("ci", partial(_bad_count, least=-(2**63))),
        ("oc", _bad_strings),
        ("cc", _bad_strings),
    ),
    CANCEL: (("i", partial(_bad_count, least=-(2**63))),),
}
_OTHERS[UPDATED_BAR] = _OTHERS[BAR]
"""What a message may lack, with a test of it; the strings stand apart because they are many."""


def reject_reason(message: Message, *, market_ns: int) -> str | None:
    """Why a message must be quarantined, or ``None`` if it may be stored.

    Args:
        message: One message of a record.
        market_ns: Market time at which its record was sent; it stands in the record, so that
            every reader at any time decides the same.

    Returns:
        ``unknown_type``, ``missing_field:<key>``, ``bad_number:<key>``, ``bad_type:<key>``,
        ``bad_time``, ``future_event``, ``ancient_event``, ``bad_bar`` or ``None``.

    A quote may have a side with price 0 (nobody there); a trade and a bar may not. What passes
    fits the columns of the lake and can be computed with: no reader needs a rule of its own.

    >>> trade = {"T": "t", "S": "AAPL", "p": -1, "s": 5, "t": "1970-01-01T00:00:01Z"}
    >>> reject_reason(trade, market_ns=0)
    'bad_number:p'
    """
    kind = message.get("T")
    if not isinstance(kind, str) or kind not in MARKET_TYPES:
        return "unknown_type"
    if kind in _NUMBERS:
        if not isinstance(message.get("S"), str) or not message["S"]:
            return "missing_field:S"
        for key, least, zero_ok in _NUMBERS[kind]:
            value = message.get(key)
            if type(value) is float and least <= value <= MAX_NUMBER and value:
                continue
            if key not in message:
                return f"missing_field:{key}"
            if _bad_number(value, zero_ok=zero_ok, least=least):
                return f"bad_number:{key}"
        for key in _STRINGS[kind]:
            value = message.get(key)
            if type(value) is not str and value is not None:
                return f"bad_type:{key}"
        for key, bad in _OTHERS[kind]:
            value = message.get(key)
            if value is not None and bad(value):
                return f"bad_type:{key}"
        if kind in (BAR, UPDATED_BAR) and not (
            message["l"] <= min(message["o"], message["c"])
            and max(message["o"], message["c"]) <= message["h"]
        ):
            return "bad_bar"
    if (received := message.get("r")) is not None and _bad_count(received):
        return "bad_type:r"
    try:
        ns = effective_ns(message)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "bad_time"
    if ns > market_ns + MAX_AHEAD_NS:
        return "future_event"
    if ns < market_ns - MAX_BEHIND_NS:
        return "ancient_event"
    return None


def is_gap(message: Message) -> bool:
    """Whether a ``gap`` message has what a gap needs.

    >>> is_gap({"T": "gap", "S": "SPY", "from_ns": None, "to_ns": 7})
    True
    """
    begins = message.get("from_ns")
    return (
        type(message.get("S")) is str
        and not _bad_count(message.get("to_ns"))
        and (begins is None or not _bad_count(begins))
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One record of ``market-data``.

    Args:
        epoch: Identity of the producer run that made it (a UUID).
        bucket: Symbol bucket, 0 to 63; also the partition key.
        bseq: Counter of (epoch, bucket), from 1 without holes.
        sent_at_ns: Wall time of its first sending.
        market_ns: Market time of its first sending.
        messages: The messages in order of receipt, each with ``r``, its receipt in wall ns.
    """

    epoch: str
    bucket: int
    bseq: int
    sent_at_ns: int
    market_ns: int
    messages: Sequence[Message]

    @property
    def kinds(self) -> str:
        """The market message types inside, one letter each, once, sorted."""
        types = {m["T"] for m in self.messages if isinstance(m, dict) and type(m.get("T")) is str}
        return "".join(sorted(types & MARKET_TYPES))


def item(
    kind: str,
    *,
    symbol: str,
    event_time: str,
    data: Mapping[str, Any],
    revision: int = 0,
    model: str = "",
) -> dict[str, Any]:
    """One item of ``market-signals``; its id names what it is about, so repeats can be dropped.

    >>> at = "2011-01-03T14:30:00Z"
    >>> item("signal", symbol="SPY", event_time=at, data={}, model="ppo-1:3")["id"]
    'signal:SPY:2011-01-03T14:30:00Z:0:ppo-1:3'
    """
    tail = f":{model}" if model else ""
    return {
        "id": f"{kind}:{symbol}:{event_time}:{revision}{tail}",
        "kind": kind,
        "symbol": symbol,
        "event_time": event_time,
        "revision": revision,
        "data": dict(data),
    }
