"""Scripted faults: what goes wrong, when, for whom. Pure: it decides, others do it.

A script is a JSON array of entries, ``{"do": …}`` with what else is needed::

    [{"at": "+30s", "do": "drop"},
     {"at": "+60s", "every": "10s", "times": 100, "do": "half_frame", "feed": "iex"},
     {"at": "open+5m", "do": "mute", "for_s": 300, "symbols": ["AAPL"]},
     {"at": "13:45:00", "do": "refuse", "code": 406, "for_s": 60}]

``at`` is ``+30s`` (wall time since the script was loaded; the default is ``+0s``), ``open+5m``
(market time since the first session opened), or ``13:45:00`` (New York time on the market clock,
the next such moment). ``every`` repeats it, in the time that ``at`` counts, ``times`` times
(without: for ever). ``for_s`` is how long a fault with a duration lasts, in wall seconds.
``feed`` (iex, sip, test, news) and ``symbols`` say whom it concerns; without: everyone.

Faults of a connection leave the tape as it is: it holds what was published, whoever got it.

==============  ======================================  ===========================================
do              parameters (defaults)                   what a client sees
==============  ======================================  ===========================================
drop            close_code (none)                       TCP cut; with a code a proper close frame
half_frame                                              half of the next frame, then TCP cut
mute            for_s (60)                              connected, pongs, no data
refuse          code, where (by code), for_s (60)       HTTP status at the handshake, or an error
                                                        at auth or subscribe
error           code                                    an error message out of the blue
garbage         frames (3), b64 (a mixture)             frames that are no messages
delay           delay_s (1), for_s (10)                 everything later, in order
duplicate       share (1), for_s (10)                   that share of the messages twice
disorder        for_s (10)                              the messages of each batch shuffled
slow            messages_per_s (100), for_s (10)        a link that carries no more; then 407
==============  ======================================  ===========================================

Faults of the market are published: they are on the tape, and every feed of stocks has them.

==============  ======================================  ===========================================
do              parameters (defaults)                   what is published
==============  ======================================  ===========================================
skew            skew_s (5), for_s (10)                  ticks dated so much later (or earlier)
halt            reason (T12), for_s (60)                status H, silence of the symbol, status T
burst           messages (10000)                        so many quotes at once
correction      change_bps (10)                         ``c`` for the last trade
cancel                                                  ``x`` for the last trade
updated_bar     change_bps (10)                         ``u`` for the last bar
bad_price       values (null, "nan", "inf", 0, -1)      trades with these prices
unknown_type    messages (1)                            messages of type ``zz``
==============  ======================================  ===========================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pipelines.events import SECOND_NS

NEW_YORK = ZoneInfo("America/New_York")
Where = Literal["handshake", "auth", "subscribe"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a script.

    Args:
        do: What happens.
        clock: Which time ``at`` counts: ``wall``, ``open`` or ``day``.
        at_ns: Offset on that clock; for ``day`` since midnight in New York.
        every_ns: Interval of its repetitions, or ``None``.
        times: How often at most, or ``None``.
        lasts_s: Wall seconds that it lasts; 0 for a fault without a duration.
        feed: Whom it concerns, or ``None``.
        symbols: Which symbols; empty for all.
        parameters: The rest of the entry, with defaults.
        entry: The entry as it was written.
    """

    do: str
    clock: Literal["wall", "open", "day"]
    at_ns: int
    every_ns: int | None
    times: int | None
    lasts_s: float
    feed: str | None
    symbols: frozenset[str]
    parameters: Mapping[str, Any]
    entry: Mapping[str, Any]

    def concerns(self, feed: str) -> bool:
        """Whether clients of a feed see it."""
        return self.feed is None or self.feed == feed

    def names(self, symbol: str) -> bool:
        """Whether messages of a symbol (of news: several, with commas) have it."""
        return not self.symbols or not self.symbols.isdisjoint(symbol.split(","))


@dataclass(slots=True)
class _Armed:
    """A fault with its next moment: wall ns for ``wall``, else market ns (``None``: to be seen)."""

    fault: Fault
    next_ns: int | None
    fired: int = 0
    until_ns: int = 0


@dataclass(slots=True)
class FaultScript:
    """Which faults begin, and which last, as the clocks go on."""

    windows: tuple[Fault, ...] = ()
    """The faults that last just now."""

    _armed: list[_Armed] = field(default_factory=list)

    def add(self, faults: Sequence[Fault], *, wall_ns: int) -> None:
        """Arm faults; ``+30s`` counts from now."""
        for fault in faults:
            at = wall_ns + fault.at_ns if fault.clock == "wall" else None
            self._armed.append(_Armed(fault, at))

    def clear(self) -> None:
        """End them all."""
        self._armed.clear()
        self.windows = ()

    def step(
        self, *, wall_ns: int, market_ns: int | None = None, open_ns: int | None = None
    ) -> tuple[list[Fault], list[Fault]]:
        """Go on to a moment.

        Args:
            wall_ns: Wall time.
            market_ns: Market time; ``None`` while the market has not opened.
            open_ns: Market time at which its first session opened.

        Returns:
            The faults that begin now, and those with a duration that end now.
        """
        began: list[Fault] = []
        ended: list[Fault] = []
        for armed in self._armed:
            fault = armed.fault
            if armed.until_ns and wall_ns >= armed.until_ns:
                armed.until_ns = 0
                ended.append(fault)
            now = wall_ns if fault.clock == "wall" else market_ns
            if now is None or (fault.times is not None and armed.fired >= fault.times):
                continue
            if armed.next_ns is None:
                armed.next_ns = _first(fault, now, open_ns)
            if now < armed.next_ns:
                continue
            began.append(fault)
            armed.fired += 1
            armed.until_ns = wall_ns + int(fault.lasts_s * SECOND_NS) if fault.lasts_s else 0
            if fault.every_ns is not None:
                # Moments that were missed (closed hours, a pause) are not made up for.
                missed = (now - armed.next_ns) // fault.every_ns
                armed.next_ns += (missed + 1) * fault.every_ns
        if began or ended:
            self.windows = tuple(a.fault for a in self._armed if a.until_ns)
        return began, ended

    def lasting(self, do: str, feed: str) -> Iterator[Fault]:
        """The faults of a kind that last just now and concern a feed."""
        for fault in self.windows:
            if fault.do == do and fault.concerns(feed):
                yield fault

    def refusal(self, feed: str, where: Where) -> int | None:
        """The code with which a client of a feed is refused just now, or ``None``."""
        for fault in self.lasting("refuse", feed):
            if fault.parameters["where"] == where:
                return int(fault.parameters["code"])
        return None

    def to_list(self) -> list[dict[str, Any]]:
        """The entries, with how often each began and until when (wall ns) it lasts."""
        return [
            {**a.fault.entry, "fired": a.fired, "until_ns": a.until_ns or None} for a in self._armed
        ]


def _first(fault: Fault, market_ns: int, open_ns: int | None) -> int:
    if fault.clock == "open":
        return (market_ns if open_ns is None else open_ns) + fault.at_ns
    now = datetime.fromtimestamp(market_ns / SECOND_NS, UTC).astimezone(NEW_YORK)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + timedelta(seconds=fault.at_ns / SECOND_NS)
    if moment < now - timedelta(seconds=1):
        moment += timedelta(days=1)
    return int(moment.timestamp()) * SECOND_NS
