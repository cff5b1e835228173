"""Where a reader of a stream is: positions, the offset that Spark logs, and shard lineage. Pure.

A :class:`Position` is a place between two records of one shard. A :class:`StreamOffset` holds the
place in every shard, and how the batch that ends there began: Spark does not log the start of its
first batch, so the resolved begin travels inside the end, where a replay finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import ConfigError, StreamError

VERSION = 1
TRIM_HORIZON, LATEST = "TRIM_HORIZON", "LATEST"
_SHARD_BYTES_PER_S = 1_000_000  # Kinesis takes no more than this into one shard


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one shard.

    Args:
        kind: ``horizon`` (its oldest record), ``time`` (the first record that arrived at or after
            ``value``, milliseconds since the epoch), ``at`` (just before the record with sequence
            number ``value``), ``after`` (just behind it).
        value: Milliseconds or sequence number.

    >>> str(Position("after", 17)), Position.parse("at:18") == Position("at", 18)
    ('after:17', True)
    >>> Position("at", 17) < Position("after", 17) < Position("at", 18)
    True
    >>> Position("horizon") < Position("at", 1)
    True
    """

    kind: str
    value: int = 0

    def __post_init__(self) -> None:
        if self.kind not in {"horizon", "time", "at", "after"}:
            raise ConfigError(f"unknown kind of position {self.kind!r}")

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position of its text.

        Raises:
            ConfigError: The text is no position.
        """
        kind, _, value = text.partition(":")
        try:
            return cls(kind, int(value) if value else 0)
        except ValueError as error:
            raise ConfigError(f"no position: {text!r}") from error

    def __str__(self) -> str:
        return self.kind if self.kind == "horizon" else f"{self.kind}:{self.value}"

    @property
    def exact(self) -> bool:
        """Whether it names a record; the others depend on what the shard holds."""
        return self.kind in {"at", "after"}

    def __lt__(self, other: Position) -> bool:
        return self._order < other._order

    def __le__(self, other: Position) -> bool:
        return self._order <= other._order

    @property
    def _order(self) -> tuple[int, bool]:
        # A begin that names no record lies before everything that was read from it.
        return (self.value if self.exact else -1, self.kind == "after")

    def admits(self, sequence: int) -> bool:
        """Whether a record lies before this position, taken as an end.

        >>> Position("after", 7).admits(7), Position("at", 7).admits(7)
        (True, False)
        """
        return self.exact and (
            sequence < self.value or (sequence == self.value and self.kind == "after")
        )


HORIZON = Position("horizon")


@dataclass(frozen=True, slots=True)
class ShardOffset:
    """Place in one shard.

    Args:
        begin: Where the batch began that ended here.
        end: Where it ended.
        end_ms: Arrival of the last record before ``end``, milliseconds since the epoch, if known;
            or a later moment, up to which nothing else had come.
        done: The shard is closed and ``end`` lies behind its last record.
    """

    begin: Position
    end: Position
    end_ms: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as the service lists it.

    Args:
        id: Its name.
        parents: The shards that it was made from; none of the first ones has any.
        last: Its ending sequence number if it is closed, else ``None``.
    """

    id: str
    parents: tuple[str, ...] = ()
    last: int | None = None


def ancestors(ids: Iterable[str], listed: Mapping[str, Shard]) -> set[str]:
    """The shards that some shards were made from, their own parents included, at any distance."""
    seen: set[str] = set()
    todo = [listed[i] for i in ids if i in listed]
    while todo:
        for parent in todo.pop().parents:
            if parent not in seen:
                seen.add(parent)
                if parent in listed:
                    todo.append(listed[parent])
    return seen


@dataclass(frozen=True, slots=True)
class StreamOffset:
    """The place of a query in a stream: what Spark writes into its offset log.

    Args:
        stream: Name of the stream.
        created_ms: When the stream was made: another one of the same name is not this one.
        shards: The place in each shard.
    """

    stream: str
    created_ms: int
    shards: Mapping[str, ShardOffset]

    def to_dict(self) -> dict[str, Any]:
        """JSON form; keys in order, because Spark compares offsets as text."""
        return {
            "created_ms": self.created_ms,
            "shards": {
                shard: {
                    "begin": str(place.begin),
                    "done": place.done,
                    "end": str(place.end),
                    "end_ms": place.end_ms,
                }
                for shard, place in sorted(self.shards.items())
            },
            "stream": self.stream,
            "v": VERSION,
        }

    @classmethod
    def from_dict(cls, doc: Mapping[str, Any]) -> StreamOffset:
        """The offset of its JSON form.

        Raises:
            StreamError: It was written by a version that this one cannot read.
        """
        if doc.get("v") != VERSION or "shards" not in doc:
            raise StreamError(f"cannot read this Kinesis offset: {doc!r}")
        return cls(
            stream=doc["stream"],
            created_ms=doc["created_ms"],
            shards={
                shard: ShardOffset(
                    begin=Position.parse(place["begin"]),
                    end=Position.parse(place["end"]),
                    end_ms=place["end_ms"],
                    done=place["done"],
                )
                for shard, place in doc["shards"].items()
            },
        )


def is_symbolic(doc: Mapping[str, Any]) -> bool:
    """Whether an offset is the unresolved begin."""
    return "begin" in doc and "shards" not in doc


@dataclass(frozen=True, slots=True)
class ShardRange:
    """The records of one shard that belong to one batch: from ``begin`` up to ``end``."""

    shard: str
    begin: Position
    end: Position
    done: bool = False


def ranges(start: Mapping[str, Any], end: Mapping[str, Any]) -> list[ShardRange]:
    """What to read for the batch between two offsets, one range per shard with news.

    Args:
        start: Offset in JSON form where the batch begins; the symbolic one for the first batch.
        end: Offset in JSON form where it ends.
    """
    if start == end or is_symbolic(end):
        return []
    last = StreamOffset.from_dict(end)
    first: Mapping[str, ShardOffset] = {}
    if not is_symbolic(start):
        before = StreamOffset.from_dict(start)
        # The shards of a stream made anew carry the names of the old ones.
        first = before.shards if before.created_ms == last.created_ms else {}
    found = []
    for shard, place in sorted(last.shards.items()):
        begin = place.begin
        if (
            shard in first
            and first[shard].end.exact
            and not (begin.exact and begin > first[shard].end)
        ):
            begin = first[shard].end
        if place.end.exact and begin < place.end:
            found.append(ShardRange(shard, begin, place.end, place.done))
    return found


def follow(places: Mapping[str, ShardOffset], shards: Iterable[Shard]) -> dict[str, ShardOffset]:
    """The places of the next batch: where the last one ended, and children whose turn has come.

    A child begins when all of its parents are done, so that the records of one partition key stay
    in order. A shard that is done and that the service has forgotten is dropped, when its children
    have begun.
    """
    listed = {shard.id: shard for shard in shards}
    found = {
        shard: ShardOffset(place.end, place.end, place.end_ms, place.done)
        for shard, place in places.items()
        if not (place.done and shard not in listed)
    }
    for shard in listed.values():
        if shard.id in found or not shard.parents:
            continue
        # A listed parent without a place was over before this query began, unless it descends
        # from a shard that has one: then its own turn has yet to come.
        known = [place for p in shard.parents if (place := found.get(p, places.get(p)))]
        waits = any(
            parent in listed and parent not in found and ancestors([parent], listed) & found.keys()
            for parent in shard.parents
        )
        if known and not waits and all(place.done for place in known):
            found[shard.id] = ShardOffset(HORIZON, HORIZON)
    return found


def childless(places: Mapping[str, ShardOffset], shards: Iterable[Shard]) -> list[str]:
    """Shards read to their end whose children the service does not list yet.

    >>> done = {"a": ShardOffset(HORIZON, Position("after", 7), done=True)}
    >>> childless(done, [Shard("a")]), childless(done, [Shard("a"), Shard("b", ("a",))])
    (['a'], [])
    """
    shards = list(shards)
    parents = {parent for shard in shards for parent in shard.parents}
    listed = {shard.id for shard in shards}
    return sorted(s for s, place in places.items() if place.done and s in listed - parents)


def orphans(places: Iterable[str], shards: Iterable[Shard]) -> list[Shard]:
    """Shards without a place whose parents the service has forgotten, all of them.

    What came before a shard that has a place is none: nobody wants it any more.
    """
    listed = {shard.id: shard for shard in shards}
    known = {*places, *ancestors(places, listed)}
    return [
        shard
        for shard in listed.values()
        if shard.parents and shard.id not in known and not any(p in listed for p in shard.parents)
    ]


def lost(places: Mapping[str, ShardOffset], shards: Iterable[Shard]) -> list[str]:
    """Shards that were not read to their end and that the service has forgotten.

    Among them those that never had a place: between one that was read and one that is listed now.
    """
    shards = list(shards)
    listed = {shard.id for shard in shards}
    found = {s for s, place in places.items() if not place.done and s not in listed}
    for shard in orphans(places, shards):
        if not any(parent in places for parent in shard.parents):
            found.update(shard.parents)
    return sorted(found)


def without_lost(
    places: Mapping[str, ShardOffset], shards: Iterable[Shard]
) -> dict[str, ShardOffset]:
    """Places to go on with after a loss: the lost shards are left out, their children begin."""
    shards = list(shards)
    listed = {shard.id for shard in shards}
    found = {shard: place for shard, place in places.items() if shard in listed}
    begun = {shard.id: ShardOffset(HORIZON, HORIZON) for shard in orphans(found, shards)}
    return found | begun


def shares(total: int, parts: int) -> list[int]:
    """Equal shares that add up to no more than there is.

    >>> shares(10, 3), shares(1, 3)
    ([4, 3, 3], [1, 0, 0])
    """
    each, left = divmod(total, parts)
    return [each + (part < left) for part in range(parts)]


def span_ms(max_bytes: int) -> int:
    """Arrival time of one shard that holds at most so many bytes: no shard takes more than 1 MB/s.

    >>> span_ms(32_000_000)
    32000
    """
    return max(1000, max_bytes * 1000 // _SHARD_BYTES_PER_S)
