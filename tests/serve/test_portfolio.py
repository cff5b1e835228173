from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.account import Account, Costs, advance
from serve.portfolio import Portfolio

BUY, SELL = 1, 2


def step(book: Portfolio, i: int, action: int = 0) -> tuple[float, float]:
    out = book.at_bar("m", "SPY", bar_ns=i, open_usd=10, close_usd=11, spread_bps=2)
    book.decide("m", "SPY", bar_ns=i, action=action)
    return out


def test_decision_on_a_bar_fills_at_the_next_one_not_at_its_own() -> None:
    book = Portfolio()
    assert step(book, 1, BUY) == (0.0, 1.0)
    assert book.fractions("m", "SPY") == (0.0, 1.0)
    assert step(book, 2) == (1.0, 0.0)


def test_same_bar_asked_twice_moves_nothing() -> None:
    book = Portfolio()
    step(book, 1, BUY)
    first = step(book, 2, SELL)
    assert book.at_bar("m", "SPY", bar_ns=2, open_usd=1, close_usd=1, spread_bps=0) == first
    assert book.at_bar("m", "SPY", bar_ns=1, open_usd=1, close_usd=1, spread_bps=0) == first


def test_accounts_of_models_and_symbols_are_apart() -> None:
    book = Portfolio()
    step(book, 1, BUY)
    step(book, 2)
    assert book.fractions("other", "SPY") == (0.0, 1.0)
    assert book.fractions("m", "AAPL") == (0.0, 1.0)


def test_account_restored_from_a_published_signal_goes_on_where_it_stood() -> None:
    book = Portfolio()
    book.follow("m", "SPY", {"action_id": SELL, "position_fraction": 1.0}, bar_ns=5)
    assert book.fractions("m", "SPY") == (1.0, 0.0)
    assert step(book, 6) == (0.0, 1.0)


def test_restoring_something_older_changes_nothing() -> None:
    book = Portfolio()
    step(book, 5, BUY)
    book.follow("m", "SPY", {"action_id": SELL, "position_fraction": 1.0}, bar_ns=4)
    assert step(book, 6) == (1.0, 0.0)


def test_accounts_are_bounded() -> None:
    book = Portfolio(max_accounts=3)
    for n in range(10):
        book.at_bar("m", str(n), bar_ns=1, open_usd=1, close_usd=1, spread_bps=0)
    assert len(book) == 3


def test_fill_is_reported_with_its_quote_its_costs_and_its_decision() -> None:
    book = Portfolio(costs=Costs(commission_bps=1, slippage_bps=2), wall=lambda: 7_000)
    book.at_bar("m", "SPY", bar_ns=60, open_usd=9, close_usd=9, spread_bps=0)
    book.decide("m", "SPY", bar_ns=60, action=BUY, reason="no_model")
    assert book.report("m", "SPY")["fills"] == []
    book.at_bar("m", "SPY", bar_ns=120, open_usd=10, close_usd=11, spread_bps=20)
    said = book.report("m", "SPY")
    (fill,) = said["fills"]
    assert (fill["side"], fill["reason"], fill["decided_on"], fill["event_time"]) == (
        "BUY", "no_model", "1970-01-01T00:00:00.00000006Z", "1970-01-01T00:00:00.00000012Z",
    )  # fmt: skip
    assert (fill["bid"], fill["ask"], fill["filled_at"]) == (
        pytest.approx(9.99), pytest.approx(10.01), "1970-01-01T00:00:00.000007Z",
    )  # fmt: skip
    assert fill["price"] == pytest.approx(10 * (1 + 12e-4))
    costs = fill["commission"] + fill["spread_cost"] + fill["slippage_cost"]
    assert 100_000 - fill["shares"] * 10 == pytest.approx(costs)
    assert said["account"] == {
        "cash_usd": fill["cash_after"], "shares": fill["shares_after"], "mark_usd": 11,
    }  # fmt: skip


def test_fill_is_reported_until_a_published_signal_tells_of_it() -> None:
    book = Portfolio()
    step(book, 1, BUY)
    step(book, 2, SELL)
    late = {"action_id": 0, "position_fraction": 0.0, "reason": "unavailable"}
    book.follow("m", "SPY", late, bar_ns=2)  # the answer to bar 2 came too late
    assert step(book, 3, SELL) == (1.0, 0.0)
    step(book, 4)
    said = book.report("m", "SPY")
    assert [fill["side"] for fill in said["fills"]] == ["BUY", "SELL"]
    published = {"action_id": 0, "position_fraction": 1.0, "fills": said["fills"][:1]}
    book.follow("m", "SPY", published, bar_ns=3)
    assert [fill["side"] for fill in book.report("m", "SPY")["fills"]] == ["SELL"]


def test_account_that_is_restored_has_the_shares_and_the_cash_that_were_published() -> None:
    first = Portfolio()
    step(first, 1, BUY)
    step(first, 2)
    first.decide("m", "SPY", bar_ns=2, action=SELL)
    signal = {"action_id": SELL, "position_fraction": 1.0, **first.report("m", "SPY")}
    second = Portfolio()
    second.follow("m", "SPY", signal, bar_ns=2)
    for book in (first, second):
        step(book, 3)
    assert second.report("m", "SPY")["account"] == first.report("m", "SPY")["account"]
    assert second.report("m", "SPY")["fills"][-1]["shares"] == pytest.approx(
        first.report("m", "SPY")["fills"][-1]["shares"]
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(1, 100), st.floats(1, 100)), max_size=30))
def test_portfolio_over_bars_equals_the_account_of_training(bars: list) -> None:
    book, account, pending = Portfolio(), Account(), 0
    for i, (action, opens, closes) in enumerate(bars):
        account, _ = advance(
            account, pending, open_usd=opens, close_usd=closes, spread_bps=2, costs=Costs()
        )
        got = book.at_bar("m", "S", bar_ns=i, open_usd=opens, close_usd=closes, spread_bps=2)
        book.decide("m", "S", bar_ns=i, action=action)
        pending = action
        assert got == pytest.approx((account.position_fraction, account.cash_fraction))
