"""SQL over the lake, in this process: DuckDB reads the Delta tables through Arrow.

In: SQL over the names of :data:`pipelines.lake.tables.TABLES` and the views of
:mod:`pipelines.lake.views`. Out: Arrow tables. Each query sees one snapshot of each table, never
half a commit. It reads the lake and nothing else: files, other databases and extensions are closed
to it. What fails, fails as :class:`LakeError` with DuckDB's sentence.
"""

from __future__ import annotations

import copy
import difflib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.errors import LakeError
from pipelines.events import DAY_NS, MINUTE_NS, format_time_ns
from pipelines.lake.newest import newest_rows
from pipelines.lake.tables import ARCHIVE_STATE, PARTITION, TABLES, table
from pipelines.lake.views import VIEWS, needed

_NAMES = (*TABLES, ARCHIVE_STATE.name)
_LISTED = (*TABLES, *VIEWS)
_ANSWERING = frozenset(
    (
        duckdb.StatementType.SELECT,
        duckdb.StatementType.EXPLAIN,
        duckdb.StatementType.PRAGMA,
        duckdb.StatementType.MULTI,  # PIVOT is one
    )
)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "TimeZone": "UTC",
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "python_enable_replacements": False,
}

_RECENT_BARS = """
    SELECT b.* FROM bars_current b
        JOIN (SELECT unnest($symbols) AS symbol, unnest($last_ns) AS last_ns) w
        ON b.symbol = w.symbol AND b.event_time_ns <= w.last_ns
    WHERE b.symbol IN $symbols AND date >= $first_day::DATE AND date <= $last_day::DATE
        AND b.event_time_ns <= $latest_ns
    QUALIFY row_number() OVER (PARTITION BY b.symbol ORDER BY b.event_time_ns DESC) <= $limit
    ORDER BY b.symbol, b.event_time_ns
"""
_FAR_NS = 2**62
_FIRST_DAY = "1970-01-01"
_NEAR_NS = 10 * DAY_NS
"""The days in which bars are looked for first: they hold a window of most symbols, however much
history the lake has."""
_MISSING = re.compile(r"\.parquet.*(not found|No such file)|not found.*\.parquet", re.DOTALL)
_UNKNOWN = re.compile(r"Table with name (\S+) does not exist")
_ALL = re.compile(r"\s*SHOW\s+(ALL\s+)?TABLES\s*;?\s*", re.IGNORECASE)
_GONE = "the lake no longer knows, or did not know yet, how it was at"

AsOf = int | datetime
"""A version of a table, or a wall time."""


@dataclass(slots=True)
class _Open:
    """A table, and the dataset of one of its versions: to build one takes time for each file."""

    table: DeltaTable
    built: tuple[int, ds.Dataset] | None = None


class LakeQuery:
    """Reads the lake. Safe to share between threads, but for what :meth:`held` gives.

    Each query has a connection of its own.

    Args:
        uri: The lake's address.
        storage_options: Credentials and endpoint of an object store.
        timeout_s: A query that runs longer is interrupted; ``None``: never.
        monotonic: A steady clock, seconds.
    """

    def __init__(
        self,
        uri: str,
        storage_options: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.storage_options = dict(storage_options or {})
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._session: _Session | None = None  # of several queries

    def sql(
        self,
        query: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        as_of: AsOf | None = None,
    ) -> pa.Table:
        """Answer of one SQL query.

        Args:
            query: DuckDB's SQL over the lake's tables; ``$name`` or ``?`` for parameters.
            parameters: Their values.
            as_of: Read the tables as they were: at a wall time (with its zone), or at a version
                of the one table that the query reads. As far back as the retention keeps them.

        Returns:
            The whole answer. Times are in UTC.

        Raises:
            LakeError: The SQL is wrong, asks for a table that does not exist or for anything
                outside the lake, runs too long, or the lake cannot be read (as of then).
        """
        held = self._session if as_of is None else None
        try:
            with nullcontext(held) if held else closing(_Session(self, as_of)) as session:
                return session.sql(query, parameters)
        except duckdb.InterruptException as error:
            raise LakeError(f"the query took longer than {self._timeout_s:g} s") from error
        except duckdb.Error as error:
            if as_of is not None and _MISSING.search(str(error)):
                raise LakeError(f"{_GONE} {as_of}: its files were deleted") from error
            raise LakeError(f"{_sentence(error)} (tables: {', '.join(_LISTED)})") from error
        except (OSError, pa.ArrowException) as error:
            if as_of is not None:
                raise LakeError(f"{_GONE} {as_of}: {error}") from error
            raise LakeError(f"the lake at {self.uri} cannot be read: {error}") from error

    @contextmanager
    def held(self) -> Iterator[LakeQuery]:
        """The same lake for several queries (SQL) of one thread, on one connection.

        They see one snapshot of each table, taken by the first that reads it. To open a table
        takes longer than a small query.
        """
        lake = copy.copy(self)
        with closing(_Session(self)) as lake._session:
            yield lake

    def dataset(self, name: str, *, as_of: AsOf | None = None) -> ds.Dataset:
        """The newest snapshot of a table; empty, with its columns, if nothing was written yet.

        Args:
            name: The table.
            as_of: An older one instead: its version, or that of a wall time.

        Raises:
            LakeError: No such table is known, or the store cannot be read (as of then).
        """
        wanted = table(name)
        try:
            if as_of is not None:
                return self._files(name, self._older(name, as_of))
            return self._newest(name)
        except TableNotFoundError:
            return ds.dataset(wanted.schema.empty_table())
        except (DeltaError, OSError) as error:
            if as_of is not None:
                raise LakeError(f"{_GONE} {as_of}: table {name}: {error}") from error
            raise self._unreadable(name, error) from error

    def recent_bars(
        self, symbol: str, *, limit: int, before_ns: int | None = None
    ) -> list[dict[str, Any]]:
        """The last minute bars of a symbol as they stand now, one a minute, oldest first.

        Args:
            symbol: Its symbol.
            limit: At most so many.
            before_ns: Only bars that ended at or before this market time.

        Returns:
            Rows of the view ``bars_current`` as dicts.

        Raises:
            LakeError: The lake cannot be read.
        """
        if before_ns is None:
            return self._recent_bars({symbol: _FAR_NS}, limit, _FIRST_DAY)[symbol]
        return self.recent_bars_of({symbol: before_ns}, limit=limit)[symbol]

    def recent_bars_of(
        self, before_ns: Mapping[str, int], *, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """The same of several symbols, with one query for all.

        Args:
            before_ns: Of each symbol, before which market time; at least one.
            limit: At most so many of each.

        Raises:
            LakeError: The lake cannot be read.
        """
        near = format_time_ns(max(0, min(before_ns.values()) - _NEAR_NS))[:10]
        found = self._recent_bars(before_ns, limit, near)
        few = {s: at_ns for s, at_ns in before_ns.items() if len(found[s]) < limit}
        if few and self._begins_before(near):  # of a symbol that is seldom traded
            found |= self._recent_bars(few, limit, _FIRST_DAY)
        return found

    def _recent_bars(
        self, before_ns: Mapping[str, int], limit: int, first_day: str
    ) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in before_ns}
        last_ns = [at_ns - MINUTE_NS for at_ns in before_ns.values()]
        about = {
            "symbols": list(before_ns), "last_ns": last_ns, "limit": limit, "first_day": first_day,
            "latest_ns": max(last_ns), "last_day": format_time_ns(max(last_ns))[:10],
        }  # fmt: skip
        for row in self.sql(_RECENT_BARS, about).to_pylist():
            found[row["symbol"]].append(row)
        return found

    def days(self, name: str) -> set[date]:
        """The days that a table has rows of, as its log tells; none if it was never written.

        Raises:
            LakeError: The store cannot be read.
        """
        try:
            held = self._snapshot(name).table.partitions()
        except TableNotFoundError:
            return set()
        except (DeltaError, OSError) as error:
            raise self._unreadable(name, error) from error
        return {date.fromisoformat(str(partition[PARTITION])) for partition in held}

    def newest_batch(self, name: str, own: pc.Expression) -> pa.Table:
        """The rows of the newest batch of one query, of any checkpoint: those of one ``known_at``.

        Args:
            name: A table with a column ``known_at``.
            own: Which rows that query writes.

        Raises:
            LakeError: The store cannot be read.
        """
        try:
            table_now = self._snapshot(name).table
            return newest_rows(table_now, self.uri, table(name), own, self.storage_options)
        except TableNotFoundError:
            return table(name).schema.empty_table()
        except (DeltaError, OSError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> LakeError:
        return LakeError(f"table {name} at {self.uri} cannot be read: {error}")

    def _newest(self, name: str) -> ds.Dataset:
        opened = self._snapshot(name)
        # The version first: what another thread brings up to date meanwhile is only built again.
        version = opened.table.version()
        if opened.built is None or opened.built[0] != version:
            opened.built = version, self._files(name, opened.table)
        return opened.built[1]

    def _files(self, name: str, opened: DeltaTable) -> ds.Dataset:
        """The files of a snapshot.

        Local ones are read by Arrow itself: through delta-rs its threads would call into Python,
        and those of a query that ended early (LIMIT) still do when the process ends, which then
        hangs or crashes.
        """
        if "://" in self.uri:
            return opened.to_pyarrow_dataset()
        local = pa_fs.SubTreeFileSystem(f"{self.uri}/{name}", pa_fs.LocalFileSystem())
        return opened.to_pyarrow_dataset(filesystem=local)

    def _begins_before(self, day: str) -> bool:
        """Whether there are bars of days before one."""
        first = date.fromisoformat(day)
        return any(held < first for name in ("bars", "features") for held in self.days(name))

    def _older(self, name: str, as_of: AsOf) -> DeltaTable:
        if isinstance(as_of, datetime) and as_of.tzinfo is None:
            raise LakeError(f"the time {as_of} has no zone; write it as 2011-01-03T14:30:00Z")
        opened = DeltaTable(f"{self.uri}/{name}", storage_options=self.storage_options or None)
        opened.load_as_version(as_of)
        return opened

    def _snapshot(self, name: str) -> _Open:
        with self._lock:
            opened = self._open.pop(name, None)
            if opened is None:
                options = self.storage_options or None
                opened = _Open(DeltaTable(f"{self.uri}/{name}", storage_options=options))
            else:
                opened.table.update_incremental()
            self._open[name] = opened
            return opened


class _Session:
    """A connection, with the tables and views that were asked for on it. One thread uses it.

    Args:
        lake: Where the tables are.
        as_of: Read them as they were.
    """

    def __init__(self, lake: LakeQuery, as_of: AsOf | None = None) -> None:
        self._lake = lake
        self._as_of = as_of
        self._known: set[str] = set()
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        self._connection.execute("SET lock_configuration = true")

    def sql(self, query: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> pa.Table:
        """Answer of one query; raises what DuckDB and Arrow do."""
        names, views = needed(" ".join(_LISTED) if _ALL.fullmatch(query) else query, _NAMES)
        if isinstance(self._as_of, int) and len(names) != 1:
            raise LakeError(
                f"a version is one of one table, and this reads {', '.join(names) or 'none'}; "
                "give a time"
            )
        lake, connection = self._lake, self._connection
        begun_s = lake._monotonic()
        for name in names:
            if name not in self._known:
                connection.register(name, lake.dataset(name, as_of=self._as_of))
                self._known.add(name)
        for view in views:
            if view not in self._known:
                connection.execute(view)
                self._known.add(view)
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type not in _ANSWERING:
            raise LakeError("one query that answers with rows is possible here, and no more")
        timer: threading.Timer | None = None
        if lake._timeout_s is not None:
            left_s = lake._timeout_s - (lake._monotonic() - begun_s)
            if left_s <= 0:
                raise LakeError(f"to open the tables took longer than {lake._timeout_s:g} s")
            timer = threading.Timer(left_s, connection.interrupt)
            timer.daemon = True
            timer.start()
        try:
            answer = connection.sql(query, params=parameters)
            if answer is None:
                raise LakeError("only queries that answer with rows are possible here")
            return answer.to_arrow_table()
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()  # if it is about to interrupt, then before the next query

    def close(self) -> None:
        """Forget it all."""
        self._connection.close()


def _sentence(error: duckdb.Error) -> str:
    """What DuckDB says; of a table that it does not know, with the name that was meant."""
    unknown = _UNKNOWN.search(str(error))
    if unknown is None:
        return str(error)
    near = difflib.get_close_matches(unknown[1].lower(), _LISTED, n=1)
    return f"there is no table {unknown[1]}" + (f"; did you mean {near[0]}?" if near else "")


class LakeHistory:
    """Bars of the past from the lake: a :class:`~pipelines.ports.BarHistory`.

    Args:
        query: The lake.
    """

    def __init__(self, query: LakeQuery) -> None:
        self._query = query

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> list[dict[str, Any]]:
        """The last bars that ended at or before a market time, as Alpaca bars, oldest first."""
        rows = self._query.recent_bars(symbol, limit=limit, before_ns=before_ns)
        return [
            {
                "t": format_time_ns(row["event_time_ns"]),
                "o": row["open"],
                "h": row["high"],
                "l": row["low"],
                "c": row["close"],
                "v": row["volume"],
                "n": row["trade_count"],
                "vw": row["vwap"],
            }
            for row in rows
        ]
