"""Asking the service, until it answers: what may pass is waited for, what may not is raised.

Throttling, server errors and broken connections are tried again with one back-off (a
:class:`Gate`) shared by all that read through it, so that many shards that were refused together
do not ask again together.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from pipelines.errors import StreamError, StreamMissing, StreamUnavailable
from pipelines.kinesis.offsets import Shard
from pipelines.retry import delays

log = logging.getLogger(__name__)
T = TypeVar("T")

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException", "LimitExceededException", "Throttling",
        "ThrottlingException", "KMSThrottlingException",
    }
)  # fmt: skip
_TRANSIENT = _THROTTLED | {
    "InternalFailure", "InternalFailureException", "ServiceUnavailable", "RequestTimeout", "500",
    "502", "503", "504", "ResourceInUseException",
}  # fmt: skip
EXPIRED = "ExpiredIteratorException"
_MISSING = "ResourceNotFoundException"


class Gate:
    """A back-off that several threads share: while it is shut, nobody asks.

    Args:
        rng: Source of the jitter.
        clock: Monotonic seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._opens_at = float("-inf")
        self._waits = delays(first_s=0.1, cap_s=5.0, rng=self._rng)
        self.throttled = 0

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def pass_through(self, deadline: float) -> None:
        """Wait until it is open, at most until a moment."""
        while (wait_s := min(self._opens_at, deadline) - self._clock()) > 0:
            self._sleep(wait_s)

    def pause(self, wait_s: float) -> None:
        """Wait for oneself alone."""
        self._sleep(wait_s)

    def shut(self) -> float:
        """The service throttles: nobody asks for a growing while; how long, seconds."""
        with self._lock:
            self.throttled += 1
            now = self._clock()
            if self._opens_at <= now:  # else another's refusal of the same moment has shut it
                self._opens_at = now + next(self._waits)
            return self._opens_at - now

    def answered(self) -> None:
        """The service answers again: the next back-off begins small."""
        if self._opens_at > float("-inf"):
            with self._lock:
                if self._opens_at <= self._clock():
                    self._opens_at = float("-inf")
                    self._waits = delays(first_s=0.1, cap_s=5.0, rng=self._rng)


def attempt(call: Callable[[], T], *, what: str, timeout_s: float, gate: Gate | None = None) -> T:
    """Call the service, again after a growing delay while the failure may pass.

    Args:
        call: One request.
        what: What it asks for, named in the error.
        timeout_s: No further attempt is begun after this time.
        gate: The back-off shared with others; one for this call alone by default.

    Raises:
        StreamUnavailable: It did not work out in time.
        StreamMissing: There is no such stream or shard.
        StreamError: The service refused for good.
        ClientError: The iterator expired (the caller renews it).
    """
    gate = gate or Gate()
    deadline = gate.now() + timeout_s
    waits = delays(first_s=0.1, cap_s=5.0, rng=random.Random())  # noqa: S311 (jitter)
    while True:
        gate.pass_through(deadline)
        try:
            answer = call()
        except ClientError as error:
            failure: Exception = error
            if not may_pass(error, what):
                raise
            throttled = _code(error) in _THROTTLED
        except (BotoConnectionError, ConnectionClosedError, HTTPClientError) as error:
            failure, throttled = error, False
        except ReadTimeoutError as error:
            failure, throttled = error, False
        except BotoCoreError as error:
            raise StreamError(f"{what}: {error}") from error
        else:
            gate.answered()
            return answer
        wait_s = gate.shut() if throttled else next(waits)
        if gate.now() + wait_s > deadline:
            raise StreamUnavailable(
                f"{what}: no answer within {timeout_s:g} s: {failure}"
            ) from failure
        log.info("%s: %s; again in %.1f s", what, failure, wait_s)
        if not throttled:
            gate.pause(wait_s)


def _code(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code


def may_pass(error: ClientError, what: str) -> bool:
    """Whether trying again can help; not with an expired iterator, which its owner must renew.

    Raises:
        StreamMissing: There is no such stream or shard.
        StreamError: The service refused for good.
    """
    code = _code(error)
    if code == EXPIRED:
        return False
    if code == _MISSING:
        raise StreamMissing(f"{what}: {code}: {error}") from error
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code not in _TRANSIENT and status < 500:
        raise StreamError(f"{what}: {code}: {error}") from error
    return True


def naming(stream: str) -> dict[str, str]:
    """The argument that names a stream in a request.

    >>> naming("market-data"), naming("arn:aws:kinesis:us-east-1:1:stream/s")
    ({'StreamName': 'market-data'}, {'StreamARN': 'arn:aws:kinesis:us-east-1:1:stream/s'})
    """
    return {"StreamARN" if stream.startswith("arn:") else "StreamName": stream}


def name_of(stream: str) -> str:
    """The name of a stream given by its name or its ARN.

    >>> name_of("arn:aws:kinesis:us-east-1:123456789012:stream/market-data")
    'market-data'
    """
    return stream.rpartition("/")[2] if stream.startswith("arn:") else stream


def list_shards(
    client: Any, stream: str, *, timeout_s: float = 30, gate: Gate | None = None
) -> list[Shard]:
    """All shards of a stream, closed ones included.

    Raises:
        StreamError: The service refused or did not answer.
    """
    found: list[Shard] = []
    arguments: dict[str, Any] = naming(stream)
    while True:
        answer = attempt(
            partial(client.list_shards, **arguments),
            what=f"shards of {stream}",
            timeout_s=timeout_s,
            gate=gate,
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


def created_ms(client: Any, stream: str, *, timeout_s: float = 30, gate: Gate | None = None) -> int:
    """When a stream was made, wall milliseconds.

    Raises:
        StreamError: There is no such stream, or the service did not answer.
    """
    answer = attempt(
        lambda: client.describe_stream_summary(**naming(stream)),
        what=f"stream {stream}",
        timeout_s=timeout_s,
        gate=gate,
    )
    made: datetime = answer["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    return round(made.timestamp() * 1000)
