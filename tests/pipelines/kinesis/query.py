"""Plays Spark against a planner: for the tests of what the driver decides."""

from __future__ import annotations

from typing import Any

from pipelines.kinesis.begin import Begin, symbolic
from pipelines.kinesis.ends import Limit
from pipelines.kinesis.offsets import ranges
from pipelines.kinesis.planner import BatchPlanner
from pipelines.kinesis.ranges import read_range

ALL = Limit()
Doc = dict[str, Any]


class Query:
    """Plays Spark: asks for ends, keeps its log, reads batches, restarts."""

    def __init__(self, client: Any, begin: str = "TRIM_HORIZON", **options: Any) -> None:
        self.client = client
        self.options = {"native_time": True, "fetch_size": 50} | options
        self.begin = Begin.parse(begin)
        self.log: list[Doc] = [symbolic(self.begin)]
        self.restart()

    def restart(self) -> None:
        self.seconds = 0.0
        self.planner = BatchPlanner(
            self.client,
            "s",
            begin=self.begin,
            clock_ms=lambda: self.client.now_ms,
            monotonic=lambda: self.seconds,
            sleep=self._sleep,
            **self.options,
        )

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def tick(self, limit: Limit = ALL, *, after_s: float = 1.0) -> list[int]:
        self.seconds += after_s
        end = self.planner.plan(self.log[-1], limit)
        if end == self.log[-1]:
            return []
        self.log.append(end)
        return self.read(len(self.log) - 1)

    def read(self, batch: int) -> list[int]:
        """The rows of a batch as executors read them, which those at hand must equal."""
        found = []
        for part in ranges(self.log[batch - 1], self.log[batch]):
            pages = read_range(
                self.client, "s", part, native_time=self.options["native_time"], fetch_size=50,
                fail_on_data_loss=self.options.get("fail_on_data_loss", True), timeout_s=5,
            )  # fmt: skip
            records = [record for page in pages for record in page]
            assert self.planner.at_hand(part) in (None, records)
            found += [int(record.sequence) for record in records]
        return found

    def drain(self, limit: Limit = ALL, *, at_most: int = 500) -> list[int]:
        found: list[int] = []
        for _ in range(at_most):
            before = len(self.log)
            found += self.tick(limit)
            if len(self.log) == before:
                return found
        raise AssertionError("no end")
