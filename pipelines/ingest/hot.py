"""Whether one symbol bucket has most of the load: its shard takes it all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.ingest.alarms import Alarms
from pipelines.ports import Acked

WINDOW_S = 10.0
MIN_BUCKETS = 4
MIN_MESSAGES = 1000
HOT_SHARE = 0.6
MAX_NAMES = 20


class HotBucket:
    """Watches the share of the busiest bucket, over ten seconds at a time.

    Args:
        alarms: Told ``hot_symbol``.
    """

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._counts: dict[int, int] = {}
        self._names: dict[int, set[str]] = {}
        self._began_s: float | None = None

    def note(self, acked: Sequence[Acked], *, now_s: float) -> None:
        """Records were stored.

        >>> alarms = Alarms()
        >>> hot = HotBucket(alarms)
        >>> loads = [(0, 9000), (1, 300), (2, 300), (3, 400)]
        >>> hot.add(loads, now_s=0.0); hot.add(loads, now_s=11.0)
        >>> alarms.to_list()[0]["detail"]
        'bucket 0 has 90 % of the messages'
        """
        for record in acked:
            names = self._names.setdefault(record.bucket, set())
            if len(names) < MAX_NAMES:
                names.update(record.note.marks)
        self.add([(record.bucket, record.note.n_messages) for record in acked], now_s=now_s)

    def add(self, loads: Sequence[tuple[int, int]], *, now_s: float) -> None:
        """Messages of buckets."""
        for bucket, count in loads:
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        if self._began_s is None:
            self._began_s = now_s
        if now_s - self._began_s >= WINDOW_S:
            self._judge()
            self._counts, self._names, self._began_s = {}, {}, now_s

    def _judge(self) -> None:
        total = sum(self._counts.values())
        bucket = max(self._counts, key=self._counts.__getitem__)
        share = self._counts[bucket] / max(1, total)
        used = len(self._counts) >= MIN_BUCKETS and total >= MIN_MESSAGES
        if used and share >= HOT_SHARE:
            names = ", ".join(sorted(self._names.get(bucket, ())))
            who = f"bucket {bucket} ({names})" if names else f"bucket {bucket}"
            self._alarms.on("hot_symbol", f"{who} has {100 * share:.0f} % of the messages")
        else:
            self._alarms.off("hot_symbol")
