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
    book.restore("m", "SPY", bar_ns=5, action=SELL, position_fraction=1.0)
    assert book.fractions("m", "SPY") == (1.0, 0.0)
    assert step(book, 6) == (0.0, 1.0)


def test_restoring_something_older_changes_nothing() -> None:
    book = Portfolio()
    step(book, 5, BUY)
    book.restore("m", "SPY", bar_ns=4, action=SELL, position_fraction=1.0)
    assert step(book, 6) == (1.0, 0.0)


def test_accounts_are_bounded() -> None:
    book = Portfolio(max_accounts=3)
    for n in range(10):
        book.at_bar("m", str(n), bar_ns=1, open_usd=1, close_usd=1, spread_bps=0)
    assert len(book) == 3


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
