"""Times that no two messages of a market share.

A tick's time is a multiple of :data:`QUANTUM_NS` past the minute plus the row of its symbol (below
1,000). What is no tick lies between those: its slot of about a millisecond, the row inside it, and
its kind above 1,000. So a reader that knows the time of a message knows which one it was.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.events import MINUTE_NS, Message
from pipelines.exchange.frames import Key

QUANTUM_NS = 1024
MAX_ROWS = 1000

HALT, RESUME, BAND, IMBALANCE, CORRECTION, CANCEL, NEWS = range(MAX_ROWS, MAX_ROWS + 7)

_SLOT_NS = QUANTUM_NS * 1024
_SLOTS = MINUTE_NS // _SLOT_NS


def unique_ns(near_ns: int, *, row: int, kind: int) -> int:
    """The time of a message that is no tick, within two milliseconds of a moment, in its minute.

    Args:
        near_ns: Moment, ns.
        row: Row of the symbol, below 1,000.
        kind: One of the kinds above.

    >>> unique_ns(5 * MINUTE_NS, row=2, kind=HALT) - 5 * MINUTE_NS
    3048
    >>> unique_ns(6 * MINUTE_NS - 1, row=999, kind=NEWS) < 6 * MINUTE_NS
    True
    """
    start_ns = near_ns - near_ns % MINUTE_NS
    slot = min((near_ns - start_ns) // _SLOT_NS, _SLOTS - 1)
    return start_ns + slot * _SLOT_NS + row * QUANTUM_NS + kind


class Event(NamedTuple):
    """A message that is no tick, and when it is published.

    Args:
        due_ns: Market time of publication.
        time_ns: The time that the message bears; a late trade's lies before.
        key: Channel and symbol.
        message: The message, without its time.
    """

    due_ns: int
    time_ns: int
    key: Key
    message: Message


def when(event: Event) -> tuple[int, int]:
    """Key to sort events by: publication, then the time that they bear."""
    return event.due_ns, event.time_ns
