"""Trades, quotes and heartbeats, nearly all of a stream, decoded and judged in one go. Pure.

In: the data of a Kinesis record of ``market-data``. Out: its messages as objects, if each is one of
these and passes :func:`pipelines.events.reject_reason` but for its time, which whoever reads them
has to look at; else ``None``, and :func:`pipelines.codec.decode_record` has the word. msgspec makes
checked objects in less time than dicts take; the rule in Python takes four times as long. A test
holds both to the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from pipelines.events import MAX_AHEAD_NS, MAX_BEHIND_NS, MAX_NUMBER, MIN_PRICE_USD

_Text = Annotated[str, Meta(min_length=1)]
_Price = Annotated[float, Meta(ge=MIN_PRICE_USD, le=MAX_NUMBER)]
_Size = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Trade(Struct, tag_field="T", tag="t", gc=False, forbid_unknown_fields=True):
    """A trade; keys are Alpaca's.

    Args:
        S: Symbol.
        t: Event time, RFC 3339 text.
        p: Price, USD.
        s: Size, shares.
        i: Trade id.
        x: Exchange.
        c: Conditions.
        z: Tape.
        r: Receipt, wall nanoseconds.
        bf: Always false: what was backfilled is not decoded here.
    """

    S: _Text
    t: str
    p: _Price
    s: _Size
    i: _Id | None = None
    x: str | None = None
    c: tuple[str, ...] | None = None
    z: str | None = None
    r: _Count | None = None
    bf: Literal[False] = False


class Quote(Struct, tag_field="T", tag="q", gc=False, forbid_unknown_fields=True):
    """A top-of-book quote; a side with price 0 is empty.

    Args:
        S: Symbol.
        t: Event time, RFC 3339 text.
        bp: Bid price, USD.
        bs: Bid size.
        ap: Ask price, USD.
        ask_size: Ask size (``as``).
        bx: Exchange of the bid.
        ax: Exchange of the ask.
        c: Conditions.
        z: Tape.
        r: Receipt, wall nanoseconds.
        bf: Always false: what was backfilled is not decoded here.
    """

    S: _Text
    t: str
    bp: _Size
    bs: _Size
    ap: _Size
    ask_size: _Size = field(name="as")
    bx: str | None = None
    ax: str | None = None
    c: tuple[str, ...] | None = None
    z: str | None = None
    r: _Count | None = None
    bf: Literal[False] = False


class Heartbeat(Struct, tag_field="T", tag="hb", gc=False, forbid_unknown_fields=True):
    """The producer lives.

    Args:
        symbols: Of its bucket.
        market_ns: Market time, nanoseconds.
        r: Wall time, nanoseconds.
    """

    symbols: list[str] = []
    market_ns: int = 0
    r: int = 0


class TickRecord(Struct, gc=False, forbid_unknown_fields=True):
    """A record that holds nothing else; fields as in :class:`pipelines.events.Record`.

    An unknown field, here or in a tick, is one that msgspec would pass over unchecked: what is in
    it may be no JSON at all. So whoever checks everything has the word.
    """

    v: Literal[1]
    epoch: _Text
    bucket: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    bseq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    sent_at_ns: _Count
    market_ns: Annotated[int, Meta(ge=0, le=2**62)]
    messages: list[Trade | Quote | Heartbeat]
    kinds: str = ""

    @property
    def earliest_ns(self) -> int:
        """What is dated before this is not to be stored."""
        return self.market_ns - MAX_BEHIND_NS

    @property
    def latest_ns(self) -> int:
        """Nor is what is dated after this."""
        return self.market_ns + MAX_AHEAD_NS

    def times(self) -> Iterator[str]:
        """The times of its trades and quotes."""
        return (tick.t for tick in self.messages if not isinstance(tick, Heartbeat))


_DECODER: Final = msgspec.json.Decoder(TickRecord)


def decode_ticks(data: bytes) -> TickRecord | None:
    """The ticks of a record, or ``None`` if anything in it is something else.

    >>> head = b'{"v":1,"epoch":"e","bucket":63,"bseq":1,"sent_at_ns":1,"market_ns":1,"messages":'
    >>> trade = b'{"T":"t","S":"SPY","p":127.5,"s":100,"t":"1970-01-01T00:00:01Z"}'
    >>> decode_ticks(head + b"[" + trade + b"]}").messages[0].p
    127.5
    >>> decode_ticks(head + b"[" + trade.replace(b"127.5", b"-1") + b"]}") is None
    True
    """
    try:
        record = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: nested too deep
        return None
    for tick in record.messages:
        # Between nothing and the smallest price; a type cannot say so.
        if isinstance(tick, Quote) and (0 < tick.bp < MIN_PRICE_USD or 0 < tick.ap < MIN_PRICE_USD):
            return None
    return record
