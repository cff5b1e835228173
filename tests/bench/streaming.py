"""The streaming job: drain, cost per message, latency over rate, restart. Takes N minutes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.rows import Row, Say
from tests.bench.stream.drain import drain
from tests.bench.stream.embedded import embedded

MASTERS = ("raydp", "local[2]")


def run(say: Say, masters: Sequence[str] = MASTERS) -> list[Row]:
    with embedded() as (folder, kinesis):
        return drain(say, folder, kinesis, masters)
