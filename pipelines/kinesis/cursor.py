"""Reading one shard, page by page: iterators, their renewal, throttling. The only reads we do.

In: a boto3 client, a stream, a shard, a position. Out: pages of :class:`RawRecord`. Throttling,
expired iterators, server errors and broken connections are mended inside until a deadline; what
cannot be mended raises :class:`~pipelines.errors.StreamError`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from pipelines.errors import StreamError, StreamUnavailable
from pipelines.kinesis.offsets import HORIZON, Position, Shard
from pipelines.ports import KinesisConfig
from pipelines.retry import delays

log = logging.getLogger(__name__)
T = TypeVar("T")

THROTTLED = frozenset({"ProvisionedThroughputExceededException", "LimitExceededException"})
_TRANSIENT = THROTTLED | {
    "InternalFailure", "InternalFailureException", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "KMSThrottlingException", "RequestTimeout", "502", "503", "500", "504",
}  # fmt: skip
_EXPIRED = "ExpiredIteratorException"
MAX_PAGE = 10_000


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
    """

    records: Sequence[RawRecord]
    behind_ms: int
    full: bool
    closed: bool

    @property
    def at_tip(self) -> bool:
        """Whether nothing more was there to read."""
        # An emulator says 0 behind whatever is left, hence the second half.
        return self.closed or (self.behind_ms == 0 and not self.full)


def timestamps_work(config: KinesisConfig) -> bool:
    """Whether an iterator AT_TIMESTAMP may be asked for.

    Embedded Kinesis walks through all that it holds for one, and never answers if nothing is as
    new as that; the cursor then skips by arrival time itself.
    """
    return config.endpoint_url is None or ".amazonaws.com" in config.endpoint_url


@lru_cache(maxsize=8)
def client_of(config: KinesisConfig) -> Any:
    """The Kinesis client of this process for a configuration (making one takes ~0.1 s)."""
    return boto3.client(
        "kinesis",
        config=Config(
            retries={"total_max_attempts": 1},  # tried again here, where the reason is known
            connect_timeout=3,
            read_timeout=15,
            max_pool_connections=32,
            tcp_keepalive=True,
        ),
        **config.client_kwargs(),
    )


def attempt(
    call: Callable[[], T],
    *,
    what: str,
    timeout_s: float,
    rng: random.Random | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call the service, again after a growing delay while the failure may pass.

    Args:
        call: One request.
        what: What it asks for, named in the error.
        timeout_s: No further attempt is begun after this time.
        rng: Source of the jitter.
        sleep: Waits.
        clock: Monotonic seconds.

    Raises:
        StreamUnavailable: It did not work out in time.
        StreamError: The service refused for good.
        ClientError: The iterator expired (the caller renews it).
    """
    deadline = clock() + timeout_s
    waits = delays(first_s=0.1, cap_s=5.0, rng=rng or random.Random())  # noqa: S311 (jitter)
    while True:
        try:
            return call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code == _EXPIRED:
                raise
            if code not in _TRANSIENT and status < 500:
                raise StreamError(f"{what}: {code}: {error}") from error
            failure: Exception = error
        except (BotoConnectionError, HTTPClientError, ReadTimeoutError) as error:
            failure = error
        except BotoCoreError as error:
            raise StreamError(f"{what}: {error}") from error
        wait_s = next(waits)
        if clock() + wait_s > deadline:
            raise StreamUnavailable(
                f"{what}: no answer within {timeout_s:g} s: {failure}"
            ) from failure
        log.info("%s: %s; again in %.1f s", what, failure, wait_s)
        sleep(wait_s)


def list_shards(client: Any, stream: str, *, timeout_s: float = 30) -> list[Shard]:
    """All shards of a stream, closed ones included.

    Raises:
        StreamError: The service refused or did not answer.
    """
    found: list[Shard] = []
    arguments: dict[str, Any] = {"StreamName": stream}
    while True:
        answer = attempt(
            partial(client.list_shards, **arguments),
            what=f"shards of {stream}",
            timeout_s=timeout_s,
        )
        for shard in answer["Shards"]:
            parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
            last = shard["SequenceNumberRange"].get("EndingSequenceNumber")
            found.append(
                Shard(
                    id=shard["ShardId"],
                    parents=tuple(parent for parent in parents if parent),
                    last=int(last) if last else None,
                )
            )
        if not answer.get("NextToken"):
            return found
        arguments = {"NextToken": answer["NextToken"]}


def created_ms(client: Any, stream: str, *, timeout_s: float = 30) -> int:
    """When a stream was made, wall milliseconds.

    Raises:
        StreamError: There is no such stream, or the service did not answer.
    """
    answer = attempt(
        lambda: client.describe_stream_summary(StreamName=stream),
        what=f"stream {stream}",
        timeout_s=timeout_s,
    )
    made: datetime = answer["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    return round(made.timestamp() * 1000)


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
    """

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
    ) -> None:
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

    def page(self, limit: int = MAX_PAGE) -> Page:
        """The next records, possibly none.

        Args:
            limit: At most so many, 1 to 10,000.

        Raises:
            StreamError: The service refused or did not answer in time.
        """
        if self.closed:
            return Page((), 0, full=False, closed=True)
        limit = max(1, min(limit, MAX_PAGE))
        answer = self._get(limit)
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
        return Page(
            records,
            answer.get("MillisBehindLatest") or 0,
            full=len(raw) >= limit,
            closed=self.closed,
        )

    def _get(self, limit: int) -> dict[str, Any]:
        what = f"records of {self._stream}/{self.shard}"
        for _ in range(3):
            if self._iterator is None:
                self._iterator = self._new_iterator()
            try:
                answer: dict[str, Any] = attempt(
                    partial(self._client.get_records, ShardIterator=self._iterator, Limit=limit),
                    what=what,
                    timeout_s=self._timeout_s,
                )
            except ClientError:  # only an expired iterator comes through
                self._iterator = None
            else:
                return answer
        raise StreamError(f"{what}: the iterator expires again and again")

    def _new_iterator(self) -> str:
        place = self.position
        arguments: dict[str, Any]
        self._skip_before_ms = None
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
                StreamName=self._stream, ShardId=self.shard, **arguments
            ),
            what=f"place {place} in {self._stream}/{self.shard}",
            timeout_s=self._timeout_s,
        )
        iterator: str = answer["ShardIterator"]
        return iterator
