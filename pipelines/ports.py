"""The seams between the parts: what one side needs of the other, as protocols.

An adapter lives in the folder of its technology; tests bring their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class KinesisConfig:
    """Where the streams are.

    Args:
        region: AWS region.
        endpoint_url: The embedded Kinesis, or ``None`` for AWS.
        market_data: Name of the stream of raw records.
        market_signals: Name of the stream of derived items.
        access_key: Fixed key for the embedded Kinesis; ``None`` uses the standard chain.
        secret_key: Its secret; never shown.
    """

    region: str = "us-east-1"
    endpoint_url: str | None = None
    market_data: str = "market-data"
    market_signals: str = "market-signals"
    access_key: str | None = None
    secret_key: str | None = None

    def __repr__(self) -> str:
        return (
            f"KinesisConfig(region={self.region!r}, endpoint_url={self.endpoint_url!r}, "
            f"market_data={self.market_data!r}, market_signals={self.market_signals!r})"
        )

    def client_kwargs(self) -> dict[str, Any]:
        """Arguments for ``boto3.client("kinesis", **kwargs)``."""
        kwargs: dict[str, Any] = {"region_name": self.region}
        if self.endpoint_url:
            kwargs["endpoint_url"] = self.endpoint_url
        if self.access_key:
            kwargs["aws_access_key_id"] = self.access_key
            kwargs["aws_secret_access_key"] = self.secret_key
        return kwargs


@dataclass(frozen=True, slots=True)
class Put:
    """One record to put: data and partition key."""

    key: str
    data: bytes


class RecordSink(Protocol):
    """Takes records; the writer of :mod:`pipelines.kinesis.writer` is one."""

    def put(self, records: Sequence[Put]) -> Sequence[str | None]:
        """Put records; per record ``None`` if it was stored, else the error code.

        At most one attempt. Raises :class:`~pipelines.errors.StreamError` when nothing is known.
        """
        ...


class BarHistory(Protocol):
    """Bars of the past, for warming up."""

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last ``limit`` minute bars that ended at or before a market time, oldest first.

        Each is an Alpaca bar (``t o h l c v n vw``).
        """
        ...
