"""Reading one shard, page by page: iterators, their renewal, throttling. The only reads we do.

In: a boto3 client, a stream, a shard, a position. Out: pages of :class:`RawRecord`. Throttling,
expired iterators, server errors and broken connections are mended inside until a deadline; what
cannot be mended raises :class:`~pipelines.errors.StreamError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from botocore.exceptions import ClientError

from pipelines.errors import StreamUnavailable
from pipelines.kinesis.offsets import HORIZON, Position
from pipelines.kinesis.service import Gate, attempt, naming

MAX_PAGE = 10_000
_PAGE_BYTES = 8_000_000  # AWS answers with 10 MB at most; an embedded Kinesis knows no bound
FIRST_PAGE = 2_000
"""Records of a cursor's first page: their size is unknown."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as the service gave it.

    Args:
        shard: Shard it lies in.
        sequence: Its sequence number, decimal text.
        key: Partition key.
        data: Its bytes.
        arrival_ms: Approximate arrival at the service, wall milliseconds.
    """

    shard: str
    sequence: str
    key: str
    data: bytes
    arrival_ms: int


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of GetRecords.

    Args:
        records: What it held, in order.
        behind_ms: How far its end lies behind the tip, as the service says.
        full: It held as many records as were asked for.
        closed: The shard is closed and nothing follows.
        seamless: Nothing that lay between the page before (or the place of an inexact begin) and
            this one can have been trimmed: that page had reached the tip and its iterator held.
    """

    records: Sequence[RawRecord]
    behind_ms: int
    full: bool
    closed: bool
    seamless: bool = False

    @property
    def at_tip(self) -> bool:
        """Whether nothing more was there to read."""
        # An emulator says 0 behind whatever is left, hence the second half.
        return self.closed or (self.behind_ms == 0 and not self.full)


class Cursor(Protocol):
    """What moves forward in one shard: by polling, or with what is pushed."""

    shard: str
    position: Position
    closed: bool

    @property
    def pushed(self) -> bool:
        """Whether records come by themselves, so that an empty page is no answer."""
        ...

    def page(self, limit: int = MAX_PAGE) -> Page:
        """The next records, possibly none."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class ShardCursor:
    """A place in one shard that moves forward as its pages are read.

    Args:
        client: boto3 Kinesis client.
        stream: Name of the stream.
        shard: Shard to read.
        position: Where to begin.
        native_time: Whether the service can find a place by time (:func:`timestamps_work`).
        latest: Begin with what arrives from now on; ``position`` (a time) is the way back to this
            place if the iterator expires before the first record.
        timeout_s: How long one page may be tried for.
        gate: The back-off shared with the other cursors of the reader.
    """

    pushed = False

    def __init__(
        self,
        client: Any,
        stream: str,
        shard: str,
        position: Position,
        *,
        native_time: bool,
        latest: bool = False,
        timeout_s: float = 30,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate or Gate()
        # A stream of another account is known by its ARN alone.
        self._owner = naming(stream) if stream.startswith("arn:") else {}
        self._client = client
        self._stream = stream
        self.shard = shard
        self.position = position
        self.closed = False
        self._native_time = native_time
        self._latest = latest
        self._timeout_s = timeout_s
        self._iterator: str | None = None
        self._skip_before_ms: int | None = None
        self._fitting = FIRST_PAGE
        self._seamless = False

    def close(self) -> None:
        """Nothing is held open."""

    def page(self, limit: int = MAX_PAGE) -> Page:
        """The next records, possibly none.

        Args:
            limit: At most so many, 1 to 10,000.

        Raises:
            StreamError: The service refused or did not answer in time.
        """
        if self.closed:
            return Page((), 0, full=False, closed=True)
        limit = max(1, min(limit, self._fitting))
        answer = self._get(limit)
        seamless = self._seamless
        self._latest = False
        raw = answer["Records"]
        self._iterator = answer.get("NextShardIterator")
        self.closed = self._iterator is None
        records = [
            RawRecord(
                shard=self.shard,
                sequence=entry["SequenceNumber"],
                key=entry["PartitionKey"],
                data=entry["Data"],
                arrival_ms=round(entry["ApproximateArrivalTimestamp"].timestamp() * 1000),
            )
            for entry in raw
        ]
        if self._skip_before_ms is not None:
            records = [r for r in records if r.arrival_ms >= self._skip_before_ms]
        if raw and (records or self._skip_before_ms is None):
            # All skipped: the position stays the time it is, and the iterator goes on from there.
            self._skip_before_ms = None
            self.position = Position("after", int(raw[-1]["SequenceNumber"]))
        if raw:
            mean = sum(len(entry["Data"]) for entry in raw) // len(raw) + 1
            self._fitting = max(FIRST_PAGE // 20, min(MAX_PAGE, _PAGE_BYTES // mean))
        page = Page(
            records,
            answer.get("MillisBehindLatest") or 0,
            full=len(raw) >= limit,
            closed=self.closed,
            seamless=seamless,
        )
        self._seamless = page.at_tip
        return page

    def _get(self, limit: int) -> dict[str, Any]:
        what = f"records of {self._stream}/{self.shard}"
        deadline = self._gate.now() + self._timeout_s
        while True:
            if self._iterator is None:
                self._iterator = self._new_iterator()
            try:
                answer: dict[str, Any] = attempt(
                    partial(
                        self._client.get_records,
                        ShardIterator=self._iterator,
                        Limit=limit,
                        **self._owner,
                    ),
                    what=what,
                    timeout_s=self._timeout_s,
                    gate=self._gate,
                )
            except ClientError as error:  # only an expired iterator comes through
                self._iterator = None
                if self._gate.now() >= deadline:
                    text = f"{what}: the iterator expires again and again"
                    raise StreamUnavailable(text) from error
            else:
                return answer

    def _new_iterator(self) -> str:
        place = self.position
        arguments: dict[str, Any]
        self._skip_before_ms = None
        self._seamless = not place.exact
        if self._latest:
            arguments = {"ShardIteratorType": "LATEST"}
        elif place.kind == "time" and self._native_time:
            moment = datetime.fromtimestamp(place.value / 1000, UTC)
            arguments = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
        elif place == HORIZON or place.kind == "time":
            arguments = {"ShardIteratorType": "TRIM_HORIZON"}
            self._skip_before_ms = place.value if place.kind == "time" else None
        else:
            arguments = {
                "ShardIteratorType": f"{place.kind.upper()}_SEQUENCE_NUMBER",
                "StartingSequenceNumber": str(place.value),
            }
        answer = attempt(
            lambda: self._client.get_shard_iterator(
                ShardId=self.shard, **naming(self._stream), **arguments
            ),
            what=f"place {place} in {self._stream}/{self.shard}",
            timeout_s=self._timeout_s,
            gate=self._gate,
        )
        iterator: str = answer["ShardIterator"]
        return iterator
