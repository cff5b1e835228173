"""How the batches of the sources become tasks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.kinesis import source
from pipelines.kinesis.options import SourceOptions
from pipelines.kinesis.source import KinesisStreamReader
from pipelines.streaming.market_data import MarketDataReader

OPTIONS = SourceOptions.parse({"streamName": "s", "region": "us-east-1"})


@pytest.mark.parametrize(
    ("reader", "tasks"),
    [
        (KinesisStreamReader(OPTIONS), [["a"], ["b"]]),  # the archive's: one shard's minutes a task
        (MarketDataReader(OPTIONS, live=False), [["a", "b"]]),
    ],
)
def test_small_batch_of_two_shards_is_one_task_of_signals_and_two_of_the_archive(
    reader: KinesisStreamReader, tasks: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [SimpleNamespace(shard=name) for name in ("a", "b")]
    monkeypatch.setattr(source, "ranges", lambda *_: shards)
    monkeypatch.setattr(
        reader, "_planner", SimpleNamespace(at_hand=lambda _: [], replaced=lambda _: False)
    )
    found = [[part.range.shard for part in task.value] for task in reader.partitions({}, {"x": 1})]
    assert found == tasks
