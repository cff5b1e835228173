"""Enhanced fan-out: a shard's records are pushed to a registered consumer, 2 MB/s of its own.

In: a client, a consumer's ARN, a shard, a position. Out: the same pages as a polling cursor gives,
from memory: a thread holds the subscription, renews it when it ends (after five minutes, as the
service has it) behind the continuation number it got last, and stops taking while the buffer is
full. What cannot be mended is raised by the next page.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from pipelines.errors import StreamError
from pipelines.kinesis.cursor import Page, RawRecord
from pipelines.kinesis.offsets import HORIZON, Position
from pipelines.kinesis.service import attempt, may_pass, naming
from pipelines.retry import delays

log = logging.getLogger(__name__)

_BUFFER_BYTES = 8_000_000
_LATEST = {"Type": "LATEST"}


def consumer_arn(
    client: Any,
    stream: str,
    name: str,
    *,
    timeout_s: float = 60,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The ARN of a consumer of a stream, registered if it is not yet, when it is ready.

    It stays registered (a stream has room for 20, each billed by the hour): ``aws kinesis
    deregister-stream-consumer`` ends it.

    Args:
        client: boto3 Kinesis client.
        stream: Name or ARN of the stream.
        name: Name of the consumer.
        timeout_s: How long it is waited for.
        sleep: Waits.

    Raises:
        StreamError: The service refused, or the consumer is not ready in time.
    """
    summary = attempt(
        lambda: client.describe_stream_summary(**naming(stream)),
        what=f"stream {stream}",
        timeout_s=timeout_s,
    )
    owner = summary["StreamDescriptionSummary"]["StreamARN"]
    what = f"consumer {name} of {stream}"
    try:
        client.register_stream_consumer(StreamARN=owner, ConsumerName=name)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ResourceInUseException":
            raise StreamError(f"{what} cannot be registered: {error}") from error
    except BotoCoreError as error:
        raise StreamError(f"{what} cannot be registered: {error}") from error
    deadline = time.monotonic() + timeout_s
    while True:
        described = attempt(
            lambda: client.describe_stream_consumer(StreamARN=owner, ConsumerName=name),
            what=what,
            timeout_s=timeout_s,
        )["ConsumerDescription"]
        if described["ConsumerStatus"] == "ACTIVE":
            arn: str = described["ConsumerARN"]
            return arn
        if time.monotonic() > deadline:
            raise StreamError(f"{what} is {described['ConsumerStatus']} after {timeout_s:g} s")
        sleep(0.5)


class FanOutCursor:
    """A place in one shard that moves forward with what is pushed.

    Args:
        client: boto3 Kinesis client.
        consumer: ARN of the consumer.
        shard: Shard to read.
        position: Where to begin.
        latest: Begin with what arrives from now on; ``position`` (a time) is the way back.
        buffer_bytes: Records that nobody has taken yet are held up to about this size.
        news: Called when there is something to take.
        rng: Source of the jitter.
    """

    pushed = True

    def __init__(
        self,
        client: Any,
        consumer: str,
        shard: str,
        position: Position,
        *,
        latest: bool = False,
        buffer_bytes: int = _BUFFER_BYTES,
        news: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._consumer = consumer
        self.shard = shard
        self.position = position
        self.closed = False
        self._next = _LATEST if latest else _starting(position)
        self._buffer: deque[RawRecord] = deque()
        self._room = buffer_bytes
        self._behind_ms: int | None = None
        self._ended = False
        self._failure: StreamError | None = None
        self._seamless = not position.exact
        self._news = news
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._events: Any = None
        self._thread: threading.Thread | None = None
        self.subscriptions = 0

    def page(self, limit: int = 10_000) -> Page:
        """What was pushed since the last page, possibly nothing; it does not wait.

        Args:
            limit: At most so many records.

        Raises:
            StreamError: The subscription is refused for good.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"fanout-{self.shard}", daemon=True
            )
            self._thread.start()
        with self._changed:
            if self._failure is not None and not self._buffer:
                raise self._failure
            taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
            self._room += sum(len(record.data) for record in taken)
            more = bool(self._buffer)
            self.closed = self._ended and not more
            # Until the service has said so, nobody knows that nothing is behind.
            behind_ms = 1 if self._behind_ms is None else self._behind_ms
            self._changed.notify_all()
        if taken:
            self.position = Position("after", int(taken[-1].sequence))
        page = Page(taken, behind_ms, full=more, closed=self.closed, seamless=self._seamless)
        self._seamless = page.at_tip
        return page

    def close(self) -> None:
        """End the subscription."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._hang_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)

    def _run(self) -> None:
        waits = delays(first_s=0.2, cap_s=5.0, rng=self._rng)
        while not self._stopping.is_set() and not self._ended:
            try:
                if self._subscribe():
                    waits = delays(first_s=0.2, cap_s=5.0, rng=self._rng)
                    continue
            except ClientError as error:
                if (refusal := self._refusal(error)) is not None:
                    with self._changed:
                        self._failure = refusal
                    self._news()
                    return
                log.info("%s: subscription: %s", self.shard, error)
            except (BotoCoreError, HTTPClientError, OSError, ValueError, AttributeError) as error:
                # The last three: what urllib3 raises when close() takes the connection away.
                if not self._stopping.is_set():
                    log.info("%s: subscription: %s", self.shard, error)
            self._stopping.wait(next(waits))

    def _refusal(self, error: ClientError) -> StreamError | None:
        """What a failed subscription means for good; ``None`` if another may work.

        As where the last one of this consumer is not over yet.
        """
        try:
            may_pass(error, f"subscription to {self.shard}")
        except StreamError as refusal:
            return refusal
        return None

    def _subscribe(self) -> bool:
        """One subscription, to its end; whether anything came of it."""
        self.subscriptions += 1
        begin = self._next
        if begin == _LATEST:  # means now, once; whoever comes back later must not skip anything
            self._next = _starting(self.position)
        answer = self._client.subscribe_to_shard(
            ConsumerARN=self._consumer, ShardId=self.shard, StartingPosition=begin
        )
        self._events = answer["EventStream"]
        came = False
        try:
            for event in self._events:
                if self._stopping.is_set():
                    break
                self._take(event["SubscribeToShardEvent"])
                came = True
        finally:
            self._hang_up()
            with self._changed:
                self._behind_ms = None  # of what comes from now on nobody has said anything
        return came

    def _hang_up(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            with suppress(Exception):
                events.close()

    def _take(self, event: Mapping[str, Any]) -> None:
        records = [
            RawRecord(
                shard=self.shard,
                sequence=entry["SequenceNumber"],
                key=entry["PartitionKey"],
                data=entry["Data"],
                arrival_ms=round(entry["ApproximateArrivalTimestamp"].timestamp() * 1000),
            )
            for entry in event["Records"]
        ]
        following = event.get("ContinuationSequenceNumber")
        with self._changed:
            while self._room <= 0 and not self._stopping.is_set():
                self._changed.wait(1.0)
            self._room -= sum(len(record.data) for record in records)
            self._buffer.extend(records)
            self._behind_ms = event["MillisBehindLatest"]
            if following:
                self._next = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": following}
            else:  # the shard is closed, and this was its last event
                self._ended = True
        if records or self._ended:
            self._news()


def _starting(position: Position) -> dict[str, Any]:
    if position == HORIZON:
        return {"Type": "TRIM_HORIZON"}
    if position.kind == "time":
        moment = datetime.fromtimestamp(position.value / 1000, UTC)
        return {"Type": "AT_TIMESTAMP", "Timestamp": moment}
    return {
        "Type": f"{position.kind.upper()}_SEQUENCE_NUMBER",
        "SequenceNumber": str(position.value),
    }
