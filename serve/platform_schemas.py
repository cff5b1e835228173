"""The public messages about the platform itself: ledger, alerts, gaps, models, health, errors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from serve.schemas import Message, Severity


class StageRow(Message):
    """A stage: received = stored + duplicates + quarantined + in_flight + imbalance."""

    stage: str = Field(description="producer, stream, archive or signals.")
    received: int
    stored: int = Field(description="Handed on: of the producer, on the stream for certain.")
    duplicates: int
    quarantined: int
    in_flight: int
    imbalance: int = Field(description="0; above: messages that are nowhere; below: a surplus.")
    holes: int = Field(description="Records that were never seen.")
    gaps: int


class Ledger(Message):
    """Where every received message is. Null: the stage does not answer."""

    received: int | None = Field(description="Messages that the producer received.")
    stored: int | None = Field(description="Messages in the lake.")
    duplicates: int | None = Field(description="Copies that were sent again, and dropped.")
    quarantined: int | None = Field(description="Messages that nobody may use, kept apart.")
    in_flight: int | None = Field(description="Received, not yet in the lake.")
    imbalance: int | None = Field(
        description="0; negative: the lake holds that many messages more than were received; "
        "positive: so many were on the stream a minute ago and are in no table."
    )
    lost: int | None = Field(description="Holes in the numbering of records; must be 0.")
    holes: int | None
    gaps: int | None = Field(description="Declared interruptions of the feed.")
    as_of: str | None
    balance: list[StageRow] = Field(description="Each stage that answers, in order of the flow.")
    stages: dict[str, Any] = Field(description="Each stage's own numbers.")


class AlertRow(Message):
    """Something that was wrong with the platform, or is."""

    id: str
    name: str = Field(description="Which rule says so, e.g. journal_full.")
    severity: Severity
    source: Literal["producer", "streaming", "ledger", "market"]
    symbol: str = Field(description="A symbol, or * for none in particular.")
    detail: str = Field(description="A sentence with the numbers.")
    began_at: str = Field(description="Wall clock.")
    ended_at: str | None = Field(description="Wall clock; null while it stands.")
    market_time: str | None = Field(description="Of what it is about, if that is one moment.")


class AlertPage(Message):
    """Alerts, newest first, then by id."""

    items: list[AlertRow]
    next: str | None = Field(description="Cursor of the next page, or null.")


class GapRow(Message):
    """A declared interruption: messages of the symbol strictly between were missed."""

    symbol: str
    from_ns: int | None = Field(description="Market nanoseconds; null: unknown.")
    to_ns: int
    reason: str
    backfilled: bool


class GapPage(Message):
    """Gaps, newest first."""

    items: list[GapRow]
    next: str | None


class System(Message):
    """The state of the platform, as the `system` channel carries it."""

    model_config = ConfigDict(extra="allow")

    market: dict[str, Any] = Field(description="time, rate, simulated, mode, open, finished.")
    ledger: dict[str, Any]
    links: dict[str, str] = Field(description="Addresses of the other consoles.")


class ModelRow(Message):
    """One registered model."""

    model_config = ConfigDict(extra="allow")

    id: str
    version: int
    promoted: bool


class ModelPage(Message):
    """Registered models, newest first."""

    items: list[ModelRow]


class Health(Message):
    """Whether the platform, or this process, can be used."""

    status: Literal["ok", "starting", "unavailable"]
    parts: dict[str, Any] = Field(description="Each part's own state.")
    reasons: list[str] = Field(description="What is missing, part by part; empty when ready.")


class ErrorBody(Message):
    """What went wrong."""

    code: str = Field(description="Stable name for programs.")
    message: str = Field(description="Sentence for people.")
    detail: Any = Field(None, description="More, e.g. the field of a 422.")


class ErrorAnswer(Message):
    """The envelope of every error."""

    error: ErrorBody
