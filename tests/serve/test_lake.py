from __future__ import annotations

import inspect
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.lake import tables
from serve import lake as served
from serve.api.paging import page_of
from serve.bars import bar_of_lake, read_gap_cursor, roll_up, write_gap_cursor
from serve.lake import ServedLake
from serve.listings import at_least, read_cursor, write_cursor
from serve.symbol_memory import MAX_STATS

T0 = parse_time_ns("2024-07-01T13:30:00Z")
T0_DAY = date(2024, 7, 1)


def test_gaps_of_the_lake_by_cursor_are_all_there_once(tmp_path: Path) -> None:
    """One cut ends for all symbols at one moment, and may be declared twice."""
    rows = [
        {"symbol": s, "from_ns": f, "to_ns": n, "reason": "reconnect", "backfilled": False}
        for n in (10, 20)
        for s in ("AAPL", "SPY")
        for f in (None, 3)
    ]
    schema = tables.table("gaps").schema
    columns = {f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}
    write_deltalake(str(tmp_path / "gaps"), pa.table(columns, schema=schema))
    lake, seen, after = ServedLake(str(tmp_path)), [], None
    while page := lake.gaps(limit=3, after=after):
        seen += [(r["to_ns"], r["symbol"], r["from_ns"]) for r in page]
        after = read_gap_cursor(write_gap_cursor(page[-1]))
    assert seen == [(n, s, f) for n in (20, 10) for s in ("AAPL", "SPY") for f in (None, 3)]
    assert len(lake.gaps(limit=9, start_ns=10, end_ns=20)) == 4


def test_anomalies_of_the_lake_by_cursor_are_all_there_once(tmp_path: Path) -> None:
    """Many in one minute, one of them stored twice."""
    rows = [
        {
            "symbol": s, "event_time_ns": T0 + n * MINUTE_NS, "type": kind, "severity": severity,
            "score": 1.0, "value": 2.0, "threshold": 3.0, "reason": "why", "detector": "rule",
            "known_at": T0 // 1000, "date": T0_DAY,
        }
        for n in (0, 1)
        for s in ("AAPL", "SPY")
        for kind, severity in (("outlier", "warning"), ("rsi", "info"))
    ]  # fmt: skip
    rows.append(rows[0] | {"known_at": T0 // 1000 + 9, "reason": "again"})
    schema = tables.table("anomalies").schema
    columns = {f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}
    write_deltalake(str(tmp_path / "anomalies"), pa.table(columns, schema=schema))
    lake, seen, after = ServedLake(str(tmp_path)), [], None
    while page := lake.anomalies(limit=3, severities=at_least(None), after=after):
        seen += [(r["event_time"], r["symbol"], r["kind"]) for r in page]
        key = (parse_time_ns(page[-1]["event_time"]), page[-1]["symbol"], page[-1]["kind"])
        after = read_cursor("anomalies", write_cursor("anomalies", key))
    assert seen == [
        (format_time_ns(T0 + n * MINUTE_NS), s, kind)
        for n in (1, 0) for s in ("AAPL", "SPY") for kind in ("outlier", "rsi")
    ]  # fmt: skip
    warned = lake.anomalies(limit=9, severities=("warning",), symbol="AAPL", end_ns=T0 + 1)
    assert [(r["reason"], r["known_at"]) for r in warned] == [("why", "2024-07-01T13:30:00Z")]
    assert lake.anomalies(limit=9, severities=("info",), start_ns=T0 + 5 * MINUTE_NS) == []


def test_anomalies_of_a_lake_without_any_are_none(tmp_path: Path) -> None:
    assert ServedLake(str(tmp_path)).anomalies(limit=9, severities=at_least(None)) == []


def _write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    schema = tables.table(name).schema
    columns = {f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}
    path, made = str(folder / name), pa.table(columns, schema=schema)
    write_deltalake(path, made, partition_by=["date"])


def test_fills_of_the_lake_by_cursor_are_all_there_once_and_can_be_filtered(tmp_path: Path) -> None:
    _write(tmp_path, "fills", [
        {"symbol": s, "event_time_ns": T0 + n * MINUTE_NS, "side": "BUY", "shares": 1.0,
         "model_id": m, "model_version": "1", "decided_on": T0 // 1000, "filled_at": T0 // 1000,
         "known_at": T0 // 1000, "date": T0_DAY}
        for n in (0, 1) for s in ("AAPL", "SPY") for m in ("dqn", "ppo")
    ])  # fmt: skip
    lake, seen, after = ServedLake(str(tmp_path)), [], None
    while page := lake.fills(limit=3, after=after):
        seen += [(r["event_time"], r["symbol"], r["model"]) for r in page]
        after = (parse_time_ns(seen[-1][0]), *seen[-1][1:])
    assert seen == [
        (format_time_ns(T0 + n * MINUTE_NS), s, m)
        for n in (1, 0) for s in ("AAPL", "SPY") for m in ("dqn:1", "ppo:1")
    ]  # fmt: skip
    for model, found in (("ppo", 4), ("ppo:1", 4), ("ppo:2", 0)):
        assert len(lake.fills(limit=9, model=model)) == found
    assert len(lake.fills(limit=9, symbol="SPY", start_ns=T0 + 1)) == 2
    assert page == [] == ServedLake(str(tmp_path / "none")).fills(limit=9)


def test_alerts_of_the_lake_are_each_there_once_as_they_ended(tmp_path: Path) -> None:
    us = T0 // 1000
    _write(tmp_path, "alerts", [
        {"alert_id": f"{name}@{at}", "name": name, "severity": severity, "source": "producer",
         "symbol": "*", "detail": "why", "began_at": us + at, "ended_at": ended, "date": T0_DAY}
        for name, severity, at, ended in (
            ("full", "critical", 0, None), ("full", "critical", 0, us + 5),
            ("spilling", "warning", 0, None), ("full", "critical", 9, None),
        )
    ])  # fmt: skip
    lake, seen, after = ServedLake(str(tmp_path)), [], None
    while page := lake.alerts(limit=1, severities=at_least(None), after=after):
        seen += [(r["id"], r["ended_at"]) for r in page]
        after = (parse_time_ns(page[-1]["began_at"]), page[-1]["id"], "")
    assert seen == [
        ("full@9", None), ("full@0", "2024-07-01T13:30:00.000005Z"), ("spilling@0", None),
    ]  # fmt: skip
    assert len(lake.alerts(limit=9, severities=("critical",), standing=True)) == 1
    assert len(lake.alerts(limit=9, severities=at_least(None), start_ns=T0 + 9_000)) == 1
    assert ServedLake(str(tmp_path / "none")).alerts(limit=9, severities=at_least(None)) == []


def _lake_of_bars(folder: Path, n: int) -> tuple[ServedLake, list[dict[str, Any]]]:
    """A lake with minutes of two sessions, and the same bars as served."""
    rng = np.random.default_rng(1)
    schema = tables.table("bars").schema
    rows = []
    for i in range(n):
        at = T0 + (i // 300 * 1440 + i % 300) * MINUTE_NS
        price = float(round(50 + rng.normal(), 2))
        rows.append(
            {
                "symbol": "SPY", "event_time": at // 1000, "event_time_ns": at, "open": price,
                "high": price + 2, "low": price - 1, "close": price, "volume": float(i % 3),
                "trade_count": 2, "vwap": price + 0.1 if i % 5 else 0.0, "received_at_ns": at,
                "bseq": i, "position": 0, "date": format_time_ns(at)[:10],
            }
        )  # fmt: skip
    columns = {}
    for f in schema:
        values = [row.get(f.name) for row in rows]
        kind = pa.int64() if pa.types.is_timestamp(f.type) else f.type
        kind = pa.string() if f.name == "date" else kind
        columns[f.name] = pa.array(values, kind).cast(f.type)
    write_deltalake(str(folder / "bars"), pa.table(columns, schema=schema))
    return ServedLake(str(folder)), [bar_of_lake(row) for row in rows]


@pytest.mark.parametrize("window", ["5m", "15m", "1h", "1d"])
def test_longer_bars_of_the_lake_equal_those_rolled_up_here(tmp_path: Path, window: str) -> None:
    lake, minutes = _lake_of_bars(tmp_path, 600)
    expected = roll_up(minutes, window)
    got = lake.rolled("SPY", window, limit=1000)
    assert [{**row, "vwap": None} for row in got] == [{**row, "vwap": None} for row in expected]
    assert [row["vwap"] for row in got] == pytest.approx([row["vwap"] for row in expected])
    (last,) = lake.rolled("SPY", window, limit=1)
    assert {**last, "vwap": None} == {**got[-1], "vwap": None}
    before = T0 + (1440 + 7) * MINUTE_NS
    part = lake.rolled("SPY", window, limit=1, before_ns=before, start_ns=before - 60 * MINUTE_NS)
    assert [row["volume"] for row in part] == [
        roll_up(minutes[:307], window)[-1]["volume"] if window != "1h" else sum(
            m["volume"] for m in minutes[300:307]
        )
    ]  # fmt: skip


def test_indicators_of_the_lake_end_with_the_bar_asked_for(tmp_path: Path) -> None:
    lake, minutes = _lake_of_bars(tmp_path, 400)
    rows = lake.indicators("SPY", limit=2, before_ns=None)
    closes = [m["close"] for m in minutes]
    assert [row["event_time"] for row in rows] == [m["event_time"] for m in minutes[-2:]]
    assert rows[-1]["sma_200"] == pytest.approx(sum(closes[-200:]) / 200)
    assert rows[-1]["obv"] is not None
    assert lake.indicators("QQQ", limit=2, before_ns=None) == []


def test_statistics_of_the_lake_are_the_rows_with_their_payload(tmp_path: Path) -> None:
    schema = tables.table("stats").schema
    rows = [
        {
            "symbol": "SPY", "event_time_ns": T0 + i * MINUTE_NS, "span": "session", "count": i,
            "mean": 2.0, "date": T0_DAY, "payload": '{"session":"x"}', "known_at": known,
        }
        for i in range(3)
        for known in (1, 2)
    ]  # fmt: skip
    columns = {f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}
    write_deltalake(str(tmp_path / "stats"), pa.table(columns, schema=schema))
    found = ServedLake(str(tmp_path)).stats("SPY", limit=5, before_ns=T0 + 2 * MINUTE_NS)
    assert [row["count"] for row in found] == [0, 1]
    assert (found[1]["event_time"], found[1]["session"]) == ("2024-07-01T13:31:00Z", "x")


def _lake_of_evenings(folder: Path, days: int) -> ServedLake:
    """Six minutes of each day about midnight in UTC, which is evening in New York."""
    starts = [
        T0 + ((day * 24 + 10) * 60 + 27 + minute) * MINUTE_NS
        for day in range(days)
        for minute in range(6)
    ]
    about = [
        {"event_time_ns": at, "date": date.fromisoformat(format_time_ns(at)[:10])} for at in starts
    ]
    prices = dict.fromkeys(("open", "high", "low", "close", "vwap"), 1.0)
    _write(folder, "bars", [
        {**row, **prices, "symbol": "SPY", "event_time": at // 1000, "volume": 1.0,
         "trade_count": 1, "received_at_ns": at, "bseq": n, "position": 0}
        for n, (at, row) in enumerate(zip(starts, about, strict=True))
    ])  # fmt: skip
    _write(folder, "stats", [
        {**row, "symbol": symbol, "count": n, "payload": "{}", "known_at": 1}
        for n, row in enumerate(about) for symbol in ("SPY", *(["KO"] if n % 30 == 0 else []))
    ])  # fmt: skip
    return ServedLake(str(folder))


@pytest.mark.parametrize("near", [1, 2, 3])
def test_newest_rows_of_a_lake_are_whole_from_however_few_days_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    lake = _lake_of_evenings(tmp_path, 21)
    daily, stats = lake.rolled("SPY", "1d", limit=99), lake.stats("KO", limit=99, before_ns=None)
    assert [row["volume"] for row in daily] == [6.0] * 21
    assert [row["count"] for row in stats] == [0, 30, 60, 90, 120]
    monkeypatch.setattr(served, "_NEAR_DAYS", near)
    for limit in range(1, 23):
        assert lake.rolled("SPY", "1d", limit=limit) == daily[-limit:]
        assert lake.stats("KO", limit=limit, before_ns=None) == stats[-limit:]
    part = lake.rolled("SPY", "1d", limit=99, start_ns=T0 + 10 * 1440 * MINUTE_NS)
    assert part == daily[-len(part) :] and len(part) == 11


def test_page_of_the_newest_rows_opens_no_file_of_long_ago(tmp_path: Path) -> None:
    lake = _lake_of_evenings(tmp_path, 30)
    for name in ("bars", "stats"):
        for file in tmp_path.glob(f"{name}/date=2024-07-0*/*.parquet"):
            file.unlink()
    assert len(lake.stats("SPY", limit=40, before_ns=None)) == 40
    assert len(lake.rolled("SPY", "1d", limit=5)) == 5


def test_feed_remembers_a_page_of_statistics_and_the_row_after_it() -> None:
    default = inspect.signature(page_of).parameters["limit"].default
    assert default + 1 <= MAX_STATS
