"""A steady load on ``market-data``, and when what is made of it appears on ``market-signals``."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Self

import boto3

from pipelines import codec
from pipelines.events import BAR, Message, bucket_of
from pipelines.kinesis.batching import linger_of
from pipelines.kinesis.reader import LATEST, StreamReader
from pipelines.ports import KinesisConfig
from tests.bench.rows import Samples
from tests.bench.stream.tape import LINGER_S, Cutter, Tape

POLL_S = 0.02

Moments = dict[tuple[str, str], int]
"""Symbol and start of a bar to a wall time, ns."""


class Worker(threading.Thread):
    """A thread that runs while a ``with`` lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


class Load(Worker):
    """Puts messages at a rate, in records as the producer cuts them.

    Args:
        kinesis: Where.
        symbols: What is traded.
        rate: Trades and quotes a second.
        speed: Market seconds of a second.
        begin_ns: Market time of the first minute.
    """

    def __init__(
        self,
        kinesis: KinesisConfig,
        symbols: Sequence[str],
        rate: float,
        *,
        speed: float,
        begin_ns: int,
    ) -> None:
        super().__init__()
        self.tape = Tape(symbols, step_ns=int(1e9 * speed / rate), begin_ns=begin_ns)
        self.bars: Moments = {}
        self.put = 0
        self._kinesis = kinesis
        self._rate = rate
        self._linger_s = linger_of(len({bucket_of(s) for s in symbols}), LINGER_S)

    def run(self) -> None:
        client = boto3.client("kinesis", **self._kinesis.client_kwargs())
        cutter = Cutter(f"bench-{time.time_ns()}")
        began = time.monotonic()
        while not self._ended.wait(self._linger_s):
            due = int((time.monotonic() - began) * self._rate) - self.tape.sent
            wall_ns = time.time_ns()
            messages = list(self.tape.messages(due, received_ns=wall_ns))
            records = cutter.cut(messages, wall_ns=wall_ns, market_ns=self.tape.market_ns)
            for i in range(0, len(records), 500):
                entries = [
                    {"Data": data, "PartitionKey": key} for key, data in records[i : i + 500]
                ]
                client.put_records(StreamName=self._kinesis.market_data, Records=entries)
            self._note(messages, wall_ns)
            self.put += len(messages)
        client.close()

    def _note(self, messages: Sequence[Message], wall_ns: int) -> None:
        self.bars |= {(m["S"], m["t"]): wall_ns for m in messages if m["T"] == BAR}


class Derived(Worker):
    """Reads ``market-signals`` and notes when each bar's features and its signal came.

    What stands in for a signal while the policy is away is none.
    """

    def __init__(self, kinesis: KinesisConfig) -> None:
        super().__init__()
        self.features: Moments = {}
        self.signals: Moments = {}
        self._reader = StreamReader(kinesis, kinesis.market_signals, start=LATEST)

    def run(self) -> None:
        came = {"features": self.features, "signal": self.signals}
        while not self._ended.wait(POLL_S):
            for record in self._reader.poll():
                now = time.time_ns()
                for item in codec.decode_items(record.data):
                    if item["kind"] in came and item["data"].get("reason") != "unavailable":
                        came[item["kind"]].setdefault((item["symbol"], item["event_time"]), now)
        self._reader.close()


def between(sent: Moments, came: Moments) -> Samples:
    """Milliseconds from the sending of each bar to the coming of what was made of it."""
    return Samples([(came[bar] - ns) / 1e6 for bar, ns in sent.items() if bar in came])
