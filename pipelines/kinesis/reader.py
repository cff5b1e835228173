"""Reading a whole stream: every shard, in order per partition key, through splits and merges.

It polls, or is pushed what arrives (enhanced fan-out) where a consumer is named.

In: a configuration, a stream, where to begin. Out: :class:`RawRecord` lists, forwards only. It is
what the feed and the producer's look behind itself use; Spark has :mod:`pipelines.kinesis.source`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.errors import DataLoss, StreamError
from pipelines.kinesis.begin import Begin
from pipelines.kinesis.clients import client_of, timestamps_work
from pipelines.kinesis.cursor import Cursor, Page, RawRecord, ShardCursor
from pipelines.kinesis.fanout import FanOutCursor, consumer_arn
from pipelines.kinesis.offsets import (
    LATEST,
    TRIM_HORIZON,
    Position,
    ShardOffset,
    childless,
    follow,
    lost,
)
from pipelines.kinesis.service import Gate, list_shards
from pipelines.ports import KinesisConfig

log = logging.getLogger(__name__)

_READS_PER_S = 2.0
_NEWS_S = 0.5

__all__ = ["LATEST", "TRIM_HORIZON", "RawRecord", "StreamReader", "read_after"]


class StreamReader:
    """Reads a stream from a place to its tip, again and again.

    Not safe for use by several threads at a time. ``behind_ms`` is how far the last poll ended
    behind the tip as the service says, ``at_tip`` whether it left nothing unread.

    Args:
        config: Where the stream is.
        stream: Its name.
        start: ``"LATEST"`` (what arrives from now on), ``"TRIM_HORIZON"`` (all that it holds),
            ``"AT_TIMESTAMP:<wall ms>"``, or the sequence number behind which to begin by shard
            (``positions`` of another reader); a shard it does not name begins with its oldest.
        limit: Records per shard and poll, at most.
        client: boto3 Kinesis client; the one of this process by default.
        timeout_s: How long one request is tried for.
        consumer: Name of the enhanced fan-out consumer to be, registered if it is not yet; polls
            without one. ``poll`` then waits for news, half a second at most.
        reads_per_s: Polls per second at most, so that other readers of the stream find reads left;
            2 by default where the service has a limit, 0 for no limit.
        clock_ms: Wall clock, milliseconds.
        monotonic: Monotonic clock, seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        config: KinesisConfig,
        stream: str,
        *,
        start: str | Mapping[str, str] = LATEST,
        limit: int = 2_000,
        client: Any | None = None,
        timeout_s: float = 30,
        consumer: str | None = None,
        reads_per_s: float | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client if client is not None else client_of(config)
        self._stream = stream
        self._native_time = timestamps_work(config)
        self._limit = limit
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        if reads_per_s is None:
            reads_per_s = _READS_PER_S if self._native_time else 0
        self._interval_s = 1 / reads_per_s if reads_per_s else 0.0
        self._polled_at = float("-inf")
        self._gate = Gate()
        self._news = threading.Event()
        self._consumer = consumer and consumer_arn(self._client, stream, consumer)
        begin = Begin.parse(start) if isinstance(start, str) else Begin.behind(start)
        shards = list_shards(self._client, stream, timeout_s=timeout_s)
        self._places = begin.resolve(shards, now_ms=clock_ms())
        if gone := lost(self._places, shards):
            raise DataLoss(f"{stream}: forgotten by the service before they were read: {gone}")
        self._cursors: dict[str, Cursor] = {}
        self._open(latest=begin.kind == LATEST)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="kinesis-poll")
        self.behind_ms = 0
        self.at_tip = False

    @property
    def positions(self) -> dict[str, str]:
        """Sequence number of the last record read, by shard; where none was read yet, none."""
        return {
            shard: str(place.end.value)
            for shard, place in sorted(self._places.items())
            if place.end.kind == "after"
        }

    @property
    def shards(self) -> list[str]:
        """The shards that are being read."""
        return sorted(self._cursors)

    def poll(self) -> list[RawRecord]:
        """What has arrived since the last poll: one page per shard, in order inside each shard.

        Raises:
            StreamError: The service refused, or did not answer in time; polling again continues
                without loss.
        """
        self._wait()
        cursors = [self._cursors[shard] for shard in self.shards]
        outcomes = list(self._pool.map(self._page, cursors)) if len(cursors) > 1 else None
        if outcomes is None:
            outcomes = [self._page(cursor) for cursor in cursors]
        pages = [outcome for outcome in outcomes if isinstance(outcome, Page)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, StreamError)]
        records = [record for page in pages for record in page.records]
        for cursor in cursors:
            self._places[cursor.shard] = ShardOffset(
                cursor.position, cursor.position, done=cursor.closed
            )
        self.behind_ms = max((page.behind_ms for page in pages), default=0)
        self.at_tip = not failures and all(page.at_tip for page in pages)
        if failures:
            # What the other shards gave must not be lost: their cursors have moved on.
            if not records:
                raise failures[0]
            log.warning("%s: one shard not read: %s", self._stream, failures[0])
        if any(page.closed for page in pages):
            self._reshard(keep=bool(records))
        return records

    def close(self) -> None:
        """End its threads."""
        for cursor in self._cursors.values():
            cursor.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self) -> None:
        """Until the budget allows another poll, or news were pushed."""
        if self._consumer is not None:
            self._news.wait(_NEWS_S)
            self._news.clear()
            return
        wait_s = self._polled_at + self._interval_s - self._monotonic()
        if wait_s > 0:
            self._sleep(wait_s)
        self._polled_at = self._monotonic()

    def _page(self, cursor: Cursor) -> Page | StreamError:
        try:
            return cursor.page(self._limit)
        except StreamError as error:
            return error

    def _reshard(self, *, keep: bool) -> None:
        """Go on with the children; a failure must not take along what the poll has in hand.

        A closed cursor stays until its children are found, so that the next poll looks again.
        """
        try:
            shards = list_shards(self._client, self._stream, timeout_s=self._timeout_s)
        except StreamError as error:
            self.at_tip = False
            if not keep:
                raise
            log.warning("%s: the next shards are not known yet: %s", self._stream, error)
            return
        self._places = follow(self._places, shards)
        waiting = childless(self._places, shards)
        self.at_tip = self.at_tip and not waiting
        self._cursors = {s: c for s, c in self._cursors.items() if not c.closed or s in waiting}
        self._open(latest=False)

    def _open(self, *, latest: bool) -> None:
        for shard, place in self._places.items():
            if not place.done and shard not in self._cursors:
                self._cursors[shard] = self._cursor(shard, place.end, latest=latest)

    def _cursor(self, shard: str, place: Position, *, latest: bool) -> Cursor:
        if self._consumer is not None:
            return FanOutCursor(
                self._client, self._consumer, shard, place, latest=latest, news=self._news.set
            )
        return ShardCursor(
            self._client,
            self._stream,
            shard,
            place,
            native_time=self._native_time,
            latest=latest,
            timeout_s=self._timeout_s,
            gate=self._gate,
        )


def read_after(
    config: KinesisConfig, stream: str, positions: Mapping[str, str], *, client: Any | None = None
) -> Iterator[bytes]:
    """The data of every record behind the given places, up to the tip of the stream.

    Args:
        config: Where the stream is.
        stream: Its name.
        positions: Sequence number of the last record already known, by shard; a shard that is not
            named is read from its oldest record.
        client: boto3 Kinesis client; the one of this process by default.

    Yields:
        Data in order inside each shard, parents before their children.
    """
    reader = StreamReader(config, stream, start=positions or TRIM_HORIZON, client=client)
    try:
        while True:
            before = reader.shards
            for record in reader.poll():
                yield record.data
            if reader.at_tip and reader.shards == before:
                return
    finally:
        reader.close()
