"""Alpaca's market-data protocol without a socket: frames in, events and frames to send out. Pure.

Covers the session (welcome, authentication, subscription as differences, acknowledgements) and the
error codes. Codes 401, 402 and 409 are fatal. A subscription that is refused whole (405 symbol
limit, 400 a bad symbol) is asked again in halves, so that its valid part is kept. All other errors
are transient: the connection is given up and made anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines import codec
from pipelines.errors import FeedError, FeedFatal, FeedTransient, MalformedFrame

CONTROL = frozenset({"success", "error", "subscription"})
FATAL_CODES = frozenset({401, 402, 409})
ALREADY_AUTHENTICATED = 403
REFUSED_CODES = frozenset({400, 405, 410})
SYMBOL_LIMIT, WRONG_CHANNEL = 405, 410


@dataclass(frozen=True, slots=True)
class Connected:
    """The server said welcome."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The server accepted the key."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The subscription changed.

    Args:
        symbols: All symbols that are subscribed now on any channel.
        settled: Whether nothing more is being asked.
    """

    symbols: frozenset[str]
    settled: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Market messages, as they came; an element may be anything."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A frame that cannot be decoded."""

    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Symbols that the server does not let us subscribe.

    Args:
        code: Alpaca's code.
        message: Why, for people.
        symbols: Which.
    """

    code: int
    message: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The session cannot go on; the error says whether trying again can help."""

    error: FeedError


Event = Connected | Authenticated | Subscribed | Data | Malformed | Refused | Failed


@dataclass(frozen=True, slots=True)
class Credentials:
    """Alpaca's key pair; never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Request:
    action: Literal["subscribe", "unsubscribe"]
    symbols: tuple[str, ...]


class AlpacaProtocol:
    """One session with the server.

    Args:
        credentials: The key pair.
        symbols: Symbols to subscribe.
        channels: Channels to subscribe for each of them.
        binary: msgpack frames, else JSON.

    >>> session = AlpacaProtocol(Credentials("k", "s"), symbols=["SPY"], channels=["trades"],
    ...                          binary=False)
    >>> session.receive(b'[{"T":"success","msg":"connected"}]', text=True), session.outgoing()
    ([Connected()], [b'{"action":"auth","key":"k","secret":"s"}'])
    >>> session.receive(b'[{"T":"success","msg":"authenticated"}]', text=True), session.outgoing()
    ([Authenticated()], [b'{"action":"subscribe","trades":["SPY"]}'])
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        symbols: Iterable[str],
        channels: Iterable[str],
        binary: bool,
    ) -> None:
        self._credentials = credentials
        self._channels = tuple(channels)
        self._binary = binary
        self._wanted = tuple(dict.fromkeys(symbols))
        self._authenticated = False
        self._limit_reached = False
        self._requests: deque[_Request] = deque()
        self._active: _Request | None = None
        self._out: list[bytes] = []
        self.subscribed: frozenset[str] = frozenset()

    def receive(self, frame: bytes, *, text: bool) -> list[Event]:
        """What a frame of the server means.

        Args:
            frame: Its payload.
            text: Whether it was a text frame, which holds JSON; a binary one holds msgpack.
        """
        decode = codec.decode_json_frame if text else codec.decode_msgpack_frame
        try:
            messages = decode(frame)
        except MalformedFrame as error:
            return [Malformed(str(error), error.raw)]
        if not messages or not _is_control(messages[0]):
            return [Data(messages)] if messages else []
        events: list[Event] = []
        for message in messages:
            events += self._control(message) if _is_control(message) else [Data([message])]
        return events

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change what is subscribed; only the difference is asked."""
        wanted = tuple(dict.fromkeys(symbols))
        before, self._wanted = self._wanted, wanted
        self._limit_reached = False
        if not self._authenticated:
            return
        dropped = tuple(s for s in before if s not in wanted)
        added = tuple(s for s in wanted if s not in before)
        self._requests = deque(
            _Request(r.action, kept)
            for r in self._requests
            if (kept := tuple(s for s in r.symbols if s in wanted or r.action == "unsubscribe"))
        )
        self._ask("unsubscribe", dropped)
        self._ask("subscribe", added)
        self._next_request()

    def outgoing(self) -> list[bytes]:
        """Frames to send now; each is given out once."""
        frames, self._out = self._out, []
        return frames

    @property
    def asked(self) -> bool:
        """Whether a subscription was asked, so that data may have been published to us."""
        return self._authenticated

    def _control(self, message: dict[str, Any]) -> list[Event]:
        kind = message["T"]
        if kind == "success":
            return self._success(message.get("msg"))
        if kind == "subscription":
            return self._acknowledged(message)
        return self._error(message)

    def _success(self, what: object) -> list[Event]:
        if what == "connected":
            auth = {
                "action": "auth",
                "key": self._credentials.key,
                "secret": self._credentials.secret,
            }
            self._send(auth)
            return [Connected()]
        if what == "authenticated":
            return self._authentication_done()
        return []

    def _authentication_done(self) -> list[Event]:
        self._authenticated = True
        self._ask("subscribe", self._wanted)
        self._next_request()
        return [Authenticated()]

    def _acknowledged(self, message: dict[str, Any]) -> list[Event]:
        lists = [message.get(channel) or [] for channel in self._channels]
        self.subscribed = frozenset(symbol for symbols in lists for symbol in symbols)
        self._active = None
        return self._settled()

    def _error(self, message: dict[str, Any]) -> list[Event]:
        code = message.get("code")
        text = f"the feed says {code}: {message.get('msg')}"
        if code in FATAL_CODES:
            return [Failed(FeedFatal(_advice(code, text), code=code))]
        if code == ALREADY_AUTHENTICATED:
            return []
        if code in REFUSED_CODES and self._active is not None:
            return self._refused(int(code), text)
        return [Failed(FeedTransient(text, code=code if isinstance(code, int) else None))]

    def _refused(self, code: int, text: str) -> list[Event]:
        request, self._active = self._active, None
        if request is None or request.action == "unsubscribe":
            return self._settled()
        symbols = request.symbols
        divisible = len(symbols) > 1 and code != WRONG_CHANNEL and not self._limit_reached
        if divisible:
            half = len(symbols) // 2
            self._requests.appendleft(_Request("subscribe", symbols[half:]))
            self._requests.appendleft(_Request("subscribe", symbols[:half]))
            self._next_request()
            return []
        self._limit_reached = self._limit_reached or code == SYMBOL_LIMIT
        refused = list(symbols)
        if self._limit_reached:  # not one more fits: the rest need not be asked
            for waiting in [r for r in self._requests if r.action == "subscribe"]:
                refused += waiting.symbols
                self._requests.remove(waiting)
        events: list[Event] = [Refused(code, text, tuple(refused))]
        return events + self._settled()

    def _settled(self) -> list[Event]:
        self._next_request()
        settled = self._active is None
        if settled and not self.subscribed and self._wanted:
            return [Failed(FeedTransient("the feed accepted none of the symbols"))]
        return [Subscribed(self.subscribed, settled)]

    def _ask(self, action: Literal["subscribe", "unsubscribe"], symbols: tuple[str, ...]) -> None:
        if symbols:
            self._requests.append(_Request(action, symbols))

    def _next_request(self) -> None:
        if self._active is None and self._requests:
            self._active = self._requests.popleft()
            channels = {channel: list(self._active.symbols) for channel in self._channels}
            self._send({"action": self._active.action, **channels})

    def _send(self, action: dict[str, Any]) -> None:
        self._out.append(codec.encode_action(action, binary=self._binary))


def _is_control(message: object) -> bool:
    if type(message) is not dict:
        return False
    kind = message.get("T")
    return type(kind) is str and kind in CONTROL


def _advice(code: int, text: str) -> str:
    if code == 409:
        return f"{text}. This account's plan does not include this feed; choose RAYTAPE_FEED=iex"
    return f"{text}. Check APCA_API_KEY_ID and APCA_API_SECRET_KEY"
