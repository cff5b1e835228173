"""What an exchange says beside prices: trading statuses, price bands, imbalances. Pure.

In: the bars of a session with their bands and pauses. Out: events, in order of time, each at a
time that no tick has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.events import MINUTE_NS, SECOND_NS, Message
from pipelines.exchange.market import Block
from pipelines.exchange.moments import BAND, HALT, IMBALANCE, RESUME, Event, unique_ns, when
from pipelines.exchange.pauses import Bands, Pause

IMBALANCE_MINUTES = 5
IMBALANCE_NS = 10 * SECOND_NS
"""How often a closing imbalance is told, in the last minutes."""

BAND_STEP = 0.01
"""Bands are told again when they moved by this part."""

_PAUSED = "Volatility Trading Pause"
_STATUS = {
    # tape: halt code, its meaning, reason code; resumption code, its meaning
    "A": ("2", "Trading Halt", "M", "3", "Resume"),
    "B": ("2", "Trading Halt", "M", "3", "Resume"),
    "C": ("P", _PAUSED, "LUDP", "T", "Trading Resumption"),
}


def of_session(block: Block, *, symbols: Sequence[str], tapes: Sequence[str]) -> list[Event]:
    """The notices of one session; none where the market has no bands.

    Args:
        block: The session.
        symbols: Name of each row.
        tapes: Tape of each row.
    """
    if block.bands is None:
        return []
    events: list[Event] = []
    for pause in block.pauses:
        events += _of_pause(pause, block, symbols[pause.row], tapes[pause.row])
    starts = block.starts_ns.tolist()
    for row, column in _band_changes(block.bands):
        message: Message = {
            "T": "l", "S": symbols[row], "u": float(block.bands.high[row, column]),
            "d": float(block.bands.low[row, column]), "i": "B", "t": None, "z": tapes[row],
        }  # fmt: skip
        events.append(_event("lulds", row, BAND, starts[column], message))
    for column in range(max(0, len(starts) - IMBALANCE_MINUTES), len(starts)):
        for row in np.flatnonzero(block.present[:, column]).tolist():
            price = float(block.open[row, column])
            for near in range(starts[column], starts[column] + MINUTE_NS, IMBALANCE_NS):
                events.append(_imbalance(row, near, price, symbols[row], tapes[row]))
    return sorted(events, key=when)


def _of_pause(pause: Pause, block: Block, symbol: str, tape: str) -> Iterator[Event]:
    halted, meaning, reason, resumed, resumption = _STATUS[tape]
    starts, row = block.starts_ns, pause.row

    def status(code: str, text: str) -> Message:
        return {"T": "s", "S": symbol, "sc": code, "sm": text, "rc": reason, "rm": _PAUSED,
                "t": None, "z": tape}  # fmt: skip

    begins, ends = int(starts[pause.first]), int(starts[pause.reopens])
    yield _event("statuses", row, HALT, begins, status(halted, meaning))
    price = float(block.close[row, pause.first - 1])
    for near in range(begins + 3 * IMBALANCE_NS, ends, MINUTE_NS):
        yield _imbalance(row, near, price, symbol, tape)
    # It is told at the end of the last minute without trades, before the first trade.
    yield _event("statuses", row, RESUME, ends - 1, status(resumed, resumption))


def _imbalance(row: int, near_ns: int, price: float, symbol: str, tape: str) -> Event:
    message: Message = {"T": "i", "S": symbol, "p": price, "t": None, "z": tape}
    return _event("imbalances", row, IMBALANCE, near_ns, message)


def _event(channel: str, row: int, kind: int, near_ns: int, message: Message) -> Event:
    at_ns = unique_ns(near_ns, row=row, kind=kind)
    return Event(at_ns, at_ns, (channel, message["S"]), message)


def _band_changes(bands: Bands) -> Iterator[tuple[int, int]]:
    """Row and minute at which bands are told: the first minute, and where they moved enough."""
    told = np.zeros(len(bands.high))
    for column in range(bands.high.shape[1]):
        now = bands.high[:, column]
        moved = np.abs(now - told) > BAND_STEP * told
        for row in np.flatnonzero(moved).tolist():
            yield row, column
        told = np.where(moved, now, told)
