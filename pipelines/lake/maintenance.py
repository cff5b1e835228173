"""Keeps the lake small: few files in each day, no dead ones, a short log.

Streaming writes a small file per table and batch, and replaces the archive's bookkeeping each time.
A pass joins a day's small files when there are many, deletes files that no version younger than
the retention names, and cuts the logs. It is bounded in time, and whatever another commit gets in
the way of is left to the next pass. Readers are not disturbed: they finish on the version they
began with. Writers are not either: a commit that adds files and one that joins others both hold.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.errors import Fenced, LakeError
from pipelines.lake.tables import ARCHIVE_STATE, PARTITION, TABLES
from pipelines.lake.writer import HISTORY, LOG_RETENTION, METADATA_KEY, LakeWriter

QUERY: Final = "maintenance"
"""Under this name it is fenced: it commits beside the queries, and only the newest of it does."""

_NAMES: Final = (*TABLES, ARCHIVE_STATE.name)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pass does at most, and when.

    Args:
        many_files: A day with more small files than this is compacted.
        target_bytes: Size of a joined file; one of half that size is not small.
        retention_h: Files stay readable for so many hours after they were joined or replaced.
        pass_s: No further step is begun after so many seconds.
    """

    many_files: int = 32
    target_bytes: int = 64 * 2**20
    retention_h: int = 6
    pass_s: float = 300.0


class Maintenance:
    """One driver's maintenance; one thread calls :meth:`run`.

    Args:
        writer: The lake.
        limits: What a pass may do.
        monotonic: Monotonic clock, seconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        limits: Limits | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._limits = limits or Limits()
        self._monotonic = monotonic
        self._generation = 0
        self._stats: dict[str, Any] = {
            "passes": 0, "compacted_files": 0, "vacuumed_files": 0, "skipped": 0,
        }  # fmt: skip

    def open(self) -> None:
        """Take maintenance over from any older driver.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(QUERY, tables=_NAMES)

    def stats(self) -> dict[str, Any]:
        """Counters since this driver started, JSON types."""
        return dict(self._stats)

    def run(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """One pass over all tables.

        Args:
            stopped: Asked before each step; whether to leave the rest.

        Raises:
            Fenced: A newer driver does this now.
        """
        deadline = self._monotonic() + self._limits.pass_s
        for name in _NAMES:
            for step in (self._compact, self._vacuum, self._cut_log):
                if stopped() or self._monotonic() > deadline:
                    return
                try:
                    step(name, *self._writer.owned(name, query=QUERY, generation=self._generation))
                except Fenced:
                    raise
                except (DeltaError, LakeError, OSError) as error:
                    self._stats["skipped"] += 1
                    _log.warning("%s%s waits for the next pass: %s", name, step.__name__, error)
        self._stats["passes"] += 1

    def _compact(self, name: str, table: DeltaTable, commit: CommitProperties) -> None:
        days = self._crowded_days(table)
        if not days:
            return
        # The day with the most files; the others follow in the next passes, so that each is short.
        done = table.optimize.compact(
            partition_filters=[(PARTITION, "=", days[0])],
            target_size=self._limits.target_bytes,
            max_concurrent_tasks=1,
            commit_properties=commit,
        )
        self._stats["compacted_files"] += done["numFilesRemoved"]
        _log.info(
            "%s of %s: %d files became %d",
            name,
            days[0],
            done["numFilesRemoved"],
            done["numFilesAdded"],
        )

    def _crowded_days(self, table: DeltaTable) -> list[str]:
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        small = Counter(
            str(file[f"partition.{PARTITION}"])
            for file in files
            if file["size_bytes"] < self._limits.target_bytes // 2
        )
        return [day for day, count in small.most_common() if count > self._limits.many_files]

    def _vacuum(self, name: str, table: DeltaTable, commit: CommitProperties) -> None:
        # Files that were never committed stay: those of a batch that the archive has yet to add
        # to its tables look the same.
        options: dict[str, Any] = {
            "retention_hours": self._limits.retention_h,
            "enforce_retention_duration": False,
            "keep_versions": _last_batches(table),
        }
        if not table.vacuum(dry_run=True, **options):
            return
        dead = table.vacuum(dry_run=False, commit_properties=commit, **options)
        self._stats["vacuumed_files"] += len(dead)
        _log.info("%s: %d dead files deleted", name, len(dead))

    def _cut_log(self, name: str, table: DeltaTable, commit: CommitProperties) -> None:
        if not LOG_RETENTION.items() <= table.metadata().configuration.items():
            _log.info("%s: its log was kept for longer until now", name)
            table.alter.set_table_properties(LOG_RETENTION, commit_properties=commit)
        table.create_checkpoint()
        table.cleanup_metadata()


def _last_batches(table: DeltaTable) -> Sequence[int] | None:
    """The versions with the last batch of each query: a restart may have to read it again."""
    versions: dict[str, int] = {}
    for entry in table.history(HISTORY):
        kept = orjson.loads(entry.get(METADATA_KEY) or "{}")
        if "query_id" in kept:
            versions.setdefault(kept["query_id"], entry["version"])
    return sorted(versions.values()) or None
