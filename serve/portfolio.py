"""The paper accounts: one per (model, symbol), moved on by closed bars. Pure.

The decision on bar *t* fills at the open of the next bar that is seen, by the same
:mod:`rl.account` that training uses. A bar moves an account once: asked about the same bar again,
or about an older one, it only says how it stands.

An account reports its fills with the answers to its bars, again and again until a published
signal shows that one of these answers was taken: a fill is never lost with an answer that came
too late.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.clock import wall_ns
from pipelines.events import format_time_ns
from rl.account import BPS, START_CASH_USD, Account, Action, Costs, Fill, advance

MAX_ACCOUNTS = 50_000
MAX_UNCONFIRMED = 16
"""Fills of an account that wait to be published; there is one a bar at most."""

Report = dict[str, Any]


@dataclass(slots=True)
class _Book:
    account: Account = field(default_factory=Account)
    pending: int = Action.HOLD
    reason: str | None = None  # of the pending decision
    bar_ns: int = -1
    fills: deque[Report] = field(default_factory=lambda: deque(maxlen=MAX_UNCONFIRMED))


class Portfolio:
    """Accounts by (model, symbol).

    Args:
        costs: Commission and slippage of the paper fills.
        max_accounts: Bound; the one longest untouched is forgotten first.
        wall: The wall clock.
    """

    def __init__(
        self,
        *,
        costs: Costs | None = None,
        max_accounts: int = MAX_ACCOUNTS,
        wall: Callable[[], int] = wall_ns,
    ) -> None:
        self._costs = costs or Costs()
        self._wall = wall
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
            book.account, fill = advance(
                book.account,
                book.pending,
                open_usd=open_usd,
                close_usd=close_usd,
                spread_bps=spread_bps,
                costs=self._costs,
            )
            if fill is not None:
                book.fills.append(
                    _told(
                        fill, book, open_usd=open_usd, spread_bps=spread_bps, costs=self._costs,
                    )
                    | {
                        "event_time": format_time_ns(bar_ns),
                        "decided_on": format_time_ns(book.bar_ns),
                        "filled_at": format_time_ns(self._wall() // 1000 * 1000),
                    }
                )  # fmt: skip
            book.pending, book.reason, book.bar_ns = Action.HOLD, None, bar_ns
        return book.account.position_fraction, book.account.cash_fraction

    def report(self, model: str, symbol: str) -> Report:
        """How an account stands (``account``), and its ``fills`` that were not published yet."""
        book = self._book(model, symbol)
        return {"account": book.account.to_dict(), "fills": list(book.fills)}

    def follow(self, model: str, symbol: str, signal: Mapping[str, Any], *, bar_ns: int) -> None:
        """Take a published signal: it says what was decided on its bar, and which fills are known.

        Args:
            model: ``id:version`` of the model whose account it moves.
            symbol: Its symbol.
            signal: The signal as it was published.
            bar_ns: Its bar.
        """
        action, reason = int(signal["action_id"]), signal.get("reason")
        self.confirm(model, symbol, signal.get("fills") or ())
        if reason != "unavailable":  # who made that one knew no account
            position, account = float(signal["position_fraction"]), signal.get("account")
            self.restore(model, symbol, bar_ns=bar_ns, position_fraction=position, account=account)
        self.decide(model, symbol, bar_ns=bar_ns, action=action, reason=reason)

    def confirm(self, model: str, symbol: str, fills: Sequence[Mapping[str, Any]]) -> None:
        """These fills were published: they need not be reported any more."""
        book = self._books.get((model, symbol))
        if book is not None and fills:
            known = {fill["event_time"] for fill in fills}
            left = [fill for fill in book.fills if fill["event_time"] not in known]
            book.fills.clear()
            book.fills.extend(left)

    def decide(
        self, model: str, symbol: str, *, bar_ns: int, action: int, reason: str | None = None
    ) -> None:
        """Put the decision on a bar, to fill at the next; on an older bar than the last, nothing.

        The published signal is the truth: called again with another action, the last one counts.
        """
        book = self._book(model, symbol)
        if bar_ns == book.bar_ns:
            book.pending, book.reason = action, reason

    def restore(
        self,
        model: str,
        symbol: str,
        *,
        bar_ns: int,
        position_fraction: float,
        account: Mapping[str, float | None] | None = None,
    ) -> None:
        """Stand at a bar where a published signal says, unless something newer is known.

        A signal that tells only the fraction (it was published by an older version) will do for
        decisions: the account is all in or all out, and a mark of one dollar serves until the
        next bar.
        """
        book = self._book(model, symbol)
        if bar_ns <= book.bar_ns:
            return
        shares = START_CASH_USD * position_fraction
        book.account = Account(START_CASH_USD - shares, shares, 1.0)
        if account is not None:
            book.account = Account(**account)  # type: ignore[arg-type]
        book.pending, book.reason, book.bar_ns = Action.HOLD, None, bar_ns

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


def _told(
    fill: Fill, book: _Book, *, open_usd: float, spread_bps: float, costs: Costs
) -> dict[str, Any]:
    """A fill as it is reported, but for its times; what it cost is told in its parts."""
    half = spread_bps / 2 * BPS
    return {
        "side": fill.action.name,
        "shares": fill.shares,
        "price": fill.price_usd,
        "open": open_usd,
        "bid": open_usd * (1 - half),
        "ask": open_usd * (1 + half),
        "spread_bps": spread_bps,
        "notional": fill.notional_usd,
        "commission": fill.commission_usd,
        "spread_cost": fill.shares * open_usd * half,
        "slippage_cost": fill.shares * open_usd * costs.slippage_bps * BPS,
        "cash_after": book.account.cash_usd,
        "shares_after": book.account.shares,
        "reason": book.reason,
    }
