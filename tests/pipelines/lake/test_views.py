"""What holds now, and what was known when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import LakeError
from pipelines.lake.query import LakeQuery
from pipelines.lake.tables import TABLES
from pipelines.lake.writer import LakeWriter

AT = datetime(2011, 1, 3, 14, 30, tzinfo=UTC)


class Lake:
    """A lake to which rows are added one commit at a time; what is not said is null."""

    def __init__(self, uri: str) -> None:
        self.query = LakeQuery(uri)
        self._writer = LakeWriter(uri)
        self._generation = self._writer.open_query("q")
        self._batch = 0

    def add(self, name: str, *rows: dict[str, Any]) -> None:
        schema = TABLES[name].schema
        made = []
        for row in rows:
            at = row.pop("at", AT)
            filled = dict.fromkeys(schema.names) | {
                "symbol": "SPY", "event_time": at, "date": date(at.year, at.month, at.day),
                "event_time_ns": int(at.timestamp()) * 1_000_000_000, "received_at_ns": self._batch,
            }  # fmt: skip
            made.append({k: v for k, v in (filled | row).items() if k in schema.names})
        self._writer.commit(
            name, pa.Table.from_pylist(made, schema=schema),
            query_id="q", batch_id=self._batch, generation=self._generation,
        )  # fmt: skip
        self._batch += 1

    def trades(self) -> dict[int, float]:
        sql = "SELECT trade_id, price FROM trades_current ORDER BY trade_id"
        return {row["trade_id"]: row["price"] for row in self.query.sql(sql).to_pylist()}


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path))


def trade(number: int, price: float, **more: Any) -> dict[str, Any]:
    return {"trade_id": number, "price": price, "size": 1.0, "exchange": "D", **more}


def corrected(original: int, to: int, price: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "c", "original_id": original, "corrected_id": to, "corrected_price": price,
        "corrected_size": 1.0, "exchange": "D", **more,
    }  # fmt: skip


def test_trades_current_without_corrections_are_the_trades(lake):
    lake.add("trades", trade(1, 10.0), trade(2, 11.0))
    assert lake.trades() == {1: 10.0, 2: 11.0}


def test_trades_current_applies_cancels_and_corrections_and_leaves_the_raw_ones(lake):
    lake.add("trades", trade(1, 10.0), trade(2, 11.0), trade(3, 12.0))
    lake.add("corrections", {"type": "x", "original_id": 1, "exchange": "D"})
    lake.add("corrections", corrected(2, 20, 11.5))
    assert lake.trades() == {3: 12.0, 20: 11.5}
    assert lake.query.dataset("trades").count_rows() == 3


def test_trades_current_follows_a_chain_and_takes_the_last_word(lake):
    lake.add("trades", trade(1, 10.0), trade(2, 11.0), trade(5, 5.0))
    lake.add("corrections", corrected(1, 1, 10.5))  # keeps its id
    lake.add("corrections", corrected(1, 1, 10.6))
    lake.add("corrections", corrected(2, 3, 11.5))
    lake.add("corrections", corrected(3, 4, 11.7))
    lake.add("corrections", corrected(5, 6, 5.5))
    lake.add("corrections", {"type": "x", "original_id": 6, "exchange": "D"})
    assert lake.trades() == {1: 10.6, 4: 11.7}


def test_trades_current_keeps_another_trade_of_the_same_id_apart(lake):
    tomorrow = AT + timedelta(days=1)
    lake.add("trades", trade(1, 10.0), trade(1, 11.0, at=tomorrow), trade(1, 12.0, exchange="Q"))
    lake.add("trades", trade(1, 13.0, symbol="KO"))
    lake.add("corrections", {"type": "x", "original_id": 1, "exchange": "D"})
    sql = "SELECT price FROM trades_current ORDER BY price"
    assert lake.query.sql(sql)["price"].to_pylist() == [11.0, 12.0, 13.0]


def test_trades_current_applies_what_is_said_after_midnight_utc_of_the_same_trading_day(lake):
    close = datetime(2011, 1, 3, 20, 59, tzinfo=UTC)
    in_the_evening = datetime(2011, 1, 4, 0, 5, tzinfo=UTC)  # 19:05 in New York
    lake.add("trades", trade(1, 10.0, at=close), trade(2, 11.0, at=in_the_evening))
    lake.add("trades", trade(3, 12.0, at=close), trade(1, 13.0, at=close + timedelta(days=1)))
    lake.add("corrections", {"type": "x", "original_id": 1, "exchange": "D", "at": in_the_evening})
    lake.add("corrections", corrected(3, 4, 12.5, at=close))
    lake.add("corrections", corrected(4, 5, 12.6, at=in_the_evening))
    sql = "SELECT price FROM trades_current ORDER BY price"
    assert lake.query.sql(sql)["price"].to_pylist() == [11.0, 12.6, 13.0]


def feature(revision: int, close: float, known: int, source: str = "vendor") -> dict[str, Any]:
    return {
        "close": close, "revision": revision, "source": source,
        "known_at": AT + timedelta(minutes=known),
    }  # fmt: skip


def test_features_as_of_a_time_are_those_that_were_known(lake):
    lake.add("features", feature(0, 10.0, 1), feature(1, 11.0, 5, "revised"))
    for known, expected in ((0, []), (1, [10.0]), (4, [10.0]), (5, [11.0])):
        sql = "SELECT close FROM features_as_of($t)"
        found = lake.query.sql(sql, {"t": (AT + timedelta(minutes=known)).isoformat()})
        assert found["close"].to_pylist() == expected


def test_bars_current_are_the_last_revision_else_the_vendors_else_our_own(lake):
    at = [AT + timedelta(minutes=m) for m in range(3)]
    lake.add("bars", {"close": 1.0}, {"close": 2.0, "at": at[1]})
    lake.add("features", feature(0, 1.0, 1), feature(0, 2.1, 1, "trades") | {"at": at[1]})
    lake.add(
        "features", feature(1, 1.5, 9, "revised"), feature(0, 3.0, 1, "trades") | {"at": at[2]}
    )
    found = lake.query.sql("SELECT close, source, revision FROM bars_current ORDER BY event_time")
    assert [tuple(r.values()) for r in found.to_pylist()] == [
        (1.5, "revised", 1), (2.0, "vendor", 0), (3.0, "trades", 0),
    ]  # fmt: skip


def test_sql_as_of_a_time_reads_the_tables_as_they_were(lake, store_time):
    lake.add("trades", trade(1, 10.0))
    before = store_time()
    lake.add("trades", trade(2, 11.0))
    lake.add("corrections", {"type": "x", "original_id": 1, "exchange": "D"})
    sql = "SELECT trade_id FROM trades_current ORDER BY 1"
    assert lake.query.sql(sql)["trade_id"].to_pylist() == [2]
    assert lake.query.sql(sql, as_of=before)["trade_id"].to_pylist() == [1]
    assert lake.query.sql("FROM trades", as_of=2).num_rows == 1


def test_sql_as_of_what_cannot_be_known_says_so(lake):
    with pytest.raises(LakeError, match="no zone"):
        lake.query.sql("FROM trades", as_of=datetime(2011, 1, 3))
    with pytest.raises(LakeError, match="did not know yet"):
        lake.query.sql("FROM trades", as_of=99)
    with pytest.raises(LakeError, match="give a time"):
        lake.query.sql("SELECT * FROM trades, bars", as_of=1)


def test_recent_bars_of_a_long_history_are_read_from_its_newest_days(lake, monkeypatch):
    days = [AT - timedelta(days=back) for back in (90, 40, 3, 2, 1)]
    lake.add("bars", *({"close": float(n), "at": day} for n, day in enumerate(days)))
    lake.add("bars", {"close": 9.0, "at": AT, "symbol": "KO"})
    before_ns = int(AT.timestamp()) * 1_000_000_000
    real, begun = LakeQuery.sql, []

    def sql(self: LakeQuery, text: str, parameters: Any = None, **options: Any) -> pa.Table:
        begun.append(parameters["first_day"])
        return real(self, text, parameters, **options)

    monkeypatch.setattr(LakeQuery, "sql", sql)
    for limit, first_days in ((3, ["2010-12-24"]), (4, ["2010-12-24", "1970-01-01"])):
        begun.clear()
        rows = lake.query.recent_bars("SPY", limit=limit, before_ns=before_ns)
        assert [row["close"] for row in rows] == [float(n) for n in range(5)][-limit:]
        assert begun == first_days
