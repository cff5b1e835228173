"""Each part of the platform: its configuration from the settings, and how it is started."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import learning, local_aws, processes, runtime
from cluster.hosting import JobHost
from cluster.settings import Settings
from pipelines.errors import ConfigError
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.recorded import RecordedMarket
from pipelines.features.spec import spec_named
from pipelines.lake.files import is_remote
from pipelines.lake.maintenance import Limits
from pipelines.ports import KinesisConfig
from pipelines.streaming.anomalies import AnomalyConfig
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.session import SparkConfig
from pipelines.tape import is_tape, read_header
from serve import app, ingress
from serve.config import FeedConfig, ServeConfig
from serve.ray_feed import FeedActor

STALE_WALL_MS = 15_000
SPARK_NICENESS = 2
"""Below feed and serving, but not far: on full cores a batch, which is a chain of hundreds of short
steps in several processes, waits before each of them. At 10 it took two to three times as long, and
ticks came no sooner."""
FEED_BARS = 500
DASHBOARD = Path(__file__).parents[1] / "dashboard" / "out"


def symbols_of(replay: Path) -> list[str]:
    """Symbols of a file of bars, or of a recorded session.

    Raises:
        ConfigError: It is neither.
    """
    if is_tape(replay):
        header = read_header(replay)
        named = header.symbols if header is not None else ()
        return list(named) if named and "*" not in named else list(RecordedMarket(replay).symbols)
    try:
        return sorted(set(pq.read_table(replay, columns=["symbol"])["symbol"].to_pylist()))
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"replay {replay}: no Parquet file of bars: {error}") from error


def exchange_config(settings: Settings, *, open_on: str) -> ExchangeConfig:
    """What our exchange plays."""
    folder = settings.data_dir / "exchange"
    return ExchangeConfig(
        host=settings.host,
        port=settings.exchange_port,
        symbols=settings.symbols,
        seed=settings.seed,
        speed=settings.speed,
        feed=settings.feed,
        replay=None if settings.replay is None else str(settings.replay.resolve()),
        sessions=settings.replay_sessions,
        max_sessions=settings.max_sessions,
        max_minutes=settings.max_minutes,
        messages_per_minute=settings.messages_per_minute,
        events=settings.market_events,
        correction_rate=settings.correction_rate,
        cancel_rate=settings.cancel_rate,
        late_trade_rate=settings.late_trade_rate,
        profiles=_absolute(settings.market_profiles),
        news_drift_bps=settings.news_drift_bps,
        open_on=open_on,  # type: ignore[arg-type]
        record_dir=folder / "tape",
        record_max_mb=settings.tape_max_mb,
        accounts=_absolute(settings.exchange_accounts),
        symbol_limit=settings.exchange_symbol_limit,
        connection_limit=settings.exchange_connection_limit,
        compress=settings.exchange_compress,
        rate_limit=settings.exchange_rate_limit,
        cash_usd=settings.exchange_cash_usd,
        shorting=settings.exchange_shorting,
        faults=_absolute(settings.faults),
        state_path=None if settings.replay else folder / "state.json",
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def kinesis_config(settings: Settings) -> KinesisConfig:
    """Where the streams are."""
    if settings.kinesis == "embedded":
        base = local_aws.embedded_kinesis(settings.kinesis_port, region=settings.region)
    else:
        base = KinesisConfig(region=settings.region)
    return KinesisConfig(
        **asdict(base)
        | {"market_data": settings.market_data, "market_signals": settings.market_signals}
    )


def kinesis_address(settings: Settings) -> str:
    """Where the streams are, for people."""
    if settings.kinesis == "aws":
        return f"AWS {settings.region}"
    return f"http://{settings.host}:{settings.kinesis_port}"


def streaming_config(settings: Settings) -> StreamingConfig:
    """The Spark session and its two queries."""
    on_ray = settings.spark_master == "raydp"
    return StreamingConfig(
        spark=SparkConfig(
            master=settings.spark_master,
            app_name="raytape",
            executors=settings.spark_executors,
            executor_cores=settings.spark_executor_cores,
            executor_memory=settings.spark_executor_memory,
            driver_memory=settings.spark_driver_memory,
            ui_port=settings.spark_ui_port,
            ui_host=settings.host,
            shuffle_partitions=settings.spark_state_parts,
            local_checkpoints=not is_remote(settings.uri("checkpoints")),
            folder=str((settings.data_dir / "spark").resolve()),
            executor_tmp=str(runtime.ray_temp_dir(settings)) if on_ray else None,
            extra=settings.spark_extra(),
        ),
        kinesis=kinesis_config(settings),
        lake_uri=settings.uri("lake"),
        storage_options=settings.store_options(),
        checkpoint_uri=settings.uri("checkpoints"),
        symbols=settings.symbols,
        archive_trigger_s=settings.archive_trigger_s,
        signals_trigger_s=settings.signals_trigger_s,
        fail_on_data_loss=settings.fail_on_data_loss,
        policy_url=f"{settings.gateway_url}/v1/signals/batch",
        policy_deadline_s=settings.policy_deadline_s,
        assumed_spread_bps=settings.assumed_spread_bps,
        features=spec_named(settings.features),
        lateness_s=settings.watermark_s,
        provisional_every_s=settings.provisional_every_s,
        anomalies=AnomalyConfig(
            price_pct=settings.anomaly_price_pct,
            volume_ratio=settings.anomaly_volume_ratio,
            rsi_high=settings.anomaly_rsi_high,
            rsi_low=settings.anomaly_rsi_low,
            spread_ratio=settings.anomaly_spread_ratio,
            latency_ms=settings.anomaly_latency_ms,
            live=settings.wall_clock,
            model=settings.anomaly_model,
            trees_score=settings.anomaly_trees_score,
            lof_score=settings.anomaly_lof_score,
        ),
        history=learning.history(settings),
        producer_stats=partial(runtime.stats_of, runtime.PRODUCER),
        maintenance_every_s=settings.maintenance_every_s,
        maintenance=Limits(retention_h=settings.lake_retention_h, keep_days=settings.keep_days()),
    )


def feed_config(settings: Settings) -> FeedConfig:
    """What the feed reads and remembers."""
    mode = "live" if settings.live else ("replay" if settings.replay else "synthetic")
    return FeedConfig(
        kinesis=kinesis_config(settings),
        symbols=settings.symbols,
        rate=1.0 if settings.wall_clock else settings.speed,
        simulated=not settings.wall_clock,
        mode=mode,
        lake_uri=settings.uri("lake"),
        lake_options=settings.store_options(),
        poll_s=settings.feed_poll_s,
        consumer=settings.feed_consumer,
        namespace=runtime.NAMESPACE,
        actor=runtime.FEED,
        producer_actor=runtime.PRODUCER,
        streaming_actor=runtime.STREAMING,
    )


def serve_config(settings: Settings) -> ServeConfig:
    """Where and how the applications answer."""
    return ServeConfig(
        feed=feed_config(settings),
        registry_uri=settings.uri("registry"),
        registry_options=settings.store_options(),
        features=spec_named(settings.features),
        host=settings.host,
        port=settings.gateway_port,
        fallback_port=settings.serve_port,
        haproxy_metrics_port=settings.haproxy_metrics_port,
        haproxy_stats_port=settings.haproxy_stats_port,
        run_dir=runtime.ray_temp_dir(settings) / "haproxy",
        dashboard_dir=DASHBOARD if DASHBOARD.is_dir() else None,
        links={
            "ray": f"http://{settings.host}:{settings.ray_dashboard_port}",
            "spark": f"http://{settings.host}:{settings.spark_ui_port}",
        },
        stale_after_ms=settings.stale_after_s * 1000,
        stale_after_wall_ms=STALE_WALL_MS,
    )


def serve_env(settings: Settings) -> dict[str, str]:
    """Variables of Ray Serve's proxy; they must stand before Ray starts."""
    return ingress.serve_env(serve_config(settings))


def remove_sockets(settings: Settings) -> None:
    """Remove what HAProxy leaves behind on disk."""
    ingress.clean(serve_config(settings))


def start_exchange(settings: Settings) -> None:
    """Start our exchange; its market opens when the producer subscribes."""
    config = exchange_config(settings, open_on="subscribe")
    path = settings.run_dir / "exchange.config"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(config.to_dict()))
    child = processes.start(
        "exchange",
        [sys.executable, "-m", "pipelines.exchange", str(path)],
        run_dir=settings.run_dir,
        log_dir=settings.log_dir,
    )
    processes.wait_until(
        lambda: processes.port_in_use(settings.exchange_port, host=settings.host),
        name="exchange",
        timeout_s=60,
        child=child,
    )


def start_kinesis(settings: Settings) -> None:
    """Start the embedded Kinesis, if it is that; make the streams that are missing."""
    if settings.kinesis == "embedded":
        store = settings.data_dir / "kinesis"
        local_aws.bound_disk(store, settings.kinesis_max_mb)
        local_aws.start_kinesis(
            port=settings.kinesis_port,
            path=store,
            run_dir=settings.run_dir,
            log_dir=settings.log_dir,
            retention_s=settings.kinesis_retention_s,
        )
    local_aws.ensure_streams(kinesis_config(settings), shards=settings.shards)


def mark_drained(settings: Settings) -> None:
    """Write down that all of the embedded Kinesis has been read; call it when nobody writes."""
    if settings.kinesis == "embedded":
        local_aws.mark_drained(settings.data_dir / "kinesis")


def start_serving(ray: Any, settings: Settings) -> None:
    """Start the feed actor and the applications of the gateway."""
    config = serve_config(settings)
    feed = named(ray, FeedActor, runtime.FEED, num_cpus=0.3, max_concurrency=1000)
    handle = feed.remote(config.feed)
    ray.get(handle.start.remote(), timeout=60)
    _fill(ray, handle, settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # Serve sets it when it is imported
    app.deploy(config)


def _fill(ray: Any, feed: Any, settings: Settings) -> None:
    """Give the feed the bars before the market opens, so that no chart begins empty."""
    if settings.wall_clock and not settings.live:
        return  # the test stream of our exchange has no past
    bars = learning.history(settings).bars_many(
        settings.symbols, before_ns=learning.market_now_ns(settings), limit=FEED_BARS
    )
    calls = [
        feed.add_history.remote(symbol, [_plain_bar(bar) for bar in rows])
        for symbol, rows in bars.items()
    ]
    ray.get(calls, timeout=60)


def _plain_bar(bar: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event_time": bar["t"],
        "open": bar["o"],
        "high": bar["h"],
        "low": bar["l"],
        "close": bar["c"],
        "volume": bar["v"],
        "trade_count": bar["n"],
        "vwap": bar["vw"],
        "source": "vendor",
    }


def start_streaming(ray: Any, settings: Settings) -> None:
    """Start the Spark driver."""
    host = named(ray, JobHost, runtime.STREAMING, num_cpus=0.5, max_concurrency=8)
    host.remote(
        partial(StreamingJob, streaming_config(settings)),
        log_file=log_file(settings, "streaming"),
        niceness=SPARK_NICENESS,
    )


def stop_actors(ray: Any, settings: Settings) -> None:
    """End our actors and Serve; they do not come back."""
    app.shutdown()
    for name in (*runtime.producers(settings), runtime.STREAMING, runtime.FEED):
        handle = runtime.actor(ray, name)
        if handle is not None:
            ray.kill(handle, no_restart=True)


def named(ray: Any, cls: type, name: str, **options: Any) -> Any:
    """A class as an actor of ours: known by its name, made again when its process ends."""
    return ray.remote(cls).options(
        name=name,
        namespace=runtime.NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=0,
        **options,
    )


def log_file(settings: Settings, part: str) -> str:
    """Where a part writes its log."""
    return str((settings.log_dir / f"{part}.log").resolve())
