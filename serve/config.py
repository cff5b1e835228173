"""What the serving side is told: frozen configurations, made by ``cluster`` from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from pipelines.ports import KinesisConfig


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """What the feed reads and how much it remembers.

    Args:
        kinesis: Where both streams are.
        symbols: Symbols of the watch-list; others appear when they are seen.
        rate: Market seconds per wall second, until the producer tells its clock.
        simulated: Whether the market is ours.
        mode: ``synthetic``, ``replay`` or ``live``; shown to people.
        lake_uri: Where older bars are; ``None`` for none.
        lake_options: Storage options of the lake.
        poll_s: Wall seconds between two polls of a stream.
        consumer: Name of the enhanced fan-out consumer to read as; ``None`` polls.
        conflate_s: Least wall seconds between two updates of one symbol's trade, quote or
            forming bar.
        signals_back_s: How far back the derived items are read at the start, wall seconds.
        max_bars: Closed minute bars kept per symbol.
        max_signals: Signals kept per symbol; also feature rows.
        max_updates: Updates kept for readers that come back, over all symbols.
        namespace: Ray namespace of the actors.
        actor: The feed's own actor name.
        producer_actor: Name of the producer's actor.
        streaming_actor: Name of the streaming driver's actor.
        stats_timeout_s: Longest wait for either of them.
    """

    kinesis: KinesisConfig
    symbols: tuple[str, ...] = ()
    rate: float = 1.0
    simulated: bool = True
    mode: str = "synthetic"
    lake_uri: str | None = None
    lake_options: Mapping[str, str] | None = field(default=None, repr=False)
    poll_s: float = 0.1
    consumer: str | None = None
    conflate_s: float = 0.1
    signals_back_s: float = 6 * 3600
    max_bars: int = 600
    max_signals: int = 200
    max_updates: int = 20_000
    namespace: str = "raytape"
    actor: str = "raytape-feed"
    producer_actor: str = "raytape-producer"
    streaming_actor: str = "raytape-streaming"
    stats_timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Where and how the applications answer.

    Args:
        feed: The feed that they mirror.
        registry_uri: Where the models are.
        registry_options: Storage options of the registry.
        features: What the stream computes and the models are asked on; models of others are
            refused.
        host: Address that everything listens on.
        port: Port of the gateway.
        haproxy_metrics_port: HAProxy's own metrics, on loopback.
        haproxy_stats_port: HAProxy's statistics page, on loopback.
        fallback_port: Serve's own proxy behind HAProxy, on loopback.
        run_dir: Folder of HAProxy's files; short, its sockets lie inside.
        dashboard_dir: The exported dashboard; ``None`` serves none.
        links: Addresses shown beside ours (``ray``, ``spark``), name to URL.
        stale_after_ms: Market milliseconds after which a closed bar is stale.
        stale_after_wall_ms: The same on the wall clock: a bar is stale only beyond both, so that
            a market played fast does not make every answer stale.
        models_poll_s: Wall seconds between two looks at which model is promoted.
        num_cpus: Logical CPUs that each replica takes.
        direct_ports: First and last port that replicas listen on behind HAProxy.
    """

    feed: FeedConfig
    registry_uri: str
    registry_options: Mapping[str, str] | None = field(default=None, repr=False)
    features: FeatureSpec = FEATURE_SPEC
    host: str = "127.0.0.1"
    port: int = 8000
    haproxy_metrics_port: int = 9101
    haproxy_stats_port: int = 8404
    fallback_port: int = 8500
    run_dir: Path = Path("var/run/haproxy")
    dashboard_dir: Path | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    stale_after_ms: float = 180_000
    stale_after_wall_ms: float = 15_000
    models_poll_s: float = 3.0
    num_cpus: float = 0.1
    direct_ports: tuple[int, int] = (30000, 31000)
