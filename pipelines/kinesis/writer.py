"""Writing to a Kinesis stream with boto3, one attempt a call; who calls decides about the next.

In: records or items. Out: what became of each. boto3's own retries are off: they would put
records again behind the back of the order rule of :mod:`pipelines.kinesis.batching`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipelines import codec
from pipelines.errors import StreamError
from pipelines.events import bucket_of
from pipelines.kinesis.batching import MAX_PUT_BYTES, MAX_PUT_RECORDS
from pipelines.ports import KinesisConfig, Put, PutResult
from pipelines.retry import delays

MAX_ITEMS_BYTES = 900_000
"""Most bytes of one record of items."""


class KinesisWriter:
    """Puts records on one stream; a :class:`~pipelines.ports.RecordSink`.

    Args:
        config: Where the streams are.
        stream: Name of the stream.
        connect_timeout_s: Longest wait for a connection.
        read_timeout_s: Longest wait for an answer.
        rng: Jitter of the retries of :meth:`put_items`.
        sleep: How :meth:`put_items` waits between attempts.
        stopped: Whether :meth:`put_items` is to give up instead of trying again.
    """

    def __init__(
        self,
        config: KinesisConfig,
        stream: str,
        *,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 5.0,
        rng: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._stopped = stopped
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._sleep = sleep
        self._client = boto3.client(
            "kinesis",
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=connect_timeout_s,
                read_timeout=read_timeout_s,
                parameter_validation=False,
                tcp_keepalive=True,
            ),
            **config.client_kwargs(),
        )

    def put(self, records: Sequence[Put]) -> list[PutResult]:
        """Put records, one attempt; what became of each, in order.

        Args:
            records: At most 500 records and 5 MB.

        Raises:
            StreamError: No answer, or the whole call was refused; any may have been stored.
        """
        entries: Any = [{"Data": r.data, "PartitionKey": r.key} for r in records]
        try:
            answer = self._client.put_records(StreamName=self._stream, Records=entries)
        except (BotoCoreError, ClientError) as error:
            raise StreamError(f"cannot put to {self._stream}: {error}") from error
        results = [
            PutResult(
                sequence=entry.get("SequenceNumber"),
                shard=entry.get("ShardId"),
                error=entry.get("ErrorCode"),
            )
            for entry in answer["Records"]
        ]
        if len(results) != len(records):
            raise StreamError(f"{self._stream} answered {len(results)} of {len(records)} records")
        return results

    def identity(self) -> str:
        """Name of the stream and when it was made; empty where we may not ask.

        Raises:
            StreamError: There is no such stream that takes records now, or nobody answered.
        """
        try:
            answer = self._client.describe_stream_summary(StreamName=self._stream)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "AccessDeniedException":
                return ""  # a policy that lets us put and nothing else: then nobody can know
            raise StreamError(f"cannot describe {self._stream}: {error}") from error
        except BotoCoreError as error:
            raise StreamError(f"cannot describe {self._stream}: {error}") from error
        summary = answer["StreamDescriptionSummary"]
        if summary["StreamStatus"] not in ("ACTIVE", "UPDATING"):
            raise StreamError(f"{self._stream} is {summary['StreamStatus'].lower()}")
        made_ms = round(summary["StreamCreationTimestamp"].timestamp() * 1000)
        return f"{self._stream}@{made_ms}"

    def put_items(self, items: Sequence[Mapping[str, Any]], *, timeout_s: float = 60.0) -> None:
        """Put items for ``market-signals``; returns when the stream holds all of them.

        The items of a symbol keep their order; a retry may store an item twice, with the same id.

        Args:
            items: Items of :func:`pipelines.events.item`.
            timeout_s: When to give up.

        Raises:
            StreamError: Not all were stored in time, or before the end.
        """
        lanes = _lanes(items)
        backoff = delays(first_s=0.1, cap_s=2.0, rng=self._rng)
        deadline = time.monotonic() + timeout_s
        while lanes:
            heads = _within_limits([lane[0] for lane in lanes.values()])
            failure = self._put_heads(heads, lanes)
            if failure is None:
                backoff = delays(first_s=0.1, cap_s=2.0, rng=self._rng)
                continue
            if self._stopped():
                raise StreamError(f"items not stored before the end: {failure}")
            if time.monotonic() >= deadline:
                raise StreamError(f"items not stored after {timeout_s:.0f} s: {failure}")
            self._sleep(next(backoff))

    def _put_heads(self, heads: Sequence[Put], lanes: dict[str, list[Put]]) -> str | None:
        try:
            results = self.put(heads)
        except StreamError as error:
            return str(error)
        failure = None
        for head, result in zip(heads, results, strict=True):
            if result.error is not None:
                failure = result.error
                continue
            lanes[head.key].pop(0)
            if not lanes[head.key]:
                del lanes[head.key]
        return failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _lanes(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Put]]:
    """Records per bucket, in order; only the first of each may be put at a time."""
    by_bucket: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_bucket.setdefault(str(bucket_of(item["symbol"])), []).append(item)
    return {key: _records(key, group) for key, group in by_bucket.items()}


def _records(key: str, items: Sequence[Mapping[str, Any]]) -> list[Put]:
    data = codec.encode_items(items)
    if len(data) <= MAX_ITEMS_BYTES:
        return [Put(key=key, data=data)]
    if len(items) == 1:
        raise StreamError(f"item {items[0]['id']} has {len(data)} bytes; a record holds 1 MB")
    half = len(items) // 2
    return _records(key, items[:half]) + _records(key, items[half:])


def _within_limits(puts: Sequence[Put]) -> list[Put]:
    taken: list[Put] = []
    size = 0
    for put in puts[:MAX_PUT_RECORDS]:
        size += len(put.data) + len(put.key)
        if taken and size > MAX_PUT_BYTES:
            break
        taken.append(put)
    return taken
