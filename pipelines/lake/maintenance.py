"""Keeps the lake small: few files in each day, no dead ones, a short log.

Streaming writes a small file per table and batch, and replaces the archive's bookkeeping each time.
A pass joins each day's small files until they are few, each joined file sorted like any other;
drops the days that a table need not keep; deletes files that no version younger than the retention
names, and orphans that no commit ever named; and cuts the logs. It is bounded in time and memory:
one that runs out of time is continued by the next at the table that it had come to, and whatever
another commit gets in the way of is left to the next pass. Readers are not disturbed: they
finish on the version they began with. Writers are not either: a commit that adds files and one that
joins others both hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import accumulate
from typing import Any, Final

import orjson
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.errors import Fenced, LakeError
from pipelines.lake.files import read_files, write_files
from pipelines.lake.tables import ARCHIVE_STATE, PARTITION, TABLES
from pipelines.lake.tables import table as known_table
from pipelines.lake.writer import HISTORY, METADATA_KEY, PROPERTIES, LakeWriter, join

QUERY: Final = "maintenance"
"""Under this name it is fenced: it commits beside the queries, and only the newest of it does."""

_DAY: Final = f"partition.{PARTITION}"
_NAMES: Final = (*TABLES, ARCHIVE_STATE.name)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pass does at most, and when.

    Args:
        many_files: The newest day is compacted when it has more small files than this; an older
            one when it has two.
        target_bytes: Size of a joined file; one of half that size is not small.
        join_rows: So many rows are joined at most at once: bounds the memory. A file with half as
            many is not small.
        retention_h: Files stay readable for so many hours after they were joined or replaced:
            how far back queries can travel.
        orphans_h: Files that no commit names are deleted when they are so many hours old.
        keep_days: Days that a table keeps, counted back from its newest; the others keep all.
        pass_s: No further step is begun after so many seconds.
    """

    many_files: int = 32
    target_bytes: int = 64 * 2**20
    join_rows: int = 1_000_000
    retention_h: int = 6
    orphans_h: int = 24
    keep_days: Mapping[str, int] = field(default_factory=dict)
    pass_s: float = 300.0


class Maintenance:
    """One driver's maintenance; one thread calls :meth:`run`.

    Args:
        writer: The lake.
        limits: What a pass may do.
        tables: Which tables; all by default.
        monotonic: Monotonic clock, seconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        limits: Limits | None = None,
        *,
        tables: Sequence[str] = _NAMES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._limits = limits or Limits()
        self._tables = tuple(tables)
        self._monotonic = monotonic
        self._generation = 0
        self._first = 0  # of the tables, in the next pass
        self._stats: dict[str, Any] = {
            "passes": 0, "compacted_files": 0, "vacuumed_files": 0, "dropped_days": 0, "skipped": 0,
        }  # fmt: skip

    def open(self) -> None:
        """Take maintenance over from any older driver.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(QUERY, tables=self._tables)

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

        def over() -> bool:
            return stopped() or self._monotonic() > deadline

        for _ in self._tables:
            name = self._tables[self._first]
            for step in (self._drop_days, self._compact, self._vacuum, self._cut_log):
                while not over() and self._do(step, name):
                    pass
            if over():
                return
            self._first = (self._first + 1) % len(self._tables)
        self._stats["passes"] += 1

    def _do(self, step: Callable[[str, DeltaTable, CommitProperties], bool], name: str) -> bool:
        """One step at one table; whether there may be more of it to do at once."""
        try:
            return step(name, *self._writer.owned(name, query=QUERY, generation=self._generation))
        except Fenced:
            raise
        except (DeltaError, LakeError, OSError) as error:
            self._stats["skipped"] += 1
            _log.warning("%s%s waits for the next pass: %s", name, step.__name__, error)
            return False

    def _drop_days(self, name: str, table: DeltaTable, commit: CommitProperties) -> bool:
        days = self._limits.keep_days.get(name)
        if days is None:
            return False
        held = {date.fromisoformat(file[_DAY]) for file in _files(table)}
        oldest = max(held, default=date.max) - timedelta(days - 1)
        old = sorted(day for day in held if day < oldest)
        if not old:
            return False
        table.delete(f"{PARTITION} < '{oldest.isoformat()}'", commit_properties=commit)
        self._stats["dropped_days"] += len(old)
        _log.info("%s: %d days dropped, from %s", name, len(old), old[0])
        return False

    def _compact(self, name: str, table: DeltaTable, commit: CommitProperties) -> bool:
        # Of the day with the most files; the others follow, as long as there is time.
        files = self._crowded_day(table)
        if not files:
            return False
        rows = read_files(
            self._writer.uri, known_table(name), [file["path"] for file in files],
            storage_options=self._writer.storage_options,
        )  # fmt: skip
        joined = write_files(
            self._writer.uri, known_table(name), rows, tag="joined",
            storage_options=self._writer.storage_options,
        )  # fmt: skip
        join(
            table, known_table(name), [(f["path"], f["size_bytes"]) for f in files], joined, commit
        )
        self._stats["compacted_files"] += len(files)
        _log.info("%s of %s: %d files became one", name, files[0][_DAY], len(files))
        return True

    def _crowded_day(self, table: DeltaTable) -> list[dict[str, Any]]:
        """Small files of the day that has the most, oldest first, as many as are joined at once."""
        days: dict[str, list[dict[str, Any]]] = {}
        newest = ""
        for file in _files(table):
            newest = max(newest, file[_DAY])
            if (
                file["size_bytes"] < self._limits.target_bytes // 2
                and file["num_records"] < self._limits.join_rows // 2
            ):
                days.setdefault(file[_DAY], []).append(file)
        most = max(
            (
                files
                for day, files in days.items()
                if len(files) > (self._limits.many_files if day == newest else 1)
            ),
            key=len,
            default=[],
        )
        most.sort(key=lambda file: (file["modification_time"], file["path"]))
        rows = accumulate(file["num_records"] for file in most)
        size = accumulate(file["size_bytes"] for file in most)
        return [
            file
            for file, rows_so_far, size_so_far in zip(most, rows, size, strict=True)
            if rows_so_far <= self._limits.join_rows and size_so_far <= self._limits.target_bytes
        ]

    def _vacuum(self, name: str, table: DeltaTable, commit: CommitProperties) -> bool:
        dead: dict[str, Any] = {
            "retention_hours": self._limits.retention_h, "keep_versions": _last_batches(table),
        }  # fmt: skip
        # A file without a commit may be one of a batch that the archive has yet to add to its
        # tables; it is an orphan only when it is old.
        orphans: dict[str, Any] = {
            "retention_hours": max(self._limits.orphans_h, self._limits.retention_h), "full": True,
            "keep_versions": dead["keep_versions"],
        }  # fmt: skip
        for options in (dead, orphans):
            options["enforce_retention_duration"] = False
            if not table.vacuum(dry_run=True, **options):
                continue
            gone = table.vacuum(dry_run=False, commit_properties=commit, **options)
            self._stats["vacuumed_files"] += len(gone)
            _log.info("%s: %d dead files deleted", name, len(gone))
        return False

    def _cut_log(self, name: str, table: DeltaTable, commit: CommitProperties) -> bool:
        if not PROPERTIES.items() <= table.metadata().configuration.items():
            _log.info("%s: its log gets our settings", name)
            table.alter.set_table_properties(PROPERTIES, commit_properties=commit)
        table.create_checkpoint()
        table.cleanup_metadata()
        return False


def _files(table: DeltaTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [file | {_DAY: str(file[_DAY])} for file in rows]


def _last_batches(table: DeltaTable) -> Sequence[int] | None:
    """The versions with the last batch of each query: a restart may have to read it again."""
    versions: dict[str, int] = {}
    for entry in table.history(HISTORY):
        kept = orjson.loads(entry.get(METADATA_KEY) or "{}")
        if "query_id" in kept:
            versions.setdefault(kept["query_id"], entry["version"])
    return sorted(versions.values()) or None
