from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.features.rollup import window_end_ns, window_start_ns
from serve.bars import (
    BadCursor,
    between,
    merge,
    page,
    read_cursor,
    read_gap_cursor,
    roll_up,
    write_cursor,
    write_gap_cursor,
)

START = parse_time_ns("2024-07-05T13:30:00Z")

minutes = st.lists(
    st.tuples(st.integers(0, 3000), st.floats(1, 100), st.integers(0, 1000)),
    max_size=80,
    unique_by=lambda row: row[0],
).map(
    lambda rows: [
        {
            "event_time": format_time_ns(START + i * MINUTE_NS), "open": p, "high": p + 1,
            "low": p - 1, "close": p, "volume": v, "trade_count": 1, "vwap": p, "source": "vendor",
        }
        for i, p, v in sorted(rows)
    ]
)  # fmt: skip


@given(minutes, st.sampled_from(["15m", "1d", "1h", "1m", "5m"]))
def test_rolled_up_bars_keep_volume_extremes_first_and_last(rows: list, window: str) -> None:
    rolled = roll_up(rows, window)
    assert sum(b["volume"] for b in rolled) == sum(b["volume"] for b in rows)
    starts = [window_start_ns(parse_time_ns(b["event_time"]), window) for b in rows]
    assert [parse_time_ns(b["event_time"]) for b in rolled] == sorted(set(starts))
    if rows:
        assert max(b["high"] for b in rolled) == max(b["high"] for b in rows)
        assert min(b["low"] for b in rolled) == min(b["low"] for b in rows)
        assert (rolled[0]["open"], rolled[-1]["close"]) == (rows[0]["open"], rows[-1]["close"])


@given(minutes, st.integers(1, 30))
def test_pages_together_are_everything_once(rows: list, limit: int) -> None:
    seen, cursor = [], None
    while True:
        end = read_cursor(cursor) if cursor else None
        items, cursor = page(between(rows, start_ns=None, end_ns=end), limit=limit)
        seen += items
        if cursor is None:
            break
    assert seen == list(reversed(rows))


def test_page_of_nothing_is_empty() -> None:
    assert page([], limit=5) == ([], None)


def test_newer_source_counts_where_both_have_a_minute() -> None:
    old, new = (
        {"event_time": "2024-07-05T13:30:00Z", "x": 1},
        {"event_time": "2024-07-05T13:30:00Z"},
    )
    assert merge([old], [new]) == [new]


def test_bar_is_forming_as_long_as_its_last_minute() -> None:
    rows = [
        {"event_time": format_time_ns(START + i * MINUTE_NS), "open": 1, "high": 1, "low": 1,
         "close": 1, "volume": 1, "forming": i == 6}
        for i in range(7)
    ]  # fmt: skip
    assert [b["forming"] for b in roll_up(rows, "5m")] == [False, True]


@given(st.integers(0, 2**62))
def test_cursor_read_back_is_its_time(ns: int) -> None:
    assert read_cursor(write_cursor(ns)) == ns


@given(st.text(max_size=20).filter(lambda t: not t.startswith("dD")))
def test_cursor_of_a_stranger_is_refused_or_a_number(text: str) -> None:
    with contextlib.suppress(BadCursor):
        assert isinstance(read_cursor(text), int)


def test_day_begins_at_midnight_in_new_york_in_winter_too() -> None:
    winter = window_start_ns(parse_time_ns("2024-01-05T14:30:00Z"), "1d")
    assert format_time_ns(winter) == "2024-01-05T05:00:00Z"
    with pytest.raises(KeyError):
        window_start_ns(0, "7m")


@pytest.mark.parametrize(
    ("moment", "window", "start"),
    [
        ("2024-07-05T13:37:59Z", "5m", "2024-07-05T13:35:00Z"),
        ("2024-07-05T13:37:59Z", "15m", "2024-07-05T13:30:00Z"),
        ("2024-07-05T13:37:59Z", "1h", "2024-07-05T13:00:00Z"),
        ("2024-07-05T00:00:00Z", "1h", "2024-07-05T00:00:00Z"),
        ("2024-07-05T03:59:00Z", "1d", "2024-07-04T04:00:00Z"),
        ("2024-11-03T12:00:00Z", "1d", "2024-11-03T04:00:00Z"),  # the clocks go back that day
        ("2024-11-04T12:00:00Z", "1d", "2024-11-04T05:00:00Z"),
    ],
)
def test_window_starts_where_the_dashboard_begins_it(moment: str, window: str, start: str) -> None:
    """The same moments stand in the dashboard's ``bars.test.ts``; only days are ours alone."""
    assert format_time_ns(window_start_ns(parse_time_ns(moment), window)) == start


@given(st.integers(0, 2**40), st.sampled_from(["15m", "1d", "1h", "1m", "5m"]))
def test_window_ends_where_the_next_one_begins(minute: int, window: str) -> None:
    ns = (1_700_000_000 // 60 + minute % 10**7) * MINUTE_NS
    end = window_end_ns(ns, window)
    assert window_start_ns(ns, window) <= ns < end
    assert window_start_ns(end, window) == end
    assert window_start_ns(end - 1, window) == window_start_ns(ns, window)


@given(st.integers(0, 2**62), st.text(max_size=9), st.none() | st.integers(0, 2**62))
def test_gap_cursor_read_back_is_its_row(to_ns: int, symbol: str, from_ns: int | None) -> None:
    row = {"to_ns": to_ns, "symbol": symbol, "from_ns": from_ns}
    after = (to_ns, symbol, -1 if from_ns is None else from_ns)
    assert read_gap_cursor(write_gap_cursor(row)) == after
