"""The ledger as it is served: the whole way of a message, and each stage's balance. Pure.

``received`` is counted by the producer, ``stored``, ``quarantined`` and ``duplicates`` by the
archive. A duplicate is one more copy on the stream of a message that was received once, so it is
beside the balance of the whole, not in it: received = stored + quarantined + in flight + imbalance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines import ledger as stages
from pipelines.ledger import number


def ledger(
    producer: Mapping[str, Any] | None,
    streaming: Mapping[str, Any] | None,
    *,
    as_of: str,
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
    received, archived = number(producer, "received"), stages.archived(streaming)
    balance = stages.rows(producer, streaming, overdue=number(streaming, "overdue"))
    in_flight = imbalance = None
    if received is not None and archived is not None:
        missed = sum(max(0, row["imbalance"]) for row in balance if row["stage"] == "stream")
        open_ = received - archived
        imbalance = min(missed, open_) if open_ > 0 else open_
        in_flight = max(0, open_) - max(0, imbalance)
    holes = number(archive, "holes")
    gaps = number(producer, "gaps")
    return {
        "received": received,
        "stored": number(archive, "stored"),
        "duplicates": number(archive, "duplicates"),
        "quarantined": number(archive, "quarantined"),
        "in_flight": in_flight,
        "imbalance": imbalance,
        "lost": holes,
        "holes": holes,
        "gaps": gaps if gaps is not None else number(archive, "gaps"),
        "as_of": as_of,
        "balance": balance,
        "stages": {
            "producer": {k: v for k, v in producer.items() if k != "clock"} if producer else None,
            "archive": dict(archive) if archive else None,
            "signals": (streaming or {}).get("signals"),
        },
    }
