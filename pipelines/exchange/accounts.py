"""Who may use the exchange, and what each account's plan allows.

Without a file of accounts any non-empty key pair is let in, with the limits of the configuration.
With one, only its keys are::

    {"PKFREE": {"secret": "…", "plan": "basic"},
     "PKPAID": {"secret": "…", "plan": "plus", "connection_limit": 2}}

========  =====================  ============  ================
plan      feeds                  symbol_limit  connection_limit
========  =====================  ============  ================
basic     iex test news          30            1
plus      iex sip test news      none          1
========  =====================  ============  ================

``feeds``, ``symbol_limit`` and ``connection_limit`` of an entry go before those of its plan
(``null`` for no limit). Secrets are compared in constant time and never shown.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import ConfigError

FEEDS = ("iex", "sip", "test", "news")
"""What a client can connect to."""


@dataclass(frozen=True, slots=True)
class Account:
    """What one key may do.

    Args:
        feeds: Feeds of its plan; another one is refused with 409.
        symbol_limit: Most symbols of trades and quotes per connection (405).
        connection_limit: Most connections per feed (406).
        secret: What belongs to the key; ``None`` takes any.
    """

    feeds: tuple[str, ...] = FEEDS
    symbol_limit: int | None = None
    connection_limit: int | None = None
    secret: str | None = field(default=None, repr=False)


PLANS = {
    "basic": Account(("iex", "test", "news"), symbol_limit=30, connection_limit=1),
    "plus": Account(connection_limit=1),
}


class Accounts:
    """The accounts of one exchange.

    Args:
        anyone: What a key may do that is not known.
        known: Account by key; ``None`` knows nobody and lets in every non-empty pair.
    """

    def __init__(self, anyone: Account, known: Mapping[str, Account] | None = None) -> None:
        self._anyone = anyone
        self._known = known

    @classmethod
    def load(cls, path: Path | None, *, anyone: Account) -> Accounts:
        """The accounts of a file, or those of an exchange that has none.

        Raises:
            ConfigError: The file cannot be read, or an entry of it is wrong.
        """
        if path is None:
            return cls(anyone)
        try:
            document = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise ConfigError(f"accounts {path}: cannot be read: {error}") from error
        if not isinstance(document, dict) or not document:
            raise ConfigError(
                f'accounts {path}: must be an object like {{"KEY": {{"secret": "…", '
                '"plan": "basic"}}'
            )
        return cls(anyone, {key: _account(path, key, entry) for key, entry in document.items()})

    def of(self, key: str, secret: str) -> Account | None:
        """The account of a key pair, or ``None`` if the pair is wrong.

        >>> Accounts(Account()).of("any", "pair") is not None
        True
        """
        if not key or not secret or not (_is_text(key) and _is_text(secret)):
            return None
        if self._known is None:
            return self._anyone
        account = self._known.get(key)
        if account is None or account.secret is None:
            return None
        right = hmac.compare_digest(account.secret.encode(), secret.encode())
        return account if right else None


def _is_text(value: str) -> bool:
    """Whether it can be encoded: a header's bytes that are no UTF-8 arrive as surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _account(path: Path, key: str, entry: Any) -> Account:
    where = f"accounts {path}, {key}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: must be an object with secret and plan")
    plan = entry.get("plan", "basic")
    if plan not in PLANS:
        raise ConfigError(f"{where}, plan={plan!r}: must be one of {', '.join(PLANS)}")
    secret = entry.get("secret")
    if not isinstance(secret, str) or not secret:
        raise ConfigError(f"{where}, secret: must be text that is not empty")
    unknown = entry.keys() - {"secret", "plan", "feeds", "symbol_limit", "connection_limit"}
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(sorted(unknown))}")
    base = PLANS[plan]
    feeds = entry.get("feeds", list(base.feeds))
    if not isinstance(feeds, list) or not set(feeds) <= set(FEEDS):
        raise ConfigError(f"{where}, feeds={feeds!r}: must be a list of {', '.join(FEEDS)}")
    limits = {}
    for name in ("symbol_limit", "connection_limit"):
        limit = limits[name] = entry.get(name, getattr(base, name))
        if limit is not None and (type(limit) is not int or limit <= 0):
            raise ConfigError(f"{where}, {name}={limit!r}: must be positive, or null")
    return Account(tuple(feeds), limits["symbol_limit"], limits["connection_limit"], secret)
