"""What a share cost in a bar, in every average that is weighted by volume."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.features import indicators
from pipelines.features.bar import ClosedBar
from pipelines.features.indicators import Indicators
from pipelines.features.rollup import RollUp
from pipelines.streaming.stats import SlidingAverages

OPEN_NS = parse_time_ns("2011-01-03T14:30:00Z")


@pytest.mark.parametrize("unknown", [0.0, None])
def test_bar_without_a_price_of_its_own_counts_alike_in_every_average(unknown: float | None):
    session, rolled, sliding = Indicators(), RollUp(), SlidingAverages()
    prices, closed = [100.0, unknown, 104.0, 100.0, 100.0], []
    for minute, vwap in enumerate(prices):
        bar = ClosedBar(OPEN_NS + minute * MINUTE_NS, 100, 106, 97, 103, 10, vwap=vwap)
        session.push(bar)
        closed += rolled.push(bar)
        sliding.push(bar)
    expected = (100 + (106 + 97 + 103) / 3 + 104 + 100 + 100) / 5
    table = {"high": [106.0] * 5, "low": [97.0] * 5, "close": [103.0] * 5, "volume": [10.0] * 5}
    starts = [OPEN_NS + minute * MINUTE_NS for minute in range(5)]
    batch = indicators.batch(start_ns=starts, **table, vwap=np.array(prices, dtype=float))
    (five,) = [one.bar for one in closed if one.window == "5m"]
    assert five.vwap == pytest.approx(expected, rel=1e-12)
    assert sliding.data()["5m"]["vwap"] == pytest.approx(expected, rel=1e-12)
    assert batch["vwap"][-1] == pytest.approx(expected, rel=1e-12)
    assert session._paid / session._v == pytest.approx(expected, rel=1e-12)
    message = {"t": "2011-01-03T14:30:00Z", "o": 1, "h": 2, "l": 1, "c": 2, "v": 1, "vw": unknown}
    assert ClosedBar.from_message(message).vwap is None
