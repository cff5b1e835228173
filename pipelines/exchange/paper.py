"""One paper account: its orders, its cash, its positions, filled against quotes. Pure.

In: tickets, quotes, auction prints, moments. Out: what happened, as events in order. Nothing is
read or sent here, and no clock is asked.

* A buy fills at the ask, a sale at the bid, for the displayed size at most; what is left waits for
  the next quote. Orders on one side share the displayed size: market orders first, then by price,
  then by time. Each account has the book for itself.
* A stop is set off by the quote (a sale by a bid at or below it, a buy by an ask at or above it).
* ``opg`` and ``cls`` orders fill at the auction's print and nowhere else.
* Cash never becomes negative. A buy sets its cost aside when it is placed; when the price has run
  away by then, it fills as far as the cash goes (a sale: the shares); the rest is canceled.
* What the account does not have can be sold only where shorting is allowed: half of its value is
  set aside beside the proceeds (Regulation T).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from pipelines.events import DAY_NS
from pipelines.exchange.holdings import Book, Holdings, Position, Quote, plain
from pipelines.exchange.orders import (
    SHARE,
    ZERO,
    Event,
    EventName,
    Order,
    Side,
    Status,
    Ticket,
)  # fmt: skip
from pipelines.exchange.refusals import Refused

GTC_NS = 90 * DAY_NS
"""How long an order is good till canceled, as the vendor has it."""

_SHORT_MARGIN = Decimal("1.5")
_ENDS: dict[Status, EventName] = {
    "canceled": "canceled", "expired": "expired", "replaced": "replaced", "rejected": "rejected",
}  # fmt: skip
_CLOSED_KEPT = 1000
_LEAST_NOTIONAL = 1


class PaperAccount(Holdings):
    """The account.

    Args:
        cash: What it begins with, USD.
        shorting: Whether it may sell what it does not have.
        new_id: Makes the id of an order.
    """

    def __init__(self, *, cash: Decimal, shorting: bool, new_id: Callable[[], str]) -> None:
        super().__init__(cash)
        self.shorting = shorting
        self.orders: dict[str, Order] = {}
        self._open: dict[str, Order] = {}
        self._by_client_id: dict[str, str] = {}
        self._books: dict[str, Book] = {}
        self._new_id = new_id

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

    def submit(
        self,
        ticket: Ticket,
        *,
        now_ns: int,
        closes_ns: int,
        quote: Quote | None,
        price: Decimal,
    ) -> tuple[Order, list[Event]]:
        """Place an order.

        Args:
            ticket: What is asked for.
            now_ns: Market time.
            closes_ns: End of the session that runs, or comes next.
            quote: The quote to fill against at once; ``None`` while nothing trades.
            price: What a share costs about now, USD.

        Returns:
            The order as it was accepted, and all that happened to it since.

        Raises:
            Refused: The account cannot place it.
        """
        client_id = ticket.client_order_id
        if client_id is not None and client_id in self._by_client_id:
            raise Refused(422, "client_order_id must be unique", code=40010001)
        order = self._made(ticket, now_ns, closes_ns, price)
        self._afford(order)
        return order, self._place(order, quote, now_ns)

    def replace(
        self,
        order_id: str,
        ticket: Ticket,
        *,
        now_ns: int,
        closes_ns: int,
        quote: Quote | None,
        price: Decimal,
    ) -> tuple[Order, list[Event]]:
        """Put another order in the place of an open one; arguments as :meth:`submit` has them.

        Raises:
            Refused: There is no such open order, or the account cannot place the new one.
        """
        old = self._must_be_open(order_id)
        client_id = ticket.client_order_id
        if client_id in self._by_client_id:
            raise Refused(422, "client_order_id must be unique", code=40010001)
        fresh = replace(self._made(ticket, now_ns, closes_ns, price), replaces=old.id)
        del self._open[old.id]
        try:
            self._afford(fresh)
        except Refused:
            self._open[old.id] = old
            raise
        self._open[old.id] = old
        events = [self._end(replace(old, replaced_by=fresh.id), "replaced", now_ns)]
        return fresh, events + self._place(fresh, quote, now_ns)

    def cancel(self, order_id: str, *, now_ns: int) -> list[Event]:
        """Cancel an open order.

        Raises:
            Refused: There is no such open order.
        """
        return [self._end(self._must_be_open(order_id), "canceled", now_ns)]

    def expire(self, now_ns: int) -> list[Event]:
        """End the orders whose time is over."""
        over = [o for o in self._open.values() if o.expires_ns <= now_ns]
        return [self._end(o, "expired", max(o.expires_ns, o.updated_ns)) for o in over]

    def on_quote(self, symbol: str, quote: Quote, at_ns: int) -> list[Event]:
        """Fill what a new quote of a trading symbol can fill."""
        self._books[symbol] = Book(quote)
        # A fast market is in its next session before anybody looked at the end of the last one.
        return self.expire(at_ns) + self._match(symbol, at_ns)

    def on_auction(
        self, symbol: str, force: Literal["opg", "cls"], price: Decimal, size: Decimal, at_ns: int
    ) -> list[Event]:
        """Fill the orders that wait for an auction at its print, and end the rest of them."""
        events: list[Event] = []
        left: dict[Side, Decimal] = {"buy": size, "sell": size}
        for order in [o for o in self._open.values() if o.ticket.symbol == symbol]:
            if order.ticket.force == force:
                events += self._awaken(order, at_ns)
                events += self._fill(self._open[order.id], price, left, at_ns)
                if order.id in self._open:
                    events.append(self._end(self._open[order.id], "canceled", at_ns))
        return events

    def _made(self, ticket: Ticket, now_ns: int, closes_ns: int, price: Decimal) -> Order:
        order_id = self._new_id()
        if ticket.client_order_id is None:
            ticket = replace(ticket, client_order_id=self._new_id())
        if ticket.kind == "stop":
            price = ticket.stop_price or price
        short = ticket.side == "sell" and self.position_qty(ticket.symbol) <= 0
        return Order(
            id=order_id,
            ticket=ticket,
            status="accepted",
            submitted_ns=now_ns,
            updated_ns=now_ns,
            expires_ns=now_ns + GTC_NS if ticket.force == "gtc" else closes_ns,
            reserve_price=ticket.limit_price or price,
            opens_short=short,
        )

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

    def _place(self, order: Order, quote: Quote | None, now_ns: int) -> list[Event]:
        self._keep(order)
        assert order.ticket.client_order_id is not None  # noqa: S101 (see _made)
        self._by_client_id[order.ticket.client_order_id] = order.id
        if quote is None or order.ticket.force in ("opg", "cls"):
            return [Event("accepted", order, now_ns)]
        book = self._books.get(order.ticket.symbol)
        if book is None or book.quote is not quote:
            self._books[order.ticket.symbol] = Book(quote)
        return self._match(order.ticket.symbol, now_ns)

    def _match(self, symbol: str, at_ns: int) -> list[Event]:
        book = self._books[symbol]
        events: list[Event] = []
        for order in [o for o in self._open.values() if o.ticket.symbol == symbol]:
            if order.ticket.force not in ("opg", "cls"):
                events += self._awaken(order, at_ns)
                self._watch(self._open[order.id], book.quote)
        waiting = [o for o in self._open.values() if o.ticket.symbol == symbol]
        for order in sorted(waiting, key=_priority):
            if order.ticket.force in ("opg", "cls"):
                continue
            if order.triggered or order.ticket.kind in ("market", "limit"):
                price = book.quote.price(order.ticket.side)
                events += self._fill(order, price, book.left, at_ns)
            if order.ticket.force in ("ioc", "fok") and order.id in self._open:
                events.append(self._end(self._open[order.id], "canceled", at_ns))
        return events

    def _awaken(self, order: Order, at_ns: int) -> list[Event]:
        """The market has taken the order."""
        if order.status != "accepted":
            return []
        fresh = self._keep(replace(order, status="new", updated_ns=max(at_ns, order.updated_ns)))
        return [Event("new", fresh, fresh.updated_ns)]

    def _watch(self, order: Order, quote: Quote) -> None:
        """Let a stop see the quote."""
        ticket = order.ticket
        if order.triggered or ticket.kind in ("market", "limit"):
            return
        sells = ticket.side == "sell"
        price = quote.bid if sells else quote.ask
        if price <= 0:
            return
        if ticket.kind == "trailing_stop":
            best = order.best_price
            if best is None or (price > best if sells else price < best):
                order = self._keep(replace(order, best_price=price))
        stop = order.stop_price
        if stop is not None and (price <= stop if sells else price >= stop):
            self._keep(replace(order, triggered=True))

    def _fill(
        self, order: Order, price: Decimal, left: dict[Side, Decimal], at_ns: int
    ) -> list[Event]:
        """Fill an order as far as price, size, cash and shares allow."""
        ticket, side = order.ticket, order.ticket.side
        if price <= 0 or not _within_limit(ticket, price):
            return []
        wanted = order.left(price)
        qty = min(wanted, left[side])
        if qty <= 0 or (ticket.force == "fok" and qty < wanted):
            return [] if wanted > 0 else [self._end(order, "canceled", at_ns)]
        affordable = self._affordable(order, price)
        falls_short = affordable < qty
        events: list[Event] = []
        if falls_short:
            whole = ticket.qty is not None and ticket.qty == ticket.qty.to_integral_value()
            step = Decimal(1) if whole else SHARE
            qty = max(ZERO, affordable) // step * step
        if qty > 0:
            left[side] -= qty
            events.append(self._filled(order, qty, price, at_ns))
        if falls_short:
            order = self.orders[order.id]
            events.append(self._end(order, "canceled" if order.filled_qty else "rejected", at_ns))
        return events

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

    def _filled(self, order: Order, qty: Decimal, price: Decimal, at_ns: int) -> Event:
        symbol, at_ns = order.ticket.symbol, max(at_ns, order.updated_ns)
        signed = qty if order.ticket.side == "buy" else -qty
        position_qty = self.trade(symbol, signed, price)
        order = replace(
            order,
            filled_qty=order.filled_qty + qty,
            filled_value=order.filled_value + qty * price,
            updated_ns=at_ns,
            status="partially_filled",
        )
        name: EventName = "partial_fill"
        if order.left(price) <= 0:
            name, order = "fill", replace(order, status="filled", ended_ns=at_ns)
        self._keep(order)
        return Event(name, order, at_ns, price, qty, position_qty)

    def _end(self, order: Order, status: Status, at_ns: int) -> Event:
        at_ns = max(at_ns, order.updated_ns)
        order = self._keep(replace(order, status=status, updated_ns=at_ns, ended_ns=at_ns))
        return Event(_ENDS[status], order, at_ns)

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


def _priority(order: Order) -> tuple[int, Decimal, int]:
    """Market orders first, then the better price, then the older order."""
    limit = order.ticket.limit_price
    if limit is None:
        return 0, ZERO, order.submitted_ns
    return 1, -limit if order.ticket.side == "buy" else limit, order.submitted_ns


def _within_limit(ticket: Ticket, price: Decimal) -> bool:
    limit = ticket.limit_price
    if limit is None:
        return True
    return price <= limit if ticket.side == "buy" else price >= limit
