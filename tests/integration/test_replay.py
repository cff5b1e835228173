"""A real session of January 2011 through all parts: its bars, their features, timely signals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.features.spec import FEATURE_SPEC
from pipelines.lake.query import LakeQuery
from serve.market import Staleness
from tests import talib_oracle
from tests.running import FAST, platform, until

pytestmark = [pytest.mark.heavy, pytest.mark.integration, pytest.mark.timeout(600)]

SPEED = 600
FILE = "bars_1min_spy_2011_01.parquet"
PRICES = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / FILE
    if not folder.exists():
        pytest.skip("real market data (../shared/data) is not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def lake(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeQuery]:
    """The lake after one regular session at 600×."""
    folder = tmp_path_factory.mktemp("replay")
    chosen: dict[str, Any] = {
        "replay": data,
        "replay_sessions": "regular",
        "max_sessions": 1,
        "symbols": "SPY",
        "run": "first-session",
        "speed": SPEED,
        "spark_master": "local[2]",
    }
    with platform(folder, **chosen, **FAST) as running:
        until(
            lambda: running.exchange("/raytape/clock")["state"] == "finished",
            timeout_s=120,
            what="the session has been played",
        )
        assert running.ask("producer", "drain", 20.0)
        assert running.ask("streaming", "drain", 60.0, timeout_s=70)
        yield LakeQuery(running.settings.uri("lake"))


@pytest.fixture(scope="module")
def session(data: Path) -> dict[str, Any]:
    """The first regular session of the file, as arrays."""
    table = pq.read_table(data).sort_by("timestamp")
    hour = pc.strftime(pc.assume_timezone(pc.local_timestamp(table["timestamp"]), "UTC"), "%H:%M")
    day = pc.strftime(table["timestamp"], "%Y-%m-%d")
    first = pc.min(day)
    chosen = pc.and_(
        pc.equal(day, first),
        pc.and_(pc.greater_equal(hour, "14:30"), pc.less(hour, "21:00")),
    )
    table = table.filter(chosen)
    arrays = {name: table[name].to_numpy().astype(np.float64) for name in PRICES}
    return {"timestamp": table["timestamp"].to_pylist(), **arrays}


def test_bars_in_the_lake_equal_the_file(lake: LakeQuery, session: dict[str, Any]) -> None:
    rows = lake.sql("SELECT * FROM bars ORDER BY event_time").to_pylist()
    assert [row["event_time"] for row in rows] == session["timestamp"]
    assert len(rows) == 390
    for name in PRICES:
        assert [row[name] for row in rows] == list(session[name]), name


def test_trades_of_a_bar_touch_its_prices_and_sum_to_its_volume(lake: LakeQuery) -> None:
    sql = """
        SELECT count(*) AS wrong FROM bars b JOIN (
            SELECT date_trunc('minute', event_time) AS minute, sum(size) AS volume,
                   max(price) AS high, min(price) AS low,
                   arg_min(price, event_time_ns) AS open, arg_max(price, event_time_ns) AS close
            FROM trades GROUP BY 1
        ) t ON t.minute = b.event_time
        WHERE (t.volume, t.high, t.low, t.open, t.close)
              IS DISTINCT FROM (b.volume, b.high, b.low, b.open, b.close)
    """
    assert lake.sql(sql).to_pylist() == [{"wrong": 0}]


def test_features_equal_talib_over_the_same_bars(lake: LakeQuery, session: dict[str, Any]) -> None:
    rows = lake.sql("SELECT * FROM features ORDER BY event_time").to_pylist()
    assert [row["event_time"] for row in rows] == session["timestamp"]
    oracle = talib_oracle.features(session["close"], session["volume"])
    assert {*oracle, "spread_bps"} == set(FEATURE_SPEC.names)
    for name, expected in oracle.items():
        got = np.array([np.nan if row[name] is None else row[name] for row in rows])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9, err_msg=name)
    assert not any(row["spread_assumed"] for row in rows)
    assert {row["fingerprint"] for row in rows} == {FEATURE_SPEC.fingerprint}


def test_signals_are_stale_only_where_they_came_late(lake: LakeQuery) -> None:
    """Played at 600×, a market minute is 0.1 s: how fast the day runs makes no answer stale."""
    rows = lake.sql("SELECT reason, data_age_ms FROM signals").to_pylist()
    assert len(rows) == 390
    assert {row["reason"] for row in rows} <= {None, "warming_up", "no_model", "stale"}
    limit_ms = Staleness().after_wall_ms * SPEED
    for row in rows:
        if row["reason"] == "stale":
            assert row["data_age_ms"] > limit_ms
        elif row["reason"] != "warming_up":  # the age is taken twice: before deciding, and after
            assert row["data_age_ms"] < 2 * limit_ms
