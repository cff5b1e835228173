"""Settings of the producer, as one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipelines.errors import ConfigError
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.subscriptions import NEWS_CHANNEL, share, tidy


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One place to have market data from.

    Args:
        name: ``sip``, ``iex``, ``test``, ``rest``.
        url: ``ws://`` or ``wss://`` for a websocket; for REST the server without path, ``http://``
            or ``https://``.
        feed: Feed that REST is asked for.
    """

    name: str
    url: str
    feed: str = "iex"

    @property
    def polled(self) -> bool:
        """Whether it is asked again and again, over REST."""
        return self.url.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """What a producer needs to know.

    Args:
        url: The feed, ``ws://`` or ``wss://`` with its path.
        key: Alpaca's key id; never shown.
        secret: Its secret; never shown.
        symbols: Symbols to subscribe; ``("*",)`` for all.
        channels: Channels to subscribe for each symbol.
        channel_symbols: Channels with symbols of their own, instead of ``symbols``.
        source: Name of the feed behind ``url``.
        fallbacks: Where data comes from when the feed refuses us for good or keeps failing; best
            first.
        failover_after: Failed attempts in a row after which the next source takes over.
        probe_s: Interval of asking whether a better source would have us again.
        news_url: Feed of the news, or ``None`` for no news.
        index: Which of several producers that share the symbols by bucket.
        producers: How many there are.
        lock_dir: Folder of the locks that keep two processes of this host from connecting with one
            key at a time; ``None`` for no lock.
        codec: Encoding of the feed.
        clock_url: Where the exchange announces its market clock (``…/raytape/clock``); ``None``
            for a live market.
        state_path: File that survives a restart; ``None``: every start is a first start.
        batch_ms: Longest wait of a message for its record.
        max_batch_messages: Most messages of a record.
        max_record_bytes: Most bytes of a record.
        spill_at: Messages in memory at which those that wait behind others go to the journal.
        journal_max_mb: Disk of the journal beside the state, 10^6 bytes; 0 for no journal.
        max_queued: Messages in memory that the stream does not hold yet; at this number the
            socket is not read until there is room.
        heartbeat_s: Interval of heartbeats, wall seconds.
        state_save_s: Interval of saving the state, wall seconds.
        ping_s: Interval of pings; a connection that says nothing for three of them is dead.
        stale_s: In an open market, no trade and no quote for longer than this, although 50 were
            to be expected, means a broken feed; wall seconds.
        stale_bars_s: The same for minute bars, of which 5 were to be expected; wall seconds.
        rest_poll_s: Interval of polling where REST is the source; wall seconds.
        rest_per_minute: Most requests in a minute where REST is the source (free plan: 200).
        rest_lag_s: How old data must be before REST is asked for it, so that nothing comes later.
        connect_timeout_s: Longest wait for a connection, and for each step of the handshake.
        backoff_first_s: First delay before connecting again.
        backoff_cap_s: Longest delay.
        backfill: How gaps are filled, where there is a history.
        max_attempts: Failed attempts in a row after which the producer gives up; ``None``: never.
    """

    url: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    symbols: tuple[str, ...]
    channels: tuple[str, ...] = ("trades", "quotes", "bars")
    channel_symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "feed"
    fallbacks: tuple[SourceConfig, ...] = ()
    failover_after: int = 5
    probe_s: float = 300.0
    news_url: str | None = None
    index: int = 0
    producers: int = 1
    lock_dir: Path | None = None
    codec: Literal["msgpack", "json"] = "msgpack"
    clock_url: str | None = None
    state_path: Path | None = None
    batch_ms: float = 40.0
    max_batch_messages: int = 2000
    max_record_bytes: int = 900_000
    spill_at: int = 50_000
    journal_max_mb: int = 1024
    max_queued: int = 150_000
    heartbeat_s: float = 1.0
    state_save_s: float = 1.0
    ping_s: float = 10.0
    stale_s: float = 30.0
    stale_bars_s: float = 180.0
    rest_poll_s: float = 2.0
    rest_lag_s: float = 1.0
    rest_per_minute: int = 150
    connect_timeout_s: float = 10.0
    backoff_first_s: float = 0.5
    backoff_cap_s: float = 30.0
    backfill: BackfillConfig = field(default_factory=BackfillConfig)
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ConfigError("no symbols to subscribe; set RAYTAPE_SYMBOLS")
        for source in self.sources:
            if not source.url.startswith(("ws://", "wss://", "http://", "https://")):
                raise ConfigError(
                    f"{source.name}: an address begins with ws://, wss://, http:// or https://, "
                    f"not {source.url!r}"
                )
        for name in (
            "batch_ms", "max_batch_messages", "max_queued", "heartbeat_s", "ping_s", "probe_s",
            "failover_after", "producers", "stale_s", "stale_bars_s", "rest_poll_s",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.index < self.producers:
            raise ConfigError(f"producer {self.index} of {self.producers}: there is no such one")
        _ = self.configured  # refuses unknown channels

    @property
    def configured(self) -> dict[str, tuple[str, ...]]:
        """Per channel, the symbols that the settings ask for, of all producers together."""
        lists = dict.fromkeys(self.channels, self.symbols) | dict(self.channel_symbols)
        return tidy(lists)

    @property
    def subscriptions(self) -> dict[str, tuple[str, ...]]:
        """Per channel, the symbols that the settings ask of this producer."""
        return share(self.configured, self.index, self.producers)

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """Where data may come from, best first."""
        return (SourceConfig(self.source, self.url), *self.fallbacks)

    @property
    def subscriptions_path(self) -> Path | None:
        """Where subscriptions that were changed at run time are kept."""
        return None if self.state_path is None else self.state_path.with_name("subscriptions.json")

    @property
    def journal_dir(self) -> Path | None:
        """Where sealed records are kept; beside the state, if there is one."""
        if self.state_path is None or self.journal_max_mb == 0:
            return None
        return self.state_path.with_name(f"{self.state_path.stem}-journal")

    def news(self) -> ProducerConfig | None:
        """Settings of the producer of the news: a connection, epoch and state of its own.

        It writes no heartbeats: it cannot say that a symbol's trades are all written.
        """
        if self.news_url is None or self.index > 0:
            return None
        state = None if self.state_path is None else self.state_path.parent / "news" / "state.json"
        return replace(
            self,
            url=self.news_url,
            source="news",
            channels=(NEWS_CHANNEL,),
            channel_symbols={},
            fallbacks=(),
            news_url=None,
            producers=1,
            state_path=state,
            heartbeat_s=math.inf,
        )
