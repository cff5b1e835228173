"""What the exchange keeps of one paper trader beside the account itself; and all of it as JSON."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from pipelines.events import MINUTE_NS
from pipelines.exchange.holdings import Position
from pipelines.exchange.orders import ZERO, Event, Order, Ticket
from pipelines.exchange.paper import PaperAccount
from pipelines.exchange.timeframes import midnight_ns

_FILLS_KEPT = 10_000
_POINTS_KEPT = 20_000
_DECIMALS = frozenset(
    {"qty", "notional", "limit_price", "stop_price", "trail_price", "trail_percent",
     "reserve_price", "filled_qty", "filled_value", "best_price"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fill:
    """One fill.

    Args:
        id: Its UUID.
        order_id: Of which order.
        symbol: Of what.
        side: Buy or sell.
        at_ns: When, market time.
        price: USD a share.
        qty: Shares.
        cum_qty: Shares of the order so far.
        leaves_qty: Shares of the order that are left.
        status: The order's status afterwards.
    """

    id: str
    order_id: str
    symbol: str
    side: str
    at_ns: int
    price: Decimal
    qty: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal
    status: str

    @property
    def signed_qty(self) -> Decimal:
        """Shares, negative if sold."""
        return self.qty if self.side == "buy" else -self.qty


@dataclass(slots=True)
class Member:
    """One paper trader.

    Args:
        id: UUID of the account, the same for the same key in every run.
        account: The account.
        created_ns: When it was opened, market time.
        begin_usd: What it began with.
        last_equity: Equity at the end of the day before, USD.
        day_ns: Midnight of the day of the last look, market time.
        fills: The last fills, oldest first.
        points: Equity minute by minute, ``(ns, USD)``, oldest first.
    """

    id: UUID
    account: PaperAccount
    created_ns: int
    begin_usd: Decimal
    last_equity: Decimal
    day_ns: int
    fills: deque[Fill] = field(default_factory=lambda: deque(maxlen=_FILLS_KEPT))
    points: deque[tuple[int, Decimal]] = field(default_factory=lambda: deque(maxlen=_POINTS_KEPT))

    @classmethod
    def new(cls, name: str, *, cash: Decimal, shorting: bool, now_ns: int) -> Member:
        """A trader with nothing but cash, of a name that :func:`name_of` made."""
        account = PaperAccount(cash=cash, shorting=shorting, new_id=lambda: str(uuid4()))
        account_id = uuid5(NAMESPACE_URL, f"raytape:account:{name}")
        return cls(account_id, account, now_ns, cash, cash, midnight_ns(now_ns))

    def note(self, event: Event) -> None:
        """Keep a fill."""
        if event.qty is None or event.price is None:
            return
        order = event.order
        self.fills.append(
            Fill(
                event.id, order.id, order.ticket.symbol, order.ticket.side, event.at_ns,
                event.price, event.qty, order.filled_qty,
                max(ZERO, order.left(event.price)), order.status,
            )
        )  # fmt: skip

    def look(self, now_ns: int) -> None:
        """Note what the account is worth, once in a minute of the market."""
        day_ns = midnight_ns(now_ns)
        if day_ns != self.day_ns:
            self.last_equity = self.points[-1][1] if self.points else self.last_equity
            self.day_ns = day_ns
        minute = now_ns - now_ns % MINUTE_NS
        if not self.points or self.points[-1][0] < minute:
            self.points.append((minute, self.account.equity))

    def today(self, symbol: str) -> Iterator[Fill]:
        """The fills of a symbol since midnight."""
        return (f for f in self.fills if f.symbol == symbol and f.at_ns >= self.day_ns)

    def still(self) -> Callable[[], dict[str, Any]]:
        """All of it at this moment; what makes JSON types of it may run at leisure, elsewhere."""
        account = self.account
        cash, positions, marks = account.cash, dict(account.positions), dict(account.marks)
        orders, fills, points = list(account.orders.values()), list(self.fills), list(self.points)
        more = {
            "created_ns": self.created_ns,
            "begin_usd": str(self.begin_usd),
            "last_equity": str(self.last_equity),
            "day_ns": self.day_ns,
        }

        def to_dict() -> dict[str, Any]:
            return {
                "cash": str(cash),
                "positions": {s: [str(p.qty), str(p.cost)] for s, p in positions.items()},
                "marks": {s: str(p) for s, p in marks.items()},
                "orders": [_plain(order) for order in orders],
                **more,
                "fills": [_plain(fill) for fill in fills],
                "points": [[ns, str(usd)] for ns, usd in points],
            }

        return to_dict

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return self.still()()

    @classmethod
    def from_dict(cls, name: str, plain: Mapping[str, Any], *, shorting: bool) -> Member:
        """A trader as :meth:`to_dict` wrote it.

        Raises:
            KeyError, TypeError, ValueError, ArithmeticError: It did not.
        """
        member = cls.new(name, cash=Decimal(plain["cash"]), shorting=shorting, now_ns=0)
        member.account.restore(
            cash=Decimal(plain["cash"]),
            positions={s: Position(Decimal(q), Decimal(c)) for s, (q, c) in
                       plain["positions"].items()},
            orders=[_order(o) for o in plain["orders"]],
        )  # fmt: skip
        member.account.marks = {s: Decimal(p) for s, p in plain["marks"].items()}
        member.created_ns, member.day_ns = int(plain["created_ns"]), int(plain["day_ns"])
        member.begin_usd = Decimal(plain["begin_usd"])
        member.last_equity = Decimal(plain["last_equity"])
        for fill in plain["fills"]:
            numbers = {k: Decimal(fill[k]) for k in ("price", "qty", "cum_qty", "leaves_qty")}
            member.fills.append(Fill(**{**fill, **numbers}))
        member.points.extend((int(ns), Decimal(usd)) for ns, usd in plain["points"])
        return member


def name_of(key: str) -> str:
    """What a key is called where it is written down: nobody can read the key from it."""
    return sha256(key.encode()).hexdigest()[:16]


def _plain(value: Order | Ticket | Fill) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for spec in fields(value):
        item = getattr(value, spec.name)
        if isinstance(item, Ticket):
            item = _plain(item)
        out[spec.name] = str(item) if isinstance(item, Decimal) else item
    return out


def _order(plain: Mapping[str, Any]) -> Order:
    return Order(**{**_decimals(plain), "ticket": Ticket(**_decimals(plain["ticket"]))})


def _decimals(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {k: Decimal(v) if k in _DECIMALS and v is not None else v for k, v in plain.items()}
