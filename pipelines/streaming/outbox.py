"""What becomes of a decision: decide once, commit to the lake, publish what the lake holds.

Rows of the fold in; the tables ``features``, ``signals``, ``stats``, ``anomalies`` and ``fills``
and the items ``bar``, ``features``, ``signal``, ``stats``, ``anomaly`` and ``fill`` out. A batch
that the lake holds already, because a driver died between commit and checkpoint, is published as it
stands there and nobody is asked again. Bars that a query with a new checkpoint reads again, and
that the lake holds a decision on, are not decided again; what its last driver committed and may not
have published is published once more. Features are committed before the signals on them, so that no
bar counts as decided that has none. Those of a driver that died between the two stay as they stand;
the next one decides on what it computes of the same bars, which is the same while their history is.

Statistics are committed after everything was published, and so are anomalies and fills, which are
published last: no signal waits for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.clock import wall_ns
from pipelines.events import format_time_ns, item, parse_time_ns
from pipelines.features.spec import spec_of
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import EXTENDED_COLUMNS, FEATURE_COLUMNS, SIGNAL_TABLES
from pipelines.lake.writer import LakeWriter
from pipelines.ports import ItemSink
from pipelines.streaming.fills import Fills
from pipelines.streaming.rows import (
    anomalies_table,
    anomaly_items,
    derived_items,
    provisional_items,
    stats_table,
    table_of,
)
from pipelines.streaming.schemas import SIGNALS
from pipelines.streaming.unfinished import Bar, bars_of, decided_on, waiting, within, without

_FEATURES, _SIGNALS, _STATS, _ANOMALIES = SIGNAL_TABLES[:4]
_ANY: Final = pc.field("known_at").is_valid()
_CIRCUIT: Final = ("closed", "half_open", "open")
_BAR: Final = ("open", "high", "low", "close", "volume", "trade_count", "vwap", "source")
_COPIED: Final = (
    "action", "action_id", "confidence", "probabilities", "value", "q_values",
    "position_fraction", "cash_fraction", "data_age_ms", "reason",
)  # fmt: skip

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]
Batch = Callable[[bool], Sequence[Row]]
"""Runs the batch's one action; told whether to ask the policy."""
Indicators = Mapping[Bar, Mapping[str, float | None]]


def new_stats() -> dict[str, Any]:
    """The counters of a query that has done nothing yet."""
    return {
        "batches": 0, "bars": 0, "signals": 0, "late_bars": 0, "stand_ins": 0, "compared": 0,
        "mismatches": 0, "rollups": 0, "duplicates": 0, "late_trades": 0, "backfilled": 0,
        "skipped": 0, "unavailable": 0, "provisional": 0, "provisional_dropped": 0,
        "anomalies": 0, "fills": 0, "policy": "closed", "policy_asked": 0, "policy_failed": 0,
        "policy_refused": 0, "policy_opened": 0,
        "last_batch_ms": None, "last_event_time": None, "last_phases_ms": {},
    }  # fmt: skip


class Outbox:
    """The driver's side of the query: takes one batch after the other. One thread calls it.

    Args:
        writer: The lake.
        sink: ``market-signals``.
        clock: Wall time, nanoseconds.
    """

    def __init__(
        self, writer: LakeWriter, sink: ItemSink, *, clock: Callable[[], int] = wall_ns
    ) -> None:
        self._writer = writer
        self._sink = sink
        self._clock = clock
        self._generation = 0
        self._may_be_held = True  # only the first batch after a start can be a replay
        self._left = features_table([], known_ns=0)  # by a driver that died
        self._pool = ThreadPoolExecutor(max_workers=len(SIGNAL_TABLES), thread_name_prefix="lake")
        self._forming: Future[None] | None = None
        self._stats = new_stats()
        self._fills = Fills(writer, sink, clock=clock)

    def open(self) -> None:
        """Take the query over from any older driver.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(SIGNALS, tables=SIGNAL_TABLES)
        self._fills.open(self._generation)
        self._may_be_held = True

    def take(self, run: Batch, *, query_id: str, batch_id: int) -> None:
        """Run a batch, commit it, publish it.

        Args:
            run: Runs its action once; every row has ``symbol``, ``payload`` (JSON of the fold)
                and, where the policy was asked, ``signal`` (JSON of its answer).
            query_id: Spark's query id.
            batch_id: Spark's batch id.

        Raises:
            Fenced: A newer driver owns the query.
            LakeError: The lake cannot be written.
            StreamError: The items could not be stored.
        """
        started = time.perf_counter()
        held = self._held(_SIGNALS, query_id, batch_id) if self._may_be_held else None
        if self._may_be_held:
            self._resume(held)
        rows = run(held is None)  # also when held: the state has to move on
        ran = time.perf_counter()
        counted, idle, forming = self._count([orjson.loads(row["payload"]) for row in rows])
        bars = _new(counted, held)
        committed = published = ran
        if bars:
            known_ns = self._clock()
            features = features_table(bars, known_ns=known_ns)
            new = without(features, self._left)
            if new.num_rows:
                self._commit({_FEATURES: new}, query_id, batch_id)
            features = pa.concat_tables([within(self._left, features), new])
            if held is None:
                answers = [orjson.loads(row["signal"]) for row in rows if row["signal"]]
                signals = signals_table(answers, known_ns=known_ns)
                self._commit({_SIGNALS: signals}, query_id, batch_id)
            else:
                signals = held
            self._left = without(self._left, features)
            committed = time.perf_counter()
            self._publish(features, signals, [*bars, *idle])
            published = time.perf_counter()
            tables = {_STATS: stats_table(bars, known_ns=known_ns)}
            found = anomalies_table(bars, known_ns=known_ns)
            if found.num_rows:
                tables[_ANOMALIES] = found
            self._commit(tables, query_id, batch_id)
            self._publish_anomalies(found, query_id, batch_id)
            self._stats["fills"] += self._fills.take(
                signals, known_ns=known_ns, query_id=query_id, batch_id=batch_id
            )
        elif idle:
            self._publish_derived(idle)
        if forming:
            self._publish_forming(forming)
        self._may_be_held = False
        ended = time.perf_counter()
        self._stats["batches"] += 1
        self._stats["last_batch_ms"] = (ended - started) * 1000
        if bars:
            phases = {
                "run": ran - started, "commit": committed - ran,
                "publish": published - committed, "stats": ended - published,
            }  # fmt: skip
            self._stats["last_phases_ms"] = {k: round(v * 1000, 1) for k, v in phases.items()}

    def stats(self) -> dict[str, Any]:
        """Counters since this driver started, JSON types."""
        return dict(self._stats)

    def close(self) -> None:
        """Give the threads back."""
        self._pool.shutdown(wait=False)

    def _held(self, name: str, query_id: str, batch_id: int) -> pa.Table | None:
        return self._writer.read_batch(name, query_id, batch_id, own=_ANY)

    def _commit(self, tables: Mapping[str, pa.Table], query_id: str, batch_id: int) -> None:
        def commit(name: str) -> bool:
            return self._writer.commit(
                name,
                tables[name],
                query_id=query_id,
                batch_id=batch_id,
                generation=self._generation,
                query=SIGNALS,
            )

        for future in [self._pool.submit(commit, name) for name in tables]:
            future.result()

    def _resume(self, held: pa.Table | None) -> None:
        """Go on where the last driver ended, whose checkpoint may be gone.

        Unless the batch is held, the last decisions are published once more, for it may have died
        first; readers drop the items that they know. The features that it left are remembered.
        """
        lake = LakeQuery(self._writer.uri, self._writer.storage_options)
        if held is not None:
            self._left = decided_on(lake, held)
            return
        last = lake.newest_batch(_SIGNALS, _ANY)
        if last.num_rows:
            self._sink.put_items(list(items_of(decided_on(lake, last), last)))
        self._left = waiting(lake)

    def _publish(
        self, features: pa.Table, signals: pa.Table, payloads: Sequence[Mapping[str, Any]]
    ) -> None:
        items = items_of(features, signals, indicators_of(payloads))
        self._publish_derived(payloads, before=items)
        reasons = signals["reason"].to_pylist()
        self._stats["bars"] += features.num_rows
        self._stats["signals"] += signals.num_rows
        self._stats["unavailable"] += reasons.count("unavailable")
        last_ns = max(features["event_time_ns"].to_pylist())
        self._stats["last_event_time"] = format_time_ns(last_ns)

    def _publish_derived(
        self, payloads: Sequence[Mapping[str, Any]], *, before: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self._sink.put_items([*before, *derived_items(payloads)])
        self._stats["rollups"] += sum(len(payload.get("rollups", ())) for payload in payloads)

    def _publish_anomalies(self, found: pa.Table, query_id: str, batch_id: int) -> None:
        if self._may_be_held:
            held = self._held(_ANOMALIES, query_id, batch_id)
            found = found if held is None else held
        if found.num_rows:
            self._sink.put_items(list(anomaly_items(found)))
            self._stats["anomalies"] += found.num_rows

    def _publish_forming(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        """Publish forming bars beside the batches; left out while the last are on their way."""
        if self._forming is not None:
            if not self._forming.done():
                self._stats["provisional_dropped"] += len(payloads)
                return
            if (error := self._forming.exception()) is not None:
                _log.warning("forming bars were not published: %s", error)
        items = list(provisional_items(payloads, generation=self._generation))
        self._forming = self._pool.submit(self._sink.put_items, items)
        self._stats["provisional"] += len(payloads)

    def _count(self, payloads: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], ...]:
        """Add up the counters; payloads of bars, of roll-ups alone, and of forming bars."""
        bars: list[Mapping[str, Any]] = []
        idle: list[Mapping[str, Any]] = []
        forming: list[Mapping[str, Any]] = []
        circuits = [payload["policy"] for payload in payloads if "policy" in payload]
        if circuits:  # of each worker that asked; the worst is shown
            self._stats["policy"] = max(circuits, key=_CIRCUIT.index)
        for payload in payloads:
            if "bar" in payload:
                bars.append(payload)
            elif "rollups" in payload:
                idle.append(payload)
            elif "provisional" in payload:
                forming.append(payload)
            else:
                for name, more in payload["counters"].items():
                    self._stats[name] += more
        return bars, idle, forming


def _new(bars: Sequence[Mapping[str, Any]], held: pa.Table | None) -> list[Mapping[str, Any]]:
    """The bars that this batch decides; or that it decided, if its decisions are held."""
    if held is None:
        return [bar for bar in bars if not bar["decided"]]
    ours = set(bars_of(held))
    return [bar for bar in bars if (bar["symbol"], parse_time_ns(bar["event_time"])) in ours]


def features_table(bars: Sequence[Mapping[str, Any]], *, known_ns: int) -> pa.Table:
    """Rows of ``features`` from payloads of the fold."""
    rows = []
    for payload in bars:
        ns = parse_time_ns(payload["event_time"])
        rows.append(
            {
                "symbol": payload["symbol"],
                "event_time": ns // 1000,
                "event_time_ns": ns,
                **dict.fromkeys(EXTENDED_COLUMNS),
                **dict(zip(_names(payload["fingerprint"]), payload["values"], strict=True)),
                **payload["bar"],
                "fingerprint": payload["fingerprint"],
                "warm": payload["warm"],
                "spread_assumed": payload["spread_assumed"],
                "gap": payload["gap"],
                "revision": payload.get("revision", 0),
                "known_at": known_ns // 1000,
            }
        )
    return table_of(_FEATURES, rows)


def _names(fingerprint: str) -> tuple[str, ...]:
    """The features of a row; of rows of other versions of this code, those that all have."""
    spec = spec_of(fingerprint)
    return FEATURE_COLUMNS if spec is None else spec.names


def signals_table(answers: Sequence[Mapping[str, Any]], *, known_ns: int) -> pa.Table:
    """Rows of ``signals`` from answers of the policy."""
    rows = []
    for answer in answers:
        ns = parse_time_ns(answer["event_time"])
        model = answer["model"] or {"id": None, "version": None, "fingerprint": None}
        rows.append(
            {
                "symbol": answer["symbol"],
                "event_time": ns // 1000,
                "event_time_ns": ns,
                **{name: answer[name] for name in _COPIED},
                "model_id": model["id"],
                "model_version": None if model["version"] is None else str(model["version"]),
                "model_fingerprint": model["fingerprint"],
                "decided_at": parse_time_ns(answer["decided_at"]) // 1000,
                "revision": 0,
                "known_at": known_ns // 1000,
                "payload": orjson.dumps(answer).decode(),
            }
        )
    return table_of(_SIGNALS, rows)


def indicators_of(payloads: Sequence[Mapping[str, Any]]) -> Indicators:
    """The indicators of bars, by symbol and start."""
    return {
        (payload["symbol"], parse_time_ns(payload["event_time"])): payload["indicators"]
        for payload in payloads
        if "indicators" in payload
    }


def items_of(
    features: pa.Table, signals: pa.Table, indicators: Indicators | None = None
) -> Iterator[dict[str, Any]]:
    """The items of committed rows, in order of time for each symbol: bar, features, signal.

    Args:
        features: Rows of ``features``.
        signals: Rows of ``signals``.
        indicators: What goes with the features; ``None`` of a bar that has none.
    """
    found = indicators or {}
    decided = {(row["symbol"], row["event_time_ns"]): row for row in signals.to_pylist()}
    for row in sorted(features.to_pylist(), key=lambda r: (r["event_time_ns"], r["symbol"])):
        about = {
            "symbol": row["symbol"],
            "event_time": format_time_ns(row["event_time_ns"]),
            "revision": row["revision"],
        }
        yield item("bar", **about, data={name: row[name] for name in _BAR})
        yield item(
            "features",
            **about,
            data={
                "values": {name: row[name] for name in _names(row["fingerprint"])},
                **{name: row[name] for name in ("fingerprint", "warm", "spread_assumed", "gap")},
                "indicators": found.get((row["symbol"], row["event_time_ns"])),
            },
        )
        signal = decided.get((row["symbol"], row["event_time_ns"]))
        if signal is not None:
            model = f"{signal['model_id']}:{signal['model_version']}" if signal["model_id"] else ""
            yield item("signal", **about, data=orjson.loads(signal["payload"]), model=model)
