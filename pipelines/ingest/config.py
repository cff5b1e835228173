"""Settings of the producer, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """What a producer needs to know.

    Args:
        url: The feed, ``ws://`` or ``wss://`` with its path.
        key: Alpaca's key id; never shown.
        secret: Its secret; never shown.
        symbols: Symbols to subscribe; ``("*",)`` for all.
        channels: Channels to subscribe for each symbol.
        codec: Encoding of the feed.
        clock_url: Where the exchange announces its market clock (``…/raytape/clock``); ``None``
            for a live market.
        state_path: File that survives a restart; ``None``: every start is a first start.
        batch_ms: Longest wait of a message for its record.
        max_batch_messages: Most messages of a record.
        max_record_bytes: Most bytes of a record.
        max_queued: Messages in memory that the stream does not hold yet; at this number the
            socket is not read until there is room.
        heartbeat_s: Interval of heartbeats, wall seconds.
        state_save_s: Interval of saving the state, wall seconds.
        ping_s: Interval of pings; a connection that says nothing for three of them is dead.
        stale_s: In an open market, silence longer than this (and than 50 usual intervals)
            means a broken feed.
        connect_timeout_s: Longest wait for a connection, and for each step of the handshake.
        backoff_first_s: First delay before connecting again.
        backoff_cap_s: Longest delay.
    """

    url: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    symbols: tuple[str, ...]
    channels: tuple[str, ...] = ("trades", "quotes", "bars")
    codec: Literal["msgpack", "json"] = "msgpack"
    clock_url: str | None = None
    state_path: Path | None = None
    batch_ms: float = 40.0
    max_batch_messages: int = 2000
    max_record_bytes: int = 900_000
    max_queued: int = 150_000
    heartbeat_s: float = 1.0
    state_save_s: float = 1.0
    ping_s: float = 10.0
    stale_s: float = 30.0
    connect_timeout_s: float = 10.0
    backoff_first_s: float = 0.5
    backoff_cap_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ConfigError("no symbols to subscribe; set RAYTAPE_SYMBOLS")
        if not self.url.startswith(("ws://", "wss://")):
            raise ConfigError(f"the feed's address must begin with ws:// or wss://: {self.url!r}")
        for name in ("batch_ms", "max_batch_messages", "max_queued", "heartbeat_s", "ping_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
