"""The seams between the parts: what one side needs of the other, as protocols.

An adapter lives in the folder of its technology; tests bring their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.events import Message


@dataclass(frozen=True, slots=True)
class KinesisConfig:
    """Where the streams are.

    Args:
        region: AWS region.
        endpoint_url: The embedded Kinesis, or ``None`` for AWS.
        market_data: Name of the stream of raw records.
        market_signals: Name of the stream of derived items.
        access_key: Fixed key for the embedded Kinesis; ``None`` uses the standard chain.
        secret_key: Its secret; never shown.
    """

    region: str = "us-east-1"
    endpoint_url: str | None = None
    market_data: str = "market-data"
    market_signals: str = "market-signals"
    access_key: str | None = None
    secret_key: str | None = None

    def __repr__(self) -> str:
        return (
            f"KinesisConfig(region={self.region!r}, endpoint_url={self.endpoint_url!r}, "
            f"market_data={self.market_data!r}, market_signals={self.market_signals!r})"
        )

    def client_kwargs(self) -> dict[str, Any]:
        """Arguments for ``boto3.client("kinesis", **kwargs)``."""
        kwargs: dict[str, Any] = {"region_name": self.region}
        if self.endpoint_url:
            kwargs["endpoint_url"] = self.endpoint_url
        if self.access_key:
            kwargs["aws_access_key_id"] = self.access_key
            kwargs["aws_secret_access_key"] = self.secret_key
        return kwargs


@dataclass(frozen=True, slots=True)
class Put:
    """One record to put.

    Args:
        key: Its partition key; of a record of market messages, its bucket.
        data: Its data.
        epoch: The run that made it, if it has a number.
        bseq: Its number in (epoch, bucket).
        n_messages: Messages in it, the producer's own included.
        note: What the sealer noted.
    """

    key: str
    data: bytes
    epoch: str = ""
    bseq: int = 0
    n_messages: int = 0
    note: Any = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of one record.

    Args:
        sequence: Its sequence number, if it was stored.
        shard: The shard that holds it, if it was stored.
        error: The error code, if it was not; ``None`` means stored.
    """

    sequence: str | None = None
    shard: str | None = None
    error: str | None = None


class RecordSink(Protocol):
    """Takes records; the writer of :mod:`pipelines.kinesis.writer` is one."""

    def put(self, records: Sequence[Put]) -> Sequence[PutResult]:
        """Put records, at most one attempt; what became of each, in order.

        Raises:
            StreamError: Nothing is known; any of them may have been stored.
        """
        ...

    def identity(self) -> str:
        """Which stream it is: another text means that the stream was made anew, empty.

        Empty when that cannot be known.

        Raises:
            StreamError: There is no such stream now, or nobody answered.
        """
        ...


class ItemSink(Protocol):
    """Takes items of ``market-signals``; :class:`pipelines.kinesis.writer.KinesisWriter` is one."""

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Return when all are stored.

        Raises:
            StreamError: They could not be stored.
        """
        ...


class StoredMarks(Protocol):
    """Knows what the lake holds; so a producer need not send that again."""

    def marks(self) -> Mapping[str, Mapping[int, int]]:
        """Per epoch and bucket, the last record that the lake holds.

        Raises:
            LakeError: The lake cannot be read now.
        """
        ...


class TailReader(Protocol):
    """Reads what a stream holds after given positions; so a producer learns what it had written."""

    def read_after(self, positions: Mapping[str, str]) -> Iterable[bytes]:
        """Data of every record after a position, up to the tip; in order within a shard.

        Args:
            positions: Last known sequence number per shard. A shard that is not named (or that
                was made since by a split or merge) is read from its start.

        Raises:
            StreamError: The stream cannot be read now.
            DataLoss: Records after a position are gone.
        """
        ...


class Sealer(Protocol):
    """Has the last word on what goes into a record."""

    def seal(self, messages: Sequence[Message], market_ns: int) -> tuple[Sequence[Message], Any]:
        """The messages as they shall be written, and a note that comes back when they are stored.

        Changes nothing: it may be called again with fewer messages.
        """
        ...

    def commit(self, note: Any) -> None:
        """The record of this note will be written exactly as sealed."""
        ...


@dataclass(frozen=True, slots=True)
class Acked:
    """A record that the stream holds for certain.

    Args:
        bucket: Its bucket.
        bseq: Its number.
        n_bytes: Size of its data.
        note: What the sealer noted.
        epoch: The run that made it.
    """

    bucket: int
    bseq: int
    n_bytes: int
    note: Any
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A sealed record whose data lies elsewhere, in a journal.

    Args:
        bucket: Its bucket.
        epoch: The run that made it.
        bseq: Its number.
        n_messages: Messages in it, the producer's own included.
        place: Where it lies, for whoever shelved it.
        n_market: Market messages in it.
    """

    bucket: int
    epoch: str
    bseq: int
    n_messages: int
    place: tuple[int, int, int]
    n_market: int = 0


class MessageQueues(Protocol):
    """Takes messages, by bucket."""

    def queue(self, bucket: int) -> MutableSequence[Message]:
        """The queue of a bucket; always the same object, to append to."""
        ...

    @property
    def unsent(self) -> int:
        """Messages that the stream does not hold for certain yet."""
        ...


class RecordBatcher(MessageQueues, Protocol):
    """Makes records of messages, in order; :class:`pipelines.kinesis.batching.Batcher` is one."""

    @property
    def in_memory(self) -> int:
        """Of these, the ones that are held in memory."""
        ...

    @property
    def waiting(self) -> int:
        """Of these, the ones that stand behind the one record of their bucket to be put."""
        ...

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until records may be made again; ``None``: they may, at any message."""
        ...

    def spill(self, *, wall_ns: int, market_ns: int, everything: bool = False) -> list[Put]:
        """Make records of what waits behind others, to be shelved and put later, in order."""
        ...

    def shelve(self, places: Sequence[Shelved]) -> None:
        """Forget the data of records of :meth:`spill`: it is loaded when their turn comes."""
        ...

    def restore(self, records: Sequence[Shelved]) -> None:
        """Put these records again before anything newer of their buckets."""
        ...

    def next_puts(
        self, now_s: float, *, wall_ns: int, market_ns: int, flush: bool = False
    ) -> list[Put]:
        """The records to put now, in one call; empty when nothing is due."""
        ...

    def settle(
        self, puts: Sequence[Put], results: Sequence[PutResult] | None, now_s: float
    ) -> list[Acked]:
        """Tell what became of them (``None``: nothing is known); those that are stored now."""
        ...


class BatcherFactory(Protocol):
    """Makes a batcher for a new epoch; the class ``Batcher`` itself is one."""

    def __call__(
        self,
        *,
        epoch: str,
        sealer: Sealer,
        linger_s: float,
        max_messages: int,
        max_bytes: int,
        rng: random.Random,
        load: Callable[[Shelved], Put | None] | None = None,
    ) -> RecordBatcher:
        """A batcher with nothing in it."""
        ...


class TickHistory(Protocol):
    """Trades, quotes and bars of the past, for filling gaps."""

    def pages(
        self, kind: str, symbols: Sequence[str], *, start_ns: int, end_ns: int
    ) -> Iterator[Sequence[Message]]:
        """What the feed published in a time, as its messages, page by page.

        Args:
            kind: ``t``, ``q`` or ``b`` (minute bars, whose time is their start).
            symbols: Whose.
            start_ns: First market time.
            end_ns: Last market time, included.

        Yields:
            Messages; each symbol's in order of time.

        Raises:
            FeedError: It cannot be had (now).
        """
        ...


class BarHistory(Protocol):
    """Bars of the past, for warming up."""

    def bars(self, symbol: str, *, before_ns: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last ``limit`` minute bars that ended at or before a market time, oldest first.

        Each is an Alpaca bar (``t o h l c v n vw``).
        """
        ...
