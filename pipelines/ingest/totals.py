"""What several producers say, as one: the news beside the market, or shares of the symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STATES = (
    "failed", "backing_off", "connecting", "authenticating", "paused", "streaming", "idle",
    "stopped",
)  # fmt: skip
"""Worst first: the state of all is the worst that one has."""

_SUMMED = (
    "received", "malformed", "duplicates", "backfilled", "acked", "records_acked", "bytes_acked",
    "retries", "gaps", "queued", "reconnects", "stalls", "messages_per_s", "bytes_received",
    "in_memory", "spilled", "spilled_total", "replayed_records", "lost_records",
    "journal_bytes",
    "backfills_open", "backfills_done", "backfills_failed", "backfill_rejected",
)  # fmt: skip
_LARGEST = ("last_message_wall_ns", "put_ms_p50")
_BRIEF = (
    "name", "state", "error", "source", "degraded", "received", "acked", "queued", "reconnects",
    "messages_per_s",
)  # fmt: skip


def total(market: Sequence[Mapping[str, Any]], news: Mapping[str, Any] | None) -> dict[str, Any]:
    """The statistics of all, with the keys of one.

    Numbers of :meth:`pipelines.ingest.producer.Producer.stats` are summed, news included. The
    state is the worst of those of the market: a plan without news does not stop the platform, it
    is said under ``news``. What is not a number of all is the first one's.

    Args:
        market: Statistics of each producer of market data; at least one.
        news: Those of the producer of the news, if there is one.

    >>> one, two = {"state": "streaming", "received": 2}, {"state": "backing_off", "received": 3}
    >>> both = total([one, two], {"state": "failed", "received": 1, "error": "no plan"})
    >>> both["state"], both["received"], both["news"]["error"]
    ('backing_off', 6, 'no plan')
    """
    every = [*market, *([news] if news else [])]
    if len(every) == 1:
        return dict(every[0])
    found = dict(market[0])
    worst = min(market, key=lambda stats: _rank(stats.get("state")))
    found["state"] = worst.get("state")
    found["error"] = next((s["error"] for s in [worst, *market] if s.get("error")), None)
    found["degraded"] = next((s["degraded"] for s in market if s.get("degraded")), None)
    found["clock"] = next((s["clock"] for s in market if s.get("clock")), None)
    found["symbols"] = sorted({symbol for s in market for symbol in s.get("symbols", ())})
    found["halted"] = sorted({symbol for s in market for symbol in s.get("halted", ())})
    found["by_type"] = _added([s.get("by_type", {}) for s in every])
    found["subscriptions"] = _added([s.get("subscriptions", {}) for s in every])
    found["left_out"] = _joined([s.get("left_out", {}) for s in market])
    for name in _SUMMED:
        if any(name in s for s in every):
            found[name] = round(sum(s.get(name) or 0 for s in every), 1)
    for name in _LARGEST:
        found[name] = max((s[name] for s in every if s.get(name) is not None), default=None)
    found["alarms"] = [alarm for s in every for alarm in s.get("alarms", ())]
    if len(market) > 1:
        found["producers"] = [_brief(s) for s in market]
    if news:
        found["news"] = _brief(news)
    return found


def _rank(state: object) -> int:
    return STATES.index(state) if state in STATES else 0


def _brief(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stats[name] for name in _BRIEF if name in stats}


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for one in counts for name in one)
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


def _joined(lists: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for one in lists for name in one)
    return {name: [s for one in lists for s in one.get(name, ())] for name in names}
