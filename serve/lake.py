"""What the gateway asks of the lake, as rows that it serves. Blocks; called in threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.lake.query import LakeQuery
from serve.bars import GapKey, bar_of_lake

_GAPS = """
    SELECT symbol, from_ns, to_ns, any_value(reason) AS reason, bool_or(backfilled) AS backfilled
    FROM gaps WHERE to_ns >= $start AND to_ns < $end
      AND (to_ns < $after_ns OR (to_ns = $after_ns
           AND (symbol, coalesce(from_ns, -1)) > ($after_symbol, $after_from)))
    GROUP BY symbol, from_ns, to_ns
    ORDER BY to_ns DESC, symbol, coalesce(from_ns, -1) LIMIT $limit
"""
_FAR_NS = 2**62


class ServedLake:
    """Reads bars and gaps.

    Args:
        uri: The lake.
        options: Its storage options.
    """

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self._query = LakeQuery(uri, options, timeout_s=10)

    def bars(self, symbol: str, *, limit: int, before_ns: int | None) -> list[dict[str, Any]]:
        """Closed minute bars that ended at or before a market time, oldest first."""
        rows = self._query.recent_bars(symbol, limit=limit, before_ns=before_ns)
        return [bar_of_lake(row) for row in rows]

    def gaps(
        self,
        *,
        limit: int,
        start_ns: int | None = None,
        end_ns: int | None = None,
        after: GapKey | None = None,
    ) -> list[dict[str, Any]]:
        """Declared gaps with start ≤ to < end, newest first, then by symbol.

        One cut of the line ends for all symbols at one moment, so that a page goes on after a
        row, not after a time.

        Args:
            limit: Most rows.
            start_ns: Market nanoseconds.
            end_ns: Market nanoseconds.
            after: The last row of the page before.
        """
        after_ns, symbol, from_ns = after or (_FAR_NS, "", -1)
        parameters = {
            "limit": limit,
            "start": -_FAR_NS if start_ns is None else start_ns,
            "end": _FAR_NS if end_ns is None else end_ns,
            "after_ns": after_ns,
            "after_symbol": symbol,
            "after_from": from_ns,
        }
        rows: list[dict[str, Any]] = self._query.sql(_GAPS, parameters).to_pylist()
        return rows
