"""Commits that may be repeated: each batch of a query is in a table once, whoever tries how often.

A commit writes three things into a table's log in one atomic step: the files, the batch id under
the application id of the query, and the generation of its writer under ``fence:<query>``. It is
made from one snapshot, in which both were checked. Delta refuses a commit when one of its
application ids moved after its snapshot, and then everything is checked again; so

* a batch that is already there is not added again (:meth:`LakeWriter.commit` says ``False``),
* a writer that was replaced gets :class:`~pipelines.errors.Fenced`, even between its check and
  its commit,
* other queries may write the same table at the same time.

Files that an abandoned attempt wrote are orphans that no reader sees.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from pipelines import retry
from pipelines.clock import wall_ns
from pipelines.errors import Fenced, LakeError
from pipelines.lake.files import FileInfo, read_files, write_files
from pipelines.lake.newest import newest_rows
from pipelines.lake.tables import PARTITION, TABLES, Table, table

__all__ = ["METADATA_KEY", "FileInfo", "LakeWriter", "write_files"]

METADATA_KEY = "raytape"
"""Key in a commit's metadata under which ours stands, as JSON."""

_ATTEMPTS = 6
PROPERTIES = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.checkpointInterval": "10",
}
"""Of each table's log. Older entries go; a table of the archive gets some 10,000 of them a day.
A commit reads what was written behind the last checkpoint, twice: with delta-rs' own interval of
100 it takes 34 ms of CPU, with 10 it takes 10 to 20."""

HISTORY = 500
"""Commits that are looked back over for a batch."""

_log = logging.getLogger(__name__)


class LakeWriter:
    """The driver's side of the lake.

    Args:
        uri: A local folder or an object-store address; each table is a folder below it.
        storage_options: Credentials and endpoint of an object store (delta-rs names).
        sleep: Waits between attempts; a test brings its own.
    """

    def __init__(
        self,
        uri: str,
        storage_options: Mapping[str, str] | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.storage_options = dict(storage_options or {})
        self._sleep = sleep
        self._rng = random.Random()  # noqa: S311 - jitter

    def create(self, names: Iterable[str] = TABLES) -> None:
        """Create those of the tables that do not exist, and add new columns to those that do.

        A column that came with a newer version is null in the rows that were there before.

        Raises:
            LakeError: A table exists that is none of ours, or the store cannot be written.
        """
        for name in names:
            wanted = table(name)
            try:
                DeltaTable.create(
                    f"{self.uri}/{name}",
                    wanted.schema,
                    mode="ignore",
                    partition_by=[PARTITION],
                    name=name,
                    description=wanted.doc,
                    configuration={**PROPERTIES},
                    storage_options=self.storage_options or None,
                )
            except (DeltaError, OSError) as error:
                _log.debug("creating %s: %s", name, error)  # somebody else may just have done it
            self._add_columns(wanted)

    def open_query(self, query: str, *, tables: Sequence[str] = tuple(TABLES)) -> int:
        """Take a query over: raise its fence in its tables, so that older writers are refused.

        Args:
            query: Its name, or its Spark query id; the same must be given to :meth:`commit`.
            tables: The tables it writes; created where they do not exist.

        Returns:
            The generation to commit with.

        Raises:
            LakeError: The store cannot be read or written.
        """
        self.create(tables)
        fence = _fence(query)
        generation = 1 + max(
            (self._seen(name).transaction_version(fence) or 0 for name in tables), default=0
        )
        for attempt in self._attempts(f"open query {query}"):
            try:
                for name in tables:
                    self._raise_fence(name, fence, generation)
            except Fenced:
                generation += 1 + attempt  # another is starting too; the higher one wins
                continue
            return generation
        raise LakeError(f"query {query} is opened by too many writers at once")

    def commit(
        self,
        name: str,
        data: pa.Table | Sequence[FileInfo],
        *,
        query_id: str,
        batch_id: int,
        generation: int,
        query: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> bool:
        """Add a batch's rows to a table, once.

        Args:
            name: The table.
            data: Rows (written here), or files that :func:`write_files` wrote. May be empty: the
                batch id is recorded all the same.
            query_id: Application id: Spark's query id, new with each checkpoint.
            batch_id: Spark's batch id, counted within ``query_id``.
            generation: What :meth:`open_query` gave.
            query: What :meth:`open_query` was given; by default ``query_id``.
            metadata: JSON types to keep in the commit, found again with :meth:`metadata_of`.
            replace: Replace all rows of the table instead of adding.

        Returns:
            Whether this call committed; ``False`` if the batch was there already.

        Raises:
            Fenced: A newer writer owns the query.
            LakeError: A later batch of this query id is there, or the store refuses.
        """
        files: list[FileInfo] | None = None if isinstance(data, pa.Table) else list(data)
        fence = _fence(query or query_id)
        problem: Exception | None = None
        for _ in self._attempts(f"commit {name} batch {batch_id}"):
            try:
                snapshot = self._snapshot(name)
                _check_fence(snapshot, name, fence, generation)
                last = snapshot.transaction_version(query_id)
                if last is not None and last >= batch_id:
                    if last == batch_id:
                        return False
                    raise LakeError(f"{name} holds batch {last} already; {batch_id} comes too late")
                if files is None:
                    files = write_files(
                        self.uri, table(name), data, tag=f"batch-{batch_id}",
                        storage_options=self.storage_options,
                    )  # fmt: skip
                _commit(
                    snapshot,
                    table(name),
                    files,
                    transactions={query_id: batch_id, fence: generation},
                    metadata={
                        **(metadata or {}),
                        "query_id": query_id,
                        "batch_id": batch_id,
                        "generation": generation,
                        "files": [f.path for f in files],
                    },
                    replace=replace,
                )
            except (DeltaError, OSError) as error:
                problem = error  # whether it was stored is seen in the next snapshot
                continue
            return True
        raise LakeError(f"cannot commit batch {batch_id} to {name}: {problem}") from problem

    def owned(
        self, name: str, *, query: str, generation: int
    ) -> tuple[DeltaTable, CommitProperties]:
        """A snapshot of a table for other work than batches, and what its commit must carry.

        Args:
            name: The table.
            query: What :meth:`open_query` was given.
            generation: What it gave.

        Returns:
            The snapshot; properties with which a commit is refused if a newer writer of the query
            opened the table since.

        Raises:
            Fenced: There is a newer one already.
        """
        snapshot = self._snapshot(name)
        fence = _fence(query)
        _check_fence(snapshot, name, fence, generation)
        return snapshot, CommitProperties(app_transactions=[Transaction(fence, generation)])

    def last_batch(self, name: str, query_id: str) -> int | None:
        """The last batch of a query id in a table; ``None`` if there is none.

        Raises:
            LakeError: The store cannot be read.
        """
        version = self._seen(name).transaction_version(query_id)
        return None if version is None else int(version)

    def next_batch(self, name: str, query_id: str) -> int:
        """The number of a query id's next batch in a table, for queries that count their own.

        Raises:
            LakeError: The store cannot be read.
        """
        last = self.last_batch(name, query_id)
        return 0 if last is None else last + 1

    def metadata_of(self, name: str, query_id: str, batch_id: int) -> dict[str, Any] | None:
        """What the commit of a batch keeps, with its ``files``; ``None`` if it is not there."""
        for entry in self._seen(name).history(HISTORY):
            text = entry.get(METADATA_KEY)
            if text is not None:
                found: dict[str, Any] = orjson.loads(text)
                if found.get("query_id") == query_id and found.get("batch_id") == batch_id:
                    return found
        return None

    def read_batch(
        self, name: str, query_id: str, batch_id: int, *, own: pc.Expression | None = None
    ) -> pa.Table | None:
        """The rows that the commit of a batch added, sorted as in their files.

        The last is found without the log too: by its ``known_at``, and ``own``, the query's rows.

        Returns:
            The rows; ``None`` if the batch was not committed.

        Raises:
            LakeError: The store cannot be read; or the batch is there, but its commit is older
                than the log that is kept.
        """
        last = self.last_batch(name, query_id)
        if last is None or last < batch_id:
            return None
        kept = self.metadata_of(name, query_id, batch_id)
        wanted, options = table(name), self.storage_options
        try:
            if kept is not None:
                return read_files(self.uri, wanted, kept["files"], storage_options=options)
            if own is not None and last == batch_id:
                return newest_rows(self._seen(name), self.uri, wanted, own, options)
        except OSError as error:
            raise self._unreadable(name, error) from error
        raise LakeError(f"the commit of batch {batch_id} in {name} is no longer in its log")

    def _add_columns(self, wanted: Table) -> None:
        missing: set[str] = set()
        for _ in self._attempts(f"add columns to {wanted.name}"):
            snapshot = self._snapshot(wanted.name)
            missing = set(wanted.schema.names) - {f.name for f in snapshot.schema().fields}
            if not missing:
                return
            if strange := missing & {*wanted.sort, PARTITION}:
                raise LakeError(
                    f"table {wanted.name} at {self.uri} lacks columns {sorted(strange)}"
                )
            fields = Schema.from_arrow(
                pa.schema([f for f in wanted.schema if f.name in missing])
            ).fields
            try:
                snapshot.alter.add_columns(fields)
            except (DeltaError, OSError) as error:  # another starter may just have done it
                _log.info("adding %s to %s again: %s", sorted(missing), wanted.name, error)
        raise LakeError(f"cannot add columns {sorted(missing)} to {wanted.name} at {self.uri}")

    def _raise_fence(self, name: str, fence: str, generation: int) -> None:
        for _ in self._attempts(f"fence {name}"):
            snapshot = self._snapshot(name)
            current = snapshot.transaction_version(fence) or 0
            if current >= generation:  # equal: somebody who starts at the same time was first
                raise Fenced(f"{name}: {fence} is at {current}, we came with {generation}")
            try:
                _commit(snapshot, table(name), [], transactions={fence: generation}, metadata={})
            except (DeltaError, OSError) as error:
                _log.info("raising %s in %s again: %s", fence, name, error)
                continue
            return
        raise LakeError(f"cannot raise {fence} in {name}")

    def _attempts(self, what: str) -> Iterable[int]:
        delays = retry.delays(first_s=0.05, cap_s=2.0, rng=self._rng)
        for attempt in range(_ATTEMPTS):
            if attempt:
                _log.info("%s: attempt %d", what, attempt + 1)
                self._sleep(next(delays))
            yield attempt

    def _seen(self, name: str) -> DeltaTable:
        """A snapshot to look at only."""
        try:
            return self._snapshot(name)
        except (DeltaError, OSError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> LakeError:
        return LakeError(f"table {name} at {self.uri} cannot be read: {error}")

    def _snapshot(self, name: str) -> DeltaTable:
        try:
            return DeltaTable(f"{self.uri}/{name}", storage_options=self.storage_options or None)
        except TableNotFoundError as error:
            raise LakeError(f"no table {name} at {self.uri}; open the query first") from error


def join(
    snapshot: DeltaTable,
    wanted: Table,
    old: Sequence[tuple[str, int]],
    new: Sequence[FileInfo],
    commit: CommitProperties,
) -> None:
    """Replace files by others with the same rows, in one commit that changes no data.

    Args:
        snapshot: The table, from :meth:`LakeWriter.owned`.
        wanted: What table it is.
        old: Path and size of each file that goes.
        new: The files that come.
        commit: What the commit must carry, from :meth:`LakeWriter.owned`.

    Raises:
        DeltaError: One of the files is gone already, or the commit got in another's way.
    """
    day = new[0].date
    now_ms = wall_ns() // 1_000_000
    snapshot.create_write_transaction(
        [
            *(RemoveAction(path, False, now_ms, size, {PARTITION: day}) for path, size in old),
            *(
                AddAction(f.path, f.size, {PARTITION: f.date}, f.written_ms, False, f.stats)
                for f in new
            ),
        ],
        mode="append",
        schema=wanted.schema,
        partition_by=[PARTITION],
        commit_properties=commit,
    )


def _fence(query: str) -> str:
    return f"fence:{query}"


def _check_fence(snapshot: DeltaTable, name: str, fence: str, generation: int) -> None:
    current = snapshot.transaction_version(fence)
    if current != generation:
        raise Fenced(f"{name}: {fence} is at {current}, this writer is of {generation}")


def _commit(
    snapshot: DeltaTable,
    wanted: Table,
    files: Sequence[FileInfo],
    *,
    transactions: Mapping[str, int],
    metadata: Mapping[str, Any],
    replace: bool = False,
) -> None:
    snapshot.create_write_transaction(
        [
            AddAction(f.path, f.size, {PARTITION: f.date}, f.written_ms, True, f.stats)
            for f in files
        ],
        mode="overwrite" if replace else "append",
        schema=wanted.schema,
        partition_by=[PARTITION],
        commit_properties=CommitProperties(
            app_transactions=[Transaction(k, v) for k, v in transactions.items()],
            custom_metadata={METADATA_KEY: orjson.dumps(metadata).decode()} if metadata else None,
        ),
    )
