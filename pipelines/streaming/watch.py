"""Watches the platform beside the queries: the ledger and the alerts, into the lake.

Every few seconds the parts are asked for their numbers. What is wrong becomes an alert: committed
to ``alerts`` where it begins and where it ends, and published on ``market-signals`` after that. The
ledger is written down now and then, and at the end. A watcher that is started takes over where the
last one was, so that an alert has one beginning and one end whatever happens to its driver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from pipelines import ledger
from pipelines.alerts import Alarm, Alert, Alerts, from_row
from pipelines.clock import wall_ns
from pipelines.errors import StreamError
from pipelines.events import DAY_NS, SECOND_NS, format_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.ports import ItemSink
from pipelines.streaming.alerts import Conditions, alert_table
from pipelines.streaming.ledger import ledger_table

QUERY: Final = "ledger"
EVERY_S: Final = 5.0
_TABLES: Final = ("ledger", "alerts")

_ROWS: Final = """
    SELECT alert_id, name, severity, source, symbol, detail, epoch_us(began_at) * 1000 AS began_ns,
           epoch_us(ended_at) * 1000 AS ended_ns, epoch_us(market_time) * 1000 AS market_ns
    FROM alerts_current
    WHERE ended_at IS NULL OR began_at >= make_timestamptz($since_us)
    ORDER BY (ended_at IS NULL) DESC, began_at DESC, alert_id LIMIT 1000
"""
_LAST: Final = """
    SELECT epoch_us(event_time) * 1000 AS ns, payload
    FROM ledger WHERE stage = 'archive' ORDER BY event_time DESC LIMIT 1
"""
_CRITICAL: Final = """
    WITH found AS (
        SELECT 'anomaly:' || symbol || ':' || event_time_ns || ':' || type AS alert_id,
               'anomaly' AS name, severity, 'market' AS source, symbol, type || ': ' || reason
               AS detail, epoch_us(min(known_at)) * 1000 AS began_ns, event_time_ns AS market_ns
        FROM anomalies
        WHERE severity = 'critical' AND known_at >= make_timestamptz($since_us) GROUP BY ALL
    )
    SELECT *, began_ns AS ended_ns FROM found
    WHERE alert_id NOT IN (SELECT alert_id FROM alerts WHERE name = 'anomaly')
    ORDER BY began_ns, alert_id LIMIT 500
"""

_log = logging.getLogger(__name__)


class Watch:
    """One driver's watcher; one thread calls it, but for :meth:`stats`.

    Args:
        writer: The lake.
        streaming: The job's statistics.
        producer: Those of the producer, ``None`` when it does not answer; without it the ledger
            begins at the archive.
        sink: ``market-signals``; without it alerts are not published.
        ledger_every_s: Interval at which the ledger is written down.
        clock: Wall time, nanoseconds.
        monotonic: A steady clock, seconds.
    """

    def __init__(
        self,
        writer: LakeWriter,
        streaming: Callable[[], Mapping[str, Any]],
        *,
        producer: Callable[[], Mapping[str, Any] | None] | None = None,
        sink: ItemSink | None = None,
        ledger_every_s: float = 60.0,
        clock: Callable[[], int] = wall_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._lake = LakeQuery(writer.uri, writer.storage_options)
        self._streaming = streaming
        self._producer = producer or (lambda: None)
        self._sink = sink
        self._every_s = ledger_every_s
        self._clock = clock
        self._monotonic = monotonic
        self._generation = 0
        self._overdue = ledger.Overdue()
        self._missed: int | None = None
        self._conditions = Conditions()
        self._alerts = Alerts()
        self._lock = threading.Lock()
        self._uncommitted: list[Alert] = []
        self._unpublished: list[Alert] = []
        self._written_s = float("-inf")
        self._anomalies: int | None = None
        self._died_ns: int | None = None  # when an older driver that died was last seen

    def open(self) -> None:
        """Take over from any older driver, and go on with the alerts that it left standing.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = self._writer.open_query(QUERY, tables=_TABLES)
        now_ns = self._clock()
        known = [
            from_row(row)
            for row in self._lake.sql(_ROWS, {"since_us": (now_ns - DAY_NS) // 1000}).to_pylist()
        ]
        known.sort(key=lambda alert: alert.began_ns)
        self._uncommitted = self._alerts.restore(known, now_ns=now_ns)
        self._unpublished = known  # readers drop what they know
        for row in self._lake.sql(_LAST).to_pylist():
            said = orjson.loads(row["payload"])
            self._died_ns = None if said["ended"] else row["ns"]
            if said.get("declared"):
                self._conditions.declared.restore(said["declared"])

    def stats(self) -> dict[str, Any]:
        """JSON types: the ``alerts`` that stand, oldest first, and the messages ``overdue``."""
        with self._lock:
            alerts = [alert.data() for alert in self._alerts.standing]
            return {"alerts": alerts, "overdue": self._missed}

    def step(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Look once.

        Args:
            stopped: Whether not to begin.

        Raises:
            Fenced: A newer driver does this now.
            LakeError: The lake cannot be read or written.
        """
        if not stopped():
            self._look(write=self._monotonic() - self._written_s >= self._every_s)

    def finish(self) -> None:
        """Write the ledger down as it is at the end.

        Raises:
            Fenced: A newer driver does this now.
            LakeError: The lake cannot be written.
        """
        self._look(write=True, ended=True)

    def _look(self, *, write: bool, ended: bool = False) -> None:
        # The archive first: what the producer sends meanwhile is in flight, and never a surplus.
        streaming = self._streaming()
        producer = self._producer()
        now_s, now_ns = self._monotonic(), self._clock()
        sent = ledger.number(producer, "acked")
        missed = self._overdue.note(sent, ledger.archived(streaming), now_s=now_s)
        rows = ledger.rows(producer, streaming, overdue=missed)
        alarms = self._conditions.alarms(producer, streaming, rows, now_s=now_s)
        with self._lock:
            self._missed = missed
            self._uncommitted += self._alerts.update(alarms, now_ns=now_ns)
            self._uncommitted += self._was_down(now_ns)
        self._find_anomalies(streaming)
        if write:
            declared = self._conditions.declared.state()
            made = ledger_table(
                rows, producer, streaming, at_ns=now_ns, ended=ended, declared=declared
            )
            self._commit("ledger", made)
            self._written_s = now_s
        if self._uncommitted:
            self._commit("alerts", alert_table(self._uncommitted))
            self._unpublished += self._uncommitted
            self._uncommitted = []
        self._publish()

    def _was_down(self, now_ns: int) -> list[Alert]:
        """The alert of an older driver that died; now the queries run again."""
        died_ns, self._died_ns = self._died_ns, None
        if died_ns is None:
            return []
        away_s = (now_ns - died_ns) / SECOND_NS
        text = f"the streaming job died; none ran for up to {away_s:,.0f} s"
        down = Alarm("streaming_down", "critical", "streaming", text)
        alert_id = f"streaming_down@{format_time_ns(died_ns)}"
        return [Alert(alert_id, down, died_ns, now_ns // 1000 * 1000)]

    def _find_anomalies(self, streaming: Mapping[str, Any]) -> None:
        """Anomalies that are critical; the lake is asked only when there are new ones."""
        found = streaming["signals"].get("anomalies")
        if found == self._anomalies:
            return
        waiting = {alert.alert_id for alert in self._uncommitted}
        since = {"since_us": (self._clock() - DAY_NS) // 1000}
        rows = self._lake.sql(_CRITICAL, since).to_pylist()
        self._uncommitted += [from_row(r) for r in rows if r["alert_id"] not in waiting]
        self._anomalies = found

    def _commit(self, table: str, rows: Any) -> None:
        self._writer.commit(
            table,
            rows,
            query_id=QUERY,
            batch_id=self._writer.next_batch(table, QUERY),
            generation=self._generation,
        )

    def _publish(self) -> None:
        if self._sink is None or not self._unpublished:
            return
        try:
            self._sink.put_items([alert.to_item() for alert in self._unpublished])
        except StreamError as error:
            _log.warning("%d alerts are published later: %s", len(self._unpublished), error)
            return
        self._unpublished = []
