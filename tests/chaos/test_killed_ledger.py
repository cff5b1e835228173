"""The judge of the kill matrices: it sees what is lost, twice, out of order, miscounted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.local_aws import embedded_kinesis
from tests.chaos.killed_job import KilledJob, Ledger, _alike

TRADES = [("SPY", 1), ("SPY", 2), ("KO", 3)]
BARS = [("SPY", 60)]


class Held:
    """A lake with these rows."""

    def __init__(self, trades: list[tuple[str, int]], bars: list[tuple[str, int]]) -> None:
        self._trades, self._bars = trades, bars

    def sql(self, text: str) -> pa.Table:
        rows = self._trades if "FROM trades" in text else self._bars
        return pa.table({"symbol": [s for s, _ in rows], "n": [n for _, n in rows]})


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Judges a lake with these trades, after :data:`TRADES` and :data:`BARS` were sent."""

    def ledger(trades: list[tuple[str, int]], *, counted: int = 4, holes: int = 0) -> Ledger:
        job = KilledJob(embedded_kinesis(1), tmp_path, random.Random(1))
        job.sender.trades, job.sender.bars = TRADES, BARS
        monkeypatch.setattr(KilledJob, "lake", Held(trades, BARS))
        return job.ledger({"archive": {"holes": holes, "stored": counted}})

    return ledger


def test_lake_with_all_of_it_is_clean(judge):
    assert judge(TRADES).clean


@pytest.mark.parametrize(
    ("trades", "told"),
    [
        (TRADES[1:], {"lost": 1, "twice": 0}),
        ([*TRADES, TRADES[2]], {"lost": 0, "twice": 1}),
        ([TRADES[0], TRADES[0], TRADES[2]], {"lost": 1, "twice": 1}),
        ([TRADES[1], TRADES[0], TRADES[2]], {"disordered": 1}),
    ],
    ids=["lost", "twice", "one for another", "disordered"],
)
def test_lake_that_is_wrong_is_told_how(judge, trades, told):
    found = judge(trades)
    assert {name: getattr(found, name) for name in told} == told
    assert not found.clean


@pytest.mark.parametrize("given", [{"counted": 3}, {"holes": 1}])
def test_counters_that_say_something_else_are_not_clean(judge, given):
    assert not judge(TRADES, **given).clean


def test_features_are_alike_to_nine_digits_and_only_where_both_are_warm():
    assert _alike([1.0, None], [1.0 + 1e-12, None])
    assert not _alike([1.0], [1.000001])
    assert not _alike([None], [1.0])
    assert not _alike(None, [1.0])
