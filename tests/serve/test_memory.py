from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.codec import decode_record
from pipelines.events import item, parse_time_ns
from pipelines.ticks import decode_ticks
from serve.memory import FeedMemory
from tests.pipelines.ticks import records
from tests.serve.conftest import OPEN_NS, bar, features_item, minute, quote, record, trade

WALL = 10**12


def updates(memory: FeedMemory, channel: str) -> list[dict]:
    memory.flush(wall=WALL)
    return [orjson.loads(u.data) for u in memory.log.all() if u.channel == channel]


def test_record_with_ticks_gives_latest_trade_quote_and_forming_bar() -> None:
    memory = FeedMemory()
    memory.apply_record(record(trade(price=100), quote(), trade(s=2, price=103, size=30)))
    assert updates(memory, "trades") == [
        {"price": 103.0, "size": 30.0, "exchange": "V", "received_at": "1970-01-01T00:00:05Z"}
    ]
    assert updates(memory, "quotes")[0]["bid"] == 99.0
    forming = updates(memory, "bars")[0]
    assert (forming["open"], forming["high"], forming["volume"], forming["forming"]) == (
        100.0, 103.0, 40.0, True,
    )  # fmt: skip
    assert forming["vwap"] == (100 * 10 + 103 * 30) / 40


def test_record_sent_twice_is_dropped_and_counted() -> None:
    memory = FeedMemory()
    for _ in range(2):
        memory.apply_record(record(trade(), quote()))
    assert (memory.counts["messages"], memory.counts["duplicates"]) == (2, 2)


def test_record_number_that_jumps_is_a_hole() -> None:
    memory = FeedMemory()
    memory.apply_record(record(trade(), bseq=3))
    memory.apply_record(record(trade(s=2), bseq=5))
    assert memory.counts["holes"] == 1


def test_message_that_is_quarantined_elsewhere_is_not_shown() -> None:
    memory = FeedMemory()
    memory.apply_record(record(trade(price=-1), trade(s=400 * 86400), {"T": "zz", "S": "SPY"}))
    assert updates(memory, "trades") == []
    assert memory.counts["rejected"] == 2


def test_vendor_bar_closes_the_forming_one_and_late_trades_do_not_open_it_again() -> None:
    memory = FeedMemory()
    memory.apply_record(record(trade(), bar(i=0), trade(s=59, price=500), bseq=1))
    rows = updates(memory, "bars")
    assert [(r["forming"], r["high"]) for r in rows] == [(False, 101.0)]
    assert memory.symbols["SPY"].forming is None


def test_trade_of_a_later_minute_forms_beside_the_closed_bar() -> None:
    memory = FeedMemory()
    memory.apply_record(record(bar(i=0), trade(s=61)))
    assert [r["event_time"] for r in updates(memory, "bars")] == [minute(0), minute(1)]


def test_bar_made_from_trades_never_replaces_the_vendors() -> None:
    memory = FeedMemory()
    memory.apply_record(record(bar(i=0)))
    own = {"open": 1, "high": 1, "low": 1, "close": 1, "volume": 1, "source": "trades"}
    memory.apply_items([item("bar", symbol="SPY", event_time=minute(0), data=own)])
    assert [b["source"] for b in memory.symbols["SPY"].bars] == ["vendor"]


def test_item_seen_again_is_dropped() -> None:
    memory = FeedMemory()
    memory.apply_items([features_item(), features_item()])
    assert memory.counts["item_repeats"] == 1
    assert len(memory.symbols["SPY"].features) == 1


def test_ticks_within_the_interval_are_conflated_and_none_is_kept_back_for_ever() -> None:
    memory = FeedMemory(conflate_s=0.1)
    memory.apply_record(record(trade(price=1), bseq=1))
    assert memory.flush(wall=WALL)
    memory.apply_record(record(trade(price=2), bseq=2))
    assert not memory.flush(wall=WALL + 10_000_000)
    assert memory.flush(wall=WALL + 100_000_000)
    assert updates(memory, "trades")[0]["price"] == 2.0


def test_history_lies_before_what_is_known_and_does_not_replace_it() -> None:
    memory = FeedMemory()
    memory.apply_record(record(bar(i=1, close=100.5)))
    past = [{"event_time": minute(i), "close": 7.0, "source": "vendor"} for i in (0, 1)]
    memory.add_history("SPY", past)
    assert [b["close"] for b in memory.symbols["SPY"].bars] == [7.0, 100.5]


def test_market_time_runs_on_from_the_newest_record() -> None:
    memory = FeedMemory(rate=10)
    memory.apply_record(record(trade(), s=60, wall=WALL, bseq=1))
    memory.apply_record(record(trade(s=2), s=30, wall=WALL - 3, bseq=2))
    assert memory.market.now_ns(WALL + 10**9) == OPEN_NS + 70 * 10**9


@given(st.permutations(range(8)))
def test_bars_in_any_order_are_remembered_in_order_of_time(order: list[int]) -> None:
    memory = FeedMemory(max_bars=5)
    for bseq, i in enumerate(order, 1):
        memory.apply_record(record(bar(i=i), bseq=bseq, s=600))
    times = [parse_time_ns(b["event_time"]) for b in memory.symbols["SPY"].bars]
    assert times == sorted(times)
    assert times[-1] == parse_time_ns(minute(7))
    assert len(times) <= 5


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 10))
def test_resuming_anywhere_gives_the_same_end_as_reading_all(keys: list[int], bound: int) -> None:
    memory = FeedMemory(conflate_s=0, max_updates=bound)
    seen: dict[int, dict] = {}
    for n, key in enumerate(keys):
        memory.apply_record(
            record(trade(f"S{key}", s=n / 10, price=n + 1), bseq=n + 1, epoch=f"{key}")
        )
        memory.flush(wall=WALL + n)
        resumed = {u[1:4]: u.data for u in memory.log.after(memory.log.floor)}
        seen = {u[1:4]: u.data for u in memory.log.all()}
        assert resumed == seen
    assert len(seen) <= bound


def test_bar_of_a_longer_window_is_told_apart_from_the_minutes() -> None:
    memory = FeedMemory()
    memory.apply_record(record(bar(i=0, close=100.5)))
    data = {"close": 7.0, "window": "5m"}
    rolled = item("bar", symbol="SPY", event_time=minute(0), data=data, model="5m")
    memory.apply_items([rolled, rolled])
    assert [b["close"] for b in memory.symbols["SPY"].bars] == [100.5]
    assert updates(memory, "rollups") == [{"event_time": minute(0), **data}]


def test_statistics_are_kept_and_told() -> None:
    memory = FeedMemory()
    memory.apply_items([item("stats", symbol="SPY", event_time=minute(0), data={"count": 3})])
    assert list(memory.symbols["SPY"].stats) == [{"event_time": minute(0), "count": 3}]
    assert updates(memory, "stats") == [{"count": 3}]


def test_forming_bar_with_features_is_told_until_it_closes_and_is_no_closed_one() -> None:
    memory = FeedMemory()
    data = {"provisional": True, "bar": {"close": 7.0}, "values": {"rsi_14": 50.0}}
    for at in (1, 2):
        forming = item("provisional", symbol="SPY", event_time=minute(0), data=data, model=str(at))
        memory.apply_items([forming])
    assert updates(memory, "provisional") == [{"event_time": minute(0), **data}]
    assert not updates(memory, "features")
    assert not memory.symbols["SPY"].features
    memory.apply_record(record(bar(i=0, close=100.5)))
    before = memory.log.seq
    memory.apply_items([forming])
    assert memory.log.seq == before


def test_forming_bar_of_a_driver_that_was_replaced_is_passed_over() -> None:
    memory = FeedMemory()
    said = []
    for generation, close in ((2, 7.0), (3, 8.0), (2, 9.0), (3, 10.0)):
        data = {"provisional": True, "generation": generation, "bar": {"close": close}}
        told = item("provisional", symbol="SPY", event_time=minute(0), data=data, model=str(close))
        memory.apply_items([told])
        said.append(updates(memory, "provisional")[-1])
    assert [update["bar"]["close"] for update in said] == [7.0, 8.0, 8.0, 10.0]
    assert all("generation" not in update for update in said)


def test_anomalies_are_told_each_once() -> None:
    memory = FeedMemory()
    at = "2024-07-05T13:30:00Z"
    items = [
        item("anomaly", symbol="SPY", event_time=at, data={"kind": kind}, model=kind)
        for kind in ("rsi", "outlier", "rsi")
    ]
    memory.apply_items(items)
    told = [u for u in memory.log.all() if u.channel == "anomalies"]
    assert [orjson.loads(u.data) for u in told] == [{"kind": "rsi"}, {"kind": "outlier"}]


def test_revised_past_is_told_and_the_newest_after_it_so_that_nobody_decides_on_the_past() -> None:
    memory = FeedMemory()
    for i, revision, close in ((0, 0, 1.0), (1, 0, 2.0), (0, 1, 3.0)):
        about = {"symbol": "SPY", "event_time": minute(i), "revision": revision}
        bar_data = {"close": close, "source": "revised" if revision else "vendor"}
        memory.apply_items(
            [
                item("bar", **about, data=bar_data),
                item("features", **about, data={"values": {"rsi_14": close}}),
            ]
        )
    told = [u for u in memory.log.all() if u.channel == "features"]
    assert [(u.event_time, orjson.loads(u.data)["values"]["rsi_14"]) for u in told] == [
        (minute(0), 1.0), (minute(1), 2.0), (minute(0), 3.0), (minute(1), 2.0),
    ]  # fmt: skip
    assert orjson.loads(told[-1].data) == orjson.loads(told[1].data)
    bars = [orjson.loads(u.data) for u in memory.log.all() if u.channel == "bars"]
    assert [(b["event_time"], b["close"]) for b in bars] == [(minute(0), 3.0), (minute(1), 2.0)]


@settings(max_examples=200, deadline=None)
@given(records())
def test_records_of_ticks_are_folded_as_they_are_one_by_one(batch: list[bytes]) -> None:
    one_by_one, together = FeedMemory(), FeedMemory()
    for data in batch:
        one_by_one.apply_record(decode_record(data))
        if (ticks := decode_ticks(data)) is not None:
            together.apply_ticks(ticks)
        else:
            together.apply_record(decode_record(data))
    assert together.counts == one_by_one.counts
    assert told(together) == told(one_by_one)


def told(memory: FeedMemory) -> dict[str, list[bytes]]:
    """The updates of each symbol and channel, in their order."""
    memory.flush(wall=WALL)
    found: dict[str, list[bytes]] = {}
    for update in memory.log.all():
        found.setdefault(f"{update.symbol}/{update.channel}", []).append(update.data)
    return found
