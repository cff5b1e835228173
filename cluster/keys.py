"""``raytape keys``: whether Alpaca (or our exchange) takes the keys, and what the plan allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cluster import producing
from cluster.settings import Settings
from pipelines.clock import wall_ns
from pipelines.errors import ConfigError, FeedError
from pipelines.events import BAR, MINUTE_NS, TRADE
from pipelines.history import RestHistory
from pipelines.ingest.connection import probe

Verdict = Literal["yes", "no", "wrong keys", "not known"]

_DELAY_NS = 16 * MINUTE_NS
"""Of a time before this, the free plan has the consolidated tape too."""

_MEANING = {
    401: "the keys are not accepted",
    402: "the keys are not accepted",
    403: "not in this account's plan",
    406: "another program is connected with these keys; it works when that one leaves",
    409: "not in this account's plan",
    422: "not in this account's plan",
    429: "too many requests; try again in a minute",
}
_WRONG_KEYS = frozenset({401, 402})
_NOT_IN_PLAN = frozenset({403, 409, 422})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Args:
        name: What, for people.
        verdict: How it went.
        detail: What that means.
    """

    name: str
    verdict: Verdict
    detail: str


def judged(name: str, ask: Callable[[], object]) -> Check:
    """Try something.

    >>> def refuse():
    ...     raise FeedError("insufficient subscription", code=409)
    >>> judged("sip", refuse)
    Check(name='sip', verdict='no', detail="not in this account's plan")
    >>> judged("iex", lambda: None).verdict
    'yes'
    """
    try:
        ask()
    except FeedError as error:
        detail = _MEANING.get(error.code or 0, str(error))
        if error.code in _WRONG_KEYS:
            return Check(name, "wrong keys", detail)
        return Check(name, "no" if error.code in _NOT_IN_PLAN else "not known", detail)
    return Check(name, "yes", "")


def check(settings: Settings, *, timeout_s: float = 10.0) -> list[Check]:
    """Ask for a little of everything; connects to each feed for a moment, subscribes nothing.

    Args:
        settings: Whose keys; ``live`` says whether Alpaca or our exchange is asked.
        timeout_s: Longest wait for each answer.

    Raises:
        ConfigError: There are no keys.
    """
    if settings.live and settings.alpaca_key == type(settings).model_fields["alpaca_key"].default:
        raise ConfigError(
            "no keys: set APCA_API_KEY_ID and APCA_API_SECRET_KEY in .env (docs/ALPACA_SETUP.md)"
        )
    config = replace(producing.config(settings), connect_timeout_s=timeout_s)
    base_url = None if settings.live else settings.exchange_url
    now_ns = wall_ns()

    def rest(feed: str, kind: str, end_ns: int) -> Callable[[], object]:
        history = RestHistory(
            base_url=base_url, key=config.key, secret=config.secret, feed=feed, timeout_s=timeout_s
        )
        times = {"start_ns": end_ns - MINUTE_NS, "end_ns": end_ns}
        return lambda: next(history.pages(kind, ["SPY"], **times), None)

    def stream(path: str) -> Callable[[], object]:
        url = f"{producing.stream_address(settings)}/{path}"
        return lambda: probe(url, config, stopped=lambda: False)

    tries = [
        ("REST, IEX, now", rest("iex", TRADE, now_ns)),
        ("REST, all exchanges (SIP), 15 minutes ago", rest("sip", BAR, now_ns - _DELAY_NS)),
        ("REST, all exchanges (SIP), now", rest("sip", TRADE, now_ns)),
        ("live feed iex", stream("v2/iex")),
        ("live feed sip", stream("v2/sip")),
        ("live feed test (FAKEPACA)", stream("v2/test")),
        ("live news", stream("v1beta1/news")),
    ]
    return [judged(name, ask) for name, ask in tries]
