"""The producers: their settings, their sources, and how they are started as actors."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from cluster import learning, parts, runtime
from cluster.hosting import LoggedProducer, Peers, end_process
from cluster.lake_marks import LakeMarks
from cluster.settings import Settings
from pipelines.history import RestHistory
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.config import ProducerConfig, SourceConfig
from pipelines.kinesis.batching import Batcher
from pipelines.kinesis.tail import StreamTail
from pipelines.kinesis.writer import KinesisWriter

ALPACA_STREAM = "wss://stream.data.alpaca.markets"
ALPACA_DATA = "https://data.alpaca.markets"


def sources(settings: Settings) -> tuple[SourceConfig, ...]:
    """Where market data comes from, best first."""
    return tuple(_source(settings, name) for name in settings.sources or (settings.feed,))


def _source(settings: Settings, name: str) -> SourceConfig:
    if name == "rest":
        url = ALPACA_DATA if settings.live else settings.exchange_url
        return SourceConfig(name, url, feed=settings.feed)
    return SourceConfig(name, f"{stream_address(settings)}/v2/{name}", feed=name)


def stream_address(settings: Settings) -> str:
    """Server of the websockets, without a path."""
    return ALPACA_STREAM if settings.live else f"ws://{settings.host}:{settings.exchange_port}"


def address(settings: Settings) -> str:
    """Where market data comes from, for people."""
    return " → ".join(source.url for source in sources(settings))


def config(settings: Settings, index: int = 0) -> ProducerConfig:
    """What a producer subscribes and how it batches.

    Args:
        settings: Of the platform.
        index: Which of the producers that share the symbols.
    """
    first, *others = sources(settings)
    news = settings.news and settings.feed != "test"  # of a symbol that does not exist
    folder = settings.producer_dir or settings.data_dir / "producer"
    if index > 0:
        folder = folder.with_name(f"{folder.name}-{index}")
    return ProducerConfig(
        url=first.url,
        source=first.name,
        fallbacks=tuple(others),
        key=settings.alpaca_key.get_secret_value(),
        secret=settings.alpaca_secret.get_secret_value(),
        symbols=settings.symbols,
        channels=settings.channels,
        channel_symbols=settings.channel_symbols,
        news_url=f"{stream_address(settings)}/v1beta1/news" if news else None,
        index=index,
        producers=settings.producers,
        lock_dir=settings.lock_dir or Path(tempfile.gettempdir()) / "raytape-locks",
        codec=settings.codec,
        clock_url=None if settings.wall_clock else f"{settings.exchange_url}/raytape/clock",
        state_path=(folder / "state.json").resolve(),
        batch_ms=settings.batch_ms,
        spill_at=settings.spill_at,
        journal_max_mb=settings.journal_max_mb,
        stale_s=settings.feed_stale_s,
        failover_after=settings.failover_after,
        probe_s=settings.probe_s,
        max_attempts=settings.reconnect_attempts or None,
        backfill=BackfillConfig(
            delay_s=settings.backfill_delay_s, max_gap_s=settings.backfill_max_gap_s
        ),
    )


def start(ray: Any, settings: Settings) -> None:
    """Start the producers; they connect at once. The first speaks for all, so it starts last."""
    names = runtime.producers(settings)
    for index in reversed(range(len(names))):
        _start_one(ray, settings, index, names)


def _start_one(ray: Any, settings: Settings, index: int, names: tuple[str, ...]) -> None:
    kinesis = parts.kinesis_config(settings)
    name = names[index]
    host = parts.named(ray, LoggedProducer, name, num_cpus=0.5, max_concurrency=8)
    host.remote(
        name,
        parts.log_file(settings, name.removeprefix("raytape-")),
        config(settings, index),
        partial(KinesisWriter, kinesis, kinesis.market_data),
        Batcher,
        partial(StreamTail, kinesis, kinesis.market_data),
        history_factory=partial(_history, settings),
        lake_factory=partial(LakeMarks, settings.uri("lake")),
        on_crash=partial(end_process, 1),
        peers=Peers(names[1:], namespace=runtime.NAMESPACE) if index == 0 and names[1:] else None,
    )


def _history(settings: Settings) -> RestHistory | None:
    """What gaps are filled from."""
    if not settings.backfill:
        return None
    return learning.history(settings, per_minute=settings.backfill_per_minute)


def drain(ray: Any, settings: Settings, *, timeout_s: float) -> bool:
    """Let every producer store what it has, then stop; whether all was stored in time."""
    names = runtime.producers(settings)
    stored = runtime.ask_all(ray, names, "drain", timeout_s, timeout_s=timeout_s + 5)
    runtime.ask_all(ray, names, "stop", timeout_s=10)
    return all(stored)
