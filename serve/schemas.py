"""The public messages: what the API takes and gives. OpenAPI is generated from here.

Times are RFC 3339 text in UTC with up to nine decimals. Event times and ages are on the market
clock; ``decided_at``, ``sent_at``, ``received_at`` and ``as_of`` are on the wall clock.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_FEATURES = 64
Action = Literal["HOLD", "BUY", "SELL"]
Reason = Literal["stale", "gap", "warming_up", "no_model", "unavailable"]
Severity = Literal["info", "warning", "critical"]
Window = Literal["1m", "5m", "15m", "1h", "1d"]
Symbol = Annotated[
    str, Field(pattern=r"^[A-Z0-9][A-Z0-9./-]{0,15}$", description="Ticker symbol, e.g. AAPL.")
]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Features = Annotated[list[Finite], Field(min_length=1, max_length=MAX_FEATURES)]


class Message(BaseModel):
    """Base of all messages: nothing unknown is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalRequest(Message):
    """Ask for a signal on the latest closed bar, or on features of one's own."""

    symbol: Symbol
    features: Features | None = Field(
        None,
        description="The features that are served, in order, dimensionless (`intraday`: 11, "
        "`intraday-extended`: 22); without them the latest closed bar of the symbol is decided on.",
    )
    position_fraction: Fraction | None = Field(
        None, description="Share of equity in the symbol, 0 to 1; only with `features`. Default 0."
    )
    cash_fraction: Fraction | None = Field(
        None, description="Share of equity in cash, 0 to 1; only with `features`. Default 1."
    )


class BatchBar(Message):
    """The closed bar that a decision is made on."""

    event_time: str = Field(description="Start of the minute, RFC 3339.")
    open: Annotated[float, Field(gt=0, allow_inf_nan=False, description="US dollars.")]
    close: Annotated[float, Field(gt=0, allow_inf_nan=False, description="US dollars.")]


class BatchRequest(Message):
    """Ask for many signals at once; all lists have the same length and order."""

    symbols: list[Symbol] = Field(min_length=1, max_length=20_000)
    features: list[
        Annotated[list[Finite | None], Field(min_length=1, max_length=MAX_FEATURES)] | None
    ] = Field(
        max_length=20_000,
        description="Per symbol the features that are served, in order, or null; a null inside "
        "means not warm yet.",
    )
    fingerprint: str | None = Field(
        None, description="Of the features; others than those that are served are refused (409)."
    )
    bars: list[BatchBar | None] | None = Field(
        None,
        description="Per symbol the closed bar; the same (symbol, bar) asked twice gets the same "
        "answer. Null: no account is kept for it.",
    )
    reasons: list[Reason | None] | None = Field(
        None, description="Per symbol why its input must not be decided on, or null."
    )


class ModelRef(Message):
    """The model that decided."""

    id: str = Field(description="Name of the model.")
    version: int = Field(description="Its version, from 1.")
    fingerprint: str = Field(description="Fingerprint of the FeatureSpec that it was trained on.")


class PaperAccount(Message):
    """The paper account of a model and a symbol."""

    cash_usd: float
    shares: float
    mark_usd: float | None = Field(description="Close of the bar last seen; null before the first.")


class AccountFill(Message):
    """What an account did at the open of a bar, as it is told with a signal; US dollars."""

    event_time: str = Field(description="Start of the bar at whose open it filled, market clock.")
    decided_on: str = Field(description="Start of the bar that it was decided on, market clock.")
    filled_at: str = Field(description="When the account moved, wall clock.")
    side: Literal["BUY", "SELL"]
    shares: float
    price: float = Field(description="With half the spread and the slippage in it.")
    open: float = Field(description="Open of the bar, taken as the middle of the quote.")
    bid: float = Field(description="Open less half the quoted spread.")
    ask: float = Field(description="Open plus half the quoted spread.")
    spread_bps: float = Field(description="Quoted spread of the bar, basis points.")
    notional: float = Field(description="Shares times price.")
    commission: float
    spread_cost: float = Field(description="Half the spread, for all shares.")
    slippage_cost: float
    cash_after: float
    shares_after: float
    reason: str | None = Field(description="That of the signal it was decided by.")


class Signal(Message):
    """An action with everything that is needed to judge it."""

    symbol: str
    action: Action
    action_id: Literal[0, 1, 2] = Field(description="HOLD=0, BUY=1, SELL=2.")
    confidence: float | None = Field(description="Probability of the action, 0 to 1.")
    probabilities: list[float] | None = Field(description="Of HOLD, BUY, SELL; sums to 1.")
    value: float | None = Field(description="The model's estimate of its return, in its own unit.")
    q_values: list[float] | None = Field(description="Of HOLD, BUY, SELL; DQN only.")
    position_fraction: float = Field(description="Share of equity in the symbol it assumed.")
    cash_fraction: float = Field(description="Share of equity in cash it assumed.")
    model: ModelRef | None = Field(description="Null when no model could be loaded at all.")
    event_time: str | None = Field(description="Start of the bar decided on, market clock.")
    decided_at: str = Field(description="When it was decided, wall clock.")
    data_age_ms: float | None = Field(
        description="Open market milliseconds from the bar's close to this answer."
    )
    reason: Reason | None = Field(description="Why this is not the promoted model's own opinion.")
    account: PaperAccount | None = Field(
        None, description="The account after its bar opened; only in answers to closed bars."
    )
    fills: list[AccountFill] | None = Field(
        None, description="Fills of the account that no published signal told of yet."
    )


class BatchAnswer(Message):
    """One signal per symbol, in order."""

    signals: list[Signal]


class SignalPage(Message):
    """Signals of a symbol, newest first."""

    items: list[Signal]
    next: str | None = Field(description="Cursor of the next page, or null.")


class Trade(Message):
    """The last trade."""

    price: float = Field(description="US dollars.")
    size: float = Field(description="Shares.")
    exchange: str | None = Field(description="Exchange code.")
    received_at: str | None = Field(description="When the producer received it, wall clock.")


class Quote(Message):
    """The last quote."""

    bid: float = Field(description="US dollars; 0 when nobody bids.")
    ask: float = Field(description="US dollars; 0 when nobody offers.")
    bid_size: float = Field(description="As the feed gives it.")
    ask_size: float = Field(description="As the feed gives it.")
    received_at: str | None = Field(description="When the producer received it, wall clock.")


class Bar(Message):
    """One bar."""

    event_time: str = Field(description="Start of the window, market clock.")
    open: float = Field(description="US dollars.")
    high: float = Field(description="US dollars.")
    low: float = Field(description="US dollars.")
    close: float = Field(description="US dollars.")
    volume: float = Field(description="Shares.")
    trade_count: int | None = Field(None, description="Number of trades.")
    vwap: float | None = Field(None, description="Volume-weighted average price, US dollars.")
    source: Literal["vendor", "trades"] | None = Field(
        None, description="The vendor's bar, or made from trades."
    )
    forming: bool = Field(False, description="Whether its window is still running.")
    window: Window = Field("1m", description="Length.")


class BarPage(Message):
    """Bars of a symbol, newest first."""

    symbol: str
    window: Window
    items: list[Bar]
    next: str | None = Field(description="Cursor of the next page, or null.")


class IndicatorRow(Message):
    """Indicators at a closed minute bar; more names may come."""

    model_config = ConfigDict(extra="allow")

    event_time: str = Field(description="Start of the minute, market clock.")
    vwap: float | None = Field(None, description="Of the session, US dollars.")
    rsi_14: float | None = Field(None, description="0 to 100.")


class IndicatorPage(Message):
    """Indicators of a symbol, newest first."""

    symbol: str
    items: list[IndicatorRow]
    next: str | None = Field(description="Cursor of the next page, or null.")


class StatsRow(Message):
    """Running statistics of the trades of a session, at a closed minute bar."""

    model_config = ConfigDict(extra="allow")

    event_time: str = Field(description="Start of the minute, market clock.")
    count: int = Field(description="Trades that make a price, since the session began.")
    min: float | None = Field(description="US dollars.")
    max: float | None = Field(description="US dollars.")
    mean: float | None = Field(description="US dollars.")
    variance: float | None = Field(description="Of the population.")
    std: float | None = Field(description="US dollars.")


class StatsPage(Message):
    """Statistics of a symbol, newest first."""

    symbol: str
    items: list[StatsRow]
    next: str | None = Field(description="Cursor of the next page, or null.")


class Stamped(Message):
    """A payload with the times of its update."""

    event_time: str
    seq: int
    data: dict[str, Any]


class Latest(Message):
    """The newest of everything that is known of a symbol."""

    symbol: str
    trade: Stamped | None
    quote: Stamped | None
    bar: Stamped | None = Field(description="The newest bar; forming or closed.")
    features: Stamped | None
    signal: Stamped | None


class SymbolRow(Message):
    """One symbol of the watch-list."""

    symbol: str
    bucket: int = Field(description="Its bucket on the stream, 0 to 63.")


class SymbolPage(Message):
    """The watch-list, in order."""

    items: list[SymbolRow]


class AnomalyRow(Message):
    """Something unusual about a closed minute bar."""

    symbol: str
    event_time: str = Field(description="Start of the minute, market clock.")
    kind: str = Field(
        description="price_spike, volume_spike, rsi, spread_blowout, feed_latency or outlier."
    )
    severity: Severity
    score: float = Field(description="How many times its threshold; of an outlier, its model's.")
    value: float = Field(description="What was measured.")
    threshold: float = Field(description="What it may be.")
    reason: str = Field(description="A sentence with the numbers.")
    detector: str = Field(description="rule, or the model: trees or lof.")
    known_at: str = Field(description="Wall time at which it was stored.")


class AnomalyPage(Message):
    """Anomalies, newest first, then by symbol and kind."""

    items: list[AnomalyRow]
    next: str | None = Field(description="Cursor of the next page, or null.")


class FillRow(Message):
    """A paper fill of a model's account, at the open of a minute; US dollars."""

    event_time: str = Field(description="Start of the minute at whose open it filled.")
    symbol: str
    model: str = Field(description="id:version.")
    side: Literal["BUY", "SELL"]
    shares: float
    price: float = Field(description="With half the spread and the slippage in it.")
    open: float = Field(description="Open of the bar, taken as the middle of the quote.")
    bid_price: float = Field(description="Open less half the quoted spread.")
    ask_price: float = Field(description="Open plus half the quoted spread.")
    spread_bps: float = Field(description="Quoted spread of the bar, basis points.")
    notional: float
    commission: float
    spread_cost: float
    slippage_cost: float
    cash_after: float
    shares_after: float
    signal_id: str = Field(description="Id of the signal that it was decided by.")
    decided_on: str = Field(description="Start of the bar of that signal, market clock.")
    reason: str | None = Field(description="That of the signal.")
    filled_at: str = Field(description="When the account moved, wall clock.")
    known_at: str = Field(description="When it was stored, wall clock.")


class FillPage(Message):
    """Paper fills, newest first, then by symbol and model."""

    items: list[FillRow]
    next: str | None = Field(description="Cursor of the next page, or null.")
