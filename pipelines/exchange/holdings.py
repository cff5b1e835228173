"""What a paper account holds: cash and positions, and the quotes that it trades against. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from pipelines.exchange.orders import ZERO, Side


@dataclass(frozen=True, slots=True)
class Quote:
    """Best bid and ask of a symbol; a side with size 0 is empty. USD and shares."""

    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal

    def price(self, side: Side) -> Decimal:
        """What an order of a side pays or gets."""
        return self.ask if side == "buy" else self.bid

    def size(self, side: Side) -> Decimal:
        """How much of it."""
        return self.ask_size if side == "buy" else self.bid_size


@dataclass(slots=True)
class Book:
    """A quote and what an account left of it."""

    quote: Quote
    left: dict[Side, Decimal] = field(init=False)

    def __post_init__(self) -> None:
        self.left = {"buy": self.quote.ask_size, "sell": self.quote.bid_size}


@dataclass(frozen=True, slots=True)
class Position:
    """What an account holds of a symbol.

    Args:
        qty: Shares, negative if short.
        cost: USD that they cost, negative if short.
    """

    qty: Decimal
    cost: Decimal

    @property
    def entry_price(self) -> Decimal:
        """Mean price at which it was built up, USD."""
        return self.cost / self.qty

    def after(self, qty: Decimal, price: Decimal) -> Position:
        """The position after a signed fill.

        >>> Position(Decimal(10), Decimal(100)).after(Decimal(-4), Decimal(20))
        Position(qty=Decimal('6'), cost=Decimal('60'))
        """
        if self.qty * qty >= 0:
            return Position(self.qty + qty, self.cost + qty * price)
        if abs(qty) <= abs(self.qty):
            rest = self.qty + qty
            return Position(rest, self.cost * rest / self.qty)
        return Position(self.qty + qty, (self.qty + qty) * price)  # through zero


class Holdings:
    """Cash, positions and what they are worth.

    Args:
        cash: USD.
    """

    def __init__(self, cash: Decimal) -> None:
        self.cash = cash
        self.positions: dict[str, Position] = {}
        self.marks: dict[str, Decimal] = {}

    def position_qty(self, symbol: str) -> Decimal:
        """Shares of a symbol, negative if short."""
        position = self.positions.get(symbol)
        return position.qty if position else ZERO

    def value(self, symbol: str) -> Decimal:
        """Market value of a position, USD, negative if short."""
        position = self.positions[symbol]
        return position.qty * self.marks.get(symbol, position.entry_price)

    @property
    def long_value(self) -> Decimal:
        """Market value of what it has, USD."""
        return sum((self.value(s) for s, p in self.positions.items() if p.qty > 0), ZERO)

    @property
    def short_value(self) -> Decimal:
        """Market value of what it owes, USD, not positive."""
        return sum((self.value(s) for s, p in self.positions.items() if p.qty < 0), ZERO)

    @property
    def equity(self) -> Decimal:
        """What would be left if all were sold now, USD."""
        return self.cash + self.long_value + self.short_value

    def trade(self, symbol: str, qty: Decimal, price: Decimal) -> Decimal:
        """Take part in a trade.

        Args:
            symbol: Of what.
            qty: Shares, negative if sold.
            price: USD a share.

        Returns:
            Shares of the symbol afterwards.
        """
        self.cash -= qty * price
        position = self.positions.pop(symbol, Position(ZERO, ZERO)).after(qty, price)
        if position.qty:
            self.positions[symbol] = position
        self.marks[symbol] = price
        return position.qty


def plain(number: Decimal) -> str:
    """A decimal as the vendor writes it.

    >>> plain(Decimal("1.500")), plain(Decimal("100"))
    ('1.5', '100')
    """
    return format(number.normalize(), "f")
