"""The listing of anomalies: its order, its cursors, and what is at least how bad. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from pipelines.events import parse_time_ns
from serve.bars import BadCursor

AnomalyKey = tuple[int, str, str]
"""An anomaly in its listing's order: its time, its symbol, its kind."""

SEVERITIES: Final = ("info", "warning", "critical")


def at_least(severity: str | None) -> tuple[str, ...]:
    """The severities from one on.

    >>> at_least("warning"), at_least(None)
    (('warning', 'critical'), ('info', 'warning', 'critical'))
    """
    return SEVERITIES[SEVERITIES.index(severity) :] if severity else SEVERITIES


def write_cursor(row: Mapping[str, Any]) -> str:
    """An opaque cursor: what follows comes after this row.

    >>> row = {"event_time": "1970-01-01T00:00:01Z", "symbol": "SPY", "kind": "rsi"}
    >>> read_cursor(write_cursor(row))
    (1000000000, 'SPY', 'rsi')
    """
    key = ["a", parse_time_ns(row["event_time"]), row["symbol"], row["kind"]]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def read_cursor(text: str) -> AnomalyKey:
    """The row of a cursor.

    Raises:
        BadCursor: It is none of ours.
    """
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor(text) from error
    if not isinstance(key, list) or [type(v) for v in key] != [str, int, str, str]:
        raise BadCursor(text)
    if key[0] != "a" or not 0 <= key[1] < 2**62:
        raise BadCursor(text)
    return key[1], key[2], key[3]
