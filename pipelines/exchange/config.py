"""What one exchange plays, and where it listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.exchange.accounts import FEEDS

DEFAULT_SYMBOLS = (
    "AAPL", "TSLA", "NVDA", "MSFT", "GOOGL", "AMZN", "META", "AMD", "NFLX", "INTC",
    "JPM", "BAC", "XOM", "JNJ", "KO", "DIS", "BA", "SPY", "QQQ", "IWM",
)  # fmt: skip

LOOKS = ("iex", "sip", "test")


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """Settings of one exchange.

    Args:
        host: Address to listen on.
        port: Port of websockets and REST.
        symbols: What is traded. For a replay: which symbols of the file; empty means all of it.
        seed: Seed of prices and ticks.
        speed: Market seconds per wall second.
        pace: ``clock``: what is due by the market clock is published, and a client that cannot
            follow is dropped (407). ``clients``: as fast as the slowest client takes it; nobody is
            dropped, nothing is published while nobody listens, and the clock follows.
        feed: Feed whose look the messages have (``iex`` prints come from one exchange only).
        feeds: Feeds that a client may use (iex, sip, test, news); another one is refused with 409.
        replay: Parquet file of minute bars, or a tape (a folder, or one ``.msgpack.gz`` of it);
            ``None`` plays the synthetic market.
        sessions: Which hours of a replayed file are played: ``all`` that it has, or ``regular``.
        max_sessions: Sessions to play; ``None`` plays the whole file, or two years of trading.
        max_minutes: Market minutes to play, then the market is finished; ``None`` for no limit.
        messages_per_minute: Trades and quotes per symbol and market minute, on average (one trade
            to two quotes). A minute has at least the trades that its bar needs.
        events: Whether statuses, price bands, imbalances, daily bars and news are published beside
            trades, quotes and minute bars.
        correction_rate: Part of the trades that are corrected later.
        cancel_rate: Part of the trades that are cancelled later.
        late_trade_rate: Part of the trades that are published after their minute, an updated bar
            behind them. They break the rule that a feed publishes in the order of time, so gap
            rows are not exact any more; therefore 0 by default.
        profiles: JSON file with other profiles of symbols (:mod:`.profiles`).
        news_drift_bps: How far a price drifts after news of full sentiment; 0 for not at all.
        open_on: When the market opens: at the first subscription, or at the start.
        start_date: First day of the synthetic market; by default the last completed year's first.
        record_dir: Where the tape (all that was published) is written; ``None`` writes none.
        record_max_mb: Disk that the tape may take; its oldest files go first.
        state_path: Where the last minute played is kept, so that a restart goes on after it.
        client_queue: Messages that may wait for one client before it is dropped as slow (407).
        frame_messages: Most messages of one frame.
        compress: Whether permessage-deflate is offered (it costs more than it gives on one host).
        symbol_limit: Most symbols of trades and quotes per connection (405; the vendor's free plan
            has 30); ``None`` for no limit.
        connection_limit: Most connections per key and feed (406); ``None`` for no limit.
        accounts: JSON file of the keys that are let in, with their plans (:mod:`.accounts`);
            ``None`` lets in every non-empty pair, with the three settings above.
        rate_limit: Most REST requests per key and minute (429; the vendor's free plan has 200);
            ``None`` for no limit.
        cash_usd: What a new paper account begins with.
        shorting: Whether paper accounts may sell what they do not have.
        auth_timeout_s: Wall seconds until a silent client gets 404.
        test_interval_s: Wall seconds between two quotes of FAKEPACA.
        faults: JSON file of scripted faults (:mod:`.faults`).

    Raises:
        ConfigError: A value makes no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS
    seed: int = 7
    speed: float = 10.0
    pace: Literal["clock", "clients"] = "clock"
    feed: Literal["iex", "sip", "test"] = "iex"
    feeds: tuple[str, ...] = FEEDS
    replay: str | None = None
    sessions: Literal["all", "regular"] = "all"
    max_sessions: int | None = None
    max_minutes: int | None = None
    messages_per_minute: int = 120
    events: bool = True
    correction_rate: float = 1e-4
    cancel_rate: float = 5e-5
    late_trade_rate: float = 0.0
    profiles: Path | None = None
    news_drift_bps: float = 0.0
    open_on: Literal["subscribe", "start"] = "subscribe"
    start_date: date | None = None
    record_dir: Path | None = None
    record_max_mb: int = 512
    state_path: Path | None = None
    client_queue: int = 100_000
    frame_messages: int = 100
    compress: bool = False
    symbol_limit: int | None = None
    connection_limit: int | None = None
    accounts: Path | None = None
    rate_limit: int | None = None
    cash_usd: float = 100_000.0
    shorting: bool = False
    auth_timeout_s: float = 10.0
    test_interval_s: float = 1.0
    faults: Path | None = None

    def __post_init__(self) -> None:
        for name in ("speed", "messages_per_minute", "record_max_mb", "client_queue",
                     "frame_messages", "auth_timeout_s", "test_interval_s",
                     "cash_usd"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"exchange {name}={getattr(self, name)!r}: must be positive")
        for name in ("max_sessions", "max_minutes", "symbol_limit", "connection_limit",
                     "rate_limit"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"exchange {name}={value!r}: must be positive, or null")
        rates = (self.correction_rate, self.cancel_rate, self.late_trade_rate)
        if min(rates) < 0 or sum(rates) > 1:
            raise ConfigError(
                f"exchange correction_rate, cancel_rate, late_trade_rate={rates!r}: must not be "
                "negative, and together at most 1"
            )
        if not 0 <= self.news_drift_bps <= 500:
            raise ConfigError(
                f"exchange news_drift_bps={self.news_drift_bps!r}: must be from 0 to 500"
            )
        if not self.symbols and self.replay is None:
            raise ConfigError("exchange symbols=(): the synthetic market needs at least one")
        if len(set(self.symbols)) != len(self.symbols):
            raise ConfigError(f"exchange symbols={self.symbols!r}: a symbol stands there twice")
        if self.feed not in LOOKS:
            raise ConfigError(f"exchange feed={self.feed!r}: must be one of {', '.join(LOOKS)}")
        for feed in self.feeds:
            if feed not in FEEDS:
                raise ConfigError(f"exchange feeds={feed!r}: must be one of {', '.join(FEEDS)}")
        if 60_000_000_000 % max(1, int(self.test_interval_s * 1_000_000_000)):
            raise ConfigError(
                f"exchange test_interval_s={self.test_interval_s!r}: must divide a minute"
            )
        if self.sessions not in ("all", "regular"):
            raise ConfigError(f"exchange sessions={self.sessions!r}: must be all or regular")
        if self.pace not in ("clock", "clients"):
            raise ConfigError(f"exchange pace={self.pace!r}: must be clock or clients")
        if self.open_on not in ("subscribe", "start"):
            raise ConfigError(f"exchange open_on={self.open_on!r}: must be subscribe or start")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON types."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (date, Path)):
                value = str(value)
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ExchangeConfig:
        """The configuration of JSON types, as made by :meth:`to_dict`; what is absent is default.

        Raises:
            ConfigError: An unknown name, or a value that makes no sense.
        """
        values = dict(plain)
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(f"exchange: unknown settings {', '.join(sorted(unknown))}")
        try:
            for name in ("symbols", "feeds"):
                if name in values:
                    values[name] = tuple(values[name])
            for name in ("record_dir", "state_path", "profiles", "accounts", "faults"):
                if values.get(name) is not None:
                    values[name] = Path(values[name])
            if values.get("start_date") is not None:
                values["start_date"] = date.fromisoformat(values["start_date"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"exchange: {error}") from error
