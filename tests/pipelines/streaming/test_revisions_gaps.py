"""Bars after a gap that was filled."""

from __future__ import annotations

import pytest

from pipelines.events import MINUTE_NS
from tests.pipelines.streaming.test_revisions import OPEN_NS, Market, gap


@pytest.fixture
def market(tmp_path, tape, rows_of) -> Market:
    return Market(str(tmp_path), tape, rows_of)


@pytest.mark.parametrize("limit", [3, 500])
def test_bars_far_after_a_gap_that_was_filled_are_no_longer_gapped_whenever_they_come(
    market, limit
):
    market.revisions._limit = limit
    market.minute(0, 101.0)
    hole = gap(OPEN_NS + 1, OPEN_NS + 2 * MINUTE_NS + 5)
    market.send(hole)
    market.minute(5, 105.0)
    market.send(hole | {"backfilled": True, "filled": {"t": 0, "q": 0, "b": 0}})
    market.drained()
    market.minute(10, 106.0)
    market.minute(15, 107.0)
    assert [market.rows(minute)[-1]["gap"] for minute in (5, 10, 15)] == [True, True, False]
    market.revisions = market.new_revisions()
    market.drained()
    assert [market.rows(minute)[-1]["gap"] for minute in (0, 5, 10, 15)] == [False] * 4
    market.minute(16, 108.0)
    market.drained()
    assert len(market.archive.dirty()) == 0
