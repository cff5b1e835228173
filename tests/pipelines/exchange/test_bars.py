from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.exchange.bars import PAGE_SESSIONS, BarHistory, Query
from pipelines.exchange.refusals import Refused
from pipelines.exchange.synthetic import SyntheticMarket
from pipelines.exchange.timeframes import TimeFrame

MARKET = SyntheticMarket(("SPY", "AAPL"), seed=7, start_date=date(2024, 7, 2), trades_per_minute=10)
HISTORY = BarHistory(MARKET, seed=7, messages_per_minute=30)
NOW = parse_time_ns("2024-07-05T15:00:30Z")
DAYS = Query(
    symbols=("AAPL", "SPY"),
    start_ns=parse_time_ns("2024-07-02T00:00:00Z"),
    end_ns=NOW,
    limit=10_000,
)


def _pages(query: Query) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(10_000):
        page, token = HISTORY.page(query, now_ns=NOW)
        assert sum(len(bars) for bars in page.values()) <= query.limit
        for symbol, bars in page.items():
            found.setdefault(symbol, []).extend(bars)
        if token is None:
            return found
        query = replace(query, token=token)
    raise AssertionError("the pages have no end")


def test_page_ends_with_the_last_minute_that_is_over() -> None:
    bars, token = HISTORY.page(DAYS, now_ns=NOW)
    assert token is None
    assert len(bars["SPY"]) == 390 + 210 + 90
    assert bars["SPY"][-1]["t"] == "2024-07-05T14:59:00Z"
    assert set(bars["SPY"][0]) == set("tohlcvn") | {"vw"}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 1500),
    st.booleans(),
    st.sampled_from(["1Min", "5Min", "1Hour", "1Day", "1Week"]),
    st.integers(0, 5000),
)
def test_pages_of_any_size_give_the_same_bars(
    limit: int, descending: bool, frame: str, skip: int
) -> None:
    query = replace(
        DAYS,
        frame=TimeFrame.parse(frame),
        descending=descending,
        start_ns=DAYS.start_ns + skip * MINUTE_NS,
    )
    whole, _ = HISTORY.page(query, now_ns=NOW)
    limit = max(limit, 20) if frame == "1Min" else 1 + limit // 50
    assert _pages(replace(query, limit=limit)) == whole
    upwards, _ = HISTORY.page(replace(query, descending=False), now_ns=NOW)
    assert {s: bars[:: -1 if descending else 1] for s, bars in whole.items()} == upwards


def test_page_range_includes_both_ends() -> None:
    query = replace(
        DAYS,
        start_ns=parse_time_ns("2024-07-02T13:30:00Z"),
        end_ns=parse_time_ns("2024-07-02T13:32:00Z"),
    )
    bars, _ = HISTORY.page(query, now_ns=NOW)
    assert [b["t"][11:16] for b in bars["AAPL"]] == ["13:30", "13:31", "13:32"]


def test_page_before_the_first_played_session_has_history() -> None:
    query = replace(DAYS, start_ns=parse_time_ns("2024-06-28T00:00:00Z"))
    bars, _ = HISTORY.page(query, now_ns=MARKET.playable()[0][0])
    assert len(bars["SPY"]) == 780


def test_page_daily_bars_are_those_of_the_minutes() -> None:
    (first, *_), minute = (
        HISTORY.page(replace(DAYS, frame=TimeFrame.parse(f)), now_ns=NOW)[0]["SPY"]
        for f in ("1Day", "1Min")
    )
    day = minute[:390]
    assert first["t"] == "2024-07-02T04:00:00Z"
    assert first["o"] == day[0]["o"]
    assert first["c"] == day[-1]["c"]
    assert first["h"] == max(b["h"] for b in day)
    assert first["l"] == min(b["l"] for b in day)
    assert first["v"] == sum(b["v"] for b in day)
    assert first["vw"] == pytest.approx(sum(b["vw"] * b["v"] for b in day) / first["v"])


def test_page_long_range_ends_after_a_bounded_number_of_sessions() -> None:
    history = BarHistory(MARKET, seed=7, messages_per_minute=30)
    query = replace(
        DAYS, start_ns=parse_time_ns("2023-06-01T00:00:00Z"), frame=TimeFrame.parse("1Day")
    )
    page, token = history.page(query, now_ns=NOW)
    assert token is not None
    assert len(page["AAPL"]) == PAGE_SESSIONS
    rest, _ = history.page(replace(query, token=token), now_ns=NOW)
    assert rest["AAPL"][0]["t"] > page["AAPL"][-1]["t"]
    assert format_time_ns(query.start_ns) < page["AAPL"][0]["t"]


def test_page_unknown_symbol_has_no_bars() -> None:
    assert HISTORY.page(replace(DAYS, symbols=("NOPE",)), now_ns=NOW) == ({}, None)


@pytest.mark.parametrize("token", ["x", "AAAA", "Pz8_"])
def test_page_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(Refused):
        HISTORY.page(replace(DAYS, token=token), now_ns=NOW)


def _days(start: str, frame: str, **more: Any) -> list[dict[str, Any]]:
    query = replace(
        DAYS, symbols=("SPY",), start_ns=parse_time_ns(start), frame=TimeFrame.parse(frame), **more
    )
    return _pages(query)["SPY"]


def test_page_weeks_and_months_are_made_of_their_days() -> None:
    days = _days("2024-01-01T05:00:00Z", "1Day")
    for frame, length in (("1Week", None), ("1Month", 7), ("3Month", None), ("12Month", 4)):
        longer = _days("2024-01-01T05:00:00Z", frame)
        assert sum(b["v"] for b in longer) == sum(b["v"] for b in days)
        assert [longer[0]["o"], longer[-1]["c"]] == [days[0]["o"], days[-1]["c"]]
        assert max(b["h"] for b in longer) == max(b["h"] for b in days)
        if length:
            assert len({d["t"][:length] for d in days}) == len(longer)
        assert longer == _days("2024-01-01T05:00:00Z", frame, descending=True)[::-1]
    assert [b["t"] for b in _days("2024-06-01T00:00:00Z", "1Month")] == [
        "2024-06-01T04:00:00Z", "2024-07-01T04:00:00Z",
    ]  # fmt: skip


def test_latest_bar_of_the_day_is_the_day_so_far() -> None:
    bars = HISTORY.latest(("SPY", "NOPE"), TimeFrame.parse("1Day"), now_ns=NOW, count=2)
    assert [b["t"][:10] for b in bars["SPY"]] == ["2024-07-05", "2024-07-03"]
    assert set(bars) == {"SPY"}


@pytest.mark.parametrize("text", ["60Min", "24Hour", "0Min", "2Day", "2Week", "5Month", "", "Min"])
def test_time_frame_unknown_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="invalid timeframe"):
        TimeFrame.parse(text)


@given(
    st.sampled_from(["7Min", "59Min", "1Hour", "23Hour", "1Day", "1Week", "1Month", "6Month"]),
    st.integers(10**18, 2 * 10**18),
)
def test_time_frame_bars_cover_time_without_holes(text: str, ns: int) -> None:
    frame = TimeFrame.parse(text)
    start, after = frame.start_of(ns), frame.next_start(ns)
    assert start <= ns < after
    assert frame.start_of(start) == frame.start_of(after - 1) == start
    assert frame.start_of(after) == after
