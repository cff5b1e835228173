"""Alpaca's market-data protocol as one connection sees it. Pure: no socket, no clock of its own.

In: decoded client messages and moments. Out: control messages to send, and what the client wants.
The rules are those of the vendor's pages; what they leave open is decided here: after 402, 404,
406, 407 and 500 the connection is closed (a client that comes again would else be kept out by its
own stale socket), after all others it stays.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.events import Message

CHANNELS = (
    "trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances",
)  # fmt: skip
"""What a stock feed lets a client ask for; corrections and cancelErrors come with trades."""

NEWS_CHANNELS = ("news",)
"""What the news feed lets a client ask for."""

ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    408: "v2 not enabled",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    500: "internal error",
}

CLOSING = frozenset({402, 404, 406, 407, 500})
"""The errors after which the connection is closed."""

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./\-]{0,20}")
_COUNTED = ("trades", "quotes")

MOST_SYMBOLS = 50_000
"""Most symbols of one channel whatever the plan: all that is listed, several times over."""


def error(code: int) -> Message:
    """Alpaca's error message of a code."""
    return {"T": "error", "code": code, "msg": ERRORS[code]}


class Session:
    """One client connection's protocol state.

    Args:
        admit: Called with key and secret of a client that authenticates; answers an error code
            (402, 406, 409) or ``None`` to let it in.
        symbol_limit: Most symbols over trades and quotes, or ``None``; :attr:`symbol_limit` may be
            changed by ``admit``, when the account is known.
        channels: What the feed offers.
    """

    def __init__(
        self,
        *,
        admit: Callable[[str, str], int | None] = lambda *_: None,
        symbol_limit: int | None = None,
        channels: tuple[str, ...] = CHANNELS,
    ) -> None:
        self._admit = admit
        self._channels = channels
        self.symbol_limit = symbol_limit
        self.key: str | None = None
        self.subscriptions: dict[str, frozenset[str]] = {c: frozenset() for c in channels}
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
        pair = header_keys(headers)
        if pair is not None:
            out.append(self._authenticate(*pair))
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
        return [] if self.authenticated else [self.refused(404)]

    def refused(self, code: int) -> Message:
        """The error of a refusal; some of them end the connection."""
        self.closing = self.closing or code in CLOSING
        return error(code)

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether data of a channel and symbol is for this client.

        Args:
            channel: Its channel; "" for a message of no known type, which every stock feed gets.
            symbol: Its symbol; for news all of its symbols, with commas between them.
        """
        if channel in ("corrections", "cancelErrors"):
            channel = "trades"
        wanted = self.subscriptions.get(channel)
        if wanted is None:
            return not channel and self.subscribed and "trades" in self.subscriptions
        if symbol in wanted or "*" in wanted:
            return True
        return channel == "news" and not wanted.isdisjoint(symbol.split(","))

    def acknowledgement(self) -> Message:
        """The whole current set of subscriptions."""
        ack: dict[str, Any] = {"T": "subscription"}
        for channel in self._channels:
            symbols = sorted(self.subscriptions[channel])
            if symbols or channel != "imbalances":
                ack[channel] = symbols
        if "trades" in ack:
            ack["corrections"] = ack["cancelErrors"] = ack["trades"]
        return ack

    def _authenticate(self, key: object, secret: object) -> Message:
        if self.authenticated:
            return error(403)
        if not (isinstance(key, str) and key and isinstance(secret, str) and secret):
            return self.refused(402)
        code = self._admit(key, secret)
        if code is not None:
            return self.refused(code)
        self.key = key
        return {"T": "success", "msg": "authenticated"}

    def _change(self, message: Mapping[Any, Any], *, add: bool) -> Message:
        changed = dict(self.subscriptions)
        for channel, symbols in message.items():
            if channel == "action" or not symbols:
                continue  # one client sends every channel it knows, empty where it wants nothing
            if channel not in self._channels:
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
        if any(len(symbols) > MOST_SYMBOLS for symbols in subscriptions.values()):
            return True
        if self.symbol_limit is None:
            return False
        named = frozenset[str]().union(*(subscriptions.get(c, ()) for c in _COUNTED))
        return "*" in named or len(named) > self.symbol_limit


def _well_formed(symbol: object) -> bool:
    return isinstance(symbol, str) and (symbol == "*" or _SYMBOL.fullmatch(symbol) is not None)


def header_keys(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Key and secret of a handshake's headers; ``None`` if it has none.

    A bearer token is the secret of the key ``oauth``, as in an authentication message.

    >>> header_keys({"Authorization": "Basic " + base64.b64encode(b"k:s").decode()})
    ('k', 's')
    >>> header_keys({"Authorization": "Bearer abc"})
    ('oauth', 'abc')
    """
    key, secret = headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY")
    if key is not None or secret is not None:
        return key or "", secret or ""
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return "oauth", value.strip()
    if kind.lower() != "basic":
        return None
    try:
        key, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return key, secret
