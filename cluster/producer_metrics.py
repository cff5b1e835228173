"""The producer's numbers for Prometheus, through Ray: names begin with ``raytape_producer_``.

In: what :meth:`pipelines.ingest.producer.Producer.stats` and ``series`` say, every other second.
Counters get the difference to what was said before; all carry the tag ``producer``.

========================  =======  ===========================================================
name                      kind     meaning (tags)
========================  =======  ===========================================================
messages                  counter  received from the feed (``type``, ``symbol``; bounded)
received_bytes            counter  payload of the feed's frames
acked                     counter  messages that the stream holds
records, record_bytes     counter  records that it holds, and their data
retries                   counter  records that were put again
reconnects, stalls        counter  connections made anew; times that the socket was not read
gaps, backfilled          counter  gap rows; messages fetched later
malformed, duplicates     counter  kept raw for the quarantine
batch_messages            gauge    messages per record, since the last look
put_ms                    gauge    duration of puts (``quantile``)
queued, spilled           gauge    messages that wait, in memory and journal; in the journal alone
journal_bytes             gauge    size of the journal
last_message_age_s        gauge    since the last message came, wall seconds
connection_state          gauge    1 for the state it is in (``state``)
degraded                  gauge    1 while a worse source than the best is used (``source``)
alarms                    gauge    how many are raised
========================  =======  ===========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.events import SECOND_NS
from pipelines.ingest.totals import STATES

PREFIX = "raytape_producer_"

_COUNTERS = {
    "received_bytes": "bytes_received",
    "acked": "acked",
    "records": "records_acked",
    "record_bytes": "bytes_acked",
    "retries": "retries",
    "reconnects": "reconnects",
    "stalls": "stalls",
    "gaps": "gaps",
    "backfilled": "backfilled",
    "malformed": "malformed",
    "duplicates": "duplicates",
}
_GAUGES = ("queued", "spilled", "journal_bytes")


Make = Callable[[str, str, Sequence[str]], Any]
"""Makes a metric of a name, a description and the keys of its tags."""


class ProducerMetrics:
    """Turns statistics into metrics.

    Args:
        name: Of the producer; a tag.
        counter: Makes a counter.
        gauge: Makes a gauge.
    """

    def __init__(self, name: str, *, counter: Make, gauge: Make) -> None:
        self._name = name
        self._counters = {
            key: counter(PREFIX + key, f"Producer: {key.replace('_', ' ')}.", ["producer"])
            for key in _COUNTERS
        }
        self._messages = counter(
            PREFIX + "messages",
            "Messages received from the feed.",
            ["producer", "type", "symbol"],
        )
        self._gauges = {
            key: gauge(PREFIX + key, f"Producer: {key.replace('_', ' ')}.", ["producer"])
            for key in (*_GAUGES, "batch_messages", "last_message_age_s", "alarms")
        }
        self._put_ms = gauge(PREFIX + "put_ms", "Duration of puts, ms.", ["producer", "quantile"])
        self._state = gauge(PREFIX + "connection_state", "1 for the state.", ["producer", "state"])
        self._degraded = gauge(PREFIX + "degraded", "1 on a fallback.", ["producer", "source"])
        self._before: dict[str, float] = {}
        self._series: dict[tuple[str, str], int] = {}
        self._sources: set[str] = set()

    def update(
        self, stats: Mapping[str, Any], series: Mapping[tuple[str, str], int], *, now_ns: int
    ) -> None:
        """Say what has become of it.

        Args:
            stats: Statistics of the producer.
            series: Messages per type and symbol.
            now_ns: Wall time.
        """
        mine = {"producer": self._name}
        grown = {key: self._grown(key, stats.get(name)) for key, name in _COUNTERS.items()}
        for key, by in grown.items():
            if by > 0:
                self._counters[key].inc(by, tags=mine)
        for (kind, symbol), n in series.items():
            by = n - self._series.get((kind, symbol), 0)
            if by > 0:
                self._messages.inc(by, tags={**mine, "type": kind, "symbol": symbol})
        self._series = dict(series)
        for key in _GAUGES:
            if stats.get(key) is not None:
                self._gauges[key].set(stats[key], tags=mine)
        if grown["records"] > 0:
            self._gauges["batch_messages"].set(grown["acked"] / grown["records"], tags=mine)
        self._gauges["alarms"].set(len(stats.get("alarms") or ()), tags=mine)
        if (last_ns := stats.get("last_message_wall_ns")) is not None:
            self._gauges["last_message_age_s"].set((now_ns - last_ns) / SECOND_NS, tags=mine)
        for key, value in stats.items():
            if key.startswith("put_ms_p") and value is not None:
                self._put_ms.set(value, tags={**mine, "quantile": key.removeprefix("put_ms_")})
        for state in STATES:
            self._state.set(float(state == stats.get("state")), tags={**mine, "state": state})
        self._say_source(str(stats.get("source")), bool(stats.get("degraded")))

    def _say_source(self, source: str, degraded: bool) -> None:
        self._sources.add(source)
        for name in self._sources:
            on = float(degraded and name == source)
            self._degraded.set(on, tags={"producer": self._name, "source": name})

    def _grown(self, key: str, value: Any) -> float:
        """How much a counter grew; one that began again at a restart grew by what it says."""
        now = float(value or 0)
        before = self._before.get(key)
        self._before[key] = now
        if before is None:
            return 0.0  # counted over all runs: Prometheus adds up those of each process itself
        return now - before if now >= before else now


def ray_metrics(name: str) -> ProducerMetrics:
    """Metrics of a producer that runs in a Ray actor."""
    from ray.util.metrics import Counter, Gauge

    return ProducerMetrics(
        name,
        counter=lambda key, text, tags: Counter(key, description=text, tag_keys=tuple(tags)),
        gauge=lambda key, text, tags: Gauge(key, description=text, tag_keys=tuple(tags)),
    )
