"""What the streaming job needs to know, in one frozen value that both queries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.lake.maintenance import Limits
from pipelines.ports import BarHistory, KinesisConfig
from pipelines.streaming.anomalies import AnomalyConfig
from pipelines.streaming.session import SparkConfig


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """One streaming job: a Spark session, and the queries ``archive`` and ``signals`` in it.

    Args:
        spark: The session.
        kinesis: The streams; ``market_data`` is read, ``market_signals`` is written.
        lake_uri: The lake, a path or an object-store address.
        checkpoint_uri: Folder of the checkpoints; a job keeps a folder for each stream below it
            (its name and when it was made), and in that one for each query.
        symbols: The symbols that are expected (history is fetched for them).
        storage_options: Credentials and endpoint of the lake's object store (delta-rs names).
        archive_trigger_s: Interval of the archive's batches; 0: as fast as it can.
        signals_trigger_s: Interval of the signals' batches; 0: as fast as it can.
        archive_max_bytes: About so much of the stream goes into one archive batch.
        signals_max_bytes: About so much of the stream goes into one signals batch.
        first_max_bytes: About so much goes into the first batch of a query, whose Python workers
            and JVM are cold: the first rows after a restart come sooner.
        starting_position: Where a query without a checkpoint begins in ``market-data``. The
            archive begins where the lake ends, if the lake says so.
        fail_on_data_loss: Stop where records of the stream were forgotten before they were read
            (the error names the range); else go on behind them, with a warning.
        policy_url: Address of ``POST /v1/signals/batch``; ``None``: every signal is HOLD
            ``unavailable``.
        policy_deadline_s: Longest wait for its answer.
        assumed_spread_bps: ``spread_bps`` of a bar without quotes.
        features: What is computed of each closed bar, and decided on.
        lateness_s: Market time after the end of a longer window at which it closes without its
            last bar.
        provisional_every_s: Least time of the stream between two features of a symbol's forming
            bar; longer with more than 200 symbols; 0: none.
        anomalies: What is unusual about a bar.
        history: Bars of the past, for warming up; ``None``: the lake's own.
        history_bars: So many of them for each symbol.
        signals: Whether the signals query runs.
        archive: Whether the archive query runs.
        maintenance_every_s: Interval of the lake's maintenance; 0: none. The first is due after it.
        maintenance: What a pass of it may do.
        ledger_every_s: Interval at which the ledger is written down; 0: never, and no alerts.
        producer_stats: Asks the producer for its statistics, ``None`` when it does not answer;
            without it the ledger begins at the archive.
        revisions_every_s: Least interval at which corrected, late and backfilled bars are looked
            at; 0: never. Needs both queries.
    """

    spark: SparkConfig
    kinesis: KinesisConfig
    lake_uri: str
    checkpoint_uri: str
    symbols: tuple[str, ...] = ()
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    archive_trigger_s: float = 10.0
    signals_trigger_s: float = 0.5
    archive_max_bytes: int = 32 * 2**20
    signals_max_bytes: int = 8 * 2**20
    first_max_bytes: int = 4 * 2**20
    starting_position: str = "TRIM_HORIZON"
    fail_on_data_loss: bool = True
    policy_url: str | None = None
    policy_deadline_s: float = 1.0
    assumed_spread_bps: float = 2.0
    features: FeatureSpec = FEATURE_SPEC
    lateness_s: float = 30.0
    provisional_every_s: float = 1.0
    anomalies: AnomalyConfig = field(default_factory=AnomalyConfig)
    history: BarHistory | None = None
    history_bars: int = 512
    signals: bool = True
    archive: bool = True
    maintenance_every_s: float = 3600.0
    maintenance: Limits = field(default_factory=Limits)
    ledger_every_s: float = 60.0
    producer_stats: Callable[[], Mapping[str, Any] | None] | None = None
    revisions_every_s: float = 5.0
