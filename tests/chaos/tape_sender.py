"""Sends a market to a stream and remembers it: what the lake must hold in the end, and no more."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import boto3
import orjson

from pipelines.codec import encode_record
from pipelines.events import (
    HEARTBEAT,
    MINUTE_NS,
    SECOND_NS,
    Message,
    Record,
    bucket_of,
    format_time_ns,
    parse_time_ns,
)
from pipelines.ports import KinesisConfig
from pipelines.streaming.reduce import add
from pipelines.streaming.signals import Fold
from pipelines.streaming.warmup import Warmup

SYMBOLS = ("SPY", "AAPL", "TSLA", "KO")  # the first and the third are folded together
START_NS = parse_time_ns("2011-01-03T14:30:00Z")
_STEP_NS = 1_000_003


class TapeSender:
    """Records of trades; every few of them the minute ends, with the vendor's bar of each symbol.

    Args:
        kinesis: Where they go.
        rng: Which symbols, how many trades, and which records are sent twice.
        minute_records: A minute has about so many records.
    """

    def __init__(
        self, kinesis: KinesisConfig, rng: random.Random, *, minute_records: int = 8
    ) -> None:
        self._stream = kinesis.market_data
        self._client = boto3.client("kinesis", **kinesis.client_kwargs())
        self._rng = rng
        self._minute_records = minute_records
        self._bseq = dict.fromkeys(SYMBOLS, 0)
        self._start_ns = self._now_ns = START_NS
        self._price = dict.fromkeys(SYMBOLS, 100.0)
        self._traded: dict[str, list[float]] = defaultdict(list)
        self._parts: dict[str, list[Any]] = {}
        self.trades: list[tuple[str, int]] = []  # symbol and trade id
        self.bars: list[tuple[str, int]] = []  # symbol and start

    def send(self, records: int) -> None:
        """Send so many records of trades, and the bars of minutes that end meanwhile."""
        for _ in range(records):
            symbol = self._rng.choice(SYMBOLS)
            self._put(symbol, [self._trade(symbol) for _ in range(self._rng.randrange(1, 20))])
            if self._rng.random() * self._minute_records < 1:
                self.end_minute()

    def end_minute(self) -> None:
        """Send the bar of each symbol that traded; a record each."""
        self._now_ns = max(self._now_ns, self._start_ns + MINUTE_NS)
        for symbol, prices in self._traded.items():
            bar = {
                "T": "b", "S": symbol, "o": prices[0], "h": max(prices), "l": min(prices),
                "c": prices[-1], "v": len(prices), "n": len(prices),
                "vw": sum(prices) / len(prices), "t": format_time_ns(self._start_ns), "r": 1,
            }  # fmt: skip
            self._put(symbol, [bar])
            self.bars.append((symbol, self._start_ns))
        self._traded.clear()
        self._start_ns += MINUTE_NS

    def trade_each(self) -> None:
        """Send a trade of each symbol in the minute that is not over."""
        for symbol in SYMBOLS:
            self._put(symbol, [self._trade(symbol)])

    def send_late(self, records: int) -> None:
        """Send so many records of each symbol, a trade of the first minute in each."""
        for symbol in SYMBOLS:
            for _ in range(records):
                self._put(symbol, [self._traded_at(symbol, START_NS, price=1.0)])

    def beat(self, *, after_s: int) -> None:
        """Send nothing for so many seconds, then the heartbeat of each symbol."""
        self._now_ns += after_s * SECOND_NS
        for symbol in SYMBOLS:
            beat = {"T": HEARTBEAT, "market_ns": self._now_ns, "symbols": [symbol], "r": 1}
            self._put(symbol, [beat])

    def values(self) -> dict[tuple[str, int], list[float | None]]:
        """Features of every bar, by symbol and start, as a run without any fault has them."""
        fold = Fold(Warmup(lake_uri="nowhere"), assumed_spread_bps=2.0)
        found = {}
        for symbol, rows in self._parts.items():
            payloads, _ = fold.fold(symbol, [(0, orjson.dumps(rows))], None)
            for payload in map(orjson.loads, payloads):
                if "bar" in payload:
                    found[symbol, parse_time_ns(payload["event_time"])] = payload["values"]
        return found

    def _trade(self, symbol: str) -> Message:
        self._now_ns += _STEP_NS
        self._price[symbol] = round(self._price[symbol] * (1 + self._rng.gauss(0, 1e-4)), 4)
        self._traded[symbol].append(self._price[symbol])
        return self._traded_at(symbol, self._now_ns, price=self._price[symbol])

    def _traded_at(self, symbol: str, ns: int, *, price: float) -> Message:
        number = len(self.trades) + 1
        self.trades.append((symbol, number))
        return {
            "T": "t", "S": symbol, "p": price, "s": 1, "i": number, "x": "D",
            "t": format_time_ns(ns), "c": ["@"], "z": "C", "r": number,
        }  # fmt: skip

    def _put(self, symbol: str, messages: list[Message]) -> None:
        self._bseq[symbol] += 1
        bucket = bucket_of(symbol)
        record = Record("run-1", bucket, self._bseq[symbol], self._now_ns, self._now_ns, messages)
        rows: dict[str, list[Any]] = {}
        add(record, rows)
        self._parts.setdefault(symbol, []).extend(rows[symbol])
        repeats = 2 if self._rng.random() < 0.1 else 1  # an answer was lost: sent again
        for _ in range(repeats):
            self._client.put_record(
                StreamName=self._stream, Data=encode_record(record), PartitionKey=str(bucket)
            )
