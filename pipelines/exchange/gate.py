"""The door of the vendor's REST interface: keys, rate limit, and errors in the vendor's shape."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from pipelines.exchange.accounts import Account
from pipelines.exchange.refusals import Refused
from pipelines.exchange.session import header_keys
from pipelines.exchange.sockets import FLOOR

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FEED_PATHS = ("/v2/iex", "/v2/sip", "/v2/test")
_NEWS_PATH = "/v1beta1/news"
"""Both a feed and a REST resource: the handshake says which."""
_KNOWN_KEYS = 10_000
_KEY = web.RequestKey("key", str)
_ACCOUNT = web.RequestKey("account", Account)


class RateLimit:
    """Requests per key and minute, as the vendor counts them: in whole minutes. Pure.

    Args:
        per_minute: Most requests of one key in one minute.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._used: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def take(self, key: str, now_s: float) -> dict[str, str] | None:
        """Count a request.

        Args:
            key: Whose.
            now_s: Wall time, seconds since the epoch.

        Returns:
            The headers of its answer; ``None`` when it is one too many.

        >>> limit = RateLimit(1)
        >>> limit.take("key", 59.0), limit.take("key", 59.5)
        ({'X-RateLimit-Limit': '1', 'X-RateLimit-Remaining': '0', 'X-RateLimit-Reset': '60'}, None)
        """
        minute = math.floor(now_s / 60)
        last, used = self._used.pop(key, (minute, 0))
        used = used + 1 if last == minute else 1
        self._used[key] = (minute, min(used, self.per_minute + 1))
        while len(self._used) > _KNOWN_KEYS:
            self._used.popitem(last=False)
        return None if used > self.per_minute else self.headers(self.per_minute - used, now_s)

    def headers(self, remaining: int, now_s: float) -> dict[str, str]:
        """What an answer tells of the limit."""
        return {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str((math.floor(now_s / 60) + 1) * 60),
        }


LIMIT = web.AppKey("limit", RateLimit)


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers={"Content-Type": "application/json"}
    )


def key_of(request: web.Request) -> str:
    """The key of a request that was let in."""
    return request[_KEY]


def feeds_of(request: web.Request) -> tuple[str, ...]:
    """The feeds of the plan of whoever asks."""
    return request[_ACCOUNT].feeds


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Checks the keys of the vendor's REST requests, counts them, and words their errors."""
    vendor = request.path.startswith(("/v2/", "/v1beta1/")) and request.path not in _FEED_PATHS
    upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
    feed = request.path == _NEWS_PATH or request.match_info.http_exception is not None
    if not vendor or (upgrade and feed):
        return await handler(request)
    given = header_keys(request.headers)
    account = request.app[FLOOR].accounts.of(*given) if given is not None else None
    if given is None or account is None:
        return answer(Refused(401, "request is not authorized", code=40110000).body(), 401)
    request[_KEY], request[_ACCOUNT] = given[0], account
    limit, headers = request.app.get(LIMIT), dict[str, str]()
    if limit is not None:
        now_s = time.time()
        left = limit.take(given[0], now_s)
        if left is None:
            refused = answer(Refused(429, "too many requests.", code=42910000).body(), 429)
            refused.headers.update(limit.headers(0, now_s))
            return refused
        headers = left
    try:
        response = await handler(request)
    except Refused as refusal:
        response = answer(refusal.body(), refusal.status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        words = Refused(error.status, f"{request.method} {request.path}: {error.reason}")
        response = answer(words.body(), error.status)
    response.headers.update(headers)
    return response
