"""The page's own indicators and the platform's are one: both say what the fixture says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.features import indicators

FIXTURE = Path(__file__).parents[2] / "dashboard/src/lib/market/indicators.fixture.json"


def test_indicators_of_the_dashboards_fixture_are_the_platforms() -> None:
    known = orjson.loads(FIXTURE.read_bytes())
    high, low, close, volume, vwap = np.array(known["bars"], float).T
    start = parse_time_ns(known["start"])
    found = indicators.batch(
        start_ns=[start + at * MINUTE_NS for at in range(len(close))],
        high=high,
        low=low,
        close=close,
        volume=volume,
        vwap=vwap,
    )
    for at, row in known["rows"].items():
        ours = indicators.row_at(found, int(at))
        assert [name for name in row if row[name] is None] == [n for n in ours if ours[n] is None]
        there = {name: value for name, value in row.items() if value is not None}
        assert {name: ours[name] for name in there} == pytest.approx(there, rel=1e-9)
