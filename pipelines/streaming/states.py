"""The states of a group's symbols in one value, which Spark keeps and hands over as a whole.

Each state stays the bytes that it is until its symbol is folded.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson


def pack(states: Mapping[str, bytes]) -> bytes:
    """The states of several symbols as one value; :func:`unpack` takes it apart.

    >>> unpack(pack({"AAPL": b"x", "SPY": b""}))
    {'AAPL': b'x', 'SPY': b''}
    """
    head = orjson.dumps({symbol: len(state) for symbol, state in states.items()})
    return b"".join((len(head).to_bytes(4, "big"), head, *states.values()))


def unpack(data: bytes) -> dict[str, bytes]:
    """The states that :func:`pack` put together, in their order."""
    at = 4 + int.from_bytes(data[:4], "big")
    states = {}
    for symbol, size in orjson.loads(data[4:at]).items():
        states[symbol] = data[at : at + size]
        at += size
    return states
