"""Messages that were published together: encoded once per codec, framed once per audience.

A :class:`Batch` is what one turn of the exchange publishes. However many clients there are, each
message is encoded once as JSON and once as msgpack, and clients that want the same of it share
the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import msgpack
import orjson

from pipelines.codec import with_timestamps
from pipelines.events import SECOND_NS, Message, format_time_ns
from pipelines.tape import CHANNELS

Codec = Literal["json", "msgpack"]
Key = tuple[str, str]
"""Channel and symbol of a message; for news all of its symbols, with commas between them."""


EVERYONE = ""
"""Channel of a message of no known type: whoever subscribed to anything gets it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One prepared websocket payload and how many messages are in it."""

    payload: bytes
    count: int


def key_of(message: Message) -> Key:
    """Channel and symbol of a message.

    >>> key_of({"T": "n", "symbols": ["AAPL", "SPY"]}), key_of({"T": "zz", "S": "SPY"})
    (('news', 'AAPL,SPY'), ('', 'SPY'))
    """
    channel = CHANNELS.get(str(message.get("T")), EVERYONE)
    if channel == "news" and isinstance(message.get("symbols"), list):
        return channel, ",".join(map(str, message["symbols"]))
    return channel, str(message.get("S", ""))


class Batch:
    """Messages published together, in order.

    Args:
        messages: The messages, ``T`` first. Those of the market come without ``t`` (of news:
            without ``created_at`` and ``updated_at``), which ``times_ns`` holds; injected ones are
            as they are, with times as text.
        times_ns: Time of each message, or ``None`` for injected ones.
        keys: Channel and symbol of each message.
    """

    __slots__ = (
        "_dated",
        "_frames",
        "_json",
        "_last",
        "_packed",
        "audience",
        "keys",
        "messages",
        "times_ns",
    )

    def __init__(
        self, messages: Sequence[Message], *, times_ns: Sequence[int] | None, keys: Sequence[Key]
    ) -> None:
        self.messages = messages
        self.times_ns = times_ns
        self.keys = keys
        self._last = dict(zip(keys, range(len(keys)), strict=True))
        self.audience = frozenset(self._last)
        self._dated = False
        self._json: list[bytes] | None = None
        self._packed: list[bytes] | None = None
        self._frames: dict[tuple[Codec, frozenset[Key]], list[Frame]] = {}

    @classmethod
    def injected(cls, messages: Sequence[Message]) -> Batch:
        """A batch of messages that somebody hands in as they are."""
        ordered = [{"T": m["T"], **m} if "T" in m else m for m in messages]
        return cls(ordered, times_ns=None, keys=[key_of(m) for m in ordered])

    def __len__(self) -> int:
        return len(self.messages)

    def only(self, keep: Sequence[bool]) -> Batch:
        """The batch of some of the messages."""
        times = None if self.times_ns is None else list(compress(self.times_ns, keep))
        messages = list(compress(self.messages, keep))
        return Batch(messages, times_ns=times, keys=list(compress(self.keys, keep)))

    def json(self) -> list[bytes]:
        """Each message as JSON."""
        if self._json is None:
            self._date()
            self._json = list(map(orjson.dumps, self.messages))
        return self._json

    def packed(self) -> list[bytes]:
        """Each message as msgpack, times as Timestamps."""
        if self._packed is None:
            pack = msgpack.Packer().pack
            if self.times_ns is None or any(channel == "news" for channel, _ in self.audience):
                self._date()
                self._packed = [pack(with_timestamps(m)) for m in self.messages]
            else:
                # One Timestamp for all: making a new one costs as much as packing a message.
                stamp, out, begins = msgpack.Timestamp(0, 0), [], -SECOND_NS
                for message, ns in zip(self.messages, self.times_ns, strict=True):
                    if not 0 <= ns - begins < SECOND_NS:
                        stamp.seconds = ns // SECOND_NS
                        begins = stamp.seconds * SECOND_NS
                    stamp.nanoseconds = ns - begins
                    message["t"] = stamp
                    out.append(pack(message))
                self._dated = False
                self._packed = out
        return self._packed

    def last_of_each(self) -> dict[Key, tuple[Message, int | None]]:
        """The last message of each key, with its time if it does not bear it as text."""
        messages, times = self.messages, self.times_ns
        if times is None:
            return {key: (messages[i], None) for key, i in self._last.items()}
        return {key: (messages[i], times[i]) for key, i in self._last.items()}

    def _date(self) -> None:
        """Give each message its time as text, once; a skewed batch dates the same ones anew."""
        if self._dated or self.times_ns is None:
            return
        self._dated = True
        for message, ns in zip(self.messages, self.times_ns, strict=True):
            date_message(message, ns)

    def parts(self, codec: Codec, wanted: frozenset[Key]) -> list[tuple[bytes, Key]]:
        """The encoded messages of an audience, each with its key."""
        parts = self.json() if codec == "json" else self.packed()
        return [pair for pair in zip(parts, self.keys, strict=True) if pair[1] in wanted]

    def frames(self, codec: Codec, wanted: frozenset[Key], *, size: int) -> list[Frame]:
        """The frames of an audience.

        Args:
            codec: Encoding of the frames.
            wanted: The keys of this batch that the audience wants.
            size: Most messages of one frame.
        """
        cached = self._frames.get((codec, wanted))
        if cached is None:
            parts = self.json() if codec == "json" else self.packed()
            if len(wanted) < len(self.audience):
                parts = [p for p, key in zip(parts, self.keys, strict=True) if key in wanted]
            cached = self._frames[codec, wanted] = frames_of(parts, codec, size=size)
        return cached


def date_message(message: Message, ns: int) -> None:
    """Give a message its time as text."""
    if "symbols" in message:  # news
        message["created_at"] = message["updated_at"] = format_time_ns(ns)
    else:
        message["t"] = format_time_ns(ns)


def frames_of(parts: list[bytes], codec: Codec, *, size: int) -> list[Frame]:
    """Frames of at most ``size`` encoded messages each."""
    join = json_frame if codec == "json" else packed_frame
    return [Frame(join(chunk), len(chunk)) for chunk in _chunks(parts, size)]


def json_frame(parts: Sequence[bytes]) -> bytes:
    """A JSON array of encoded messages.

    >>> json_frame([b'{"T":"t"}', b'{"T":"q"}'])
    b'[{"T":"t"},{"T":"q"}]'
    """
    return b"[" + b",".join(parts) + b"]"


def packed_frame(parts: Sequence[bytes]) -> bytes:
    r"""A msgpack array of encoded messages.

    >>> packed_frame([b"\x80"])
    b'\x91\x80'
    """
    count = len(parts)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(parts)


def encode_control(message: Message, codec: Codec) -> Frame:
    """A frame of one control message, which has no time."""
    if codec == "json":
        return Frame(orjson.dumps([message]), 0)
    return Frame(msgpack.packb([message]), 0)


def _chunks(parts: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(parts), size):
        yield parts[start : start + size]
