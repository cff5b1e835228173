"""A batch that is replayed when its commit is no longer in the tables' logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.events import MINUTE_NS
from pipelines.lake.maintenance import Limits, Maintenance
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.streaming.outbox import Outbox
from tests.pipelines.streaming.test_outbox import QUERY, T0, Policy, Sink, _strange


class Replay:
    """Takes two batches: the bars of two minutes, then one of them once more."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.writer = LakeWriter(uri)
        self.sink = Sink()
        self.policy = Policy()

    def take(self, batch_id: int) -> None:
        outbox = Outbox(self.writer, self.sink, clock=lambda: T0 + batch_id * MINUTE_NS)
        outbox.open()
        self.policy.decided = batch_id == 1  # of the first minute
        outbox.take(self._run, query_id=QUERY, batch_id=batch_id)
        outbox.close()

    def _run(self, ask: bool) -> list[dict[str, Any]]:
        rows = self.policy.run(ask)
        strange = orjson.loads(_strange(False)[1]["payload"])["anomalies"]
        payload = orjson.loads(rows[1]["payload"]) | {"anomalies": strange}
        rows[1]["payload"] = orjson.dumps(payload).decode()
        return rows

    def revise(self) -> None:
        """Another query adds a revision of each bar, newer than all that was decided."""
        rows = LakeQuery(self.uri).dataset("features").to_table()
        for name, value in (("revision", 1), ("known_at", (T0 + 5 * MINUTE_NS) // 1000)):
            column = pa.array([value] * rows.num_rows).cast(rows[name].type)
            rows = rows.set_column(rows.column_names.index(name), name, column)
        generation = self.writer.open_query("revisions", tables=["features"])
        self.writer.commit(
            "features", rows, query_id="revisions", batch_id=0, generation=generation
        )

    def join(self) -> None:
        keeper = Maintenance(self.writer, Limits(many_files=1, retention_h=0))
        keeper.open()
        keeper.run()
        assert keeper.stats()["compacted_files"] >= 7

    def cut_logs(self) -> None:
        for name in ("features", "signals", "anomalies"):
            table = DeltaTable(f"{self.uri}/{name}")
            table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
            table.create_checkpoint()
            table.cleanup_metadata()
            assert self.writer.metadata_of(name, QUERY, 1) is None


@pytest.mark.parametrize("joined", [False, True])
def test_take_of_a_held_batch_whose_commit_left_the_log_publishes_the_same(
    tmp_path: Path, joined: bool
):
    replay = Replay(str(tmp_path))
    replay.take(0)
    replay.sink.items.clear()
    replay.take(1)
    of_the_last, first = replay.sink.items[:12], replay.sink.items[12:]
    assert {item["kind"] for item in of_the_last} == {"bar", "features", "signal"}
    assert {item["kind"] for item in first} == {"bar", "features", "signal", "anomaly"}
    replay.revise()
    if joined:
        replay.join()
    replay.cut_logs()
    replay.take(1)
    assert replay.policy.asked == 2
    assert replay.sink.items == of_the_last + first * 2
