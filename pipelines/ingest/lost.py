"""Gap rows for what records held that the journal cannot give back. Pure.

Nobody knows what was in them. But the records of a bucket are put in their order: when the turn of
a lost one comes, the stream holds all that came before it, and the next message of a symbol that is
put came after it. Until there is one, the mark of the symbol stays where it is, so whoever is
killed meanwhile declares the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipelines import codec
from pipelines.events import (
    GAP,
    HEARTBEAT,
    MALFORMED,
    NEWS,
    Message,
    Record,
    bucket_of,
    effective_ns,
    reject_reason,
)
from pipelines.ingest import edges
from pipelines.ingest.edges import NO_EDGE, Edge
from pipelines.ingest.gaps import RETROSPECTIVE
from pipelines.ports import Put

REASON = "unreadable journal"
_SAYS_NOTHING = RETROSPECTIVE | {HEARTBEAT, MALFORMED}


class LostRecords:
    """Follows what is lost until it can be declared."""

    def __init__(self) -> None:
        self._open: dict[str, Edge] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def note(
        self,
        bucket: int,
        *,
        stored: Mapping[str, int],
        ends: Mapping[str, Edge],
        made: Mapping[str, int],
    ) -> None:
        """A record of a bucket is lost; it is its turn.

        Args:
            bucket: Whose.
            stored: Per symbol, the market time up to which the stream accounts for it, ns.
            ends: Per symbol, its last instant and which of its messages the stream holds.
            made: Per symbol, the market time up to which the records that were made account for
                it. Where that is no more, nothing of the symbol is lost, or the gap that is open
                for it begins early enough.
        """
        for symbol, until in stored.items():
            if bucket_of(symbol) == bucket and made.get(symbol, 0) > until:
                instant_ns, ids = ends.get(symbol, NO_EDGE)
                known = ids if instant_ns == until else frozenset[int]()
                self._open.setdefault(symbol, (until, known))

    def rows(self, puts: Iterable[Put]) -> list[Message]:
        """The gap rows that can be written, now that these records are put."""
        found: list[Message] = []
        for put in puts:
            mine = [symbol for symbol in self._open if bucket_of(symbol) == int(put.key)]
            if not mine:
                continue
            record = codec.decode_record(put.data)
            for symbol in mine:
                if (row := _row(symbol, self._open[symbol], record)) is not None:
                    del self._open[symbol]
                    found.append(row)
        return found


def _row(symbol: str, edge: Edge, record: Record) -> Message | None:
    """The gap row of a symbol, if a record says where it ends."""
    from_ns, seen = edge
    for position, message in enumerate(record.messages):
        kind = message["T"]
        if (message.get("S") or (NEWS if kind == "n" else None)) != symbol:
            continue
        if kind in _SAYS_NOTHING or message.get("backfilled") or "bf" in message:
            continue
        if kind == GAP:
            begins = message["from_ns"]
            to_ns = (message["to_ns"] - 1 if begins is None else begins) + 1
        elif reject_reason(message, market_ns=record.market_ns) is None:
            to_ns = effective_ns(message) + 1
            rest, skip = record.messages[position:], _SAYS_NOTHING | {GAP}
            market_ns = record.market_ns
            seen |= edges.before(to_ns, symbol, rest, skip=skip, market_ns=market_ns)
        else:
            continue
        row = {"T": GAP, "S": symbol, "to_ns": to_ns, "reason": REASON}
        row["from_ns"] = from_ns - 1 if edge[1] else from_ns
        return row | ({"seen": sorted(seen)} if seen else {})
    return None
