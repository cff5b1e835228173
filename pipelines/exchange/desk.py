"""The trading desk: paper accounts by key, filled against exactly what the floor publishes.

It listens to the floor like a client. While no order is open it looks at nothing; else at the
quotes of the symbols that have one. Accounts are kept in a file, where one is set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pipelines.events import MAX_NUMBER, Message, parse_time_ns
from pipelines.exchange.floor import Floor
from pipelines.exchange.frames import Batch, Key
from pipelines.exchange.holdings import Quote
from pipelines.exchange.market_days import running, sessions_ahead
from pipelines.exchange.member import Member, name_of
from pipelines.exchange.orders import ZERO, Event, Order, Ticket
from pipelines.exchange.paper_file import PaperFile
from pipelines.exchange.refusals import Refused

_LOG = logging.getLogger(__name__)

_HALTED = frozenset({"H", "P", "2"})
"""Status codes after which nothing trades until another one."""

_CLS_BEFORE_NS = 10 * 60 * 1_000_000_000
"""How long before the close ``cls`` orders end to be taken."""

Ears = Callable[[Event], None]
"""Who is told of an account's events."""


class Desk:
    """The accounts of one exchange.

    Args:
        floor: The market.
        path: Where the accounts are kept over restarts; ``None`` forgets them.

    Raises:
        ConfigError: The file is there but is not ours.
    """

    def __init__(self, floor: Floor, *, path: Path | None) -> None:
        self._floor = floor
        self._members: dict[str, Member] = {}
        self._ears: dict[str, set[Ears]] = {}
        self._known: dict[Key, Message] = {}
        self._quotes: dict[str, tuple[Message, Quote]] = {}
        self._working: dict[Key, list[str]] = {}
        self._changed: set[str] = set()
        self._unwritten = False
        self._file = None if path is None else PaperFile(path, market=floor.source.name)
        if self._file is not None:
            self._restore(self._file)

    def member(self, key: str) -> Member:
        """The trader of a key, opened at the first call."""
        name = name_of(key)
        member = self._members.get(name)
        if member is None:
            config = self._floor.config
            member = self._members[name] = Member.new(
                name,
                cash=Decimal(str(config.cash_usd)),
                shorting=config.shorting,
                now_ns=self._floor.market_ns(),
            )
            self._changed.add(name)
        self._mark(member)
        return member

    def listen(self, key: str, ears: Ears) -> Callable[[], None]:
        """Tell somebody of the events of a key's account; answers what ends it."""
        heard = self._ears.setdefault(name_of(key), set())
        heard.add(ears)
        return lambda: heard.discard(ears)

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """The symbols of which nothing was published yet: see :meth:`learn`."""
        last, known = self._floor.last, self._known
        return [s for s in symbols if ("quotes", s) not in last and ("quotes", s) not in known]

    def learn(self, trades: Mapping[str, Message], quotes: Mapping[str, Message]) -> None:
        """Take the last messages of the past for symbols of which nothing was published yet."""
        for channel, found in (("trades", trades), ("quotes", quotes)):
            self._known.update({(channel, s): m for s, m in found.items()})

    def submit(self, key: str, ticket: Ticket) -> Order:
        """Place an order.

        Returns:
            The order as it was accepted.

        Raises:
            Refused: It cannot be placed.
        """
        member = self.member(key)
        order, events = member.account.submit(ticket, **self._terms(ticket))
        self._happened(name_of(key), events)
        return order

    def replace(self, key: str, order_id: str, ticket: Ticket) -> Order:
        """Put another order in the place of an open one.

        Raises:
            Refused: It cannot be replaced, or not by that.
        """
        member = self.member(key)
        order, events = member.account.replace(order_id, ticket, **self._terms(ticket))
        self._happened(name_of(key), events)
        return order

    def cancel(self, key: str, order_id: str) -> None:
        """Cancel an open order.

        Raises:
            Refused: There is none.
        """
        events = self.member(key).account.cancel(order_id, now_ns=self._floor.market_ns())
        self._happened(name_of(key), events)

    def advance(self) -> None:
        """Let time pass: orders expire, worth is noted."""
        now_ns = self._floor.market_ns()
        for name, member in self._members.items():
            self._happened(name, member.account.expire(now_ns))
            self._mark(member)
            member.look(now_ns)

    def saving(self) -> Callable[[], None] | None:
        """What writes the accounts that changed, in any thread; ``None`` when there are none."""
        file, names = self._file, tuple(self._changed)
        self._changed.clear()
        if file is None or not names:
            return None
        changed = {name: self._members[name].still() for name in names}

        def save() -> None:
            try:
                file.write(changed)
            except OSError as error:
                self._changed.update(names)
                if not self._unwritten:
                    _LOG.error("paper accounts are not written, and lost if this ends: %s", error)
                self._unwritten = True
            else:
                self._unwritten = False

        return save

    def close(self) -> None:
        """Write the file for the last time, and look at nothing any more."""
        self._floor.listeners.discard(self)
        self._changed.update(self._members)
        if (save := self.saving()) is not None:
            save()

    def offer(self, batch: Batch) -> None:
        """See what was published."""
        if self._working.keys().isdisjoint(batch.audience):
            return
        for i, key in enumerate(batch.keys):
            if key in self._working:
                times = batch.times_ns
                now_ns = self._floor.market_ns() if times is None else times[i]
                self._see(key, batch.messages[i], now_ns)

    def offer_raw(self, frame: bytes) -> None:
        """Raw frames say nothing to the desk."""

    def stats(self) -> dict[str, Any]:
        """How many accounts there are, and how many of their orders are open."""
        accounts = [m.account for m in self._members.values()]
        return {
            "feed": "desk",
            "accounts": len(accounts),
            "open_orders": sum(len(list(a.open_orders)) for a in accounts),
        }

    def _see(self, key: Key, message: Message, now_ns: int) -> None:
        channel, symbol = key
        if channel == "quotes":
            if self._halted(symbol):
                return
            quote = self._quote(symbol, message)
            for name in self._working[key]:
                account = self._members[name].account
                self._happened(name, account.on_quote(symbol, quote, now_ns))
            return
        force = _auction(message.get("c"))
        price, size = _side(message.get("p"), message.get("s"))
        if force is not None and size:
            for name in self._working[key]:
                account = self._members[name].account
                self._happened(name, account.on_auction(symbol, force, price, size, now_ns))

    def _terms(self, ticket: Ticket) -> dict[str, Any]:
        """Moment, quote and price at which an order is taken."""
        floor, symbol = self._floor, ticket.symbol
        now_ns, session = floor.market_ns(), running(floor)
        message = self._last("quotes", symbol)
        quote = None if message is None else self._quote(symbol, message)
        price = ZERO if quote is None else quote.ask or quote.bid
        if not price and (trade := self._last("trades", symbol)) is not None:
            price, _ = _side(trade.get("p"), 1)
        if not price:
            raise Refused(422, f"there is no price of {symbol} yet", code=42210000)
        if session is not None and ticket.force == "opg":
            raise Refused(422, "opg orders are accepted before the open only", code=42210000)
        if session is not None and ticket.force == "cls" and session[1] - now_ns < _CLS_BEFORE_NS:
            raise Refused(422, "cls orders are accepted until ten minutes before the close only",
                          code=42210000)  # fmt: skip
        closes_ns = session[1] if session else sessions_ahead(floor.source, now_ns)[0][1]
        trading = session is not None and not self._halted(symbol)
        # What was quoted before the opening, or before a halt, is no price of now.
        since_ns = 0 if session is None else max(session[0], self._resumed_ns(symbol))
        current = message is not None and _time(message) >= since_ns
        return {
            "now_ns": now_ns,
            "closes_ns": closes_ns,
            "quote": quote if trading and current else None,
            "price": price,
        }

    def _halted(self, symbol: str) -> bool:
        status = self._floor.last.get(("statuses", symbol))
        return status is not None and status.get("sc") in _HALTED

    def _resumed_ns(self, symbol: str) -> int:
        status = self._floor.last.get(("statuses", symbol))
        return 0 if status is None else _time(status)

    def _last(self, channel: str, symbol: str) -> Message | None:
        return self._floor.last.get((channel, symbol)) or self._known.get((channel, symbol))

    def _quote(self, symbol: str, message: Message) -> Quote:
        """The quote of a message; the same message gives the same quote."""
        known = self._quotes.get(symbol)
        if known is not None and known[0] is message:
            return known[1]
        quote = Quote(
            *_side(message.get("bp"), message.get("bs")),
            *_side(message.get("ap"), message.get("as")),
        )
        self._quotes[symbol] = (message, quote)
        return quote

    def _mark(self, member: Member) -> None:
        """Value what a trader holds at the last trade."""
        account = member.account
        for symbol in account.positions:
            trade = self._last("trades", symbol)
            price, _ = _side(trade.get("p"), 1) if trade is not None else (ZERO, ZERO)
            if price:
                account.marks[symbol] = price

    def _happened(self, name: str, events: Iterable[Event]) -> None:
        """Note events, tell of them, and see which symbols are to be watched now."""
        told = False
        for event in events:
            told = True
            self._members[name].note(event)
            for ears in tuple(self._ears.get(name, ())):
                ears(event)
        if told:
            self._changed.add(name)
            self._watch()

    def _watch(self) -> None:
        working: dict[Key, list[str]] = {}
        for name, member in self._members.items():
            for order in member.account.open_orders:
                auction = order.ticket.force in ("opg", "cls")
                names = working.setdefault(
                    ("trades" if auction else "quotes", order.ticket.symbol), []
                )
                if name not in names:
                    names.append(name)
        self._working = working
        if working:
            self._floor.listeners.add(self)

    def _restore(self, file: PaperFile) -> None:
        shorting = self._floor.config.shorting
        try:
            for name, plain in file.accounts.items():
                self._members[name] = Member.from_dict(name, plain, shorting=shorting)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise file.refused(error) from error
        self._watch()


def _auction(conditions: object) -> Literal["opg", "cls"] | None:
    """The orders that a trade with these conditions fills.

    >>> _auction(["@", "6", "X"]), _auction(["@"]), _auction(None)
    ('cls', None, None)
    """
    if isinstance(conditions, list):
        if "O" in conditions:
            return "opg"
        if "6" in conditions:
            return "cls"
    return None


def _time(message: Message) -> int:
    """The time of a message that was published; 0 when it bears none."""
    try:
        return parse_time_ns(message["t"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return 0


def _side(price: object, size: object) -> tuple[Decimal, Decimal]:
    """Price and size of one side of a quote; zeros for what nobody can trade at.

    >>> _side(10.5, 100), _side(None, 3), _side(float("nan"), 3)
    ((Decimal('10.5'), Decimal('100')), (Decimal('0'), Decimal('0')), (Decimal('0'), Decimal('0')))
    """
    for value in (price, size):
        if type(value) not in (int, float) or not 0 < value <= MAX_NUMBER:  # type: ignore[operator]
            return ZERO, ZERO
    return Decimal(str(price)), Decimal(str(size))
