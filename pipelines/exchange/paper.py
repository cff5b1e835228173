"""One paper account: its orders, its cash, its positions, filled against quotes. Pure.

In: tickets, quotes, auction prints, moments. Out: what happened, as events in order. Nothing is
read or sent here, and no clock is asked.

* A buy fills at the ask, a sale at the bid, for the displayed size at most; what is left waits for
  the next quote. Orders on one side share the displayed size: market orders first, then by price,
  then by time. Each account has the book for itself.
* A stop is set off by the quote (a sale by a bid at or below it, a buy by an ask at or above it).
* ``opg`` and ``cls`` orders fill at the auction's print and nowhere else.
* When the price has run away from what a buy set aside, it fills as far as the cash goes (a sale:
  the shares); the rest is canceled. What may be placed at all says :mod:`.commitments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from pipelines.events import DAY_NS
from pipelines.exchange.commitments import Commitments
from pipelines.exchange.holdings import Book, Quote
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

_ENDS: dict[Status, EventName] = {
    "canceled": "canceled", "expired": "expired", "replaced": "replaced", "rejected": "rejected",
}  # fmt: skip


class PaperAccount(Commitments):
    """The account.

    Args:
        cash: What it begins with, USD.
        shorting: Whether it may sell what it does not have.
        new_id: Makes the ids of orders and events.
    """

    def __init__(self, *, cash: Decimal, shorting: bool, new_id: Callable[[], str]) -> None:
        super().__init__(cash, shorting=shorting)
        self._books: dict[str, Book] = {}
        self._new_id = new_id

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
        fresh = _heir(old, self._made(ticket, now_ns, closes_ns, price))
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

    def _place(self, order: Order, quote: Quote | None, now_ns: int) -> list[Event]:
        self._keep(order)
        assert order.ticket.client_order_id is not None  # noqa: S101 (see _made)
        self._by_client_id[order.ticket.client_order_id] = order.id
        if quote is None or order.ticket.force in ("opg", "cls"):
            return [self._event("accepted", order, now_ns)]
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
        return [self._event("new", fresh, fresh.updated_ns)]

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
        return self._event(name, order, at_ns, price=price, qty=qty, position_qty=position_qty)

    def _end(self, order: Order, status: Status, at_ns: int) -> Event:
        at_ns = max(at_ns, order.updated_ns)
        order = self._keep(replace(order, status=status, updated_ns=at_ns, ended_ns=at_ns))
        return self._event(_ENDS[status], order, at_ns)

    def _event(self, name: EventName, order: Order, at_ns: int, **fill: Decimal) -> Event:
        return Event(name, order, at_ns, id=self._new_id(), **fill)


def _heir(old: Order, fresh: Order) -> Order:
    """The order that takes the place of another; what its stop has seen, it has seen."""
    fresh = replace(fresh, replaces=old.id)
    if fresh.ticket.stop_price != old.ticket.stop_price:
        return fresh  # another stop, which nothing has set off yet
    return replace(fresh, triggered=old.triggered, best_price=old.best_price)


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
