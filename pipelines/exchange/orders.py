"""Orders of a paper account: what may be asked for, and what an order is. Pure.

In: the JSON of a request. Out: a checked :class:`Ticket`, or the vendor's refusal. Money and
shares are decimals: nothing is lost by rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from pipelines.exchange.refusals import Refused

Side = Literal["buy", "sell"]
Kind = Literal["market", "limit", "stop", "stop_limit", "trailing_stop"]
Force = Literal["day", "gtc", "ioc", "fok", "opg", "cls"]
Status = Literal[
    "accepted", "new", "partially_filled", "filled", "canceled", "expired", "replaced", "rejected"
]

EventName = Literal[
    "accepted", "new", "fill", "partial_fill", "canceled", "expired", "replaced", "rejected"
]

OPEN: frozenset[Status] = frozenset({"accepted", "new", "partially_filled"})
"""What an order that may still fill can be."""

ZERO = Decimal(0)
SHARE = Decimal("0.000000001")
"""Smallest part of a share."""

_MOST_SHARES, _MOST_USD = Decimal(10**9), Decimal(10**6)
_MOST_NOTIONAL_USD = Decimal(10**12)
_CLIENT_ID = 48
_PRICES: dict[Kind, tuple[str, ...]] = {
    "market": (),
    "limit": ("limit_price",),
    "stop": ("stop_price",),
    "stop_limit": ("stop_price", "limit_price"),
    "trailing_stop": ("trail_price", "trail_percent"),
}
_ALL_PRICES = ("limit_price", "stop_price", "trail_price", "trail_percent")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is asked for.

    Args:
        symbol: Of what.
        side: Buy or sell.
        kind: How its price is found.
        force: How long it stands.
        qty: Shares; ``None`` if a notional is given.
        notional: USD to spend or to raise; ``None`` if shares are given.
        limit_price: Worst price, USD.
        stop_price: Price that sets it off, USD.
        trail_price: Distance of a trailing stop, USD.
        trail_percent: Distance of a trailing stop, percent of the best price.
        extended_hours: Whether it may fill outside of the regular session (there is none here).
        client_order_id: The client's own name of it; ``None`` for one that is made up.
    """

    symbol: str
    side: Side
    kind: Kind
    force: Force
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    extended_hours: bool = False
    client_order_id: str | None = None

    @classmethod
    def of(cls, body: object, *, symbols: Collection[str]) -> Ticket:
        """The ticket of a request's body.

        Args:
            body: What the JSON holds.
            symbols: What is traded.

        Raises:
            Refused: It is no order that can be placed here.
        """
        if not isinstance(body, dict):
            raise Refused(400, "request body format is invalid", code=40010000)
        symbol = str(body.get("symbol") or "").upper()
        if not symbol:
            raise _invalid("symbol is required")
        if symbol not in symbols:
            raise _invalid(f'asset "{symbol}" not found')
        order_class = body.get("order_class") or "simple"
        if order_class != "simple":
            raise _invalid(
                f"order_class {order_class} is not offered here; send its legs as simple orders"
            )
        kind: Kind = _one_of(body, "type", get_args(Kind))
        client_id = body.get("client_order_id") or None
        if client_id is not None and not (
            isinstance(client_id, str) and len(client_id) <= _CLIENT_ID
        ):
            raise _invalid(f"client_order_id must be text of at most {_CLIENT_ID} characters")
        ticket = cls(
            symbol=symbol,
            side=_one_of(body, "side", get_args(Side)),
            kind=kind,
            force=_one_of(body, "time_in_force", get_args(Force)),
            qty=decimal_of(body, "qty", most=_MOST_SHARES, places=9),
            notional=decimal_of(body, "notional", most=_MOST_NOTIONAL_USD, places=2),
            **_prices(body, kind),
            extended_hours=_flag(body, "extended_hours"),
            client_order_id=client_id,
        )
        ticket.check()
        return ticket

    def check(self) -> None:
        """Refuse what does not fit together.

        Raises:
            Refused: It is no order that can be placed here.
        """
        if self.qty is None and self.notional is None:
            raise _invalid("qty or notional is required")
        if self.qty is not None and self.notional is not None:
            raise _invalid("only one of qty or notional is accepted")
        fractional = self.notional is not None or self.qty != self.qty.to_integral_value()  # type: ignore[union-attr]
        if fractional and self.force != "day":
            raise _invalid("fractional orders must be DAY orders")
        if self.notional is not None and self.kind != "market":
            raise _invalid("notional orders must be market orders")
        if self.force in ("opg", "cls", "ioc", "fok") and self.kind not in ("market", "limit"):
            raise _invalid(f"{self.kind} orders with time_in_force {self.force} are not offered")
        if self.extended_hours and (self.kind != "limit" or self.force not in ("day", "gtc")):
            raise _invalid("extended hours order must be DAY or GTC limit orders")
        for name in ("limit_price", "stop_price"):
            price = getattr(self, name)
            if price is not None:
                _check_increment(name, price)


def decimal_of(body: Mapping[str, Any], name: str, *, most: Decimal, places: int) -> Decimal | None:
    """A positive number of a body, written as a number or as text.

    >>> decimal_of({"qty": "1.50"}, "qty", most=Decimal(9), places=2)
    Decimal('1.50')

    Raises:
        Refused: It is none, too large, or has too many decimals.
    """
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value) if isinstance(value, int | float | str) else "none")
    except InvalidOperation as wrong:  # a boolean too: its text is no number
        raise _invalid(f"{name} must be a number, got {value!r}") from wrong
    if not number.is_finite() or number <= 0:
        raise _invalid(f"{name} must be > 0")
    if number > most:
        raise _invalid(f"{name} must be at most {most}")
    if number != round(number, places):
        raise _invalid(f"{name} must be limited to {places} decimal places")
    return number


def _prices(body: Mapping[str, Any], kind: Kind) -> dict[str, Decimal | None]:
    given = {n: decimal_of(body, n, most=_MOST_USD, places=4) for n in _ALL_PRICES}
    for name, value in given.items():
        if value is not None and name not in _PRICES[kind]:
            raise _invalid(f"{kind} orders require no {name}")
    if kind == "trailing_stop":
        if (given["trail_price"] is None) == (given["trail_percent"] is None):
            raise _invalid("trailing_stop orders require one of trail_price and trail_percent")
        if given["trail_percent"] is not None and given["trail_percent"] >= 100:
            raise _invalid("trail_percent must be below 100")
        return given
    for name in _PRICES[kind]:
        if given[name] is None:
            raise _invalid(f"{kind} orders require {name}")
    return given


def _check_increment(name: str, price: Decimal) -> None:
    places = 2 if price >= 1 else 4
    if price != round(price, places):
        raise _invalid(
            f"invalid {name} {price}. sub-penny increment does not fulfill minimum pricing criteria"
        )


def _one_of(body: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> Any:
    value = body.get(name)
    if value is None or value == "":
        raise _invalid(f"{name} is required")
    if value not in choices:
        raise _invalid(f"invalid {name}: {value}; one of {', '.join(choices)}")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise _invalid(f"{name} must be true or false, got {value!r}")
    return bool(value)


def _invalid(message: str) -> Refused:
    return Refused(422, message, code=42210000)


@dataclass(frozen=True, slots=True)
class Order:
    """An order at one moment; a change makes another one. Times are market time, ns.

    Args:
        id: Its UUID.
        ticket: What was asked for; its ``client_order_id`` is set.
        status: Where it stands.
        submitted_ns: When it came.
        updated_ns: When it last changed.
        ended_ns: When it was filled, canceled, expired, replaced or rejected.
        expires_ns: When it expires.
        reserve_price: What a share is thought to cost while it is open, USD.
        filled_qty: Shares.
        filled_value: USD that they cost together.
        triggered: Whether its stop was set off.
        best_price: Best price since its start, of a trailing stop, USD.
        replaces: Id of the order that it took the place of.
        replaced_by: Id of the order that took its place.
        opens_short: Whether it sells what the account does not have.
    """

    id: str
    ticket: Ticket
    status: Status
    submitted_ns: int
    updated_ns: int
    expires_ns: int
    reserve_price: Decimal
    ended_ns: int | None = None
    filled_qty: Decimal = ZERO
    filled_value: Decimal = ZERO
    triggered: bool = False
    best_price: Decimal | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    opens_short: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it may still fill."""
        return self.status in OPEN

    def left(self, price: Decimal) -> Decimal:
        """Shares that are still to be filled at a price."""
        if self.ticket.qty is not None:
            return self.ticket.qty - self.filled_qty
        assert self.ticket.notional is not None  # noqa: S101 (checked where the ticket was made)
        return ((self.ticket.notional - self.filled_value) / price // SHARE) * SHARE

    @property
    def reserved_usd(self) -> Decimal:
        """What is set aside for it: the cost of a buy, the margin of a short sale."""
        if not self.is_open or (self.ticket.side == "sell" and not self.opens_short):
            return ZERO
        if self.ticket.notional is not None:
            return self.ticket.notional - self.filled_value
        cost = self.left(self.reserve_price) * self.reserve_price
        return cost / 2 if self.opens_short else cost

    @property
    def stop_price(self) -> Decimal | None:
        """The price that sets it off now; ``None`` for an order without a stop."""
        ticket = self.ticket
        if ticket.kind != "trailing_stop":
            return ticket.stop_price
        if self.best_price is None:
            return None
        distance = ticket.trail_price
        if distance is None:
            distance = self.best_price * (ticket.trail_percent or ZERO) / 100
        return self.best_price - distance if ticket.side == "sell" else self.best_price + distance


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an order.

    Args:
        name: What.
        order: The order afterwards.
        at_ns: When, market time.
        price: Of a fill, USD a share.
        qty: Of a fill, shares.
        position_qty: Shares of the symbol afterwards, negative if short; of a fill.
        id: Its UUID, the same for everyone who is told of it.
    """

    name: EventName
    order: Order
    at_ns: int
    price: Decimal | None = None
    qty: Decimal | None = None
    position_qty: Decimal | None = None
    id: str = ""
