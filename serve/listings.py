"""Listings in order of time and two names: their cursors, and what is at least how bad. Pure."""

from __future__ import annotations

import base64
import binascii
import json

from pipelines.alerts import SEVERITIES
from serve.bars import BadCursor

RowKey = tuple[int, str, str]
"""A row in its listing's order: its time, newest first, then two names."""


def at_least(severity: str | None) -> tuple[str, ...]:
    """The severities from one on.

    >>> at_least("warning"), at_least(None)
    (('warning', 'critical'), ('info', 'warning', 'critical'))
    """
    return SEVERITIES[SEVERITIES.index(severity) :] if severity else SEVERITIES


def write_cursor(listing: str, key: RowKey) -> str:
    """An opaque cursor of a listing: what follows comes after this row.

    >>> read_cursor("fills", write_cursor("fills", (1000000000, "SPY", "ppo-1:3")))
    (1000000000, 'SPY', 'ppo-1:3')
    """
    return base64.urlsafe_b64encode(json.dumps([listing, *key]).encode()).decode().rstrip("=")


def read_cursor(listing: str, text: str) -> RowKey:
    """The row of a cursor.

    Raises:
        BadCursor: It is none of ours, or one of another listing.
    """
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor(text) from error
    if not isinstance(key, list) or [type(v) for v in key] != [str, int, str, str]:
        raise BadCursor(text)
    if key[0] != listing or not 0 <= key[1] < 2**62:
        raise BadCursor(text)
    return key[1], key[2], key[3]
