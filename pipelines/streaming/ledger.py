"""The ledger as rows of the table ``ledger``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from pipelines.lake.tables import TABLES
from pipelines.streaming.rows import table_of

_LONG: Final = frozenset(("clock", "symbols", "subscriptions", "left_out", "by_type", "alarms"))
"""What the producer says besides its numbers."""


def ledger_table(
    rows: Sequence[Mapping[str, Any]],
    producer: Mapping[str, Any] | None,
    streaming: Mapping[str, Any],
    *,
    at_ns: int,
    ended: bool = False,
    declared: Mapping[str, int] | None = None,
) -> pa.Table:
    """One row for each stage, with its own numbers beside.

    Args:
        rows: What :func:`pipelines.ledger.rows` says.
        producer: Statistics of the producer, or ``None``.
        streaming: Those of :meth:`pipelines.streaming.job.StreamingJob.stats`.
        at_ns: Wall time.
        ended: Whether the job ends in order with this.
        declared: State of :class:`pipelines.ledger.Declared`, for who comes next.

    >>> from pipelines import ledger
    >>> streaming = {"archive": {"stored": 5, "quarantined": 2}, "signals": {"bars": 3}}
    >>> made = ledger_table(ledger.rows(None, streaming), None, streaming, at_ns=0)
    >>> made.select(["stage", "received", "stored"]).to_pylist()[0]
    {'stage': 'archive', 'received': 7, 'stored': 5}
    """
    said = {
        "producer": {k: v for k, v in (producer or {}).items() if k not in _LONG},
        "archive": {**streaming["archive"], "ended": ended, "declared": declared},
        "signals": streaming["signals"],
    }
    return table_of(
        TABLES["ledger"].name,
        [
            {
                "event_time": at_ns // 1000,
                **row,
                "payload": orjson.dumps(said.get(row["stage"], {})).decode(),
            }
            for row in rows
        ],
    )
