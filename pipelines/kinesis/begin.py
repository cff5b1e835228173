"""Where a query begins that has no checkpoint yet: the option ``startingPosition``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.errors import ConfigError
from pipelines.kinesis.offsets import (
    HORIZON,
    LATEST,
    TRIM_HORIZON,
    VERSION,
    Position,
    Shard,
    ShardOffset,
    ancestors,
    orphans,
)

AT_TIMESTAMP = "AT_TIMESTAMP"
_EXACT = "EXACT"


@dataclass(frozen=True, slots=True)
class Begin:
    """A begin as a symbol, the same at every call.

    Args:
        kind: ``TRIM_HORIZON``, ``LATEST``, ``AT_TIMESTAMP`` or ``EXACT``.
        at_ms: The time of ``AT_TIMESTAMP``, milliseconds since the epoch.
        places: The places of ``EXACT``, by shard.
    """

    kind: str
    at_ms: int = 0
    places: Mapping[str, Position] = field(default_factory=dict)

    @classmethod
    def behind(cls, sequences: Mapping[str, str]) -> Begin:
        """The begin behind known records.

        Args:
            sequences: Sequence number by shard.
        """
        return cls(_EXACT, places={s: Position("after", int(seq)) for s, seq in sequences.items()})

    @classmethod
    def parse(cls, text: str) -> Begin:
        """The begin of its text.

        * ``LATEST``: what arrives from now on.
        * ``TRIM_HORIZON``: the oldest record that the stream holds.
        * ``AT_TIMESTAMP:2026-11-20T14:30:00Z`` or ``AT_TIMESTAMP:<milliseconds>``: what arrived at
          or after a time.
        * ``{"shardId-000000000000": "after:<sequence>", …}``, with ``at:<sequence>`` or
          ``horizon`` as well, or an ``endOffset`` of a query's progress as it is; a shard that is
          not named begins with its oldest record.
        * ``shardId-000000000000=<sequence>,…``: the same, behind the records.

        >>> Begin.parse("AT_TIMESTAMP:1970-01-01T00:00:01Z").at_ms
        1000
        >>> str(Begin.parse("shardId-000000000001=7,shardId-000000000000=9"))
        'shardId-000000000000=after:9,shardId-000000000001=after:7'

        Raises:
            ConfigError: The text is none of them.
        """
        text = text.strip()
        if text.upper() in {TRIM_HORIZON, LATEST}:
            return cls(text.upper())
        try:
            if text.upper().startswith(AT_TIMESTAMP + ":"):
                return cls(AT_TIMESTAMP, at_ms=_milliseconds(text.partition(":")[2]))
            if text.startswith("{"):
                return cls(_EXACT, places=_places(json.loads(text)))
            parts = [part.split("=") for part in text.split(",")]
            return cls(_EXACT, places={shard: _place(place) for shard, place in parts})
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise ConfigError(
                f"startingPosition={text!r}: need LATEST, TRIM_HORIZON, AT_TIMESTAMP:<ISO 8601 "
                'time with zone, or milliseconds>, or {"<shard>": "after:<sequence>", …}'
            ) from error

    def __str__(self) -> str:
        if self.kind == AT_TIMESTAMP:
            return f"{AT_TIMESTAMP}:{self.at_ms}"
        if self.kind == _EXACT:
            return ",".join(f"{shard}={place}" for shard, place in sorted(self.places.items()))
        return self.kind

    def resolve(self, shards: Iterable[Shard], *, now_ms: int) -> dict[str, ShardOffset]:
        """The place in each shard that reading begins with; children of others come later.

        A place in a shard that the service has forgotten is left out if whatever is listed has a
        place too, or comes before or after one: as children begin after their parents, that shard
        was read to its end. Otherwise it stays, and :func:`~pipelines.kinesis.offsets.lost` names
        it.

        Args:
            shards: All that the service lists.
            now_ms: Wall time, milliseconds: what LATEST means.
        """
        listed = {shard.id: shard for shard in shards}
        if self.kind == LATEST:
            place = Position("time", now_ms)
            return {s.id: ShardOffset(place, place) for s in listed.values() if s.last is None}
        first = HORIZON if self.kind != AT_TIMESTAMP else Position("time", self.at_ms)
        unread = bool(orphans(self.places, listed.values()))
        found = {
            shard: ShardOffset(place, place)
            for shard, place in self.places.items()
            if unread or shard in listed
        }
        older = ancestors(found, listed)
        for shard in listed.values():
            rootless = not any(parent in listed for parent in shard.parents)
            if shard.id not in found and shard.id not in older and rootless:
                found[shard.id] = ShardOffset(first, first)
        return found


def symbolic(begin: Begin) -> dict[str, Any]:
    """JSON form of a begin that is not resolved yet."""
    return {"begin": str(begin), "v": VERSION}


def _milliseconds(text: str) -> int:
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return round(moment.timestamp() * 1000)


def _places(doc: Mapping[str, Any]) -> dict[str, Position]:
    shards = doc.get("shards", doc)
    return {
        shard: _place(place["end"] if isinstance(place, Mapping) else str(place))
        for shard, place in shards.items()
    }


def _place(text: str) -> Position:
    return Position("after", int(text)) if text.isdigit() else Position.parse(text)
