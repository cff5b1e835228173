"""The ledger: where every received message is. Pure.

``received`` is counted by the producer, ``stored``, ``quarantined`` and ``duplicates`` by the
archive. A duplicate is one more copy on the stream of a message that was received once (records
are sent again after a failure), so it is beside the balance, not in it:
received = stored + quarantined + in flight + imbalance, where the imbalance is 0, or negative when
the lake holds more than was ever received: then somebody counts wrong, and it must show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ledger(
    producer: Mapping[str, Any] | None, streaming: Mapping[str, Any] | None, *, as_of: str
) -> dict[str, Any]:
    """The ledger of the stages' own numbers.

    Args:
        producer: Statistics of the producer, or ``None`` when it does not answer.
        streaming: Statistics of the streaming job, or ``None``.
        as_of: Wall time of the numbers, RFC 3339.

    >>> row = ledger({"received": 10, "gaps": 1}, {"archive": {"stored": 7, "duplicates": 2,
    ...              "quarantined": 1, "holes": 0, "gaps": 1}}, as_of="now")
    >>> row["in_flight"], row["lost"], row["duplicates"]
    (2, 0, 2)
    >>> ledger({"received": 1}, {"archive": {"stored": 3, "quarantined": 0}}, as_of="")["imbalance"]
    -2
    >>> ledger(None, None, as_of="now")["received"] is None     # not known is not zero
    True
    """
    archive = (streaming or {}).get("archive")
    received = _number(producer, "received")
    stored, quarantined = _number(archive, "stored"), _number(archive, "quarantined")
    in_flight = imbalance = None
    if received is not None and stored is not None and quarantined is not None:
        open_ = received - stored - quarantined
        in_flight, imbalance = max(0, open_), min(0, open_)
    holes = _number(archive, "holes")
    gaps = _number(producer, "gaps")
    return {
        "received": received,
        "stored": stored,
        "duplicates": _number(archive, "duplicates"),
        "quarantined": quarantined,
        "in_flight": in_flight,
        "imbalance": imbalance,
        "lost": holes,
        "holes": holes,
        "gaps": gaps if gaps is not None else _number(archive, "gaps"),
        "as_of": as_of,
        "stages": {
            "producer": {k: v for k, v in producer.items() if k != "clock"} if producer else None,
            "archive": dict(archive) if archive else None,
            "signals": (streaming or {}).get("signals"),
        },
    }


def _number(stage: Mapping[str, Any] | None, name: str) -> int | None:
    value = stage.get(name) if stage else None
    return int(value) if isinstance(value, (int, float)) else None
