"""The state of every part, asked from the part itself."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cluster import processes, runtime
from cluster.settings import Settings
from pipelines import ledger
from pipelines.errors import RaytapeError


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the platform.

    Args:
        name: Its name.
        state: ``running``, ``stopped``, ``failed``, or its own word.
        detail: Address, counters or the reason.
    """

    name: str
    state: str
    detail: str


def any_running(settings: Settings) -> bool:
    """Whether anything of this platform runs."""
    return bool(processes.running(run_dir=settings.run_dir))


def http_json(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 3
) -> Any | None:
    """JSON of a GET, or ``None`` if nobody answers with 200."""
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 (our own)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return orjson.loads(answer.read())
    except (urllib.error.URLError, OSError, orjson.JSONDecodeError):
        return None


def report(settings: Settings) -> list[Part]:
    """Every part with its state, in the order in which data flows."""
    if not any_running(settings):
        return [Part("platform", "stopped", "start it with `make up`")]
    return [*_children(settings), *_actors(settings), *_gateway(settings), *addresses(settings)]


def _children(settings: Settings) -> Iterator[Part]:
    wanted = {"ray": f"{settings.host}:{settings.ray_port}"}
    if settings.kinesis == "embedded":
        wanted["kinesis"] = f"http://{settings.host}:{settings.kinesis_port}"
    if not settings.live:
        wanted["exchange"] = settings.exchange_url
    running = {child.name: child for child in processes.running(run_dir=settings.run_dir)}
    for name in ("exchange", "kinesis", "ray"):
        if name in wanted:
            child = running.get(name)
            where = f"{wanted[name]}  pid {child.pid}" if child else f"log {settings.log_dir}"
            yield Part(name, "running" if child else "failed", where)


def _actors(settings: Settings) -> Iterator[Part]:
    try:
        with runtime.connected(settings) as ray:
            stats = {
                name: runtime.ask(ray, name, "stats")
                for name in (runtime.PRODUCER, runtime.STREAMING, runtime.FEED)
            }
    except (ConnectionError, RaytapeError, RuntimeError) as error:
        yield Part("ray", "failed", str(error).splitlines()[0])
        return
    yield from _producers(stats[runtime.PRODUCER])
    yield from _streaming(stats[runtime.STREAMING])
    yield from _ledger(stats[runtime.PRODUCER], stats[runtime.STREAMING])
    yield from _alerts(stats[runtime.STREAMING])
    feed = stats[runtime.FEED]
    yield Part("feed", "failed" if feed is None else "running", "" if feed else "no answer")


def _producers(stats: dict[str, Any] | None) -> Iterator[Part]:
    if stats is None:
        yield Part("producer", "failed", "no answer")
        return
    detail = f"{stats['received']:,} received, {stats['queued']:,} queued, {stats['gaps']} gaps"
    if stats.get("degraded"):
        detail = f"{stats['source']} stands in ({stats['degraded']}); {detail}"
    yield Part("producer", _running(stats["state"]), stats.get("error") or detail)
    for one in [*stats.get("producers", ()), *filter(None, [stats.get("news")])]:
        detail = f"{one.get('received', 0):,} received, {one.get('queued', 0):,} queued"
        name = "  news" if one.get("source") == "news" else f"  {one['name']}"
        yield Part(name, _running(one["state"]), one.get("error") or detail)


def _running(state: str) -> str:
    return "running" if state == "streaming" else state


def _streaming(stats: dict[str, Any] | None) -> Iterator[Part]:
    if stats is None:
        yield Part("streaming", "failed", "no answer")
        return
    if stats.get("error"):
        yield Part("streaming", stats["state"], stats["error"])
        return
    archive, signals = stats["archive"], stats["signals"]
    yield Part(
        "archive",
        stats["state"],
        f"{archive['stored']:,} stored, {archive['duplicates']:,} duplicates, "
        f"{archive['quarantined']:,} quarantined, {archive['holes']} holes",
    )
    yield Part(
        "signals",
        stats["state"],
        f"{signals['bars']:,} bars, {signals['signals']:,} signals, "
        f"newest {signals['last_event_time']}",
    )


def _ledger(producer: dict[str, Any] | None, streaming: dict[str, Any] | None) -> Iterator[Part]:
    """Each stage's balance, as `ledger` in the lake and `/v1/ledger` have it."""
    for row in ledger.rows(producer, streaming, overdue=(streaming or {}).get("overdue")):
        counted = [
            f"{row[name]:,} {name.replace('_', ' ')}"
            for name in ("received", "stored", "duplicates", "quarantined", "in_flight")
            if row[name] or name in ("received", "stored")
        ]
        if row["imbalance"]:
            counted.append(f"{row['imbalance']:+,} out of balance")
        balanced = "unbalanced" if row["imbalance"] else "balanced"
        yield Part(f"ledger {row['stage']}", balanced, ", ".join(counted))


def _alerts(streaming: dict[str, Any] | None) -> Iterator[Part]:
    for alert in (streaming or {}).get("alerts") or ():
        since = f"{alert['detail']}, since {alert['began_at'][:19]}Z"
        yield Part("alert", alert["severity"], f"{alert['name']}: {since}")


def _gateway(settings: Settings) -> Iterator[Part]:
    ready = http_json(f"{settings.gateway_url}/readyz")
    yield Part("gateway", "running" if ready else "failed", settings.gateway_url)


def addresses(settings: Settings) -> Iterator[Part]:
    """Where a person looks."""
    yield Part("dashboard", "", f"{settings.gateway_url}/")
    yield Part("API", "", f"{settings.gateway_url}/docs")
    token = runtime.token_file(settings)
    yield Part(
        "Ray", "", f"http://{settings.host}:{settings.ray_dashboard_port}/ (asks for {token})"
    )
    yield Part("Spark", "", f"http://{settings.host}:{settings.spark_ui_port}/")
    yield Part("metrics", "", f"http://{settings.host}:{settings.metrics_port}/metrics")
