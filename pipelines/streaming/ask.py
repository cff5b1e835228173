"""Asking the policy: one request for the closed bars of a partition, with a deadline.

What comes back in time is the answer of ``POST /v1/signals/batch``. Otherwise every bar gets HOLD
with reason ``unavailable``, in the same form: a signal is never missing and never late. After
some failures in a row nobody is asked for a while, so that a dead policy does not cost every
batch its deadline; then one request finds out whether it is back.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from pipelines.clock import wall_ns
from pipelines.errors import ModelError
from pipelines.events import MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.streaming.breaker import Breaker

Signal = dict[str, Any]

FAILURES: Final = 3
"""Failures in a row after which nobody is asked for a while."""

PAUSE_S: Final = 5.0
"""How long nobody is asked then."""

MAX_ROWS: Final = 5_000
"""Most bars in one request; only catching up brings more."""

_FIELDS: Final = frozenset(
    (
        "symbol", "action", "action_id", "confidence", "probabilities", "value", "q_values",
        "position_fraction", "cash_fraction", "model", "event_time", "decided_at", "data_age_ms",
        "reason",
    )
)  # fmt: skip

_NUMBERS: Final = ("position_fraction", "cash_fraction")
_MAYBE: Final = ("confidence", "value", "data_age_ms")
_BY_ACTION: Final = ("probabilities", "q_values")
_FILL_NUMBERS: Final = (
    "shares", "price", "open", "bid", "ask", "spread_bps", "notional", "commission", "spread_cost",
    "slippage_cost", "cash_after", "shares_after",
)  # fmt: skip
_LARGEST: Final = 1e300

ACTIONS: Final = {"HOLD": 0, "BUY": 1, "SELL": 2}
"""What a policy may say, and its number."""

_log = logging.getLogger(__name__)


class PolicyClient:
    """Asks one policy over a connection that stays open.

    Args:
        url: Address of ``POST /v1/signals/batch``; ``None``: there is none.
        deadline_s: Longest wait for a whole answer.
        clock: Wall time, nanoseconds.
        monotonic: Monotonic clock, seconds.
    """

    def __init__(
        self,
        url: str | None,
        *,
        deadline_s: float = 1.0,
        clock: Callable[[], int] = wall_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = urlsplit(url) if url else None
        self._deadline_s = deadline_s
        self._clock = clock
        self._monotonic = monotonic
        self._connection: http.client.HTTPConnection | None = None
        self._breaker = Breaker(failures=FAILURES, pause_s=PAUSE_S, monotonic=monotonic)

    def decide(self, rows: Sequence[Mapping[str, Any]]) -> list[Signal]:
        """A signal for each closed bar, in order; never raises for want of an answer.

        Args:
            rows: What the fold gives, of features of one specification: ``symbol event_time bar
                values fingerprint reason market_ns``.
        """
        signals: list[Signal] = []
        for begin in range(0, len(rows), MAX_ROWS):
            some = rows[begin : begin + MAX_ROWS]
            signals += self._ask(some) or [self._hold(row) for row in some]
        return signals

    def report(self) -> dict[str, Any]:
        """State of the circuit and what was asked so far, JSON types."""
        return self._breaker.report()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, rows: Sequence[Mapping[str, Any]]) -> list[Signal] | None:
        if self._url is None or not self._breaker.allows():
            return None
        try:
            signals = self._request(request_of(rows), rows)
        except (OSError, http.client.HTTPException, ValueError, ModelError) as error:
            self.close()
            self._breaker.failed()
            _log.warning("policy unavailable, circuit %s: %r", self._breaker.state, error)
            return None
        self._breaker.succeeded()
        return signals

    def _request(self, body: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Signal]:
        fresh = self._connection is None
        deadline_s = self._monotonic() + self._deadline_s
        try:
            answer = self._exchange(orjson.dumps(body), deadline_s)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if fresh or self._monotonic() >= deadline_s:
                raise
            # The server had closed the idle connection; the same bar asked twice is harmless.
            answer = self._exchange(orjson.dumps(body), deadline_s)
        return _signals_of(answer, rows)

    def _exchange(self, body: bytes, deadline_s: float) -> bytes:
        connection = self._connect(deadline_s)
        sock = connection.sock
        # A socket's timeout starts anew with each byte; this one does not.
        alarm = threading.Timer(max(0.0, deadline_s - self._monotonic()), _cut, args=(sock,))
        alarm.daemon = True
        alarm.start()
        try:
            path = self._url.path if self._url else "/"
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            alarm.cancel()
        if response.status != http.client.OK:
            raise ModelError(f"HTTP {response.status}")
        return answer

    def _connect(self, deadline_s: float) -> http.client.HTTPConnection:
        if self._connection is None and self._url is not None:
            kind = (
                http.client.HTTPSConnection
                if self._url.scheme == "https"
                else http.client.HTTPConnection
            )
            timeout_s = max(0.01, deadline_s - self._monotonic())
            connection = kind(self._url.hostname or "", self._url.port, timeout=timeout_s)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection
        if self._connection is None:
            raise ModelError("no policy")
        self._connection.sock.settimeout(max(0.01, deadline_s - self._monotonic()))
        return self._connection

    def _hold(self, row: Mapping[str, Any]) -> Signal:
        closed_ns = parse_time_ns(row["event_time"]) + MINUTE_NS
        return {
            "symbol": row["symbol"],
            "action": "HOLD",
            "action_id": 0,
            "confidence": None,
            "probabilities": None,
            "value": None,
            "q_values": None,
            "position_fraction": 0.0,
            "cash_fraction": 1.0,
            "model": None,
            "event_time": row["event_time"],
            "decided_at": format_time_ns(self._clock()),
            "data_age_ms": max(0, row["market_ns"] - closed_ns) / 1e6,
            "reason": "unavailable",
        }


def request_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of ``POST /v1/signals/batch`` for closed bars."""
    return {
        "fingerprint": rows[0]["fingerprint"],
        "symbols": [row["symbol"] for row in rows],
        "features": [row["values"] for row in rows],
        "bars": [
            {
                "event_time": row["event_time"],
                "open": row["bar"]["open"],
                "close": row["bar"]["close"],
            }
            for row in rows
        ],
        "reasons": [row["reason"] for row in rows],
    }


def _signals_of(answer: bytes, rows: Sequence[Mapping[str, Any]]) -> list[Signal]:
    doc = orjson.loads(answer)
    signals = doc.get("signals") if isinstance(doc, dict) else None
    if not isinstance(signals, list) or len(signals) != len(rows):
        raise ModelError(f"the policy did not answer with {len(rows)} signals")
    for signal, row in zip(signals, rows, strict=True):
        if not isinstance(signal, dict) or not signal.keys() >= _FIELDS:
            raise ModelError("a signal of the policy lacks fields")
        if odd := odd_fields(signal):
            raise ModelError(f"the policy answered with odd {', '.join(odd)} for {row['symbol']}")
        if (signal["symbol"], signal["event_time"]) != (row["symbol"], row["event_time"]):
            raise ModelError("the policy answered for another bar than it was asked")
    return signals


def odd_fields(signal: Mapping[str, Any]) -> list[str]:
    """Fields of a signal that the lake has no column for, by name; the driver trusts the others.

    >>> good = dict.fromkeys(_FIELDS) | {
    ...     "action": "BUY", "action_id": 1, "probabilities": [0.2, 0.5, 0.3], "data_age_ms": 3,
    ...     "position_fraction": 0.0, "cash_fraction": 1, "decided_at": "2011-01-03T14:30:00Z"}
    >>> odd_fields(good), odd_fields(good | {"action_id": 2, "value": 10**400, "decided_at": None})
    ([], ['action', 'decided_at', 'value'])
    """
    model, reason = signal["model"], signal["reason"]
    odd = {
        "action": ACTIONS.get(signal["action"]) != signal["action_id"]
        if type(signal["action"]) is str and type(signal["action_id"]) is int
        else True,
        "decided_at": not _is_time(signal["decided_at"]),
        "model": model is not None and not _is_model(model),
        "reason": reason is not None and type(reason) is not str,
        "fills": not _are_fills(signal.get("fills")),
        **{name: not _is_finite(signal[name]) for name in _NUMBERS},
        **{name: not (signal[name] is None or _is_finite(signal[name])) for name in _MAYBE},
        **{name: not (signal[name] is None or _are_three(signal[name])) for name in _BY_ACTION},
    }
    return sorted(name for name, wrong in odd.items() if wrong)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _are_three(values: object) -> bool:
    return type(values) is list and len(values) == len(ACTIONS) and all(map(_is_finite, values))


def _is_model(model: object) -> bool:
    return (
        isinstance(model, dict)
        and all(type(model.get(name)) is str for name in ("id", "fingerprint"))
        and type(model.get("version")) in (str, int)
    )


def _are_fills(fills: object) -> bool:
    return fills is None or (type(fills) is list and all(map(_is_fill, fills)))


def _is_fill(fill: object) -> bool:
    return (
        isinstance(fill, dict)
        and all(_is_time(fill.get(name)) for name in ("event_time", "decided_on", "filled_at"))
        and all(_is_finite(fill.get(name)) for name in _FILL_NUMBERS)
        and type(fill.get("side")) is str
        and ("reason" in fill and type(fill["reason"]) in (str, type(None)))
    )


def _is_time(text: object) -> bool:
    if type(text) is not str:
        return False
    try:
        return 0 <= parse_time_ns(text) < 2**63
    except (ValueError, OverflowError):
        return False


def _cut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already
