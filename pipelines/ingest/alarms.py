"""What is wrong now though the producer goes on: named, dated, logged now and then.

======================  =====================================================================
``stale_feed``          an open market, and the feed says nothing; until something comes
``failover``            a worse source than the best is used
``stream_refuses``      Kinesis takes no records
``stream_replaced``     it was made anew: what the lake lacks is sent again
``spilling``            messages wait in the journal
``journal_full``        the feed has to wait
``journal_failed``      the disk takes nothing
``journal_unreadable``  records of the journal are lost; stays until the next start
``lost_records``        records are in no lake and no journal; stays until the next start
``state_not_saved``     the disk takes no state
``hot_symbol``          one symbol, or one bucket of them, has most of the messages
======================  =====================================================================
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pipelines.clock import wall_ns

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0


class Alarms:
    """The alarms that are on. Any thread may call.

    Args:
        now_s: A steady clock.

    >>> alarms = Alarms()
    >>> alarms.on("journal_full", "1,024 MB")
    >>> [(alarm["name"], alarm["detail"]) for alarm in alarms.to_list()]
    [('journal_full', '1,024 MB')]
    >>> alarms.off("journal_full"); alarms.to_list()
    []
    """

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._on: dict[str, dict[str, Any]] = {}
        self._logged_s: dict[str, float] = {}

    def on(self, alarm: str, detail: str) -> None:
        """It is so, now; logged at most every ten seconds."""
        with self._lock:
            entry = self._on.setdefault(alarm, {"name": alarm, "since_ns": wall_ns()})
            entry["detail"] = detail
            now_s = self._now_s()
            due = now_s - self._logged_s.get(alarm, float("-inf")) >= LOG_EVERY_S
            if due:
                self._logged_s[alarm] = now_s
        if due:
            log.warning("alarm %s: %s", alarm, detail)

    def off(self, alarm: str) -> None:
        """It is so no more."""
        with self._lock:
            was = self._on.pop(alarm, None)
        if was is not None:
            log.info("alarm %s is over", alarm)

    def to_list(self) -> list[dict[str, Any]]:
        """The alarms that are on, oldest first: ``name``, ``since_ns`` (wall time), ``detail``."""
        with self._lock:
            return [dict(entry) for entry in self._on.values()]
