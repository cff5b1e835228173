"""Which messages of one instant are stored. Pure.

A feed may publish many messages of a symbol in one nanosecond (one order meets many others), and
a connection may break between two of them. So a gap includes the instants at its two ends, and the
messages of these instants that are stored are known by what they say: live, on the stream and over
REST the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

from pipelines.events import BAR, QUOTE, TRADE, Message, effective_ns, reject_reason

Edge = tuple[int, frozenset[int]]
"""An instant, ns, and the identities of its messages that are stored. Without any, nothing of the
instant is missed beyond what a gap row says already."""

NO_EDGE: Edge = (-1, frozenset())

MAX_IDS = 1000
"""Most messages of one instant that are remembered."""


def identity(message: Message) -> int:
    """What tells a message that may be stored from the others of its symbol, in 32 bits.

    >>> trade = {"T": "t", "S": "SPY", "i": 7, "x": "V", "t": "2024-01-02T15:00:00Z", "s": 5}
    >>> identity(trade) == identity({**trade, "s": 5.0, "r": 3}) != identity({**trade, "i": 8})
    True
    """
    kind, get = message["T"], message.get
    told: tuple[object, ...]
    if kind == TRADE:
        told = (get("i"), get("x")) if get("i") is not None else (_number(get("p")), get("x"))
    elif kind == QUOTE:
        told = (*map(_number, map(get, ("bp", "ap", "bs", "as"))), get("bx"), get("ax"))
    elif kind == BAR:
        told = ()
    else:
        told = (sorted((k, v) for k, v in message.items() if k != "r" and type(v) is str),)
    text = repr((kind, effective_ns(message), told))
    return zlib.crc32(text.encode(errors="backslashreplace"))


def stored_at(messages: Iterable[Message], market_ns: int) -> frozenset[int]:
    """Identities of those that a reader stores.

    Args:
        messages: Of one symbol and instant.
        market_ns: Market time of their record.
    """
    found: set[int] = set()
    for message in messages:
        if reject_reason(message, market_ns=market_ns) is None:
            found.add(identity(message))
            if len(found) >= MAX_IDS:
                break
    return frozenset(found)


def ends(
    messages: Sequence[Message], until: Mapping[str, int], *, skip: frozenset[str], market_ns: int
) -> dict[str, frozenset[int]]:
    """Per symbol, the identities of its messages at its last instant in a record.

    Args:
        messages: Of the record.
        until: Per symbol, that instant, ns.
        skip: Types that bound nothing.
        market_ns: Market time of the record.
    """
    at: dict[str, list[Message]] = {symbol: [] for symbol in until}
    left = dict(until)
    for message in reversed(messages):
        if not left:
            break
        symbol = message.get("S")
        if symbol not in left or message["T"] in skip or "bf" in message:
            continue
        found = at[symbol]
        same = found and message.get("t") == found[0].get("t") and message["T"] == found[0]["T"]
        ns = until[symbol] if same else _when(message)
        if ns == until[symbol]:
            found.append(message)
        elif ns is not None and ns < until[symbol]:
            del left[symbol]
    return {symbol: stored_at(found, market_ns) for symbol, found in at.items()}


def before(
    end_ns: int, symbol: str, messages: Iterable[Message], *, skip: frozenset[str], market_ns: int
) -> frozenset[int]:
    """Identities of the first messages of a symbol, up to one that is not before a moment.

    Args:
        end_ns: The moment.
        symbol: Whose.
        messages: Of a record, in order.
        skip: Types that bound nothing.
        market_ns: Market time of the record.
    """
    ids: set[int] = set()
    for message in messages:
        if message.get("S") == symbol and message["T"] not in skip and "bf" not in message:
            if reject_reason(message, market_ns=market_ns) is not None:
                continue
            if effective_ns(message) >= end_ns:
                break
            ids.add(identity(message))
    return frozenset(ids)


def advance(edges: dict[str, Edge], new: Mapping[str, Edge]) -> None:
    """Take over later instants; of the same one, all that is known.

    >>> edges = {"SPY": (5, frozenset({1}))}
    >>> advance(edges, {"SPY": (5, frozenset({2}))}); sorted(edges["SPY"][1])
    [1, 2]
    >>> advance(edges, {"SPY": (5, frozenset())}); edges["SPY"]
    (5, frozenset())
    """
    for symbol, edge in new.items():
        known = edges.get(symbol)
        if known is None or edge[0] > known[0]:
            edges[symbol] = edge
        elif edge[0] == known[0]:
            ids = known[1] | edge[1] if known[1] and edge[1] else frozenset()
            edges[symbol] = (edge[0], ids)


def to_json(edges: Mapping[str, Edge]) -> dict[str, list[object]]:
    """JSON types."""
    return {symbol: [ns, sorted(ids)] for symbol, (ns, ids) in edges.items()}


def from_json(saved: Mapping[str, Sequence[object]]) -> dict[str, Edge]:
    """What :func:`to_json` gave."""
    return {symbol: (ns, frozenset(ids)) for symbol, (ns, ids) in saved.items()}  # type: ignore[misc,call-overload]


def _number(value: object) -> object:
    return float(value) if type(value) is int else value


def _when(message: Message) -> int | None:
    try:
        return effective_ns(message)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
