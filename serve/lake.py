"""What the gateway asks of the lake, as rows that it serves. Blocks; called in threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.lake.query import LakeQuery
from serve.bars import bar_of_lake

_GAPS = """
    SELECT symbol, from_ns, to_ns, reason, backfilled FROM gaps
    WHERE to_ns < $before ORDER BY to_ns DESC, symbol LIMIT $limit
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

    def gaps(self, *, limit: int, before_ns: int | None) -> list[dict[str, Any]]:
        """Declared gaps, newest first."""
        parameters = {"limit": limit, "before": _FAR_NS if before_ns is None else before_ns}
        rows: list[dict[str, Any]] = self._query.sql(_GAPS, parameters).to_pylist()
        return rows
