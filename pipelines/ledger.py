"""The ledger: where every received message is, stage by stage. Pure.

A row of a stage balances:
received = stored + duplicates + quarantined + in_flight + imbalance.

============  ===================================================================================
``producer``  received from the feed, over all its runs; *stored*: on the stream for certain; *in
              flight*: in its memory or its journal
``stream``    received: what the producer stored there; *stored* and *quarantined*: what the archive
              made of it; *in flight*: between the two
``archive``   received: what it took from the stream, since the lake began, copies included; a
              *duplicate* is one more copy of a message (a record is sent again when an answer is
              lost), so it is no message of the stages before
``signals``   received: closed bars, since its driver started; *stored*: decisions on them
============  ===================================================================================

The imbalance is 0. Below it, a stage gave more than it got: then somebody counts wrong, or began
to count later. Above it, so many messages are nowhere: they were on the stream a minute ago and are
in no table, though the archive is at the tip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

Stats = Mapping[str, Any]

COLUMNS: Final = (
    "received", "stored", "duplicates", "quarantined", "in_flight", "imbalance", "holes", "gaps",
)  # fmt: skip
"""What a row counts: messages; of ``holes`` records, of ``gaps`` rows."""

OVERDUE_S: Final = 60.0
"""After so long on the stream a message is in the lake, or missed."""

BEHIND_MS: Final = 30_000
"""An archive that is further behind the tip than this is late; what it lacks is not missed."""

RECORD_MESSAGES: Final = 4000
"""A record holds no more messages."""


def rows(
    producer: Stats | None, streaming: Stats | None, *, overdue: int | None = None
) -> list[dict[str, Any]]:
    """A row for each stage that answers: ``stage`` and :data:`COLUMNS`.

    Args:
        producer: Statistics of the producer, or ``None``.
        streaming: Statistics of the streaming job, or ``None``.
        overdue: What :meth:`Overdue.note` says.

    >>> producer = {"received": 10, "acked": 9, "gaps": 1}
    >>> archive = {"stored": 5, "quarantined": 1, "duplicates": 2, "holes": 1, "gaps": 1}
    >>> for row in rows(producer, {"archive": archive}, overdue=2):
    ...     print(row["stage"], row["received"], row["stored"], row["in_flight"], row["imbalance"])
    producer 10 9 1 0
    stream 9 5 1 2
    archive 8 5 0 0
    """
    found = []
    archive, signals = (streaming or {}).get("archive"), (streaming or {}).get("signals")
    received, sent = number(producer, "received"), number(producer, "acked")
    gaps = number(producer, "gaps") or 0
    if received is not None and sent is not None:
        found.append(_row("producer", received, stored=sent, gaps=gaps))
    if archive:
        names = ("stored", "duplicates", "quarantined", "holes", "gaps")
        counts = {name: number(archive, name) or 0 for name in names}
        if sent is not None:
            missed = 0 if behind(archive) else overdue or 0
            of_stream = {"stored": counts["stored"], "quarantined": counts["quarantined"]}
            found.append(_row("stream", sent, missed=missed, holes=counts["holes"], **of_stream))
        taken = counts["stored"] + counts["duplicates"] + counts["quarantined"]
        found.append(_row("archive", taken, **counts))
    if signals:
        bars, decided = number(signals, "bars") or 0, number(signals, "signals") or 0
        found.append(_row("signals", bars, stored=decided, missed=bars - decided))
    return found


def lag_of(query: Stats) -> tuple[float, str]:
    """How far behind the tip a query is in its latest shard, ms, and that shard.

    >>> lag_of({"lag": {"shard-0": {"ms": 5}, "shard-1": {"ms": 9}}}), lag_of({})
    ((9, 'shard-1'), (0, ''))
    """
    lags = (query.get("lag") or {}).items()
    return max(((lag.get("ms") or 0, shard) for shard, lag in lags), default=(0, ""))


def behind(archive: Stats) -> bool:
    """Whether the archive is far from the tip of a shard.

    >>> behind({"lag": {"shard-0": {"ms": 40_000, "records": 12}}}), behind({})
    (True, False)
    """
    return lag_of(archive)[0] > BEHIND_MS


class Overdue:
    """Counts the messages that have been on the stream for a minute and are in no table.

    Args:
        after_s: How long they may be.

    >>> overdue = Overdue(after_s=60)
    >>> overdue.note(10, 4, now_s=0) is None           # nobody knows yet how old they are
    True
    >>> overdue.note(15, 7, now_s=30) is None, overdue.note(20, 8, now_s=60)
    (True, 2)
    >>> overdue.note(20, 20, now_s=90)
    0
    """

    def __init__(self, *, after_s: float = OVERDUE_S) -> None:
        self._after_s = after_s
        self._sent: deque[tuple[float, int]] = deque()

    def note(self, sent: int | None, archived: int | None, *, now_s: float) -> int | None:
        """Take what is known now; how many are overdue, ``None`` while that is not known.

        Args:
            sent: Messages on the stream, ever.
            archived: Messages in the lake, quarantine included.
            now_s: A steady clock.
        """
        if sent is None:
            return None
        if self._sent and sent < self._sent[-1][1]:
            self._sent.clear()  # the stream was made anew, or the producer begins to count
        self._sent.append((now_s, sent))
        while len(self._sent) > 1 and now_s - self._sent[1][0] >= self._after_s:
            self._sent.popleft()
        since_s, then = self._sent[0]
        if archived is None or now_s - since_s < self._after_s:
            return None
        return max(0, then - archived)


class Declared:
    """Tells which of the missing messages are declared: those of records that left a hole.

    For holes the archive declares gaps. A loss grows until nobody sees more of it; then
    the holes that were counted since the last one account for it, if so many records can hold so
    many messages. What is missing beyond that is declared nowhere.

    Args:
        settled_s: A loss is over when it has not grown for so long.

    >>> declared = Declared(settled_s=60)
    >>> stream = {"received": 100, "in_flight": 0, "imbalance": 9, "holes": 0}
    >>> declared.undeclared(stream, now_s=0), declared.undeclared(stream, now_s=900)
    (9, 9)
    >>> stream["holes"] = 1
    >>> declared.undeclared(stream, now_s=905), declared.undeclared(stream, now_s=965)
    (9, 0)
    >>> declared.undeclared(stream | {"imbalance": 10}, now_s=2000)    # another loss, of no record
    1
    """

    def __init__(self, *, settled_s: float = OVERDUE_S) -> None:
        self._settled_s = settled_s
        self._messages = 0  # that are accounted for
        self._holes = 0  # that account for them
        self._sent = 0
        self._seen = (0, 0)  # most messages missing, and holes
        self._grown_s = float("-inf")

    def undeclared(self, stream: Stats, *, now_s: float) -> int:
        """How many messages are missing and declared nowhere.

        Args:
            stream: The row of that stage (:func:`rows`).
            now_s: A steady clock.
        """
        missed, holes = int(stream["imbalance"]), int(stream["holes"])
        if stream["received"] < self._sent or holes < self._holes:
            self._messages, self._holes, self._seen = 0, holes, (0, 0)  # somebody counts anew
        self._sent = stream["received"]
        if missed > self._seen[0] or holes > self._seen[1]:
            self._seen, self._grown_s = (max(missed, self._seen[0]), holes), now_s
        more = missed - self._messages
        if more <= 0:
            return 0
        settled = now_s - self._grown_s >= self._settled_s
        if settled and more <= (holes - self._holes) * RECORD_MESSAGES:
            # With traffic the row shows less than is lost; all that is open is never less.
            self._messages, self._holes = missed + stream["in_flight"], holes
            return 0
        return more

    def state(self) -> dict[str, int]:
        """What :meth:`restore` takes, JSON types."""
        return {"messages": self._messages, "holes": self._holes, "sent": self._sent}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on with what an earlier one knew."""
        self._messages, self._holes = state["messages"], state["holes"]
        self._sent = state["sent"]


def archived(streaming: Stats | None) -> int | None:
    """Messages that the archive put somewhere, quarantine included."""
    archive = (streaming or {}).get("archive")
    stored, quarantined = number(archive, "stored"), number(archive, "quarantined")
    return None if stored is None or quarantined is None else stored + quarantined


def number(stats: Stats | None, name: str) -> int | None:
    """A counter of a stage; ``None`` if it is not known."""
    value = stats.get(name) if stats else None
    return int(value) if isinstance(value, (int, float)) else None


def _row(
    stage: str,
    received: int,
    *,
    stored: int,
    duplicates: int = 0,
    quarantined: int = 0,
    missed: int = 0,
    holes: int = 0,
    gaps: int = 0,
) -> dict[str, Any]:
    left = received - stored - duplicates - quarantined
    missed = min(left, missed)  # a surplus is below 0, whatever is missed besides
    return {
        "stage": stage,
        "received": received,
        "stored": stored,
        "duplicates": duplicates,
        "quarantined": quarantined,
        "in_flight": left - missed if left > 0 else 0,
        "imbalance": missed if left > 0 else left,
        "holes": holes,
        "gaps": gaps,
    }
