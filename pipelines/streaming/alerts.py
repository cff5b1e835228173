"""What is wrong with the platform, as its parts' own numbers say; and alerts as rows. Pure.

=====================  ========  =========================================================
``producer_silent``    critical  it does not answer, for longer than a restart takes
``producer_failed``    critical  the feed refused it for good
``disconnected``       warning   it is not at the feed, and tries
(the producer's own)   warning   what stands in its ``alarms``; critical where data is at stake
``archive_behind``,    warning   a query is far from the tip of a shard
``signals_behind``
``quarantine_rate``    warning   more than one message in a hundred is quarantined
``records_missing``    critical  numbers of records were never seen (``holes``)
``…_imbalance``        critical  a stage does not balance (``producer``, ``stream``, ``archive``);
                                 the stream: until what is missing is declared in gap rows
``policy_unavailable`` warning   no signals but HOLD: the policy does not answer
``streaming_down``     critical  the streaming job died (told afterwards, by the next one)
``anomaly``            critical  an anomaly of that severity, at one moment
=====================  ========  =========================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from pipelines.alerts import Alarm, Alert
from pipelines.ledger import BEHIND_MS, Declared, lag_of
from pipelines.streaming.rows import table_of

Stats = Mapping[str, Any]

CRITICAL: Final = frozenset(
    ("journal_full", "journal_failed", "lost_records", "journal_unreadable")
)
"""Alarms of the producer with which messages are at stake."""

_ALERTS: Final = "alerts"
_AWAY: Final = frozenset(("connecting", "authenticating", "backing_off"))


@dataclass(frozen=True, slots=True)
class Limits:
    """When a number is wrong.

    Args:
        quarantined: Share of the messages of a minute.
        quarantined_least: With fewer in a minute than this, the share says nothing.
        silent_s: The producer may be silent for so long: it restarts.
        recent_s: Something that happened stands for so long.
    """

    quarantined: float = 0.01
    quarantined_least: int = 20
    silent_s: float = 30.0
    recent_s: float = 60.0


class Conditions:
    """Turns statistics into alarms; keeps what it needs of the last minute.

    Args:
        limits: When a number is wrong.

    Attributes:
        declared: Tells what is missing from the stream and declared nowhere.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._archived: deque[tuple[float, int, int]] = deque()
        self._holes: tuple[int | None, float] = (None, float("-inf"))
        self._answered_s: float | None = None
        self._said: list[Alarm] = []
        self.declared = Declared(settled_s=self._limits.recent_s)

    def alarms(
        self,
        producer: Stats | None,
        streaming: Stats,
        rows: Sequence[Stats],
        *,
        now_s: float,
    ) -> list[Alarm]:
        """Everything that is wrong now.

        Args:
            producer: Statistics of the producer; ``None``: it does not answer.
            streaming: Those of the streaming job.
            rows: The ledger (:func:`pipelines.ledger.rows`).
            now_s: A steady clock.
        """
        return [
            *self._of_producer(producer, now_s),
            *_of_queries(streaming),
            *self._of_quarantine(streaming["archive"], now_s),
            *self._of_holes(streaming["archive"], now_s),
            *self._of_ledger(rows, now_s),
        ]

    def _of_producer(self, producer: Stats | None, now_s: float) -> list[Alarm]:
        if producer is not None:
            self._answered_s, self._said = now_s, list(_of_answer(producer))
        elif self._answered_s is not None:
            silent_s = now_s - self._answered_s
            if silent_s >= self._limits.silent_s:
                text = f"the producer has not answered for {silent_s:.0f} s"
                return [Alarm("producer_silent", "critical", "producer", text)]
        return self._said  # what it said last holds until it is taken for silent

    def _of_quarantine(self, archive: Stats, now_s: float) -> Iterator[Alarm]:
        limits, seen = self._limits, self._archived
        seen.append((now_s, archive["stored"], archive["quarantined"]))
        while len(seen) > 2 and now_s - seen[1][0] >= limits.recent_s:
            seen.popleft()
        bad = seen[-1][2] - seen[0][2]
        every = seen[-1][1] - seen[0][1] + bad
        if bad >= limits.quarantined_least and bad > limits.quarantined * every:
            text = f"{bad:,} of {every:,} messages of the last minute are quarantined"
            yield Alarm("quarantine_rate", "warning", "ledger", text)

    def _of_holes(self, archive: Stats, now_s: float) -> Iterator[Alarm]:
        known, when_s = self._holes
        holes = archive["holes"]
        if known is not None and holes > known:
            when_s = now_s
        self._holes = (holes, when_s)
        if now_s - when_s < self._limits.recent_s:
            text = f"{holes:,} records are missing by their numbers"
            yield Alarm("records_missing", "critical", "ledger", text)

    def _of_ledger(self, rows: Sequence[Stats], now_s: float) -> Iterator[Alarm]:
        for row in rows:
            missed = row["imbalance"]
            if row["stage"] == "stream" and missed >= 0:
                missed = self.declared.undeclared(row, now_s=now_s)
            if missed and row["stage"] != "signals":
                what = "are missing" if missed > 0 else "are there that were never received"
                text = f"{row['stage']}: {abs(missed):,} messages {what}"
                yield Alarm(f"{row['stage']}_imbalance", "critical", "ledger", text)


def _of_answer(producer: Stats) -> Iterator[Alarm]:
    state, error = producer.get("state"), producer.get("error") or "no reason given"
    if state == "failed":
        yield Alarm("producer_failed", "critical", "producer", error)
    elif state in _AWAY:
        yield Alarm("disconnected", "warning", "producer", f"{state}: {error}")
    for alarm in producer.get("alarms") or ():
        name, since_ns = alarm["name"], alarm["since_ns"]
        severity = "critical" if name in CRITICAL else "warning"
        yield Alarm(name, severity, "producer", alarm["detail"], since_ns=since_ns)


def _of_queries(streaming: Stats) -> Iterator[Alarm]:
    for name in ("archive", "signals"):
        late_ms, shard = lag_of(streaming[name])
        if late_ms > BEHIND_MS:
            text = f"{name} is {late_ms / 1000:,.0f} s behind the tip of {shard}"
            yield Alarm(f"{name}_behind", "warning", "streaming", text)
    if streaming["signals"].get("policy") == "open":
        text = "the policy does not answer; every signal is HOLD"
        yield Alarm("policy_unavailable", "warning", "streaming", text)


def alert_table(alerts: Sequence[Alert]) -> pa.Table:
    """Rows of ``alerts``: one where an alert began, one where it ended."""
    return table_of(
        _ALERTS,
        [
            {
                "event_time": _us(alert.began_ns if alert.ended_ns is None else alert.ended_ns),
                "alert_id": alert.alert_id,
                "name": alert.alarm.name,
                "severity": alert.alarm.severity,
                "source": alert.alarm.source,
                "symbol": alert.alarm.symbol,
                "detail": alert.alarm.detail,
                "began_at": _us(alert.began_ns),
                "ended_at": _us(alert.ended_ns),
                "market_time": _us(alert.market_ns),
            }
            for alert in alerts
        ],
    )


def _us(ns: int | None) -> int | None:
    return None if ns is None else ns // 1000
