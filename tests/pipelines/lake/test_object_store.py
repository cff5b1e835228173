"""The same lake on S3, played by moto."""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pytest

from pipelines.errors import Fenced, LakeError
from pipelines.lake import archive_state
from pipelines.lake.files import write_files
from pipelines.lake.maintenance import Limits, Maintenance
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter


def test_lake_on_an_object_store_keeps_the_laws(object_store, bars):
    uri, options = "s3://lake/tape", object_store
    writer = LakeWriter(uri, options)
    old = writer.open_query("q", tables=["bars"])
    files = write_files(
        uri, TABLES["bars"], pa.concat_tables([bars("SPY", 30), bars("KO", 31, day=4)]),
        storage_options=options,
    )  # fmt: skip
    batch = {"query_id": "q", "batch_id": 0}
    assert writer.commit("bars", files, **batch, generation=old)
    assert not writer.commit("bars", files, **batch, generation=old)
    assert writer.read_batch("bars", "q", 0).num_rows == 2
    new = writer.open_query("q", tables=["bars"])
    with pytest.raises(Fenced):
        writer.commit("bars", bars("SPY", 31), query_id="q", batch_id=1, generation=old)
    assert writer.commit("bars", bars("SPY", 31), query_id="q", batch_id=1, generation=new)
    query = LakeQuery(uri, options)
    answer = query.sql("SELECT symbol, count(*) n FROM bars GROUP BY symbol ORDER BY symbol")
    assert answer.to_pylist() == [{"symbol": "KO", "n": 1}, {"symbol": "SPY", "n": 2}]
    keeper = Maintenance(writer, Limits(many_files=1, retention_h=0), tables=["bars"])
    keeper.open()
    keeper.run()
    assert writer.commit("bars", bars("SPY", 32), query_id="q", batch_id=2, generation=new)
    keeper.run()
    assert keeper.stats()["skipped"] == 0
    assert keeper.stats()["vacuumed_files"] >= 2
    assert query.dataset("bars").count_rows() == 4
    assert archive_state.load(query) == archive_state.ArchiveState()


@pytest.mark.chaos
def test_commit_through_a_store_that_fails_is_there_once_or_not_at_all(
    faulty_store, object_store, bars
):
    uri, (options, faults) = "s3://lake/faulty", faulty_store
    writer = LakeWriter(uri, options, sleep=lambda _: None)
    generation = writer.open_query("q", tables=["bars"])
    query = LakeQuery(uri, object_store)

    def commit(batch: int) -> bool:
        rows = bars("SPY", 10 + 2 * batch, 11 + 2 * batch)
        return writer.commit("bars", rows, query_id="q", batch_id=batch, generation=generation)

    faults(every=3)
    assert commit(0)
    faults(every=1)
    with pytest.raises(LakeError, match="503 Service Unavailable"):
        commit(1)
    assert query.dataset("bars").count_rows() == 2
    faults(every=2, after=True)  # the store does it, and its answer is lost
    with contextlib.suppress(LakeError):
        commit(1)
    assert query.dataset("bars").count_rows() in (2, 4)
    faults(every=0)
    commit(1)
    assert not commit(1)
    assert query.dataset("bars").count_rows() == 4
