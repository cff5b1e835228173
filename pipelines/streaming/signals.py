"""The query ``signals``: records of ``market-data`` to closed bars, features and decisions.

``market-data`` (:mod:`pipelines.streaming.market_data`, one row per symbol) → shuffle by group of
symbols, where the state has several parts → :class:`Fold` (state: a
:class:`~pipelines.streaming.bars.SymbolState` of each symbol) → :class:`Ask` (the policy, once per
partition and batch) → :class:`~pipelines.streaming.outbox.Outbox` (lake, then stream).
A batch is one Spark job, the one action of :meth:`_Batches.process`; with one part, and as little
to read as half a second brings, it is one task. What Spark does around a task is most of what such
a batch takes.
"""

from __future__ import annotations

import functools
import logging
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import pyarrow as pa
from pyspark import TaskContext

from pipelines.errors import LakeError
from pipelines.events import SECOND_NS
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.kinesis.source import source_options
from pipelines.kinesis.writer import KinesisWriter
from pipelines.lake.files import local_path
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.ports import ItemSink
from pipelines.streaming.anomalies import AnomalyConfig
from pipelines.streaming.ask import PolicyClient
from pipelines.streaming.bars import SymbolState
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.derived import LATENESS_NS, Derived
from pipelines.streaming.market_data import LIVE, MarketDataSource
from pipelines.streaming.outbox import Outbox
from pipelines.streaming.outliers import load
from pipelines.streaming.parts import Decidable
from pipelines.streaming.reduce import parts_of
from pipelines.streaming.schemas import SIGNALS, checkpoint
from pipelines.streaming.session import SIGNALS_POOL
from pipelines.streaming.states import pack, unpack
from pipelines.streaming.warmup import Warmup, decided_in
from pipelines.workers import settle

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.state import GroupState

FOLDED_SCHEMA: Final = "symbol string, payload string"
ASKED_SCHEMA: Final = "symbol string, payload string, signal string"
STATE_SCHEMA: Final = "state binary"

FOLDER: Final = f"{SIGNALS}-by-group"
"""Folder of the checkpoint. Spark refuses one with other keys (it was once by symbol); a query that
finds none goes on from the lake."""

PROVISIONAL_PER_S: Final = 200
"""Features of forming bars in a second of the stream, of all symbols: each takes 0.2 ms."""

HELD: Final = "raytape.held"
"""Local property of a batch's job: the lake holds its decisions, nobody is to be asked again."""

_ARROW: Final = pa.schema(
    [("symbol", pa.string()), ("payload", pa.string()), ("signal", pa.string())]
)

_log = logging.getLogger(__name__)


class Fold:
    """Folds a group's rows of a batch into the states of its symbols (``applyInPandasWithState``).

    Yields a row for each closed bar, its payload as JSON; for each symbol one with the roll-ups
    that closed by time alone; one with the forming bar; and one with the counters that moved. The
    states of a group are written together, also those of its idle symbols: 10 to 20 kB each.

    Args:
        warmup: Where new symbols begin.
        spec: The features.
        assumed_spread_bps: Spread of a bar without quotes.
        lateness_ns: Market time that a longer window waits for its last bar.
        provisional_every_ns: Least time between two features of a forming bar; 0: none.
        anomalies: What is unusual; each symbol's model is seeded by its name.
    """

    def __init__(
        self,
        warmup: Warmup,
        spec: FeatureSpec = FEATURE_SPEC,
        *,
        assumed_spread_bps: float,
        lateness_ns: int = LATENESS_NS,
        provisional_every_ns: int = 0,
        anomalies: AnomalyConfig | None = None,
    ) -> None:
        self._spec = spec
        self._anomalies = anomalies
        self._every_ns = provisional_every_ns
        self._loader = warmup.loader()
        self._assumed = assumed_spread_bps
        self._lateness_ns = lateness_ns

    def __call__(
        self, _: tuple[int], frames: Iterable[pd.DataFrame], state: GroupState
    ) -> Iterator[pd.DataFrame]:
        """Fold one group."""
        import pandas as pd

        if self._anomalies is not None:
            load(self._anomalies.model)
        blobs: dict[str, list[tuple[int, bytes]]] = {}
        for frame in frames:
            rows = zip(frame["symbol"], frame["first_ns"], frame["parts"], strict=True)
            for symbol, first, parts in rows:
                blobs.setdefault(symbol, []).append((int(first), bytes(parts)))
        states = unpack(bytes(state.get[0])) if state.exists else {}
        made: list[tuple[str, str]] = []
        for symbol, held in blobs.items():
            payloads, states[symbol] = self.fold(symbol, held, states.get(symbol))
            made += [(symbol, payload) for payload in payloads]
        state.update((pack(states),))
        if made:
            yield pd.DataFrame(made, columns=["symbol", "payload"], dtype=object)
        settle("fold")

    def fold(
        self, symbol: str, blobs: Sequence[tuple[int, bytes]], data: bytes | None
    ) -> tuple[list[str], bytes]:
        """Fold one symbol, without Spark: payloads and the new state."""
        derived = functools.partial(
            Derived,
            lateness_ns=self._lateness_ns,
            anomalies=self._anomalies,
            seed=zlib.crc32(symbol.encode()),
        )
        if data is None:
            state = SymbolState(self._spec, assumed_spread_bps=self._assumed, derived=derived)
        else:
            state = SymbolState.from_bytes(
                data, self._spec, assumed_spread_bps=self._assumed, derived=derived
            )
        before = dict(state.counters)
        closed = state.fold(parts_of(blobs), start_of=functools.partial(self._loader.start, symbol))
        payloads = [payload_of(symbol, bar) for bar in closed]
        if self._every_ns and (forming := state.forming(every_ns=self._every_ns)):
            payloads.append({"symbol": symbol, "provisional": forming})
        if rolled := state.rolled():
            payloads.append({"symbol": symbol, "rollups": rolled})
        moved = {k: v - before[k] for k, v in state.counters.items() if v != before[k]}
        if moved:
            payloads.append({"symbol": symbol, "counters": moved})
        return [orjson.dumps(p).decode() for p in payloads], state.to_bytes()


@dataclass(frozen=True, slots=True)
class Ask:
    """Adds the policy's signal to each closed bar of a partition (for ``mapInArrow``).

    Nobody is asked while the job's property :data:`HELD` says that the lake holds the answers.

    Args:
        url: Address of ``POST /v1/signals/batch``.
        deadline_s: Longest wait for an answer.
    """

    url: str | None
    deadline_s: float

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Ask once for the whole partition."""
        rows = [row for batch in batches for row in batch.to_pylist()]
        if not rows:
            return
        payloads = [orjson.loads(row["payload"]) for row in rows]
        asked = [] if _held() else payloads
        bars = [i for i, payload in enumerate(asked) if not payload.get("decided", True)]
        signals: list[str | None] = [None] * len(rows)
        if bars:
            client = _client(self.url, self.deadline_s)
            before = client.report()
            answers = client.decide([payloads[i] for i in bars])
            for i, answer in zip(bars, answers, strict=True):
                signals[i] = orjson.dumps(answer).decode()
            rows.append({"symbol": "", "payload": _moved(before, client.report())})
            signals.append(None)
        yield pa.record_batch(
            [
                pa.array([row["symbol"] for row in rows], pa.string()),
                pa.array([row["payload"] for row in rows], pa.string()),
                pa.array(signals, pa.string()),
            ],
            schema=_ARROW,
        )
        settle("ask")


def _held() -> bool:
    """Whether the batch was decided before."""
    task = TaskContext.get()
    return task is not None and task.getLocalProperty(HELD) == "true"


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The payload of how asking went: state of the circuit, and counters."""
    counted = {f"policy_{k}": n - before[k] for k, n in after.items() if k != "state"}
    return orjson.dumps({"policy": after["state"], "counters": counted}).decode()


@functools.cache
def _client(url: str | None, deadline_s: float) -> PolicyClient:
    """One per worker process, so that connection and failures outlive a batch."""
    return PolicyClient(url, deadline_s=deadline_s)


class _Batches:
    """What Spark calls for each batch."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def process(self, frame: DataFrame, batch_id: int) -> None:
        context = frame.sparkSession.sparkContext
        query_id = context.getLocalProperty("sql.streaming.queryId")
        if query_id is None:
            raise LakeError("process() works inside foreachBatch only")

        def run(ask: bool) -> list[dict[str, Any]]:
            context.setLocalProperty(HELD, str(not ask).lower())
            rows: list[dict[str, Any]] = frame.toArrow().to_pylist()
            return rows

        self._outbox.take(run, query_id=query_id, batch_id=batch_id)


def open_outbox(config: StreamingConfig, sink: ItemSink | None = None) -> Outbox:
    """Take the query over in the lake; what :func:`start` writes to.

    Args:
        config: The lake and the streams.
        sink: ``market-signals``; a writer of its own by default.

    Raises:
        LakeError: The lake cannot be read or written.
    """
    outbox = Outbox(
        LakeWriter(config.lake_uri, config.storage_options),
        sink or KinesisWriter(config.kinesis, config.kinesis.market_signals),
    )
    outbox.open()
    return outbox


def start(
    spark: SparkSession, config: StreamingConfig, outbox: Outbox | None = None
) -> StreamingQuery:
    """Start the query in a session; its jobs are in the fair pool of signals.

    Args:
        spark: The session.
        config: Streams, lake, checkpoint, trigger, policy and history.
        outbox: Where its batches go; its counters are the query's.

    Raises:
        LakeError: The lake cannot be read or written.
    """
    outbox = outbox or open_outbox(config)
    lake = LakeQuery(config.lake_uri, config.storage_options)
    warmup = Warmup(
        lake_uri=config.lake_uri,
        storage_options=dict(config.storage_options),
        history=config.history,
        symbols=config.symbols,
        bars=config.history_bars,
        decided=decided_in(lake),
        spec=config.features,
    )
    if config.spark.local_checkpoints:  # older code would go on from it, and decide again
        old = checkpoint(config.checkpoint_uri, SIGNALS)
        shutil.rmtree(local_path(old), ignore_errors=True)
    options = source_options(
        config.kinesis,
        config.kinesis.market_data,
        startingPosition=config.starting_position,
        maxBytesPerBatch=config.signals_max_bytes,
        maxBytesInFirstBatch=config.first_max_bytes,
        failOnDataLoss=config.fail_on_data_loss,
    )
    options[LIVE] = str(config.anomalies.live).lower()
    fold = Fold(
        warmup,
        config.features,
        assumed_spread_bps=config.assumed_spread_bps,
        lateness_ns=int(config.lateness_s * SECOND_NS),
        provisional_every_ns=provisional_every_ns(config),
        anomalies=config.anomalies,
    )
    ask = Ask(config.policy_url, config.policy_deadline_s)
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", SIGNALS_POOL)
    reduced = spark.readStream.format(MarketDataSource.name()).options(**options).load()
    if spark.conf.get("spark.sql.shuffle.partitions") == "1":
        reduced = reduced.coalesce(1)  # so Spark sees that nothing is to be shuffled
    return (
        reduced.groupBy("group")
        .applyInPandasWithState(fold, FOLDED_SCHEMA, STATE_SCHEMA, "append", "NoTimeout")
        .mapInArrow(ask, ASKED_SCHEMA)
        .writeStream.queryName(SIGNALS)
        .option("checkpointLocation", checkpoint(config.checkpoint_uri, FOLDER))
        .foreachBatch(_Batches(outbox).process)
        .trigger(processingTime=f"{config.signals_trigger_s * 1000:.0f} milliseconds")
        .start()
    )


def provisional_every_ns(config: StreamingConfig) -> int:
    """How often a symbol's forming bar is shown: with many symbols less often, 0 for never."""
    if not config.provisional_every_s:
        return 0
    every_s = max(config.provisional_every_s, len(config.symbols) / PROVISIONAL_PER_S)
    return int(every_s * SECOND_NS)


def payload_of(symbol: str, closed: Decidable) -> dict[str, Any]:
    """A closed bar with its features as JSON types: what is asked about, stored and published."""
    return {
        "symbol": symbol,
        "event_time": closed.bar.event_time,
        "bar": closed.bar.data(),
        "values": closed.row.values,
        "fingerprint": closed.row.spec.fingerprint,
        "warm": closed.row.warm,
        "spread_assumed": closed.row.spread_assumed,
        "gap": closed.gap,
        "reason": closed.reason,
        "market_ns": closed.market_ns,
        "decided": closed.decided,
        **closed.derived,
    }
