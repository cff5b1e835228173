from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.exchange.holdings import Position, Quote
from pipelines.exchange.orders import Event, Order, Ticket
from pipelines.exchange.paper import PaperAccount
from pipelines.exchange.refusals import Refused

D = Decimal
CLOSE = 1_000_000
SYMBOLS = ("SPY", "AAPL")


def _account(cash: str = "10000", *, shorting: bool = False) -> PaperAccount:
    ids = count(1)
    return PaperAccount(cash=D(cash), shorting=shorting, new_id=lambda: f"o{next(ids)}")


def _ticket(**body: Any) -> Ticket:
    defaults = {"symbol": "SPY", "side": "buy", "type": "market", "time_in_force": "day"}
    return Ticket.of(defaults | body, symbols=SYMBOLS)


def _quote(bid: str = "99", ask: str = "100", bid_size: int = 1000, ask_size: int = 1000) -> Quote:
    return Quote(D(bid), D(bid_size), D(ask), D(ask_size))


class Trader:
    """An account with a clock that ticks at every step."""

    def __init__(self, account: PaperAccount, quote: Quote | None = None) -> None:
        self.account, self.now, self.quote = account, 0, quote or _quote()
        self.events: list[Event] = []

    def order(self, **body: Any) -> Order:
        self.now += 1
        order, events = self.account.submit(
            _ticket(**body), now_ns=self.now, closes_ns=CLOSE, quote=self.quote,
            price=self.quote.ask,
        )  # fmt: skip
        self.events = events
        return self.account.orders[order.id]

    def see(self, quote: Quote, symbol: str = "SPY") -> list[str]:
        self.now, self.quote = self.now + 1, quote
        self.events = self.account.on_quote(symbol, quote, self.now)
        return [e.name for e in self.events]

    @property
    def names(self) -> list[str]:
        return [e.name for e in self.events]


@pytest.fixture
def trader() -> Trader:
    return Trader(_account())


def test_market_buy_fills_at_the_ask_and_sale_at_the_bid(trader: Trader) -> None:
    assert trader.order(qty=10).status == "filled"
    assert trader.names == ["new", "fill"]
    assert trader.account.cash == D(9000)
    assert trader.account.positions["SPY"] == Position(D(10), D(1000))
    assert trader.order(qty=4, side="sell").filled_value == 4 * 99
    assert trader.events[-1].position_qty == 6
    assert trader.account.cash == D(9396)


def test_order_larger_than_the_display_fills_in_parts(trader: Trader) -> None:
    trader.see(_quote(ask_size=30))
    order = trader.order(qty=50)
    assert trader.names == ["new", "partial_fill"]
    assert order.filled_qty == 30
    assert trader.order(qty=1).filled_qty == 0  # nothing is left of this quote
    assert trader.see(_quote(ask="101", ask_size=30)) == ["fill", "fill"]
    assert trader.account.orders[order.id].filled_value == 30 * 100 + 20 * 101


def test_limit_waits_until_the_quote_crosses_it(trader: Trader) -> None:
    order = trader.order(qty=5, type="limit", limit_price=98.5)
    assert trader.names == ["new"]
    assert trader.see(_quote(bid="98", ask="98.51")) == []
    assert trader.see(_quote(bid="97", ask="98.4")) == ["fill"]
    assert trader.account.orders[order.id].filled_value == 5 * D("98.4")


@pytest.mark.parametrize(("side", "touch"), [("sell", ("95", "95.1")), ("buy", ("104.9", "105"))])
def test_stop_is_set_off_by_the_quote(trader: Trader, side: str, touch: tuple[str, str]) -> None:
    trader.order(qty=10)
    order = trader.order(qty=5, side=side, type="stop", stop_price=95 if side == "sell" else 105)
    assert trader.see(_quote("95.01", "104.99")) == []
    assert trader.see(_quote(*touch)) == ["fill"]
    assert trader.account.orders[order.id].triggered


def test_stop_limit_once_set_off_waits_for_its_limit(trader: Trader) -> None:
    trader.order(qty=10)
    trader.order(qty=5, side="sell", type="stop_limit", stop_price=95, limit_price=94.5)
    assert trader.see(_quote("94", "94.1")) == []
    assert trader.see(_quote("96", "96.1")) == ["fill"]


def test_trailing_stop_follows_the_best_price(trader: Trader) -> None:
    trader.order(qty=10)
    order = trader.order(qty=10, side="sell", type="trailing_stop", trail_price=3)
    assert trader.see(_quote("110", "111")) == []
    assert trader.see(_quote("107.01", "108")) == []
    assert trader.account.orders[order.id].stop_price == 107
    assert trader.see(_quote("107", "108")) == ["fill"]


def test_ioc_cancels_what_is_left_and_fok_takes_all_or_nothing(trader: Trader) -> None:
    trader.see(_quote(ask_size=30))
    assert trader.order(qty=50, time_in_force="fok").filled_qty == 0
    assert trader.names == ["new", "canceled"]
    assert trader.order(qty=50, time_in_force="ioc").filled_qty == 30
    assert trader.names == ["new", "partial_fill", "canceled"]


def test_notional_spends_no_more_than_it_says(trader: Trader) -> None:
    trader.see(_quote(ask="33.33"))
    order = trader.order(notional=1000)
    assert order.status == "filled"
    assert D("999.999") < order.filled_value <= 1000
    assert trader.account.cash == 10_000 - order.filled_value


def test_order_while_nothing_trades_is_accepted_and_filled_later() -> None:
    account = _account()
    order, events = account.submit(
        _ticket(qty=5), now_ns=1, closes_ns=CLOSE, quote=None, price=D(100)
    )
    assert [e.name for e in events] == ["accepted"]
    assert [e.name for e in account.on_quote("SPY", _quote(), 2)] == ["new", "fill"]
    assert account.orders[order.id].status == "filled"


def test_price_that_ran_away_fills_as_far_as_the_cash_goes() -> None:
    account = _account("1000")
    order, _ = account.submit(_ticket(qty=10), now_ns=1, closes_ns=CLOSE, quote=None, price=D(100))
    events = account.on_quote("SPY", _quote(ask="300"), 2)
    assert [e.name for e in events] == ["new", "partial_fill", "canceled"]
    assert account.orders[order.id].filled_qty == 3
    assert account.cash == 100


def test_buy_beyond_the_buying_power_is_refused(trader: Trader) -> None:
    trader.order(qty=50, type="limit", limit_price=90)  # sets 4500 aside
    with pytest.raises(Refused, match="insufficient buying power") as refused:
        trader.order(qty=56)
    assert refused.value.status == 403
    assert refused.value.body()["buying_power"] == "5500"
    assert trader.order(qty=55).status == "filled"


def test_sale_of_what_is_not_there_or_held_is_refused(trader: Trader) -> None:
    trader.order(qty=10)
    trader.order(qty=8, side="sell", type="limit", limit_price=200)
    with pytest.raises(Refused, match=r"requested: 3, available: 2") as refused:
        trader.order(qty=3, side="sell")
    assert refused.value.body()["held_for_orders"] == "8"
    assert refused.value.status == 403


def test_short_sale_needs_margin_and_is_bought_back() -> None:
    trader = Trader(_account("1000", shorting=True))
    with pytest.raises(Refused, match="buying power"):
        trader.order(qty=21, side="sell")
    trader.order(qty=10, side="sell")
    account = trader.account
    assert account.positions["SPY"].qty == -10
    assert account.equity == 1000
    trader.see(_quote("89", "90"))
    assert trader.order(qty=10).status == "filled"
    assert account.positions == {}
    assert account.cash == 1000 + 10 * 9


def test_expire_ends_day_orders_at_the_close_and_keeps_gtc(trader: Trader) -> None:
    day = trader.order(qty=1, type="limit", limit_price=50)
    kept = trader.order(qty=1, type="limit", limit_price=50, time_in_force="gtc")
    assert trader.account.expire(CLOSE - 1) == []
    assert [(e.name, e.order.id) for e in trader.account.expire(CLOSE)] == [("expired", day.id)]
    assert [o.id for o in trader.account.open_orders] == [kept.id]


def test_cancel_of_a_closed_or_unknown_order_is_refused(trader: Trader) -> None:
    order = trader.order(qty=1)
    with pytest.raises(Refused, match='already in "filled" state'):
        trader.account.cancel(order.id, now_ns=9)
    with pytest.raises(Refused, match="not found"):
        trader.account.cancel("nope", now_ns=9)


def test_replace_ends_the_old_order_and_places_the_new(trader: Trader) -> None:
    old = trader.order(qty=100, type="limit", limit_price=99)
    fresh, events = trader.account.replace(
        old.id, _ticket(qty=100, type="limit", limit_price=100), now_ns=9, closes_ns=CLOSE,
        quote=trader.quote, price=D(100),
    )  # fmt: skip
    assert [e.name for e in events] == ["replaced", "new", "fill"]
    assert events[0].order.replaced_by == fresh.id
    assert trader.account.orders[fresh.id].replaces == old.id
    with pytest.raises(Refused):
        trader.account.cancel(old.id, now_ns=10)


def _replaced(trader: Trader, old: Order, **body: Any) -> Order:
    fresh, _ = trader.account.replace(
        old.id, _ticket(**body), now_ns=trader.now + 1, closes_ns=CLOSE, quote=trader.quote,
        price=trader.quote.ask,
    )  # fmt: skip
    return trader.account.orders[fresh.id]


def test_replace_keeps_what_a_stop_has_seen(trader: Trader) -> None:
    trader.order(qty=20)
    both = {"side": "sell", "type": "stop_limit", "stop_price": 95}
    set_off = trader.order(qty=5, limit_price=120, **both)
    trader.see(_quote("94", "94.1"))
    trader.see(_quote("99", "99.1"))
    fresh = _replaced(trader, set_off, qty=5, limit_price=98, **both)
    assert fresh.status == "filled"
    trailing = {"side": "sell", "type": "trailing_stop"}
    follows = trader.order(qty=5, trail_price=10, **trailing)
    trader.see(_quote("105", "106"))
    trader.see(_quote("99", "100"))
    assert _replaced(trader, follows, qty=5, trail_price=8, **trailing).best_price == 105


def test_replace_of_the_stop_itself_begins_anew(trader: Trader) -> None:
    trader.order(qty=20)
    both = {"side": "sell", "type": "stop_limit", "limit_price": 120, "qty": 5}
    set_off = trader.order(stop_price=95, **both)
    trader.see(_quote("94", "94.1"))
    trader.see(_quote("99", "99.1"))
    assert trader.account.orders[set_off.id].triggered
    assert not _replaced(trader, set_off, stop_price=90, **both).triggered


def test_replace_that_cannot_be_paid_leaves_the_old_order(trader: Trader) -> None:
    old = trader.order(qty=1, type="limit", limit_price=50)
    with pytest.raises(Refused, match="buying power"):
        trader.account.replace(
            old.id, _ticket(qty=1000, type="limit", limit_price=50), now_ns=9, closes_ns=CLOSE,
            quote=trader.quote, price=D(100),
        )  # fmt: skip
    assert [o.id for o in trader.account.open_orders] == [old.id]


def test_client_order_id_is_unique(trader: Trader) -> None:
    order = trader.order(qty=1, client_order_id="mine")
    assert trader.account.by_client_id("mine") == order
    with pytest.raises(Refused, match="unique"):
        trader.order(qty=1, client_order_id="mine")


def test_auction_orders_fill_at_its_print_alone(trader: Trader) -> None:
    trader.order(qty=5, time_in_force="cls")
    trader.order(qty=5, time_in_force="cls", type="limit", limit_price=90)
    assert trader.see(_quote("80", "81")) == []
    events = trader.account.on_auction("SPY", "cls", D("95.5"), D(10_000), 9)
    assert [e.name for e in events] == ["new", "fill", "new", "canceled"]
    assert trader.account.cash == 10_000 - 5 * D("95.5")


PRICES = st.integers(1, 400).map(lambda n: D(n) / 2)
SIZES = st.integers(0, 60).map(D)
QUOTES = st.tuples(PRICES, SIZES, PRICES, SIZES).map(lambda t: Quote(*t))
BODIES = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(SYMBOLS),
        "side": st.sampled_from(["buy", "sell"]),
        "type": st.sampled_from(["market", "limit", "stop", "stop_limit", "trailing_stop"]),
        "time_in_force": st.sampled_from(["day", "gtc", "ioc", "fok", "cls"]),
        "qty": st.integers(1, 80) | st.decimals("0.001", "9", places=3).map(str),
        "limit_price": PRICES.map(str),
        "stop_price": PRICES.map(str),
        "trail_price": PRICES.map(str),
    }
)
NEEDS = {
    "market": (), "limit": ("limit_price",), "stop": ("stop_price",),
    "stop_limit": ("stop_price", "limit_price"), "trailing_stop": ("trail_price",),
}  # fmt: skip


def _step(account: PaperAccount, kind: str, body: dict[str, Any], quote: Quote, now: int
          ) -> list[Event]:  # fmt: skip
    body = {k: v for k, v in body.items() if "price" not in k or k in NEEDS[body["type"]]}
    orders = list(account.orders)
    if kind == "quote":
        return account.on_quote(body["symbol"], quote, now)
    if kind == "auction":
        return account.on_auction(body["symbol"], "cls", quote.ask, quote.ask_size, now)
    if kind == "cancel" and orders:
        return account.cancel(orders[now % len(orders)], now_ns=now)
    if kind == "expire":
        return account.expire(CLOSE)
    ticket = Ticket.of(body, symbols=SYMBOLS)
    more = {"now_ns": now, "closes_ns": CLOSE, "quote": quote, "price": quote.ask}
    if kind == "replace" and orders:
        return account.replace(orders[now % len(orders)], ticket, **more)[1]  # type: ignore[arg-type]
    return account.submit(ticket, **more)[1]  # type: ignore[arg-type]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "quote", "quote", "cancel", "replace", "expire",
                         "auction"]),
        BODIES, QUOTES,
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150)
@given(STEPS, st.booleans())
def test_account_whatever_happens_keeps_its_books(steps: list[Any], shorting: bool) -> None:
    account = _account("5000", shorting=shorting)
    cash, held = D(5000), dict.fromkeys(SYMBOLS, D(0))
    seen: dict[str, list[Event]] = {}
    for now, (kind, body, quote) in enumerate(steps):
        try:
            events = _step(account, kind, body, quote, now)
        except Refused:
            events = []
        for event in events:
            order = event.order
            seen.setdefault(order.id, []).append(event)
            if event.qty is not None and event.price is not None:
                sign = 1 if order.ticket.side == "buy" else -1
                cash -= sign * event.qty * event.price
                held[order.ticket.symbol] += sign * event.qty
                assert event.position_qty == held[order.ticket.symbol]
                limit = order.ticket.limit_price
                assert limit is None or sign * (limit - event.price) >= 0
            assert order.ticket.qty is not None and order.filled_qty <= order.ticket.qty
        assert account.cash == cash >= 0
        assert {s: account.position_qty(s) for s in SYMBOLS} == held
        assert shorting or all(qty >= 0 for qty in held.values())
        assert shorting or account.reserved_usd >= 0
        assert sum(o.is_open for o in account.orders.values()) == len(list(account.open_orders))
    for order_id, events in seen.items():
        times = [e.at_ns for e in events]
        assert times == sorted(times)
        assert sum((e.qty or D(0) for e in events), D(0)) == account.orders[order_id].filled_qty
        ends = [e for e in events if not e.order.is_open]
        assert ends in ([], events[-1:])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "qty or notional is required"),
    ({"qty": 1, "notional": 5}, "only one of"),
    ({"qty": 0}, "qty must be > 0"),
    ({"qty": "many"}, "qty must be a number"),
    ({"qty": True}, "qty must be a number"),
    ({"qty": float("nan")}, "qty must be > 0"),
    ({"qty": 1, "symbol": "NOPE"}, 'asset "NOPE" not found'),
    ({"qty": 1, "symbol": ""}, "symbol is required"),
    ({"qty": 1, "side": "hold"}, "invalid side: hold"),
    ({"qty": 1, "type": "magic"}, "invalid type"),
    ({"qty": 1, "time_in_force": ""}, "time_in_force is required"),
    ({"qty": 1, "type": "limit"}, "limit orders require limit_price"),
    ({"qty": 1, "limit_price": 5}, "market orders require no limit_price"),
    ({"qty": 1, "type": "limit", "limit_price": 5.001}, "sub-penny"),
    ({"qty": 1.5, "time_in_force": "gtc"}, "fractional orders must be DAY"),
    ({"notional": 5, "type": "limit", "limit_price": 5}, "notional orders must be market"),
    ({"qty": 1, "type": "trailing_stop"}, "one of trail_price and trail_percent"),
    ({"qty": 1, "order_class": "bracket"}, "order_class bracket is not offered"),
    ({"qty": 1, "extended_hours": True}, "extended hours"),
    ({"qty": 1, "extended_hours": "false"}, "extended_hours must be true or false"),
    ({"qty": 1, "client_order_id": "x" * 49}, "client_order_id"),
    ({"qty": 1, "type": "stop", "stop_price": 5, "time_in_force": "ioc"}, "not offered"),
]


@pytest.mark.parametrize(("body", "words"), WRONG)
def test_ticket_that_makes_no_sense_is_refused(body: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        _ticket(**body)
    assert refused.value.status == 422


def test_ticket_of_no_object_is_a_bad_request() -> None:
    with pytest.raises(Refused) as refused:
        Ticket.of([1], symbols=SYMBOLS)
    assert refused.value.status == 400


@pytest.mark.parametrize("number", [Callable, "1", 1, 1.0])
def test_ticket_takes_numbers_and_their_text(number: Any) -> None:
    if number is Callable:
        with pytest.raises(Refused):
            _ticket(qty=number)
    else:
        assert _ticket(qty=number).qty == 1


def test_sale_of_a_notional_ends_where_the_shares_do() -> None:
    trader = Trader(_account(), _quote(bid="100", ask="100"))
    trader.order(qty=10)
    trader.quote = _quote(bid="99", ask="100")
    assert trader.order(notional=1000, side="sell").status == "canceled"  # 10.1 shares at the bid
    assert trader.names == ["new", "partial_fill", "canceled"]
    assert trader.account.position_qty("SPY") == 0


def test_quote_of_the_next_session_fills_no_day_order_of_the_last(trader: Trader) -> None:
    order = trader.order(qty=1, type="limit", limit_price=50)
    trader.now = CLOSE
    assert trader.see(_quote(bid="40", ask="41")) == ["expired"]
    assert trader.account.orders[order.id].filled_qty == 0
