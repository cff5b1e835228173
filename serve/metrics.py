"""Our numbers for Prometheus, through Ray: requests, their duration, lags, the ledger, late data.

An ASGI layer around each application; WebSockets are counted by their openings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDARIES_S = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]


class Measured:
    """Counts and times the requests of an application.

    Args:
        app: The application.
        name: Its name.
        prefix: Its route prefix, put before paths where Serve took it away.
    """

    def __init__(self, app: ASGIApp, *, name: str, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.rstrip("/")
        self._name = name
        self._requests = Counter(
            "raytape_requests", description="Requests answered.", tag_keys=("app", "status")
        )
        self._seconds = Histogram(
            "raytape_request_seconds",
            description="Duration of requests, seconds.",
            boundaries=BOUNDARIES_S,
            tag_keys=("app",),
        )
        self._seconds.set_default_tags({"app": name})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in ("http", "websocket"):
            scope = self._whole(scope)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = ["500"]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = str(message["status"])
            await send(message)

        begun = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._seconds.observe(time.perf_counter() - begun)
            self._requests.inc(1, {"app": self._name, "status": status[0]})

    def _whole(self, scope: Scope) -> dict[str, Any]:
        """The scope with the whole path: our routes are written with their prefix."""
        path: str = scope["path"]
        if not path.startswith(self._prefix):
            path = self._prefix + path
        return {**scope, "path": path, "root_path": ""}


class FeedGauges:
    """What the feed says each second: lags, the ledger, what came late."""

    def __init__(self) -> None:
        self._lag = Gauge(
            "raytape_feed_lag_ms",
            description="From the producer's receipt to the feed, milliseconds.",
            tag_keys=("quantile",),
        )
        self._ledger = Gauge(
            "raytape_ledger_messages",
            description="Messages by where they are.",
            tag_keys=("place",),
        )
        self._behind = {
            unit: Gauge(
                f"raytape_stream_lag_{unit}",
                description=f"A query behind the tip of a shard, {unit}.",
                tag_keys=("query", "shard"),
            )
            for unit in ("ms", "records")
        }
        self._late = Gauge(
            "raytape_late_messages",
            description="Trades and bars whose bar had closed, since the streaming job's start.",
            tag_keys=("kind",),
        )

    def set(self, system: Mapping[str, Any]) -> None:
        """Take the state of the platform; what is not known is not set."""
        for quantile in ("p50", "p99"):
            lag = system["latency_ms"][f"feed_{quantile}"]
            if lag is not None:
                self._lag.set(lag, {"quantile": quantile})
        for place in ("received", "stored", "duplicates", "quarantined", "in_flight", "lost"):
            count = system["ledger"][place]
            if count is not None:
                self._ledger.set(count, {"place": place})
        for query in ("archive", "signals"):
            for shard, lag in ((system.get(query) or {}).get("lag") or {}).items():
                for unit, gauge in self._behind.items():
                    if lag[unit] is not None:
                        gauge.set(lag[unit], {"query": query, "shard": shard})
        for kind in ("trades", "bars"):
            late = (system.get("signals") or {}).get(f"late_{kind}")
            if late is not None:
                self._late.set(late, {"kind": kind})
