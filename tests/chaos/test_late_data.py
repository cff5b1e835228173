"""FAULTS 28: trades and bars that come when their bar has closed; a stream that falls idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import processes
from pipelines.ports import KinesisConfig
from pipelines.streaming.config import StreamingConfig
from pipelines.streaming.job import StreamingJob
from pipelines.streaming.session import SparkConfig
from tests.chaos.tape_sender import SYMBOLS

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(600)]

SPARK = SparkConfig(master="local[2]", app_name="late-data", driver_memory="512m", ui_port=None)
OWN_BARS = "SELECT count(*) AS n FROM features WHERE source = 'trades'"
WAIT_S = 240


@pytest.fixture
def running(kinesis: KinesisConfig, tmp_path: Path, policy: str) -> Iterator[StreamingJob]:
    """Both queries, here: what they count is asked while they run."""
    streaming = StreamingJob(
        StreamingConfig(
            spark=SPARK,
            kinesis=kinesis,
            lake_uri=str(tmp_path / "lake"),
            checkpoint_uri=str(tmp_path / "checkpoints"),
            archive_trigger_s=0.5,
            signals_trigger_s=0.3,
            policy_url=policy,
            policy_deadline_s=20.0,
            provisional_every_s=0,
            revisions_every_s=0,
        )
    )
    streaming.start()
    yield streaming
    streaming.stop()


def test_late_data_is_stored_and_counted_and_the_last_window_of_an_idle_stream_closes(
    job, clean, running
):
    one = job(28, signals=True)
    tape = one.sender

    def until(ready: Callable[[], bool], *, what: str) -> None:
        processes.wait_until(
            lambda: running.check() or ready(), name=what, timeout_s=WAIT_S, poll_s=0.3
        )

    tape.send(30)
    tape.end_minute()
    assert {symbol for symbol, _ in tape.bars} == set(SYMBOLS)
    until(lambda: one.signalled() == len(tape.bars), what="the bars are decided on")

    tape.send_late(3)
    tape.trade_each()
    tape.beat(after_s=60)  # from here on there is nothing but heartbeats
    tape.beat(after_s=5)
    until(lambda: one.lake.sql(OWN_BARS)["n"][0].as_py() == len(SYMBOLS), what="the last window")
    assert len(tape.bars) == one.signalled() - len(SYMBOLS)

    tape.end_minute()  # the vendor's bars of that window, too late
    assert running.drain(WAIT_S)
    stats = running.stats()
    clean(one.ledger(stats))
    assert stats["signals"]["late_trades"] == 3 * len(SYMBOLS)
    assert stats["signals"]["late_bars"] == stats["signals"]["stand_ins"] == len(SYMBOLS)
