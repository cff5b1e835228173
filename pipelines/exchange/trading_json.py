"""Orders, positions, accounts and events as the vendor writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipelines.events import SECOND_NS, format_time_ns
from pipelines.exchange.holdings import plain
from pipelines.exchange.market_days import asset_id
from pipelines.exchange.member import Fill, Member
from pipelines.exchange.orders import ZERO, Event, Order
from pipelines.exchange.timeframes import NEW_YORK

_CENT, _RATIO = Decimal("0.01"), Decimal("0.000001")
_ENDED_AT = {
    "filled": "filled_at", "canceled": "canceled_at", "expired": "expired_at",
    "replaced": "replaced_at", "rejected": "failed_at",
}  # fmt: skip


def order_json(order: Order) -> dict[str, Any]:
    """An order."""
    ticket = order.ticket
    ended = _ENDED_AT.get(order.status)
    average = order.filled_value / order.filled_qty if order.filled_qty else None
    submitted = format_time_ns(order.submitted_ns)
    body: dict[str, Any] = {
        "id": order.id,
        "client_order_id": ticket.client_order_id,
        "created_at": submitted,
        "updated_at": format_time_ns(order.updated_ns),
        "submitted_at": submitted,
        **dict.fromkeys(_ENDED_AT.values()),
        "expires_at": format_time_ns(order.expires_ns),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": str(asset_id(ticket.symbol)),
        "symbol": ticket.symbol,
        "asset_class": "us_equity",
        "notional": _text(ticket.notional),
        "qty": _text(ticket.qty),
        "filled_qty": plain(order.filled_qty),
        "filled_avg_price": _text(None if average is None else round(average, 6)),
        "order_class": "",
        "order_type": ticket.kind,
        "type": ticket.kind,
        "side": ticket.side,
        "position_intent": _intent(order),
        "time_in_force": ticket.force,
        "limit_price": _text(ticket.limit_price),
        "stop_price": _text(order.stop_price),
        "status": order.status,
        "extended_hours": ticket.extended_hours,
        "legs": None,
        "trail_percent": _text(ticket.trail_percent),
        "trail_price": _text(ticket.trail_price),
        "hwm": _text(order.best_price),
        "ratio_qty": None,
    }
    if ended is not None and order.ended_ns is not None:
        body[ended] = format_time_ns(order.ended_ns)
    return body


def update_json(event: Event) -> dict[str, Any]:
    """An event as the trading stream tells it."""
    data: dict[str, Any] = {
        "event": event.name,
        "execution_id": event.id,
        "order": order_json(event.order),
        "timestamp": format_time_ns(event.at_ns),
    }
    if event.qty is not None:
        data |= {
            "price": _text(event.price),
            "qty": _text(event.qty),
            "position_qty": _text(event.position_qty),
        }
    return {"stream": "trade_updates", "data": data}


def position_json(
    member: Member, symbol: str, *, listed_on: str, lastday: Decimal | None
) -> dict[str, Any]:
    """A position.

    Args:
        member: Whose.
        symbol: Of what.
        listed_on: The exchange that lists it.
        lastday: Close of the day before, USD, if there was one.
    """
    account = member.account
    position, value = account.positions[symbol], account.value(symbol)
    price = value / position.qty
    lastday = lastday or position.entry_price
    fills = list(member.today(symbol))
    began = position.qty - sum((f.signed_qty for f in fills), ZERO)
    paid = sum((f.signed_qty * f.price for f in fills), ZERO)
    today = value - began * lastday - paid
    base = abs(began) * lastday + sum((f.qty * f.price for f in fills if f.side == "buy"), ZERO)
    gain = value - position.cost
    available = position.qty - account.held(symbol)
    return {
        "asset_id": str(asset_id(symbol)),
        "symbol": symbol,
        "exchange": listed_on,
        "asset_class": "us_equity",
        "asset_marginable": account.shorting,
        "qty": plain(position.qty),
        "qty_available": plain(available),
        "avg_entry_price": plain(round(position.entry_price, 6)),
        "side": "long" if position.qty > 0 else "short",
        "market_value": _usd(value),
        "cost_basis": _usd(position.cost),
        "unrealized_pl": _usd(gain),
        "unrealized_plpc": _ratio(gain, abs(position.cost)),
        "unrealized_intraday_pl": _usd(today),
        "unrealized_intraday_plpc": _ratio(today, base),
        "current_price": plain(round(price, 6)),
        "lastday_price": plain(lastday),
        "change_today": _ratio(price - lastday, lastday),
    }


def account_json(member: Member) -> dict[str, Any]:
    """An account."""
    account = member.account
    equity, power = account.equity, account.buying_power
    long, short = account.long_value, account.short_value
    margin = long + abs(short) / 2
    return {
        "id": str(member.id),
        "account_number": f"PA{member.id.hex[:10].upper()}",
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "cash": _usd(account.cash),
        "buying_power": _usd(power),
        "regt_buying_power": _usd(power),
        "non_marginable_buying_power": _usd(power),
        "options_buying_power": "0",
        "accrued_fees": "0",
        "pending_transfer_in": "0",
        "portfolio_value": _usd(equity),
        "equity": _usd(equity),
        "last_equity": _usd(member.last_equity),
        "long_market_value": _usd(long),
        "short_market_value": _usd(short),
        "initial_margin": _usd(margin),
        "maintenance_margin": _usd(margin * 3 / 5),
        "last_maintenance_margin": "0",
        "sma": "0",
        "multiplier": "1",
        "shorting_enabled": account.shorting,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "created_at": format_time_ns(member.created_ns),
        "options_approved_level": 0,
        "options_trading_level": 0,
    }


def activity_json(member: Member, fill: Fill) -> dict[str, Any]:
    """A fill as an account activity."""
    at = datetime.fromtimestamp(fill.at_ns // SECOND_NS, NEW_YORK)
    done = fill.status == "filled"
    return {
        "id": f"{at:%Y%m%d%H%M%S}{fill.at_ns // 1_000_000 % 1000:03d}::{fill.id}",
        "account_id": str(member.id),
        "activity_type": "FILL",
        "transaction_time": format_time_ns(fill.at_ns),
        "type": "fill" if done else "partial_fill",
        "price": plain(fill.price),
        "qty": plain(fill.qty),
        "side": fill.side,
        "symbol": fill.symbol,
        "leaves_qty": plain(fill.leaves_qty),
        "order_id": fill.order_id,
        "cum_qty": plain(fill.cum_qty),
        "order_status": fill.status,
    }


def history_json(
    points: Iterable[tuple[int, Decimal]], *, base: Decimal, timeframe: str
) -> dict[str, Any]:
    """Equity over time: moments in seconds, gains since the base."""
    kept = list(points)
    gains = [usd - base for _, usd in kept]
    return {
        "timestamp": [ns // SECOND_NS for ns, _ in kept],
        "equity": [float(usd) for _, usd in kept],
        "profit_loss": [float(g) for g in gains],
        "profit_loss_pct": [float(g / base) if base else None for g in gains],
        "base_value": float(base),
        "timeframe": timeframe,
        "cashflow": {},
    }


def _intent(order: Order) -> str:
    if order.ticket.side == "buy":
        return "buy_to_open"
    return "sell_to_open" if order.opens_short else "sell_to_close"


def _text(number: Decimal | None) -> str | None:
    return None if number is None else plain(number)


def _usd(number: Decimal) -> str:
    return plain(number.quantize(_CENT))


def _ratio(part: Decimal, whole: Decimal) -> str:
    return plain((part / whole).quantize(_RATIO)) if whole else "0"
