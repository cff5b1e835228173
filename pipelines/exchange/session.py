"""Alpaca's market-data protocol as one connection sees it. Pure: no socket, no clock of its own.

In: decoded client messages and moments. Out: control messages to send, and what the client wants.
The rules are those of the vendor's pages; what they leave open is decided here: only a missed
authentication and slowness close the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.events import Message

CHANNELS = (
    "trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances",
)  # fmt: skip
"""What a stock feed lets a client ask for; corrections and cancelErrors come with trades."""

ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    500: "internal error",
}

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./\-]{0,20}")
_COUNTED = ("trades", "quotes")


def error(code: int) -> Message:
    """Alpaca's error message of a code."""
    return {"T": "error", "code": code, "msg": ERRORS[code]}


class Session:
    """One client connection's protocol state.

    Args:
        admit: Called with the key of a client that authenticates; answers an error code (402, 406,
            409) or ``None`` to let it in.
        symbol_limit: Most symbols over trades and quotes, or ``None``.
    """

    def __init__(
        self,
        *,
        admit: Callable[[str], int | None] = lambda _: None,
        symbol_limit: int | None = None,
    ) -> None:
        self._admit = admit
        self._symbol_limit = symbol_limit
        self.key: str | None = None
        self.subscriptions: dict[str, frozenset[str]] = {c: frozenset() for c in CHANNELS}
        self.closing = False

    @property
    def authenticated(self) -> bool:
        """Whether the client is let in."""
        return self.key is not None

    @property
    def subscribed(self) -> bool:
        """Whether the client wants anything."""
        return any(self.subscriptions.values())

    def opened(self, headers: Mapping[str, str]) -> list[Message]:
        """What to send on connecting; keys in the handshake's headers authenticate at once."""
        out: list[Message] = [{"T": "success", "msg": "connected"}]
        key, secret = headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY")
        if key is not None or secret is not None:
            out.append(self._authenticate(key, secret))
        return out

    def received(self, message: object) -> list[Message]:
        """What to answer to a client's message (``None`` for a frame that nobody could decode)."""
        if not isinstance(message, dict):
            return [error(400)]
        action = message.get("action")
        if action == "auth":
            return [self._authenticate(message.get("key"), message.get("secret"))]
        if action in ("subscribe", "unsubscribe"):
            if not self.authenticated:
                return [error(401)]
            return [self._change(message, add=action == "subscribe")]
        return [error(400)]

    def auth_expired(self) -> list[Message]:
        """What to send when the time to authenticate is over."""
        if self.authenticated:
            return []
        self.closing = True
        return [error(404)]

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether data of a channel and symbol is for this client."""
        if channel in ("corrections", "cancelErrors"):
            channel = "trades"
        wanted = self.subscriptions.get(channel)
        if wanted is None:
            return self.subscribed
        return symbol in wanted or "*" in wanted

    def acknowledgement(self) -> Message:
        """The whole current set of subscriptions."""
        ack: dict[str, Any] = {"T": "subscription"}
        for channel in CHANNELS:
            symbols = sorted(self.subscriptions[channel])
            if symbols or channel != "imbalances":
                ack[channel] = symbols
        ack["corrections"] = ack["cancelErrors"] = ack["trades"]
        return ack

    def _authenticate(self, key: object, secret: object) -> Message:
        if self.authenticated:
            return error(403)
        if not (isinstance(key, str) and key and isinstance(secret, str) and secret):
            return error(402)
        refused = self._admit(key)
        if refused is not None:
            return error(refused)
        self.key = key
        return {"T": "success", "msg": "authenticated"}

    def _change(self, message: Mapping[Any, Any], *, add: bool) -> Message:
        changed = dict(self.subscriptions)
        for channel, symbols in message.items():
            if channel == "action" or not symbols:
                continue  # one client sends every channel it knows, empty where it wants nothing
            if channel not in CHANNELS:
                return error(410)
            if not isinstance(symbols, list) or not all(_well_formed(s) for s in symbols):
                return error(400)
            named = frozenset(symbols)
            changed[channel] = changed[channel] | named if add else changed[channel] - named
        if add and self._over_limit(changed):
            return error(405)
        self.subscriptions = changed
        return self.acknowledgement()

    def _over_limit(self, subscriptions: Mapping[str, frozenset[str]]) -> bool:
        if self._symbol_limit is None:
            return False
        named = frozenset[str]().union(*(subscriptions[c] for c in _COUNTED))
        return "*" in named or len(named) > self._symbol_limit


def _well_formed(symbol: object) -> bool:
    return isinstance(symbol, str) and (symbol == "*" or _SYMBOL.fullmatch(symbol) is not None)
