"""What the gateway's routes share: what they are given, threads for what blocks, JSON answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
from starlette.responses import Response

from serve.bars import GapKey
from serve.listings import RowKey
from serve.mirror import Mirror

JSON = "application/json"
LAKE_THREADS = 3
T = TypeVar("T")


class Lake(Protocol):
    """What is asked of the lake; may block."""

    def bars(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Closed minute bars that ended at or before a market time, oldest first."""
        ...

    def rolled(
        self, symbol: str, window: str, *, limit: int, before_ns: int | None, start_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """The newest bars of a longer window, of minutes in a span, oldest first."""
        ...

    def indicators(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Indicators of the last bars that ended at or before a market time, oldest first."""
        ...

    def stats(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Statistics at the last bars that began before a market time, oldest first."""
        ...

    def anomalies(
        self,
        *,
        limit: int,
        severities: Sequence[str],
        symbol: str | None,
        start_ns: int | None,
        end_ns: int | None,
        after: RowKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Anomalies with start ≤ time < end that follow one, newest first."""
        ...

    def fills(
        self,
        *,
        limit: int,
        symbol: str | None,
        model: str | None,
        start_ns: int | None,
        end_ns: int | None,
        after: RowKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Paper fills with start ≤ time < end that follow one, newest first."""
        ...

    def alerts(
        self,
        *,
        limit: int,
        severities: Sequence[str],
        standing: bool,
        start_ns: int | None,
        end_ns: int | None,
        after: RowKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Alerts that began with start ≤ wall time < end and follow one, newest first."""
        ...

    def gaps(
        self,
        *,
        limit: int,
        start_ns: int | None,
        end_ns: int | None,
        after: GapKey | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Declared gaps with start ≤ to < end that follow one, newest first, then by symbol."""
        ...


@dataclass(slots=True)
class GatewayParts:
    """What the application needs.

    Args:
        mirror: What is known of the market.
        symbols: The watch-list, in order.
        lake: Older bars and gaps; ``None`` for none.
        models: Lists the models; may block.
        dashboard_dir: The exported dashboard.
        links: Addresses of other consoles.
    """

    mirror: Mirror
    symbols: tuple[str, ...] = ()
    lake: Lake | None = None
    models: Callable[[], Sequence[Mapping[str, Any]]] | None = None
    dashboard_dir: Path | None = None
    links: Mapping[str, str] = field(default_factory=dict)


class Threads:
    """Runs what blocks, a few at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(LAKE_THREADS, thread_name_prefix="gateway")

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result, from a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def answer(value: Any, status: int = 200) -> Response:
    """JSON that nobody may keep."""
    return Response(
        orjson.dumps(value),
        status_code=status,
        media_type=JSON,
        headers={"Cache-Control": "no-store"},
    )
