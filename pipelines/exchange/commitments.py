"""What a paper account has promised: its orders, and what is set aside for them. Pure.

* Cash never becomes negative: a buy sets its cost aside when it is placed.
* What open sales will take cannot be sold again.
* What the account does not have can be sold only where shorting is allowed: half of its value is
  set aside beside the proceeds (Regulation T).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from pipelines.exchange.holdings import Holdings, Position, plain
from pipelines.exchange.orders import ZERO, Order
from pipelines.exchange.refusals import Refused

_SHORT_MARGIN = Decimal("1.5")
_CLOSED_KEPT = 1000
_LEAST_NOTIONAL = 1


class Commitments(Holdings):
    """Cash, positions, and the orders that may change them.

    Args:
        cash: What it begins with, USD.
        shorting: Whether it may sell what it does not have.
    """

    def __init__(self, cash: Decimal, *, shorting: bool) -> None:
        super().__init__(cash)
        self.shorting = shorting
        self.orders: dict[str, Order] = {}
        self._open: dict[str, Order] = {}
        self._by_client_id: dict[str, str] = {}

    @property
    def open_orders(self) -> Iterable[Order]:
        """The orders that may still fill, oldest first."""
        return self._open.values()

    def by_client_id(self, client_order_id: str) -> Order | None:
        """The order of a client's own name."""
        found = self._by_client_id.get(client_order_id)
        return None if found is None else self.orders.get(found)

    def held(self, symbol: str) -> Decimal:
        """Shares of a long position that open sales will take."""
        return sum(
            (o.left(o.reserve_price) for o in self._open.values()
             if o.ticket.symbol == symbol and o.ticket.side == "sell" and not o.opens_short),
            ZERO,
        )  # fmt: skip

    @property
    def reserved_usd(self) -> Decimal:
        """What is set aside for open orders, USD."""
        return sum((o.reserved_usd for o in self._open.values()), ZERO)

    @property
    def buying_power(self) -> Decimal:
        """What a new order may cost, USD."""
        return max(ZERO, self.cash - self.reserved_usd + _SHORT_MARGIN * self.short_value)

    def _afford(self, order: Order) -> None:
        """Refuse an order that the account cannot pay for or deliver."""
        ticket, symbol = order.ticket, order.ticket.symbol
        have, wanted = self.position_qty(symbol), order.left(order.reserve_price)
        cost = ticket.notional or wanted * order.reserve_price
        if ticket.notional is not None and ticket.notional < _LEAST_NOTIONAL:
            raise Refused(403, "cost basis must be >= minimal amount of order 1", code=40310000)
        if ticket.side == "sell":
            if have > 0 or not self.shorting:
                self._deliverable(symbol, have, wanted)
                return
            if wanted != wanted.to_integral_value() or ticket.notional is not None:
                raise Refused(422, "fractional orders cannot be sold short", code=42210000)
            cost /= 2
        power = self.buying_power
        if ticket.side == "buy" and have < 0 and wanted <= -have:
            power = max(ZERO, self.cash - self.reserved_usd)  # it closes a short position
        if cost > power:
            raise Refused(
                403, "insufficient buying power", code=40310000,
                buying_power=plain(power), cost_basis=plain(cost),
            )  # fmt: skip

    def _deliverable(self, symbol: str, have: Decimal, wanted: Decimal) -> None:
        held = self.held(symbol)
        available = max(ZERO, have - held)
        if wanted > available:
            raise Refused(
                403,
                f"insufficient qty available for order (requested: {plain(wanted)}, "
                f"available: {plain(available)})",
                code=40310000,
                available=plain(available),
                existing_qty=plain(have),
                held_for_orders=plain(held),
                symbol=symbol,
            )

    def _affordable(self, order: Order, price: Decimal) -> Decimal:
        """Shares that there is cash for, or that are there, beside what is set aside for others."""
        symbol = order.ticket.symbol
        if order.ticket.side == "sell":
            others = self.held(symbol) - order.left(order.reserve_price)
            return order.left(price) if order.opens_short else self.position_qty(symbol) - others
        free = self.cash - (self.reserved_usd - order.reserved_usd)
        if self.position_qty(symbol) >= 0:
            free += _SHORT_MARGIN * self.short_value
        return max(ZERO, free) / price

    def _keep(self, order: Order) -> Order:
        self.orders[order.id] = order
        if order.is_open:
            self._open[order.id] = order
        else:
            self._open.pop(order.id, None)
            self._forget()
        return order

    def _forget(self) -> None:
        """Drop the oldest closed orders beyond what is kept."""
        if len(self.orders) > len(self._open) + _CLOSED_KEPT:
            oldest = next(o for o in self.orders.values() if not o.is_open)
            del self.orders[oldest.id]
            self._by_client_id.pop(oldest.ticket.client_order_id or "", None)

    def _must_be_open(self, order_id: str) -> Order:
        order = self.orders.get(order_id)
        if order is None:
            raise Refused(404, f"order not found for {order_id}", code=40410000)
        if not order.is_open:
            raise Refused(422, f'order is already in "{order.status}" state', code=42210000)
        return order

    def restore(
        self, *, cash: Decimal, positions: Mapping[str, Position], orders: Iterable[Order]
    ) -> None:
        """Take the state of an earlier run."""
        self.cash, self.positions = cash, dict(positions)
        for order in orders:
            self._keep(order)
            self._by_client_id[order.ticket.client_order_id or order.id] = order.id
