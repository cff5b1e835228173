"""Whether the platform can be used, and which part is the reason when it cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SILENT_S = 10.0
"""The feed tells the state of the platform each second; after this long it is no longer true."""
COMING = frozenset(("connecting", "authenticating", "starting", "backing_off", None))
"""States that end by themselves; a part in another one needs somebody."""


def readiness(system: Mapping[str, Any], *, synced: bool, age_s: float | None) -> dict[str, Any]:
    """The answer of ``/readyz``: ``status``, ``parts`` and ``reasons``; ready without reasons.

    A producer must stream, unless its simulated market has played its last session: then there
    is nothing to stream, and what is known can still be asked for.

    Args:
        system: The state of the platform, as the feed told it last.
        synced: Whether the feed answers.
        age_s: Wall seconds since it was told; ``None`` when it never was.
    """
    producer, streaming = system.get("producer") or {}, system.get("streaming") or {}
    streams = (system.get("feed") or {}).get("streams") or {}
    states = [producer.get("state"), streaming.get("state"), *streams.values()]
    finished = bool((system.get("market") or {}).get("finished"))
    reasons = [
        *_feed(streams, synced=synced, age_s=age_s),
        *_part("producer", producer, good=_good(producer.get("state"), finished=finished)),
        *_part("streaming", streaming, good=streaming.get("state") == "running"),
    ]
    failed = any(state not in COMING | {"streaming", "running"} for state in states)
    return {
        "status": "ok" if not reasons else "unavailable" if failed else "starting",
        "parts": {
            "feed": "streaming" if synced else "unavailable",
            "streams": dict(streams),
            "producer": producer.get("state") or "unavailable",
            "streaming": streaming.get("state") or "unavailable",
            "alarms": [_alarm(alarm) for alarm in producer.get("alarms") or ()],
        },
        "reasons": reasons,
    }


def _alarm(alarm: Mapping[str, Any]) -> str:
    """What is wrong though the producer goes on: no reason to use nothing, but to look."""
    return f"{alarm.get('name')}: {alarm.get('detail')}"


def _good(state: str | None, *, finished: bool) -> bool:
    return state == "streaming" or (finished and state is not None and state != "failed")


def _feed(streams: Mapping[str, str], *, synced: bool, age_s: float | None) -> Iterator[str]:
    if not synced:
        yield "feed: does not answer"
    elif age_s is None:
        yield "feed: has told nothing of the platform yet"
    elif age_s > SILENT_S:
        yield f"feed: has told nothing of the platform for {age_s:.0f} s"
    elif not streams:
        yield "feed: reads no stream"
    else:
        yield from (f"feed: {name} {s}" for name, s in streams.items() if s != "streaming")


def _part(name: str, stats: Mapping[str, Any], *, good: bool) -> Iterator[str]:
    if not good:
        error = f" ({stats['error']})" if stats.get("error") else ""
        yield f"{name}: {stats.get('state') or 'no answer'}{error}"
