"""The paper account of one symbol: long only, all in or all out. Pure; serving shares it.

A decision made on the close of bar *t* fills at the open of bar *t + 1*, and the account is then
marked at the close of *t + 1*. Nothing of *t + 1* is known when *t* is decided.

A fill costs, on each side, half the quoted spread and the slippage (both move the price against
us) and a commission on the notional::

    buy price  = open * (1 + (spread_bps / 2 + slippage_bps) / 10 000)
    sell price = open * (1 - (spread_bps / 2 + slippage_bps) / 10 000)

The scalar form (:func:`advance`) is what serving and the scalar environment use, the vectorised
one (:func:`advance_many`) is what training uses; a test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BPS = 1e-4
START_CASH_USD = 100_000.0
"""Cash of a new account."""


class Action(IntEnum):
    """What a policy decides; the numbers are the same everywhere."""

    HOLD = 0
    BUY = 1
    SELL = 2


N_ACTIONS = len(Action)

ACCOUNT_INPUTS = ("position_fraction", "cash_fraction")
"""What the policy sees of the account, after the inputs of the market."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a fill costs besides half the quoted spread.

    Args:
        commission_bps: Of the notional, on each side.
        slippage_bps: By which the price moves against us, on each side.
    """

    commission_bps: float = 0.5
    slippage_bps: float = 0.5

    def __post_init__(self) -> None:
        # At 10,000 bps a sale would bring nothing and the formulas would lose their meaning.
        if not (0 <= self.commission_bps < 1_000 and 0 <= self.slippage_bps < 1_000):
            raise ValueError(f"costs must lie in [0, 1000) bps: {self}")


@dataclass(frozen=True, slots=True)
class Account:
    """Cash and shares of one symbol, and the price they were last marked at.

    Args:
        cash_usd: Cash.
        shares: Shares, fractions allowed.
        mark_usd: Close of the bar last seen; ``None`` before the first.

    >>> a = Account()
    >>> a.position_fraction, a.cash_fraction
    (0.0, 1.0)
    """

    cash_usd: float = START_CASH_USD
    shares: float = 0.0
    mark_usd: float | None = None

    @property
    def equity_usd(self) -> float:
        """Cash and the marked value of the shares."""
        return self.cash_usd + self.shares * (self.mark_usd or 0.0)

    @property
    def position_fraction(self) -> float:
        """Part of the equity that is in shares, 0 to 1."""
        return self.shares * (self.mark_usd or 0.0) / self.equity_usd

    @property
    def cash_fraction(self) -> float:
        """Part of the equity that is in cash; with :attr:`position_fraction` it makes 1."""
        return 1.0 - self.position_fraction

    def to_dict(self) -> dict[str, Any]:
        """JSON types; ``Account(**fields)`` reads them."""
        return {"cash_usd": self.cash_usd, "shares": self.shares, "mark_usd": self.mark_usd}


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution.

    Args:
        action: ``BUY`` or ``SELL``.
        shares: Shares that changed hands, positive.
        price_usd: Price paid or got, with half the spread and the slippage in it.
        notional_usd: ``shares * price_usd``.
        commission_usd: Commission.
        cost_usd: All that the fill lost against trading at the open itself: commission, half
            the spread and slippage.
    """

    action: Action
    shares: float
    price_usd: float
    notional_usd: float
    commission_usd: float
    cost_usd: float


def fill_at_open(
    account: Account, action: int, *, open_usd: float, spread_bps: float, costs: Costs
) -> tuple[Account, Fill | None]:
    """Carry out a decision at an open.

    ``BUY`` puts all cash into the symbol, ``SELL`` sells all shares, ``HOLD`` does nothing; a
    ``BUY`` without cash or a ``SELL`` without shares is no fill either.

    Args:
        account: The account before.
        action: The decision of the bar before.
        open_usd: Open of this bar, positive.
        spread_bps: Quoted spread of this bar.
        costs: Commission and slippage.

    Returns:
        The account after the fill (its mark unchanged), and the fill, or ``None``.

    >>> a, fill = fill_at_open(Account(100.0), Action.BUY, open_usd=10.0, spread_bps=0.0,
    ...                        costs=Costs(0.0, 0.0))
    >>> a.shares, a.cash_usd, fill.cost_usd
    (10.0, 0.0, 0.0)
    """
    against = (spread_bps / 2 + costs.slippage_bps) * BPS
    commission = costs.commission_bps * BPS
    if action == Action.BUY and account.cash_usd > 0:
        price = open_usd * (1 + against)
        shares = account.cash_usd / (price * (1 + commission))
        fee = shares * price * commission
        after = Account(0.0, account.shares + shares, account.mark_usd)
        cost = account.cash_usd - shares * open_usd
        return after, Fill(Action.BUY, shares, price, shares * price, fee, cost)
    if action == Action.SELL and account.shares > 0:
        price = open_usd * (1 - against)
        shares = account.shares
        fee = shares * price * commission
        got = shares * price - fee
        after = Account(account.cash_usd + got, 0.0, account.mark_usd)
        cost = shares * open_usd - got
        return after, Fill(Action.SELL, shares, price, shares * price, fee, cost)
    return account, None


def advance(
    account: Account,
    action: int,
    *,
    open_usd: float,
    close_usd: float,
    spread_bps: float,
    costs: Costs,
) -> tuple[Account, Fill | None]:
    """One bar: the decision of the bar before fills at the open, then the close is the mark.

    Args:
        account: The account as it was when the decision was made.
        action: The decision of the bar before (``HOLD`` where there was none).
        open_usd: Open of this bar.
        close_usd: Close of this bar.
        spread_bps: Quoted spread of this bar.
        costs: Commission and slippage.

    Returns:
        The account at this bar's close, and the fill, or ``None``.

    >>> a, _ = advance(Account(100.0), Action.BUY, open_usd=10.0, close_usd=11.0, spread_bps=0.0,
    ...                costs=Costs(0.0, 0.0))
    >>> a.equity_usd, a.position_fraction
    (110.0, 1.0)
    """
    after, fill = fill_at_open(
        account, action, open_usd=open_usd, spread_bps=spread_bps, costs=costs
    )
    return Account(after.cash_usd, after.shares, close_usd), fill


class Accounts(NamedTuple):
    """Many accounts at once.

    Args:
        cash_usd: Cash, shape ``(n,)``.
        shares: Shares, shape ``(n,)``.
    """

    cash_usd: Floats
    shares: Floats


class Filled(NamedTuple):
    """What one bar did to many accounts; each of shape ``(n,)``.

    Args:
        equity_usd: Equity at the close.
        notional_usd: Value traded at the fill price, 0 where nothing was.
        cost_usd: Loss against trading at the open itself.
    """

    equity_usd: Floats
    notional_usd: Floats
    cost_usd: Floats


def advance_many(
    accounts: Accounts,
    actions: NDArray[np.integer[Any]],
    *,
    open_usd: Floats,
    close_usd: Floats,
    spread_bps: Floats,
    costs: Costs,
) -> tuple[Accounts, Filled]:
    """:func:`advance` for ``n`` accounts; every argument has shape ``(n,)``."""
    against = (spread_bps / 2 + costs.slippage_bps) * BPS
    commission = costs.commission_bps * BPS
    cash, shares = accounts
    spent = np.where(actions == Action.BUY, cash, 0.0)
    sold = np.where(actions == Action.SELL, shares, 0.0)
    buy_price = open_usd * (1 + against)
    bought = spent / (buy_price * (1 + commission))
    sell_price = open_usd * (1 - against)
    got = sold * sell_price * (1 - commission)
    cash = cash - spent + got
    shares = shares - sold + bought
    filled = Filled(
        equity_usd=cash + shares * close_usd,
        notional_usd=bought * buy_price + sold * sell_price,
        cost_usd=(spent - bought * open_usd) + (sold * open_usd - got),
    )
    return Accounts(cash, shares), filled
