"""Time frames of bars: which bar a moment belongs to. Pure.

Minutes and hours are aligned to the epoch in UTC; days, weeks (from Monday) and months begin at
midnight of New York, as the vendor stamps them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pipelines.events import MINUTE_NS, SECOND_NS
from pipelines.exchange.refusals import Refused

NEW_YORK = ZoneInfo("America/New_York")

Unit = Literal["Min", "Hour", "Day", "Week", "Month"]
_UNITS: dict[str, Unit] = {
    "Min": "Min", "T": "Min", "Hour": "Hour", "H": "Hour", "Day": "Day", "D": "Day",
    "Week": "Week", "W": "Week", "Month": "Month", "M": "Month",
}  # fmt: skip
_AMOUNTS: dict[Unit, frozenset[int]] = {
    "Min": frozenset(range(1, 60)),
    "Hour": frozenset(range(1, 24)),
    "Day": frozenset({1}),
    "Week": frozenset({1}),
    "Month": frozenset({1, 2, 3, 4, 6, 12}),
}
_TEXT = re.compile(r"(\d{1,2})(Min|T|Hour|H|Day|D|Week|W|Month|M)")


@dataclass(frozen=True, slots=True)
class TimeFrame:
    """Length of a bar.

    Args:
        amount: How many units.
        unit: Of what.
    """

    amount: int = 1
    unit: Unit = "Min"

    @classmethod
    def parse(cls, text: str) -> TimeFrame:
        """The frame of its text.

        >>> TimeFrame.parse("15Min"), TimeFrame.parse("1D").unit
        (TimeFrame(amount=15, unit='Min'), 'Day')

        Raises:
            Refused: Not one of 1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week, 1/2/3/4/6/12Month.
        """
        match = _TEXT.fullmatch(text)
        if match:
            amount, unit = int(match[1]), _UNITS[match[2]]
            if amount in _AMOUNTS[unit]:
                return cls(amount, unit)
        raise Refused(400, f"invalid timeframe: {text}")

    @property
    def intraday(self) -> bool:
        """Whether its bars are shorter than a day."""
        return self.unit in ("Min", "Hour")

    def start_of(self, ns: int) -> int:
        """Start of the bar that holds a moment.

        >>> from pipelines.events import format_time_ns, parse_time_ns
        >>> at = parse_time_ns("2024-11-07T14:47:30Z")
        >>> [format_time_ns(TimeFrame.parse(f).start_of(at))[5:16]
        ...  for f in ("5Min", "1Day", "1Week", "3Month")]
        ['11-07T14:45', '11-07T05:00', '11-04T05:00', '10-01T04:00']
        """
        if self.intraday:
            length = self.amount * MINUTE_NS * (60 if self.unit == "Hour" else 1)
            return ns - ns % length
        return _ns(self._first_day(ns))

    def next_start(self, ns: int) -> int:
        """Start of the bar after the one that holds a moment."""
        start = self.start_of(ns)
        if self.intraday:
            return start + self.amount * MINUTE_NS * (60 if self.unit == "Hour" else 1)
        day = self._first_day(ns)
        if self.unit == "Month":
            months = day.year * 12 + day.month - 1 + self.amount
            return _ns(day.replace(year=months // 12, month=months % 12 + 1))
        return _ns(day + timedelta(days=7 if self.unit == "Week" else 1))

    def _first_day(self, ns: int) -> datetime:
        """Its first midnight in New York."""
        day = midnight(ns)
        if self.unit == "Week":
            return day - timedelta(days=day.weekday())
        if self.unit == "Month":
            return day.replace(day=1, month=(day.month - 1) // self.amount * self.amount + 1)
        return day


def midnight(ns: int) -> datetime:
    """Midnight in New York at or before a moment."""
    moment = datetime.fromtimestamp(ns // SECOND_NS, NEW_YORK)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def midnight_ns(ns: int) -> int:
    """Midnight in New York at or before a moment, ns."""
    return _ns(midnight(ns))


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_NS
