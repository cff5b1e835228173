"""The tables of the lake: names, columns, types. Pure data; everything else is driven by it.

Every table is a Delta table at ``<lake uri>/<name>``, partitioned by ``date``, the UTC date of the
event (inside regular hours the same as the trading date in New York). Times are microseconds in
UTC; where the source is finer, an ``_ns`` column beside holds the nanoseconds.

Where a row of a raw table came from stands in its *provenance* columns:

======================  ===============================================================
``epoch bucket bseq``   the record: producer run, symbol bucket, counter of both
``position``            index of the message inside its record; (epoch, bucket, bseq,
                        position) names a message for ever
``received_at_ns``      wall time at which the producer took it from the socket
``sent_at_ns``          wall time at which the record was first sent
======================  ===============================================================

They are null only in ``quarantine``, for bytes that were no record at all.

``backfilled`` in ``trades``, ``quotes`` and ``bars`` says that a row was asked for later, to fill
a declared gap; it is null in rows that are older than the column. A gap that was filled has a
second row in ``gaps``, with ``backfilled`` and how many rows were added: of the rows of one
(symbol, from, to), the one with ``backfilled`` is the last word.
"""

from __future__ import annotations

import pyarrow as pa

from pipelines.errors import LakeError
from pipelines.lake.table import (
    BACKFILLED,
    EVENT,
    FLOATS,
    OHLCV,
    PARTITION,
    STRINGS,
    TIME,
    Table,
    make,
)

__all__ = [
    "ARCHIVE_STATE", "FEATURE_COLUMNS", "PARTITION", "RAW_TABLES", "SIGNAL_TABLES", "TABLES",
    "TIME", "Table", "table",
]  # fmt: skip

FEATURE_COLUMNS = (
    "log_return_1",
    "momentum_10",
    "volatility_20",
    "volume_ratio_20",
    "rsi_14",
    "macd_hist_12_26_9",
    "bollinger_position_20_2",
    "sma_ratio_5",
    "sma_ratio_15",
    "sma_ratio_60",
    "spread_bps",
)
"""The features of FeatureSpec 1, in its order; the spec itself lives in ``pipelines.features``."""

EXTENDED_COLUMNS = (
    "log_return_lag_1",
    "log_return_lag_2",
    "log_return_lag_3",
    "log_return_lag_5",
    "sma_ratio_10",
    "sma_ratio_20",
    "atr_ratio_14",
    "stochastic_k_14_3",
    "stochastic_d_14_3_3",
    "time_sin",
    "time_cos",
)
"""What FeatureSpec 2 adds; null in rows of FeatureSpec 1, and ``fingerprint`` tells which it is."""

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        make(
            "trades",
            [
                *EVENT,
                ("price", pa.float64()),
                ("size", pa.float64()),
                ("trade_id", pa.int64()),
                ("exchange", pa.string()),
                ("conditions", STRINGS),
                ("tape", pa.string()),
                BACKFILLED,
            ],
            raw=True,
            doc="A trade as it came; size in shares.",
        ),
        make(
            "quotes",
            [
                *EVENT,
                ("bid_price", pa.float64()),
                ("bid_size", pa.float64()),
                ("bid_exchange", pa.string()),
                ("ask_price", pa.float64()),
                ("ask_size", pa.float64()),
                ("ask_exchange", pa.string()),
                ("conditions", STRINGS),
                ("tape", pa.string()),
                BACKFILLED,
            ],
            raw=True,
            doc="A top-of-book quote as it came; a side with price 0 is empty.",
        ),
        make(
            "bars",
            [*EVENT, *OHLCV, BACKFILLED],
            raw=True,
            doc="A vendor's 1-minute bar as it came; event_time is the start of the minute.",
        ),
        make(
            "events",
            [("type", pa.string()), *EVENT, ("payload", pa.string())],
            raw=True,
            doc="Any other market message, its payload as JSON as it came.",
        ),
        make(
            "gaps",
            [
                ("symbol", pa.string()),
                ("from_ns", pa.int64()),
                ("to_ns", pa.int64()),
                ("from_time", TIME),
                ("to_time", TIME),
                ("reason", pa.string()),
                BACKFILLED,
                ("filled_trades", pa.int64()),
                ("filled_quotes", pa.int64()),
                ("filled_bars", pa.int64()),
            ],
            sort=("symbol", "to_ns"),
            raw=True,
            doc="What a symbol had strictly between from and to was missed (null: from its start); "
            "of the first and the last instant some may be stored.",
        ),
        make(
            "corrections",
            [
                ("type", pa.string()),
                *EVENT,
                ("exchange", pa.string()),
                ("tape", pa.string()),
                ("original_id", pa.int64()),
                ("original_price", pa.float64()),
                ("original_size", pa.float64()),
                ("original_conditions", STRINGS),
                ("corrected_id", pa.int64()),
                ("corrected_price", pa.float64()),
                ("corrected_size", pa.float64()),
                ("corrected_conditions", STRINGS),
                ("action", pa.string()),
            ],
            raw=True,
            doc="A correction (type c) or a cancel (x, its action C or E) of an earlier trade.",
        ),
        make(
            "quarantine",
            [
                ("reason", pa.string()),
                ("symbol", pa.string()),
                ("payload", pa.string()),
                ("raw", pa.binary()),
                ("detected", TIME),
            ],
            sort=("detected",),
            raw=True,
            doc="What could not be stored elsewhere, why, and as it came (JSON, or raw bytes).",
        ),
        make(
            "features",
            [
                *EVENT,
                *((name, pa.float64()) for name in FEATURE_COLUMNS),
                *OHLCV,
                ("source", pa.string()),
                ("fingerprint", pa.string()),
                ("warm", pa.bool_()),
                ("spread_assumed", pa.bool_()),
                ("gap", pa.bool_()),
                ("revision", pa.int32()),
                ("known_at", TIME),
                *((name, pa.float64()) for name in EXTENDED_COLUMNS),
            ],
            doc="The features of a closed minute bar (null: not warm, or of the longer "
            "specification only), with the bar they end in.",
        ),
        make(
            "signals",
            [
                *EVENT,
                ("action", pa.string()),
                ("action_id", pa.int32()),
                ("confidence", pa.float64()),
                ("probabilities", FLOATS),
                ("value", pa.float64()),
                ("q_values", FLOATS),
                ("position_fraction", pa.float64()),
                ("cash_fraction", pa.float64()),
                ("model_id", pa.string()),
                ("model_version", pa.string()),
                ("model_fingerprint", pa.string()),
                ("decided_at", TIME),
                ("data_age_ms", pa.float64()),
                ("reason", pa.string()),
                ("revision", pa.int32()),
                ("known_at", TIME),
                ("payload", pa.string()),
            ],
            doc="The decision on a closed bar; payload is the policy's whole answer as JSON.",
        ),
        make(
            "anomalies",
            [
                *EVENT,
                ("type", pa.string()),
                ("severity", pa.string()),
                ("score", pa.float64()),
                ("value", pa.float64()),
                ("threshold", pa.float64()),
                ("reason", pa.string()),
                ("detector", pa.string()),
                ("known_at", TIME),
                ("payload", pa.string()),
            ],
            doc="Something unusual about a symbol: what, how much, and by which detector.",
        ),
        make(
            "stats",
            [
                *EVENT,
                ("span", pa.string()),
                ("count", pa.int64()),
                ("min", pa.float64()),
                ("max", pa.float64()),
                ("mean", pa.float64()),
                ("variance", pa.float64()),
                ("std", pa.float64()),
                ("known_at", TIME),
                ("payload", pa.string()),
            ],
            doc="Running statistics of a symbol's prices in its session; the rest as JSON.",
        ),
        make(
            "fills",
            [
                *EVENT,
                ("side", pa.string()),
                ("shares", pa.float64()),
                ("price", pa.float64()),
                ("open", pa.float64()),
                ("bid_price", pa.float64()),
                ("ask_price", pa.float64()),
                ("spread_bps", pa.float64()),
                ("notional", pa.float64()),
                ("commission", pa.float64()),
                ("spread_cost", pa.float64()),
                ("slippage_cost", pa.float64()),
                ("cash_after", pa.float64()),
                ("shares_after", pa.float64()),
                ("model_id", pa.string()),
                ("model_version", pa.string()),
                ("signal_id", pa.string()),
                ("decided_on", TIME),
                ("reason", pa.string()),
                ("filled_at", TIME),
                ("known_at", TIME),
            ],
            doc="A paper fill of a model's account, at the open of the minute event_time; in USD.",
        ),
        make(
            "alerts",
            [
                ("event_time", TIME),
                ("alert_id", pa.string()),
                ("name", pa.string()),
                ("severity", pa.string()),
                ("source", pa.string()),
                ("symbol", pa.string()),
                ("detail", pa.string()),
                ("began_at", TIME),
                ("ended_at", TIME),
                ("market_time", TIME),
            ],
            sort=("event_time", "alert_id"),
            doc="An alert began, and in a second row ended (wall time); * is no single symbol.",
        ),
        make(
            "ledger",
            [
                ("event_time", TIME),
                ("stage", pa.string()),
                ("received", pa.int64()),
                ("stored", pa.int64()),
                ("duplicates", pa.int64()),
                ("quarantined", pa.int64()),
                ("in_flight", pa.int64()),
                ("imbalance", pa.int64()),
                ("holes", pa.int64()),
                ("gaps", pa.int64()),
                ("payload", pa.string()),
            ],
            sort=("event_time", "stage"),
            doc="What each stage counted until a wall time, since the lake (or its start) began.",
        ),
        make(
            "evaluations",
            [
                ("event_time", TIME),
                ("model_id", pa.string()),
                ("model_version", pa.string()),
                ("policy", pa.string()),
                ("net_return", pa.float64()),
                ("sharpe", pa.float64()),
                ("max_drawdown", pa.float64()),
                ("trades", pa.int64()),
                ("turnover", pa.float64()),
                ("payload", pa.string()),
            ],
            sort=("event_time", "policy"),
            doc="A backtest of a model (wall time): the model's row and those of the baselines.",
        ),
    )
}
"""Every table by name."""

ARCHIVE_STATE = make(
    "_archive",
    [
        ("query_id", pa.string()),
        ("batch_id", pa.int64()),
        ("committed_at", TIME),
        ("state", pa.string()),
        ("files", pa.string()),
    ],
    sort=("batch_id",),
    doc="One row: how far the archive query is, and the files of its last batch (JSON).",
)
"""Bookkeeping of the archive query; it stands beside the tables and is replaced by each batch."""

RAW_TABLES = ("trades", "quotes", "bars", "events", "gaps", "corrections", "quarantine")
"""What the archive query writes."""

SIGNAL_TABLES = ("features", "signals", "stats", "anomalies", "fills")
"""What the signals query writes."""


def table(name: str) -> Table:
    """The table of a name.

    Raises:
        LakeError: There is none; the message lists those there are.

    >>> table("gaps").sort
    ('symbol', 'to_ns')
    """
    if name == ARCHIVE_STATE.name:
        return ARCHIVE_STATE
    try:
        return TABLES[name]
    except KeyError as error:
        raise LakeError(f"no table {name!r}; there are {', '.join(TABLES)}") from error
