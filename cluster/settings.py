"""All settings: the only reader of the environment.

Every field is an environment variable with the prefix ``RAYTAPE_`` (``RAYTAPE_SPEED=10``) or a
line of the same form in ``.env``; the keys of Alpaca keep their usual names. Other packages get
frozen configurations made from here and never look at the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipelines.errors import ConfigError
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.fakepaca import SYMBOL as TEST_SYMBOL

_SECRET_KEY = re.compile(r"(?i)secret|password|token|access[._-]?key")
"""What Spark hides in its own pages and logs, and a little more."""
_NEXT_KEY = re.compile(r"(?:^|[\s,])spark\.[\w.-]+\s*=")
"""A key inside a value: what separates it from the pair before is wrong."""


class Settings(BaseSettings):
    """The settings of one platform; see ``.env.example`` for a line on each."""

    model_config = SettingsConfigDict(
        env_prefix="RAYTAPE_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    # What is played
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        DEFAULT_SYMBOLS, description="Symbols to subscribe, comma-separated."
    )
    live: bool = Field(False, description="Alpaca itself instead of our exchange.")
    feed: Literal["iex", "sip", "test"] = Field("iex", description="Alpaca's feed.")
    speed: float = Field(10.0, gt=0, description="Market seconds per wall second (simulated).")
    seed: int = Field(7, description="Seed of the synthetic market and of training.")
    replay: Path | None = Field(
        None, description="What to replay: a Parquet file of minute bars, or a recorded session."
    )
    replay_sessions: Literal["all", "regular"] = Field(
        "all", description="Which hours of a replayed file are played."
    )
    max_sessions: int | None = Field(None, description="Stop it after so many sessions.")
    max_minutes: int | None = Field(None, description="Stop the simulated market after so many.")
    messages_per_minute: int = Field(
        120, gt=3, description="Trades and quotes per symbol and market minute (synthetic)."
    )
    market_profiles: Path | None = Field(
        None, description="JSON file of what symbols are like in the synthetic market."
    )
    market_events: bool = Field(
        True, description="Statuses, price bands, imbalances, daily bars and news are published."
    )
    news_drift_bps: float = Field(
        0.0, ge=0, le=500, description="Drift of a price after news of full sentiment (synthetic)."
    )
    correction_rate: float = Field(
        1e-4, ge=0, le=0.3, description="Part of the trades that are corrected later (synthetic)."
    )
    cancel_rate: float = Field(
        5e-5, ge=0, le=0.3, description="Part of the trades that are cancelled later (synthetic)."
    )
    late_trade_rate: float = Field(
        0.0, ge=0, le=0.3, description="Part of the trades that come too late (synthetic)."
    )
    alpaca_key: SecretStr = Field(
        SecretStr("simulated"),
        validation_alias=AliasChoices("APCA_API_KEY_ID", "alpaca_key"),
        description="Alpaca's key id.",
    )
    alpaca_secret: SecretStr = Field(
        SecretStr("simulated"),
        validation_alias=AliasChoices("APCA_API_SECRET_KEY", "alpaca_secret"),
        description="Its secret.",
    )

    # Where it listens
    host: str = Field("127.0.0.1", description="Address that everything listens on.")
    gateway_port: int = Field(8000, description="Dashboard, REST and WebSocket.")
    ray_dashboard_port: int = Field(8265, description="Ray's dashboard.")
    spark_ui_port: int = Field(4040, description="Spark's UI.")
    exchange_port: int = Field(8765, description="Our exchange.")
    kinesis_port: int = Field(4567, description="Embedded Kinesis.")
    metrics_port: int = Field(9464, description="Prometheus target of the whole platform.")
    ray_port: int = Field(6379, description="Ray's control store.")
    serve_port: int = Field(8500, description="Serve's own proxy, behind HAProxy.")
    haproxy_metrics_port: int = Field(9101, description="HAProxy's own metrics.")
    haproxy_stats_port: int = Field(8404, description="HAProxy's statistics page.")

    # Where it writes
    var_dir: Path = Field(Path("var"), description="Folder of data, checkpoints, models and logs.")
    run: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]+$", description="Run with data of its own (var/runs/NAME)."
    )
    lake_uri: str | None = Field(None, description="Lake, a path or s3:// (var/lake).")
    registry_uri: str | None = Field(None, description="Models (default: var/registry).")
    checkpoint_uri: str | None = Field(None, description="Spark (default: var/checkpoints).")
    storage_options: SecretStr = Field(
        SecretStr(""), description="Object store of lake and models: KEY=VALUE, comma-separated."
    )
    lake_keep_days: str = Field(
        "", description="Days that tables keep (else all): quotes=30,trades=365."
    )
    lake_retention_h: int = Field(
        6, ge=0, description="Hours that queries of the lake can travel back over a compaction."
    )
    maintenance_every_s: float = Field(
        3600.0, ge=0, description="Interval of the lake's maintenance; 0 none."
    )
    tape_max_mb: int = Field(512, gt=0, description="Disk that the exchange's record may take.")

    # What our exchange allows, and what goes wrong on it
    exchange_accounts: Path | None = Field(
        None, description="JSON file of the keys that our exchange lets in; without, all."
    )
    exchange_symbol_limit: int | None = Field(
        None, gt=0, description="Most symbols of trades and quotes per connection (Alpaca: 30)."
    )
    exchange_connection_limit: int | None = Field(
        None, gt=0, description="Most connections per key and feed (Alpaca: 1)."
    )
    exchange_compress: bool = Field(False, description="Offer permessage-deflate.")
    exchange_rate_limit: int | None = Field(
        None, gt=0, description="REST requests per key and minute, 429 above (Alpaca: 200)."
    )
    exchange_cash_usd: float = Field(
        100_000.0, gt=0, description="What a paper account on our exchange begins with."
    )
    exchange_shorting: bool = Field(
        False, description="Let paper accounts on our exchange sell what they do not have."
    )
    faults: Path | None = Field(None, description="JSON script of faults; see docs/EXCHANGE.md.")

    # Kinesis
    kinesis: Literal["embedded", "aws"] = Field("embedded", description="Which Kinesis.")
    region: str = Field("us-east-1", description="AWS region.")
    market_data: str = Field("market-data", description="Name of the stream of raw records.")
    market_signals: str = Field("market-signals", description="Name of the stream of signals.")
    shards: int = Field(
        2,
        gt=0,
        description="Shards of market-data where we create it; with more, more executor cores.",
    )

    kinesis_retention_s: float = Field(
        7200.0, ge=0, description="Embedded: seconds that a record is kept; 0 for ever."
    )
    kinesis_max_mb: float = Field(
        1024.0, gt=0, description="Embedded: a drained store larger than this is made anew."
    )

    # Producer
    batch_ms: int = Field(40, gt=0, description="Longest wait of a message for its batch.")
    spill_at: int = Field(
        50_000, gt=0, description="Messages in memory at which the rest waits in the journal."
    )
    journal_max_mb: int = Field(
        1024, ge=0, description="Disk that the producer's journal may take; 0 for none."
    )
    codec: Literal["msgpack", "json"] = Field("msgpack", description="Encoding of the feed.")
    sources: Annotated[tuple[Literal["sip", "iex", "test", "rest"], ...], NoDecode] = Field(
        (), description="Sources of market data, best first: sip,iex,rest (default: the feed)."
    )
    channels: Annotated[tuple[str, ...], NoDecode] = Field(
        ("trades", "quotes", "bars", "updatedBars", "statuses", "lulds"),
        description="Channels to subscribe for all symbols, comma-separated.",
    )
    channel_symbols: Annotated[dict[str, tuple[str, ...]], NoDecode] = Field(
        {}, description="Channels with symbols of their own: quotes=AAPL,SPY;dailyBars=SPY"
    )
    news: bool = Field(True, description="Subscribe to the news of the symbols as well.")
    producers: int = Field(
        1, gt=0, description="Producers that share the symbols, each with its own connection."
    )
    producer_dir: Path | None = Field(
        None, description="State and journal of producers; shared, they move between hosts."
    )
    lock_dir: Path | None = Field(
        None, description="Locks, one per key and feed on a host (default: the temporary folder)."
    )
    reconnect_attempts: int = Field(
        0, ge=0, description="Failed attempts after which the producer gives up; 0 for never."
    )
    failover_after: int = Field(
        5, gt=0, description="Failed attempts after which the next source takes over."
    )
    probe_s: float = Field(
        300.0, gt=0, description="Interval of asking a better source whether it is back."
    )
    feed_stale_s: float = Field(
        30.0, gt=0, description="Least silence of an open market that means a broken feed."
    )

    backfill: bool = Field(True, description="Fill declared gaps from history, over REST.")
    backfill_delay_s: float = Field(
        5.0, ge=0, description="Wall seconds after a gap's end before it is filled."
    )
    backfill_max_gap_s: float = Field(
        345_600.0, gt=0, description="Market seconds; a longer gap is not filled."
    )
    backfill_per_minute: int = Field(
        120, gt=0, description="Requests a minute that filling may take (the free plan has 200)."
    )

    # Spark
    spark_master: str = Field("raydp", description="raydp, local[N], or a URL.")
    spark_executors: int = Field(1, gt=0, description="Executors under RayDP.")
    spark_executor_cores: int = Field(
        3, gt=0, description="Tasks that each runs at once: one more than shards."
    )
    spark_executor_memory: str = Field("768m", description="Heap of each.")
    spark_driver_memory: str = Field("768m", description="Heap of the driver.")
    spark_state_parts: int = Field(
        1,
        ge=1,
        le=64,
        description="Parts of the signals' state, a task each; an existing checkpoint keeps its.",
    )
    spark_conf: SecretStr = Field(
        SecretStr(""), description="Further Spark configuration: spark.KEY=VALUE;spark.KEY=VALUE"
    )
    archive_trigger_s: float = Field(10.0, gt=0, description="Interval of the archive query.")
    signals_trigger_s: float = Field(0.5, gt=0, description="Interval of the signals query.")
    fail_on_data_loss: bool = Field(True, description="Stop where the stream lost data unread.")
    policy_deadline_s: float = Field(1.0, gt=0, description="Longest wait for the policy.")
    assumed_spread_bps: float = Field(2.0, ge=0, description="Spread where there are no quotes.")
    features: Literal["intraday", "intraday-extended"] = Field(
        "intraday", description="What is computed of each bar, learnt from and decided on."
    )
    watermark_s: float = Field(
        30.0, ge=0, description="Market seconds that a longer window waits for its last bar."
    )
    provisional_every_s: float = Field(
        1.0,
        ge=0,
        description="Least seconds between features of a symbol's forming bar, more beyond 200 "
        "symbols; 0: none.",
    )

    # What is unusual about a bar
    anomaly_price_pct: float = Field(
        5.0, gt=0, description="Price spike: per cent from the median of 20 closes."
    )
    anomaly_volume_ratio: float = Field(
        3.0, gt=0, description="Volume spike: multiple of the average volume."
    )
    anomaly_rsi_high: float = Field(70.0, gt=0, lt=100, description="RSI: overbought above it.")
    anomaly_rsi_low: float = Field(30.0, gt=0, lt=100, description="RSI: oversold below it.")
    anomaly_spread_ratio: float = Field(
        5.0, gt=0, description="Spread blow-out: multiple of the usual spread."
    )
    anomaly_latency_ms: float = Field(
        100.0, gt=0, description="Feed latency: mean of a minute's messages (live)."
    )
    anomaly_model: Literal["trees", "lof", "off"] = Field(
        "trees", description="Model of outliers: half-space trees, or local outlier factor."
    )
    anomaly_trees_score: float = Field(
        0.9, gt=0, lt=1, description="Score of the trees above which a bar is an outlier."
    )
    anomaly_lof_score: float = Field(
        2.7, gt=1, description="Local outlier factor above which a bar is one."
    )

    # Serving
    stale_after_s: float = Field(
        180.0, gt=0, description="Market seconds after which a closed bar is stale (or 15 wall s)."
    )
    feed_poll_s: float = Field(0.1, gt=0, description="Interval of the feed's polls per shard.")
    feed_consumer: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Enhanced fan-out consumer of the feed (AWS); none: it polls.",
    )

    # Learning
    train_budget_s: float = Field(45.0, gt=0, description="Wall time of the first training.")
    train_algorithm: Literal["ppo", "dqn"] = Field("ppo", description="Algorithm of `train`.")
    train_bars: int = Field(4000, gt=600, description="Minute bars per symbol it learns from.")

    # Ray
    ray_cpus: int = Field(
        8, gt=4, description="Logical CPUs; Spark's tasks take one each, other parts fractions."
    )
    ray_object_store_mb: int = Field(192, ge=80, description="Ray's object store.")

    @model_validator(mode="before")
    @classmethod
    def _test_feed(cls, given: Any) -> Any:
        """The test feed has one symbol."""
        if isinstance(given, dict) and given.get("feed") == "test" and not given.get("symbols"):
            return {**given, "symbols": (TEST_SYMBOL,)}
        return given

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            value = [s.strip().upper() for s in value.split(",") if s.strip()]
        if not value:
            raise ValueError("at least one symbol is needed, for example AAPL,SPY")
        return tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value

    @field_validator("sources", "channels", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        return tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value

    @field_validator("channel_symbols", mode="before")
    @classmethod
    def _split_channels(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = {}
        for part in filter(None, (text.strip() for text in value.split(";"))):
            channel, equals, symbols = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r}: write CHANNEL=SYMBOL,SYMBOL;CHANNEL=SYMBOL")
            names = [symbol.strip().upper() for symbol in symbols.split(",")]
            found[channel.strip()] = tuple(filter(None, names))
        return found

    @field_validator("replay", "market_profiles")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.exists():
            raise ValueError(f"no such file or folder: {value}")
        return value

    @model_validator(mode="after")
    def _conf_is_pairs(self) -> Self:
        self.spark_extra()
        return self

    @property
    def wall_clock(self) -> bool:
        """Whether market time is wall time: at Alpaca, and on the test feed wherever it is."""
        return self.live or self.feed == "test"

    @property
    def data_dir(self) -> Path:
        """Where this run's data is: the synthetic market's, a replay's, or the live market's."""
        return self.var_dir / "runs" / self.run if self.run else self.var_dir

    @property
    def run_dir(self) -> Path:
        """Where running children are written down."""
        return self.var_dir / "run"

    @property
    def log_dir(self) -> Path:
        """Where logs go."""
        return self.var_dir / "log"

    def uri(self, name: Literal["lake", "registry", "checkpoints"]) -> str:
        """The address of one of the stores: its setting, or a folder of ``var_dir``."""
        chosen = {
            "lake": self.lake_uri,
            "registry": self.registry_uri,
            "checkpoints": self.checkpoint_uri,
        }[name]
        if chosen is None:
            # Models belong to every run, data to its own.
            folder = self.var_dir if name == "registry" else self.data_dir
            return str((folder / name).resolve())
        return chosen if "://" in chosen else str(Path(chosen).resolve())

    def store_options(self) -> dict[str, str]:
        """Credentials and endpoint of the object store, by their names."""
        return _pairs("storage_options", self.storage_options.get_secret_value(), secret=True)

    def spark_extra(self) -> dict[str, str]:
        """Further Spark configuration, by its keys."""
        return _spark_pairs(self.spark_conf.get_secret_value())

    def keep_days(self) -> dict[str, int]:
        """Days that tables keep, by table."""
        pairs = _pairs("lake_keep_days", self.lake_keep_days)
        if wrong := [f"{k}={v}" for k, v in pairs.items() if not v.isdigit() or int(v) < 1]:
            raise ConfigError(f"RAYTAPE_LAKE_KEEP_DAYS: {wrong[0]}: not a number of days")
        return {name: int(days) for name, days in pairs.items()}

    @property
    def gateway_url(self) -> str:
        """Where the dashboard and the API are."""
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def exchange_url(self) -> str:
        """Where our exchange is."""
        return f"http://{self.host}:{self.exchange_port}"


def _pairs(setting: str, text: str, *, secret: bool = False) -> dict[str, str]:
    """The pairs of ``KEY=VALUE,KEY=VALUE``.

    Raises:
        ConfigError: A part of it is no pair.
    """
    found = {}
    for part in (part.strip() for part in text.split(",")):
        name, equals, value = part.partition("=")
        if part and not (equals and name):
            shown = "a part of it" if secret else repr(part)
            raise ConfigError(f"RAYTAPE_{setting.upper()}: {shown} is not KEY=VALUE")
        if part:
            found[name.strip()] = value.strip()
    return found


def _spark_pairs(text: str) -> dict[str, str]:
    """The pairs of ``spark.KEY=VALUE;spark.KEY=VALUE``; a new line separates them as well.

    >>> _spark_pairs("spark.jars.packages=a:b:1,c:d:2; spark.driver.extraJavaOptions=-Da=b")
    {'spark.jars.packages': 'a:b:1,c:d:2', 'spark.driver.extraJavaOptions': '-Da=b'}

    Raises:
        ConfigError: A part of it is no pair, or is two; it is shown where no key is a secret's.
    """
    found = {}
    parts = [part.strip() for part in re.split(r"[;\n]", text)]
    for number, part in enumerate(filter(None, parts), start=1):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not re.fullmatch(r"spark\.[^\s,]+", key) or _NEXT_KEY.search(value):
            shown = f"part {number} (hidden)" if _SECRET_KEY.search(text) else repr(part)
            raise ConfigError(
                f"RAYTAPE_SPARK_CONF: {shown} is not spark.KEY=VALUE; "
                "write a semicolon between two pairs, a comma belongs to the value"
            )
        found[key] = value
    return found


def load(**overrides: object) -> Settings:
    """Settings from the environment, ``.env`` and overrides (which win).

    Raises:
        ConfigError: A value is wrong; the message names the variable, the value and what is needed.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            variable = name if name.startswith("APCA") else f"RAYTAPE_{name.upper()}"
            secret = "key" in name.lower() or "secret" in name.lower()
            value = "(hidden)" if secret else repr(problem.get("input"))
            lines.append(f"{variable}={value}: {problem['msg']}")
        raise ConfigError("; ".join(lines)) from error
