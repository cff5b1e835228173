"""A tape of messages cut into records, as a producer would make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from pipelines.codec import encode_record
from pipelines.events import Message, Record, bucket_of, format_time_ns, parse_time_ns

START_NS = parse_time_ns("2011-01-03T14:30:00Z")


class Tape:
    """Makes records; counters are kept per bucket."""

    def __init__(self, epoch: str = "run-1") -> None:
        self.epoch = epoch
        self._counters: dict[int, int] = {}
        self._ns = START_NS

    def trade(self, symbol: str = "SPY", **changes: Any) -> Message:
        self._ns += 1_000_001
        trade = {
            "T": "t", "S": symbol, "i": 7, "x": "D", "p": 126.55, "s": 100,
            "t": format_time_ns(self._ns), "c": ["@", "I"], "z": "C", "r": self._ns + 5,
        }  # fmt: skip
        return trade | changes

    def quote(self, symbol: str = "SPY", **changes: Any) -> Message:
        self._ns += 1_000_001
        quote = {
            "T": "q", "S": symbol, "bx": "U", "bp": 87.66, "bs": 1, "ax": "Q", "ap": 87.68,
            "as": 4, "t": format_time_ns(self._ns), "c": ["R"], "z": "C", "r": self._ns + 5,
        }  # fmt: skip
        return quote | changes

    def bar(self, symbol: str = "SPY", minute: int = 0, **changes: Any) -> Message:
        bar = {
            "T": "b", "S": symbol, "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5, "v": 10, "n": 3,
            "vw": 1.25, "t": format_time_ns(START_NS + minute * 60_000_000_000), "r": self._ns,
        }  # fmt: skip
        return bar | changes

    def record(self, *messages: Any, symbol: str = "SPY") -> Record:
        bucket = bucket_of(symbol)
        bseq = self._counters[bucket] = self._counters.get(bucket, 0) + 1
        return Record(self.epoch, bucket, bseq, self._ns, self._ns, list(messages))

    def skip(self, symbol: str = "SPY") -> None:
        self.record(symbol=symbol)


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture
def new_tape() -> type[Tape]:
    """Makes tapes of their own."""
    return Tape


@pytest.fixture
def rows_of() -> Callable[..., pa.RecordBatch]:
    """Makes rows of the source of records, or of any bytes."""

    def make(records: Sequence[Record | bytes], *, shard: str = "shard-0") -> pa.RecordBatch:
        data = [r if isinstance(r, bytes) else encode_record(r) for r in records]
        return pa.record_batch(
            {
                "stream": ["market-data"] * len(data),
                "shard": [shard] * len(data),
                "sequence": [str(n) for n in range(1, len(data) + 1)],
                "partition_key": ["1"] * len(data),
                "data": pa.array(data, pa.binary()),
                "arrival": pa.array([START_NS // 1000] * len(data), pa.timestamp("us", tz="UTC")),
            }
        )

    return make
