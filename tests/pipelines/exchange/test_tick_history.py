from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, Message, parse_time_ns
from pipelines.exchange.market import BarSource, Session
from pipelines.exchange.playback import Playback
from pipelines.exchange.played_ticks import played_ticks
from pipelines.exchange.refusals import Refused
from pipelines.exchange.synthetic import SyntheticMarket
from pipelines.exchange.tick_history import Channel, TickHistory, TickQuery

MARKET = SyntheticMarket(
    ("AAPL", "MSFT", "SPY"), seed=7, start_date=date(2024, 7, 2), trades_per_minute=10
)
OPENS = MARKET.playable()[0][0]
TYPES = {"t": "trades", "q": "quotes"}


def _play(source: BarSource, sessions: Sequence[Session]) -> Playback:
    return Playback(source, sessions, seed=7, messages_per_minute=30)


HISTORY = TickHistory(MARKET, ticks=played_ticks(MARKET, _play))
WHOLE = TickQuery("trades", MARKET.symbols, OPENS, OPENS + 12 * MINUTE_NS, limit=10_000)
NOW = OPENS + 60 * MINUTE_NS


def _published(minutes: int) -> list[Message]:
    playback, out = _play(MARKET, [(OPENS, OPENS + minutes * MINUTE_NS)]), []
    while (batch := playback.due(2**62)) is not None:
        out += [orjson.loads(text) for text in batch.json()]
    return out


LIVE = _published(13)


def _live(channel: str, symbol: str, first: int, last: int) -> list[Message]:
    found = [
        {k: v for k, v in m.items() if k not in ("T", "S")}
        for m in LIVE
        if TYPES.get(m["T"]) == channel
        and m["S"] == symbol
        and first <= parse_time_ns(m["t"]) <= last
    ]
    return sorted(found, key=lambda m: parse_time_ns(m["t"]))


def _pages(query: TickQuery) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for _ in range(10_000):
        page, token = HISTORY.page(query, now_ns=NOW)
        assert sum(len(rows) for rows in page.values()) <= query.limit
        for symbol, rows in page.items():
            found.setdefault(symbol, []).extend(rows)
        if token is None:
            return found
        query = replace(query, token=token)
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("channel", ["trades", "quotes"])
def test_page_has_the_messages_of_the_live_stream(channel: Channel) -> None:
    page, token = HISTORY.page(replace(WHOLE, channel=channel), now_ns=NOW)
    assert token is None
    for symbol in MARKET.symbols:
        assert page[symbol] == _live(channel, symbol, WHOLE.start_ns, WHOLE.end_ns)
        assert len(page[symbol]) > 50


@settings(max_examples=60)
@example("trades", 7, False, 0, 12 * MINUTE_NS, {"AAPL", "SPY"})
@example("quotes", 7, True, 0, 12 * MINUTE_NS, {"AAPL", "SPY"})
@given(
    st.sampled_from(["trades", "quotes"]),
    st.integers(7, 60),
    st.booleans(),
    st.integers(-MINUTE_NS, 12 * MINUTE_NS),
    st.integers(0, 12 * MINUTE_NS),
    st.sets(st.sampled_from([*MARKET.symbols, "NOPE"]), min_size=1),
)
def test_pages_of_any_size_and_range_give_the_same_messages(
    channel: Channel, limit: int, descending: bool, start: int, length: int, symbols: set[str]
) -> None:
    first = OPENS + start
    last = min(first + length, OPENS + 12 * MINUTE_NS)
    query = TickQuery(channel, tuple(symbols), first, last, limit, descending)
    expected = {s: _live(channel, s, first, last)[:: -1 if descending else 1] for s in symbols}
    assert _pages(query) == {s: rows for s, rows in expected.items() if rows}


def test_page_shows_nothing_of_the_future() -> None:
    now = OPENS + 3 * MINUTE_NS + 12_345_678_901
    page, _ = HISTORY.page(WHOLE, now_ns=now)
    assert page["SPY"] == _live("trades", "SPY", OPENS, now)
    latest = HISTORY.latest("quotes", ("SPY", "NOPE"), now_ns=now)
    assert latest == {"SPY": _live("quotes", "SPY", OPENS, now)[-1]}


def test_latest_before_the_opening_is_the_last_of_the_day_before() -> None:
    found = HISTORY.latest("trades", MARKET.symbols, now_ns=OPENS)
    assert {m["t"][:16] for m in found.values()} == {"2024-07-01T19:59"}


def test_page_over_a_night_skips_it() -> None:
    query = replace(WHOLE, symbols=("SPY",), start_ns=OPENS - 20 * 60 * MINUTE_NS)
    rows = _pages(replace(query, limit=500))["SPY"]
    assert rows[0]["t"][:13] == "2024-07-01T17"
    assert rows[-1] == _live("trades", "SPY", OPENS, WHOLE.end_ns)[-1]
    assert len({row["i"] for row in rows if row["t"] > "2024-07-02"}) == sum(
        row["t"] > "2024-07-02" for row in rows
    )


def test_page_long_range_plays_a_bounded_part_and_goes_on() -> None:
    history = TickHistory(MARKET, ticks=played_ticks(MARKET, _play))
    query = replace(WHOLE, symbols=("SPY",), start_ns=OPENS - 40 * 1440 * MINUTE_NS, limit=10**6)
    page, token = history.page(query, now_ns=NOW)
    assert token is not None
    rest, _ = history.page(replace(query, token=token), now_ns=NOW)
    assert page["SPY"][-1]["t"] < rest["SPY"][0]["t"]
    assert parse_time_ns(rest["SPY"][0]["t"]) - parse_time_ns(page["SPY"][-1]["t"]) < MINUTE_NS


def test_page_foreign_token_is_refused() -> None:
    with pytest.raises(Refused, match="page_token"):
        HISTORY.page(replace(WHOLE, token="AAAA"), now_ns=NOW)


def test_latest_of_symbols_half_of_which_are_cached_survives_a_full_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.exchange.tick_history._CACHED_MESSAGES", 1)
    history = TickHistory(MARKET, ticks=played_ticks(MARKET, _play))
    assert set(history.latest("trades", ("AAPL",), now_ns=NOW)) == {"AAPL"}
    assert set(history.latest("trades", ("AAPL", "SPY"), now_ns=NOW)) == {"AAPL", "SPY"}


def test_cache_counts_what_it_holds_once_however_it_was_asked() -> None:
    history = TickHistory(MARKET, ticks=played_ticks(MARKET, _play))
    few = replace(WHOLE, symbols=("MSFT",), end_ns=OPENS + MINUTE_NS)
    history.page(few, now_ns=NOW)
    history.page(replace(few, symbols=("AAPL", "MSFT", "SPY")), now_ns=NOW)
    held = sum(4 + sum(len(c.times) for c in piece.values()) for piece in history._pieces.values())
    assert history._cached == held
