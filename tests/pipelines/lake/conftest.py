"""Rows of the lake's tables for its tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster import processes
from pipelines.lake.tables import TABLES

BarTable = Callable[..., pa.Table]


@pytest.fixture
def bars() -> BarTable:
    """Makes rows of ``bars``: ``bars("SPY", 30, 31)`` are its minutes 14:30 and 14:31."""

    def make(
        symbol: str, *minutes: int, day: int = 3, bseq: int = 1, price: float = 1.0
    ) -> pa.Table:
        schema = TABLES["bars"].schema
        rows: list[dict[str, Any]] = []
        for minute in minutes:
            start = datetime(2011, 1, day, 14, minute, tzinfo=UTC)
            row = dict.fromkeys(schema.names)
            row.update(
                symbol=symbol,
                event_time=start,
                event_time_ns=int(start.timestamp()) * 1_000_000_000,
                open=price, high=price, low=price, close=price,
                volume=5.0, trade_count=1, vwap=price,
                epoch="e", bucket=1, bseq=bseq, position=0,
                received_at_ns=bseq, sent_at_ns=bseq,
                date=date(2011, 1, day),
            )  # fmt: skip
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=schema)

    return make


@pytest.fixture
def store_time(tmp_path: Path) -> Callable[[], datetime]:
    """Tells a time after all that is written and before all that will be.

    A version is as old as the file of its log, and a file system's clock moves in steps of some
    milliseconds.
    """
    file = tmp_path / "clock"

    def touched() -> float:
        file.write_bytes(b"")
        return file.stat().st_mtime

    def tell() -> datetime:
        begun = touched()
        processes.wait_until(
            lambda: touched() > begun, name="the store's clock", timeout_s=5, poll_s=0.001
        )
        return datetime.fromtimestamp(begun, UTC) + timedelta(microseconds=1)

    return tell
