"""Market messages made quickly, cut into records as the producer cuts them.

Two thirds quotes and one third trades of all symbols in turn, and a minute bar of each at the end
of every market minute.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3

from pipelines.codec import encode_record
from pipelines.events import (
    DAY_NS,
    MINUTE_NS,
    SECOND_NS,
    Message,
    Record,
    bucket_of,
    format_time_ns,
    parse_time_ns,
)
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.kinesis.batching import linger_of
from pipelines.ports import KinesisConfig

__all__ = ["DAY_NS", "OPEN_NS", "Backlog", "Cutter", "Tape", "put", "symbols_of"]

OPEN_NS = parse_time_ns("2011-01-03T14:30:00Z")
LINGER_S = 0.04
PRODUCED_PER_S = 8000
"""The rate at which the producer is taken to have cut a backlog into records, messages a second."""


def symbols_of(count: int) -> tuple[str, ...]:
    """So many symbols: ours first, then made-up ones.

    >>> symbols_of(21)[-2:]
    ('IWM', 'ZAAU')
    """
    made = (f"Z{''.join(chr(65 + n // d % 26) for d in (676, 26, 1))}" for n in range(20, count))
    return (*DEFAULT_SYMBOLS[:count], *made)


@dataclass
class Tape:
    """An endless market.

    Args:
        symbols: What is traded.
        step_ns: Market time between two messages.
        begin_ns: Market time of its first minute.
    """

    symbols: Sequence[str]
    step_ns: int
    begin_ns: int = OPEN_NS
    sent: int = 0
    _rng: random.Random = field(default_factory=lambda: random.Random(1))
    _prices: list[float] = field(default_factory=list)
    _minute: int = 0

    def __post_init__(self) -> None:
        self._prices = [100.0 + self._rng.random() for _ in self.symbols]

    @property
    def market_ns(self) -> int:
        """Market time of the next message."""
        return self.begin_ns + self.sent * self.step_ns

    def messages(self, count: int, *, received_ns: int) -> Iterator[Message]:
        """The next messages; bars come on top."""
        many, rng, prices = len(self.symbols), self._rng, self._prices
        for _ in range(count):
            n, ns = self.sent, self.market_ns
            if ns >= self.begin_ns + (self._minute + 1) * MINUTE_NS:
                yield from self._bars(received_ns)
            self.sent = n + 1
            i = n % many
            price = prices[i] = round(prices[i] * (1 + (rng.random() - 0.5) * 1e-5), 4)
            common = {"S": self.symbols[i], "t": format_time_ns(ns), "z": "C", "r": received_ns}
            if n // many % 3 == 0:
                yield {"T": "t", "i": n, "x": "V", "p": price, "s": 100, "c": ["@"], **common}
            else:
                yield {
                    "T": "q", "bx": "V", "bp": price, "bs": 2, "ax": "Q",
                    "ap": round(price + 0.01, 4), "as": 3, "c": ["R"], **common,
                }  # fmt: skip

    def _bars(self, received_ns: int) -> Iterator[Message]:
        at = format_time_ns(self.begin_ns + self._minute * MINUTE_NS)
        self._minute += 1
        for symbol, price in zip(self.symbols, self._prices, strict=True):
            yield {
                "T": "b", "S": symbol, "o": price, "h": price, "l": price, "c": price, "v": 1000,
                "n": 10, "vw": price, "t": at, "r": received_ns,
            }  # fmt: skip


@dataclass
class Cutter:
    """Messages to numbered records of one epoch, one for each bucket."""

    epoch: str
    _bseq: dict[int, int] = field(default_factory=dict)

    def cut(
        self, messages: Iterable[Message], *, wall_ns: int, market_ns: int
    ) -> list[tuple[str, bytes]]:
        """Partition key and data of the records."""
        by_bucket: dict[int, list[Message]] = {}
        for message in messages:
            by_bucket.setdefault(bucket_of(message["S"]), []).append(message)
        made = []
        for bucket, held in by_bucket.items():
            bseq = self._bseq[bucket] = self._bseq.get(bucket, 0) + 1
            record = Record(self.epoch, bucket, bseq, wall_ns, market_ns, held)
            made.append((str(bucket), encode_record(record)))
        return made


def put(client: Any, stream: str, records: Sequence[tuple[str, bytes]]) -> None:
    """Put records in their order."""
    for i in range(0, len(records), 500):
        entries = [{"Data": data, "PartitionKey": key} for key, data in records[i : i + 500]]
        client.put_records(StreamName=stream, Records=entries)


class Backlog:
    """A market that waits on ``market-data``.

    Args:
        config: Where.
        symbols: Of so many symbols.
    """

    def __init__(self, config: KinesisConfig, *, symbols: int = 20) -> None:
        names = symbols_of(symbols)
        self._config = config
        self._tape = Tape(names, step_ns=SECOND_NS // PRODUCED_PER_S)
        self._cutter = Cutter(f"bench-{time.time_ns()}")
        linger_s = linger_of(len({bucket_of(name) for name in names}), LINGER_S)
        self._piece = max(1, round(PRODUCED_PER_S * linger_s))

    def fill(self, count: int) -> int:
        """Put so many more trades and quotes; how many messages that were, with the bars."""
        client = boto3.client("kinesis", **self._config.client_kwargs())
        upto, done, wall_ns = self._tape.sent + count, 0, time.time_ns()
        waiting: list[tuple[str, bytes]] = []
        while self._tape.sent < upto:
            piece = min(self._piece, upto - self._tape.sent)
            messages = list(self._tape.messages(piece, received_ns=wall_ns))
            done += len(messages)
            market_ns = self._tape.market_ns
            waiting += self._cutter.cut(messages, wall_ns=wall_ns, market_ns=market_ns)
            if len(waiting) >= 500 or self._tape.sent >= upto:
                put(client, self._config.market_data, waiting)
                waiting = []
        client.close()
        return done
