"""The streaming job's side of the ledger, as rows of the table ``ledger``. Pure, but for the clock.

A row says what a stage counted until a moment: the archive since the lake began, the signals since
their driver started. What the producer received stands beside it at ``/v1/ledger``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pyarrow as pa

from pipelines.clock import wall_ns
from pipelines.lake.tables import TABLES, TIME
from pipelines.lake.writer import LakeWriter

QUERY = "ledger"
_TABLE = TABLES["ledger"]


def ledger_rows(stats: Mapping[str, Any], *, at_ns: int) -> pa.Table:
    """One row for each stage.

    Args:
        stats: What :meth:`pipelines.streaming.job.StreamingJob.stats` says.
        at_ns: Wall time.

    >>> archive = {"stored": 5, "duplicates": 1, "quarantined": 2, "holes": 0, "gaps": 0}
    >>> rows = ledger_rows({"archive": archive, "signals": {"bars": 3, "signals": 2}}, at_ns=0)
    >>> rows.select(["stage", "received", "stored"]).to_pylist()[0]
    {'stage': 'archive', 'received': 8, 'stored': 5}
    """
    archive, signals = stats["archive"], stats["signals"]
    counted = ("stored", "duplicates", "quarantined", "holes", "gaps")
    at = pa.scalar(at_ns // 1000, pa.timestamp("us")).cast(TIME).as_py()
    rows = [
        {name: archive[name] for name in counted}
        | {"stage": "archive", "received": sum(archive[name] for name in counted[:3])}
        | {"payload": orjson.dumps(archive).decode()},
        {"stage": "signals", "received": signals["bars"], "stored": signals["signals"]}
        | {"payload": orjson.dumps(signals).decode()},
    ]
    made = [dict.fromkeys(_TABLE.schema.names) | row for row in rows]
    for row in made:
        row |= {"event_time": at, "date": at.date()}
    return pa.Table.from_pylist(made, schema=_TABLE.schema)


class LedgerKeeper:
    """Writes the ledger down; one thread calls it.

    Args:
        writer: The lake.
        stats: The job's statistics.
        clock: Wall time, nanoseconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        stats: Callable[[], Mapping[str, Any]],
        *,
        clock: Callable[[], int] = wall_ns,
    ) -> None:
        self._writer = writer
        self._stats = stats
        self._clock = clock
        self._generation = 0

    def open(self) -> None:
        """Take over from any older driver.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(QUERY, tables=(_TABLE.name,))

    def write(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Add the rows of this moment.

        Args:
            stopped: Whether not to begin.

        Raises:
            Fenced: A newer driver does this now.
            LakeError: The lake cannot be written.
        """
        if stopped():
            return
        last = self._writer.last_batch(_TABLE.name, QUERY)
        self._writer.commit(
            _TABLE.name,
            ledger_rows(self._stats(), at_ns=self._clock()),
            query_id=QUERY,
            batch_id=0 if last is None else last + 1,
            generation=self._generation,
        )
