"""Which messages say that a bar which is over may be another one by now. Pure.

A bar is over for the query ``signals`` when the vendor's came, or one of a later minute, or when
its own stood in: :data:`STAND_IN_AFTER_NS` of wall time after the end of the minute, as the stamps
of the records tell. A trade or a bar that comes after that is noticed here, and so are backfilled
ones, updated bars, corrections, cancels, and gaps that were filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipelines.events import (
    BAR,
    CANCEL,
    CORRECTION,
    MINUTE_NS,
    NEWS,
    SECOND_NS,
    UPDATED_BAR,
    Message,
)
from pipelines.lake.dirty import Dirty

STAND_IN_AFTER_NS: Final = 5 * SECOND_NS
"""Wall time after the end of a minute at which our own bar stands in for the vendor's."""

REWIND_NS: Final = 10 * MINUTE_NS
"""A market whose time is back by more than this is another market."""

_MAX_MINUTES: Final = 1440
"""Of a longer gap the last so many are looked at again."""

_MAX_ENDS: Final = 64


class Notice:
    """Follows the records of one reader.

    Args:
        closed: Per symbol the end of the last bar that came before, market ns.
        ended: Ends of minutes, market ns, and when each was first seen to be over, wall ns.
    """

    def __init__(
        self, closed: Mapping[str, int] | None = None, ended: Mapping[int, int] | None = None
    ) -> None:
        self.dirty = Dirty()
        self.closed = dict(closed or {})
        self.ended = dict(ended or {})

    def settled_ns(self, *, market_ns: int, sent_at_ns: int) -> int:
        """What starts before this is over when a record is sent, though no bar of it came.

        >>> notice = Notice()
        >>> notice.settled_ns(market_ns=121 * SECOND_NS, sent_at_ns=0)
        0
        >>> notice.settled_ns(market_ns=130 * SECOND_NS, sent_at_ns=5 * SECOND_NS) // SECOND_NS
        120
        """
        over = market_ns - market_ns % MINUTE_NS
        ended = self.ended
        if over not in ended:
            if over < max(ended, default=0) - REWIND_NS:
                ended.clear()
            ended[over] = sent_at_ns
        settled = 0
        for end, seen_ns in ended.items():
            if settled < end <= over and sent_at_ns - seen_ns >= STAND_IN_AFTER_NS:
                settled = end
        if settled > min(ended):
            self.ended = {end: ns for end, ns in ended.items() if end >= settled}
        return settled

    def other(self, kind: str, message: Message, ns: int, *, settled_ns: int) -> None:
        """Take a message that is no trade and no quote."""
        symbol, known = message["S"], self.closed.get(message["S"], 0)
        if kind in (CORRECTION, CANCEL):
            self.dirty.day(symbol, ns)
        elif kind == UPDATED_BAR or message.get("bf") or ns < max(known, settled_ns):
            self.dirty.minute(symbol, ns)
        if kind == BAR and not message.get("bf"):
            end = ns + MINUTE_NS
            # Not one that comes late; but a market may begin anew.
            if end > known or (end < known - REWIND_NS and ns >= settled_ns):
                self.closed[symbol] = end

    def filled(self, gap: Message) -> None:
        """Take a gap that was filled: its bars may be made now, and are no longer in doubt.

        Nor are those after it whose features look back over it.
        """
        if gap["S"] == NEWS:
            return
        last = gap["to_ns"] // MINUTE_NS
        begin_ns = gap["to_ns"] if gap["from_ns"] is None else gap["from_ns"]
        first = max(begin_ns // MINUTE_NS, last - _MAX_MINUTES)
        self.dirty.minutes.setdefault(gap["S"], set()).update(range(first, last + 1))
        self.dirty.after.setdefault(gap["S"], set()).add(last)


def merged(parts: list[Mapping[int, int]]) -> dict[int, int]:
    """What several readers saw of the ends of minutes: when the first of them saw each.

    >>> merged([{60: 5, 120: 9}, {60: 4}])
    {60: 4, 120: 9}
    """
    seen: dict[int, int] = {}
    for part in parts:
        for end, ns in part.items():
            seen[end] = min(ns, seen.get(end, ns))
    return {end: seen[end] for end in sorted(seen)[-_MAX_ENDS:]}
