"""The paper account: costs, fractions, and the vectorised form against the scalar one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.account import (
    Account,
    Accounts,
    Action,
    Costs,
    advance,
    advance_many,
    fill_at_open,
)

prices = st.floats(0.5, 5_000, allow_nan=False)
bps = st.floats(0, 200, allow_nan=False)
bars = st.lists(st.tuples(st.sampled_from(list(Action)), prices, prices, bps), max_size=40)
some_costs = st.builds(Costs, commission_bps=st.floats(0, 50), slippage_bps=st.floats(0, 50))


@given(bars, some_costs)
def test_account_over_any_bars_keeps_its_laws(path: list, costs: Costs) -> None:
    account = Account(1_000.0)
    for action, open_usd, close_usd, spread in path:
        before = account.cash_usd + account.shares * open_usd
        account, fill = advance(
            account, action, open_usd=open_usd, close_usd=close_usd, spread_bps=spread, costs=costs
        )
        after = account.cash_usd + account.shares * open_usd
        paid = fill.cost_usd if fill else 0.0
        assert after == pytest.approx(before - paid, rel=1e-9)
        assert paid >= -1e-9 * before
        assert account.cash_usd >= 0
        assert account.shares >= 0
        assert account.position_fraction + account.cash_fraction == pytest.approx(1)
        assert 0 <= account.position_fraction <= 1


@given(bars, some_costs)
def test_accounts_vectorised_equal_scalar(path: list, costs: Costs) -> None:
    scalar = [Account(1_000.0), Account(50.0), Account(0.0, 7.0, 10.0)]
    many = Accounts(np.array([a.cash_usd for a in scalar]), np.array([a.shares for a in scalar]))
    for action, open_usd, close_usd, spread in path:
        acts = [action, (action + 1) % 3, (action + 2) % 3]
        results = [
            advance(a, x, open_usd=open_usd, close_usd=close_usd, spread_bps=spread, costs=costs)
            for a, x in zip(scalar, acts, strict=True)
        ]
        many, filled = advance_many(
            many,
            np.array(acts),
            open_usd=np.full(3, open_usd),
            close_usd=np.full(3, close_usd),
            spread_bps=np.full(3, spread),
            costs=costs,
        )
        scalar = [account for account, _ in results]
        fills = [fill for _, fill in results]
        exact = {"rtol": 1e-12, "atol": 1e-9}
        np.testing.assert_allclose(filled.equity_usd, [a.equity_usd for a in scalar], **exact)
        np.testing.assert_allclose(many.cash_usd, [a.cash_usd for a in scalar], **exact)
        np.testing.assert_allclose(many.shares, [a.shares for a in scalar], **exact)
        np.testing.assert_allclose(
            filled.notional_usd, [f.notional_usd if f else 0 for f in fills], **exact
        )
        np.testing.assert_allclose(
            filled.cost_usd, [f.cost_usd if f else 0 for f in fills], rtol=1e-7, atol=1e-7
        )


def test_fill_round_trip_costs_spread_slippage_and_commission_twice() -> None:
    costs = Costs(commission_bps=3, slippage_bps=2)
    account, _ = fill_at_open(Account(1_000.0), Action.BUY, open_usd=20, spread_bps=4, costs=costs)
    account, _ = fill_at_open(account, Action.SELL, open_usd=20, spread_bps=4, costs=costs)
    expected = 1_000 * (0.9996 * 0.9997) / (1.0004 * 1.0003)
    assert account.cash_usd == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("account", "action"),
    [
        (Account(0.0, 5.0, 10.0), Action.BUY),
        (Account(100.0), Action.SELL),
        (Account(100.0), Action.HOLD),
    ],
)
def test_fill_with_nothing_to_trade_changes_nothing(account: Account, action: Action) -> None:
    assert fill_at_open(account, action, open_usd=9, spread_bps=2, costs=Costs()) == (
        account,
        None,
    )


def test_account_written_and_read_back_is_equal() -> None:
    account = Account(12.5, 3.25, 101.0)
    assert Account(**account.to_dict()) == account


@pytest.mark.parametrize("bad", [-1.0, 1_000.0, float("nan")])
def test_costs_outside_their_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="costs"):
        Costs(commission_bps=bad)
