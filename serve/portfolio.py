"""The paper accounts: one per (model, symbol), moved on by closed bars. Pure.

The decision on bar *t* fills at the open of the next bar that is seen, by the same
:mod:`rl.account` that training uses. A bar moves an account once: asked about the same bar again,
or about an older one, it only says how it stands.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from rl.account import START_CASH_USD, Account, Action, Costs, advance

MAX_ACCOUNTS = 50_000


@dataclass(slots=True)
class _Book:
    account: Account = field(default_factory=Account)
    pending: int = Action.HOLD
    bar_ns: int = -1


class Portfolio:
    """Accounts by (model, symbol).

    Args:
        costs: Commission and slippage of the paper fills.
        max_accounts: Bound; the one longest untouched is forgotten first.
    """

    def __init__(self, *, costs: Costs | None = None, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._costs = costs or Costs()
        self._max = max_accounts
        self._books: OrderedDict[tuple[str, str], _Book] = OrderedDict()

    def __len__(self) -> int:
        return len(self._books)

    def fractions(self, model: str, symbol: str) -> tuple[float, float]:
        """Shares of equity in the symbol and in cash, as it stands; they make 1."""
        book = self._books.get((model, symbol))
        if book is None:
            return 0.0, 1.0
        return book.account.position_fraction, book.account.cash_fraction

    def at_bar(
        self,
        model: str,
        symbol: str,
        *,
        bar_ns: int,
        open_usd: float,
        close_usd: float,
        spread_bps: float,
    ) -> tuple[float, float]:
        """Fractions at the close of a bar; a bar newer than the last fills what was decided on it.

        Args:
            model: ``id:version``.
            symbol: Symbol.
            bar_ns: Start of the bar.
            open_usd: Its open, at which the pending decision fills.
            close_usd: Its close, at which the account is marked.
            spread_bps: Its quoted spread.
        """
        book = self._book(model, symbol)
        if bar_ns > book.bar_ns:
            book.account, _ = advance(
                book.account,
                book.pending,
                open_usd=open_usd,
                close_usd=close_usd,
                spread_bps=spread_bps,
                costs=self._costs,
            )
            book.pending, book.bar_ns = Action.HOLD, bar_ns
        return book.account.position_fraction, book.account.cash_fraction

    def decide(self, model: str, symbol: str, *, bar_ns: int, action: int) -> None:
        """Put the decision on a bar, to fill at the next; on an older bar than the last, nothing.

        The published signal is the truth: called again with another action, the last one counts.
        """
        book = self._book(model, symbol)
        if bar_ns == book.bar_ns:
            book.pending = action

    def restore(
        self, model: str, symbol: str, *, bar_ns: int, action: int, position_fraction: float
    ) -> None:
        """Stand where a published signal says, unless something newer is known.

        Fractions do not depend on the price level, so a mark of one dollar will do until the next
        bar: the account is all in or all out.
        """
        book = self._book(model, symbol)
        if bar_ns <= book.bar_ns:
            return
        shares = START_CASH_USD * position_fraction
        book.account = Account(START_CASH_USD - shares, shares, 1.0)
        book.pending, book.bar_ns = action, bar_ns

    def _book(self, model: str, symbol: str) -> _Book:
        key = (model, symbol)
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = _Book()
            if len(self._books) > self._max:
                self._books.popitem(last=False)
        else:
            self._books.move_to_end(key)
        return book
