"""A Kinesis in memory that does what the embedded one cannot: time, throttling, trimming."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Fake")  # type: ignore[arg-type]


class FakeKinesis:
    """The reading half of the Kinesis API, as AWS documents it, on a clock that tests set."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.created_ms = 500_000
        self.shards: dict[str, dict[str, Any]] = {}
        self.failures: list[Exception] = []
        self.reads: list[tuple[str, int]] = []
        self._sequence = 100

    def add_shard(self, shard: str, *parents: str) -> None:
        self.shards[shard] = {"records": [], "parents": parents, "last": None}

    def close_shard(self, shard: str) -> None:
        self._sequence += 10
        self.shards[shard]["last"] = self._sequence

    def put(self, shard: str, *, count: int = 1, arrival_ms: int | None = None) -> list[int]:
        made = []
        for _ in range(count):
            self._sequence += 3
            arrived = self.now_ms if arrival_ms is None else arrival_ms
            self.shards[shard]["records"].append((self._sequence, arrived))
            made.append(self._sequence)
        return made

    def trim(self, shard: str, count: int) -> None:
        del self.shards[shard]["records"][:count]

    def make_anew(self) -> None:
        """Delete the stream and make another one of the same name and shards."""
        self.created_ms += 1
        for shard in self.shards.values():
            shard["records"] = []

    def expire(self) -> None:
        """Forget what is older than a day."""
        oldest_ms = self.now_ms - 24 * 3_600_000
        for shard in self.shards.values():
            shard["records"] = [r for r in shard["records"] if r[1] >= oldest_ms]

    def sequences(self, shard: str) -> list[int]:
        return [sequence for sequence, _ in self.shards[shard]["records"]]

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:  # noqa: N803
        self._fail()
        made = datetime.fromtimestamp(self.created_ms / 1000, UTC)
        return {"StreamDescriptionSummary": {"StreamCreationTimestamp": made}}

    def list_shards(self, *, StreamName: str) -> dict[str, Any]:  # noqa: N803
        self._fail()
        listed = []
        for name, shard in self.shards.items():
            numbers = {"StartingSequenceNumber": "0"}
            if shard["last"] is not None:
                numbers["EndingSequenceNumber"] = str(shard["last"])
            keys = ("ParentShardId", "AdjacentParentShardId")
            parents = dict(zip(keys, shard["parents"], strict=False))
            listed.append({"ShardId": name, "SequenceNumberRange": numbers, **parents})
        return {"Shards": listed}

    def get_shard_iterator(
        self,
        *,
        StreamName: str,  # noqa: N803
        ShardId: str,  # noqa: N803
        ShardIteratorType: str,  # noqa: N803
        StartingSequenceNumber: str = "0",  # noqa: N803
        Timestamp: datetime | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        self._fail()
        records = self.shards[ShardId]["records"]
        low = int(StartingSequenceNumber)
        if ShardIteratorType == "AFTER_SEQUENCE_NUMBER":
            low += 1
        elif ShardIteratorType == "AT_TIMESTAMP":
            assert Timestamp is not None
            wanted = round(Timestamp.timestamp() * 1000)
            if wanted > self.now_ms:
                raise refusal("InvalidArgumentException")
            low = next((s for s, at in records if at >= wanted), self._sequence + 1)
        elif ShardIteratorType == "LATEST":
            low = self._sequence + 1
        return {"ShardIterator": f"{ShardId}/{low}"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        self._fail()
        name, low = ShardIterator.split("/")
        shard = self.shards[name]
        left = [(s, at) for s, at in shard["records"] if s >= int(low)]
        page = left[:Limit]
        self.reads.append((name, len(page)))
        following: str | None = f"{name}/{page[-1][0] + 1 if page else low}"
        if shard["last"] is not None and len(page) == len(left):
            following = None
        behind = self.now_ms - left[len(page)][1] + 1 if len(left) > len(page) else 0
        return {
            "Records": [
                {
                    "SequenceNumber": str(sequence),
                    "PartitionKey": "7",
                    "Data": str(sequence).encode() * 10,
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(at / 1000, UTC),
                }
                for sequence, at in page
            ],
            "NextShardIterator": following,
            "MillisBehindLatest": behind,
        }


@pytest.fixture(scope="session")
def make_fake() -> Callable[[], FakeKinesis]:
    """Makes streams with one shard, ``a``."""

    def make() -> FakeKinesis:
        stream = FakeKinesis()
        stream.add_shard("a")
        return stream

    return make


@pytest.fixture
def fake(make_fake: Callable[[], FakeKinesis]) -> FakeKinesis:
    """A stream with one shard, ``a``."""
    return make_fake()


@pytest.fixture
def refused() -> Any:
    """Makes an error as the service answers it."""
    return refusal
