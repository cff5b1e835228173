"""Alerts: what was wrong, from when to when. Pure.

An *alarm* is something that is wrong at this moment. An *alert* is an alarm with a beginning and,
once it is over, an end. Each has an id, so that it can be told twice and kept once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipelines.events import SECOND_NS, format_time_ns, item

SEVERITIES: Final = ("info", "warning", "critical")
EVERYTHING: Final = "*"
"""Stands for the symbol of an alert that concerns no single one."""
CALM_S: Final = 10.0
"""An alarm is over when it was not seen for so long: one that flickers is one alert."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is wrong now.

    Args:
        name: Which rule says so.
        severity: One of :data:`SEVERITIES`.
        source: The part that it is about: ``producer``, ``streaming``, ``ledger`` or ``market``.
        detail: A sentence with the numbers.
        symbol: Its symbol, or :data:`EVERYTHING`.
        since_ns: Since when, wall time, if that is known better than when it was seen.
    """

    name: str
    severity: str
    source: str
    detail: str
    symbol: str = EVERYTHING
    since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """An alarm, from when to when.

    Args:
        alert_id: Names it for ever.
        alarm: What was wrong.
        began_ns: Wall time.
        ended_ns: Wall time; ``None`` while it stands.
        market_ns: Market time of what it is about, if it is about one moment.
    """

    alert_id: str
    alarm: Alarm
    began_ns: int
    ended_ns: int | None = None
    market_ns: int | None = None

    def to_item(self) -> dict[str, Any]:
        """The item of ``market-signals``; its end is its second revision."""
        return item(
            "alert",
            symbol=self.alarm.symbol,
            event_time=format_time_ns(self.began_ns),
            revision=0 if self.ended_ns is None else 1,
            model=self.alert_id,
            data=self.data(),
        )

    def data(self) -> dict[str, Any]:
        """As it is served: JSON types."""
        alarm = self.alarm
        return {
            "id": self.alert_id,
            "name": alarm.name,
            "severity": alarm.severity,
            "source": alarm.source,
            "symbol": alarm.symbol,
            "detail": alarm.detail,
            "began_at": format_time_ns(self.began_ns),
            "ended_at": None if self.ended_ns is None else format_time_ns(self.ended_ns),
            "market_time": None if self.market_ns is None else format_time_ns(self.market_ns),
        }


@dataclass(slots=True)
class _Standing:
    alert: Alert
    seen_ns: int


@dataclass(slots=True)
class Alerts:
    """The alerts that stand, moved on by what is wrong now.

    Args:
        calm_s: An alarm is over when it was not seen for so long.

    >>> alerts = Alerts(calm_s=10)
    >>> full = Alarm("journal_full", "critical", "producer", "1,024 MB")
    >>> [a.ended_ns for a in alerts.update([full], now_ns=5_000)]
    [None]
    >>> alerts.update([full], now_ns=6_000), alerts.update([], now_ns=7_000)     # nothing new
    ([], [])
    >>> [(a.began_ns, a.ended_ns) for a in alerts.update([], now_ns=6_000 + 10 * 10**9)]
    [(5000, 6000)]
    """

    calm_s: float = CALM_S
    _on: dict[tuple[str, str], _Standing] = field(default_factory=dict)
    _ended: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def standing(self) -> list[Alert]:
        """Those without an end, oldest first."""
        return sorted((s.alert for s in self._on.values()), key=lambda a: a.began_ns)

    def restore(self, alerts: Iterable[Alert], *, now_ns: int) -> list[Alert]:
        """Go on with alerts that an earlier run began and did not see end, and know the ended ones.

        Of several about the same the newest stands; the older ones end, and are returned.

        Args:
            alerts: They, oldest first.
            now_ns: Wall time.
        """
        changed = []
        for alert in alerts:
            key = (alert.alarm.name, alert.alarm.symbol)
            if alert.ended_ns is not None:
                self._ended[key] = max(alert.ended_ns, self._ended.get(key, 0))
                continue
            older = self._on.get(key)
            if older is not None:
                changed.append(replace(older.alert, ended_ns=alert.began_ns))
            self._on[key] = _Standing(alert, now_ns)
        return changed

    def update(self, alarms: Iterable[Alarm], *, now_ns: int) -> list[Alert]:
        """The alerts that begin or end now.

        Args:
            alarms: Everything that is wrong now.
            now_ns: Wall time.
        """
        changed = []
        for alarm in alarms:
            key = (alarm.name, alarm.symbol)
            known = self._on.get(key)
            if known is not None:
                known.seen_ns = max(known.seen_ns, now_ns)
                known.alert = replace(known.alert, alarm=replace(alarm, since_ns=None))
                continue
            since_ns = min(now_ns, alarm.since_ns or now_ns)
            if since_ns <= self._ended.get(key, -1):  # it was over: this is another alert
                since_ns = now_ns
            began_ns = since_ns // 1000 * 1000  # as the lake has it
            about = "" if alarm.symbol == EVERYTHING else f":{alarm.symbol}"
            alert_id = f"{alarm.name}{about}@{format_time_ns(began_ns)}"
            self._on[key] = _Standing(Alert(alert_id, alarm, began_ns), now_ns)
            changed.append(self._on[key].alert)
        for key, known in list(self._on.items()):
            if now_ns - known.seen_ns >= self.calm_s * SECOND_NS:
                del self._on[key]
                ended_ns = max(known.alert.began_ns, known.seen_ns // 1000 * 1000)
                self._ended[key] = ended_ns
                changed.append(replace(known.alert, ended_ns=ended_ns))
        return changed


def from_row(row: Mapping[str, Any]) -> Alert:
    """The alert of a row of the lake's table ``alerts``, its times in nanoseconds."""
    alarm = Alarm(row["name"], row["severity"], row["source"], row["detail"], row["symbol"])
    return Alert(row["alert_id"], alarm, row["began_ns"], row["ended_ns"], row["market_ns"])
