"""Alpaca's market-data protocol without a socket: frames in, events and frames to send out. Pure.

Covers the session (welcome, authentication, subscription as differences, acknowledgements) and the
error codes. Codes 401, 402 and 409 are fatal. A subscription that is refused whole (405 symbol
limit, 400 a bad symbol, 410 a channel that the feed has not) is asked again in parts: halves of its
symbols, then single channels, so that its valid part is kept. With 405 that is the longest
beginning of the list that fits, and all of the channels that the limit does not concern. All other
errors are transient: the connection is given up and made anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines import codec
from pipelines.errors import FeedError, FeedFatal, FeedTransient, MalformedFrame

CONTROL = frozenset({"success", "error", "subscription"})
FATAL_CODES = frozenset({401, 402, 409})
ALREADY_AUTHENTICATED = 403
REFUSED_CODES = frozenset({400, 405, 410})
BAD_SYNTAX, SYMBOL_LIMIT, WRONG_CHANNEL = 400, 405, 410
AUTOMATIC = frozenset({"corrections", "cancelErrors"})
"""Channels that come with trades and are never asked for."""

_CHECK_KEYS = "Check APCA_API_KEY_ID and APCA_API_SECRET_KEY"
ADVICE = {
    400: "Correct RAYTAPE_SYMBOLS",
    401: _CHECK_KEYS,
    402: _CHECK_KEYS,
    405: "Shorten RAYTAPE_SYMBOLS or the lists of its channels, or use a larger plan",
    409: "This account's plan does not include this feed; choose RAYTAPE_FEED=iex",
    410: "Take the channel out of RAYTAPE_CHANNELS",
}
"""What a person can do about an error."""


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
    """What the server does not let us subscribe.

    Args:
        code: Alpaca's code.
        message: Why, and what to do, for people.
        left_out: Per channel, the symbols.
    """

    code: int
    message: str
    left_out: Mapping[str, tuple[str, ...]]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that some channel was refused for, in the order of the list."""
        return tuple(dict.fromkeys(s for symbols in self.left_out.values() for s in symbols))


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


Subscriptions = Mapping[str, Sequence[str]]
"""Per channel, its symbols."""


@dataclass(frozen=True, slots=True)
class _Request:
    action: Literal["subscribe", "unsubscribe"]
    channels: Mapping[str, tuple[str, ...]]

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for symbols in self.channels.values() for s in symbols))

    def only(self, symbols: Sequence[str]) -> _Request:
        """The part of the request that concerns some symbols."""
        some = set(symbols)
        return _Request(self.action, _clean({c: [s for s in has if s in some]
                                             for c, has in self.channels.items()}))  # fmt: skip


class AlpacaProtocol:
    """One session with the server.

    Args:
        credentials: The key pair.
        subscriptions: Per channel, the symbols to subscribe; ``*`` for all.
        binary: msgpack frames, else JSON.

    >>> session = AlpacaProtocol(Credentials("k", "s"), {"trades": ["SPY"]}, binary=False)
    >>> session.receive(b'[{"T":"success","msg":"connected"}]', text=True), session.outgoing()
    ([Connected()], [b'{"action":"auth","key":"k","secret":"s"}'])
    >>> session.receive(b'[{"T":"success","msg":"authenticated"}]', text=True), session.outgoing()
    ([Authenticated()], [b'{"action":"subscribe","trades":["SPY"]}'])
    """

    def __init__(
        self, credentials: Credentials, subscriptions: Subscriptions, *, binary: bool
    ) -> None:
        self._credentials = credentials
        self._binary = binary
        self._wanted = _clean(subscriptions)
        self._authenticated = False
        self._refused: dict[str, list[str]] = {}
        self._refusal: tuple[int, str] | None = None
        self._full: set[str] = set()
        self._requests: deque[_Request] = deque()
        self._active: _Request | None = None
        self._out: list[bytes] = []
        self.subscriptions: Mapping[str, tuple[str, ...]] = {}

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

    def set_subscriptions(self, subscriptions: Subscriptions) -> None:
        """Change what is subscribed; only the difference is asked.

        What was refused before is asked again: it may fit now.
        """
        before, self._wanted = self._wanted, _clean(subscriptions)
        refused, self._refused, self._full = self._refused, {}, set()
        if not self._authenticated:
            return
        had = _minus(before, refused)
        waiting = self._requests
        self._requests = deque(
            request if request.action == "unsubscribe" else _Request("subscribe", kept)
            for request in waiting
            if (kept := _both(request.channels, self._wanted)) or request.action == "unsubscribe"
        )
        self._ask("unsubscribe", _minus(had, self._wanted))
        self._ask("subscribe", _minus(self._wanted, had))
        self._next_request()

    def outgoing(self) -> list[bytes]:
        """Frames to send now; each is given out once."""
        frames, self._out = self._out, []
        return frames

    @property
    def asked(self) -> bool:
        """Whether a subscription was asked, so that data may have been published to us."""
        return self._authenticated

    @property
    def subscribed(self) -> frozenset[str]:
        """Symbols that the server says are subscribed, on any channel."""
        return frozenset(s for symbols in self.subscriptions.values() for s in symbols)

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
        self.subscriptions = _clean({
            channel: [s for s in symbols if isinstance(s, str)]
            for channel, symbols in message.items()
            if isinstance(symbols, (list, tuple)) and channel not in AUTOMATIC
        })  # fmt: skip
        self._active = None
        return self._settled()

    def _error(self, message: dict[str, Any]) -> list[Event]:
        said = message.get("code")
        code = said if isinstance(said, int) else None
        text = f"the feed says {said}: {message.get('msg')}"
        if code in FATAL_CODES:
            return [Failed(FeedFatal(_advice(code, text), code=code))]
        if code == ALREADY_AUTHENTICATED:
            return []
        if code in REFUSED_CODES and self._active is not None:
            return self._refuse(code, text)
        return [Failed(FeedTransient(text, code=code))]

    def _refuse(self, code: int, text: str) -> list[Event]:
        """The active request was refused whole: ask its parts, or give up what has none."""
        request, self._active = self._active, None
        if request is None or request.action == "unsubscribe":
            return self._settled()
        parts = _parts(request, code)
        if len(parts) > 1:
            self._requests.extendleft(reversed(parts))
        else:
            self._refusal = code, _advice(code, text)
            self._leave_out(request.channels)
            if code in (SYMBOL_LIMIT, WRONG_CHANNEL):
                self._full |= request.channels.keys()  # not one more fits: the rest is not asked
        return self._settled()

    def _leave_out(self, channels: Mapping[str, Sequence[str]]) -> None:
        for channel, symbols in channels.items():
            self._refused.setdefault(channel, []).extend(symbols)

    def _settled(self) -> list[Event]:
        self._next_request()
        settled = self._active is None
        events: list[Event] = []
        if settled and self._refusal is not None:
            code, text = self._refusal
            self._refusal = None
            events.append(Refused(code, text, _clean(self._refused)))
            if not self.subscribed and self._wanted:
                why = FeedTransient(f"{text}; the feed accepted nothing", code=code)
                return [*events, Failed(why)]
        elif settled and not self.subscribed and self._wanted:
            return [Failed(FeedTransient("the feed accepted none of the symbols"))]
        return [*events, Subscribed(self.subscribed, settled)]

    def _ask(
        self, action: Literal["subscribe", "unsubscribe"], channels: Mapping[str, tuple[str, ...]]
    ) -> None:
        if channels:
            self._requests.append(_Request(action, channels))

    def _next_request(self) -> None:
        while self._active is None and self._requests:
            request = self._requests.popleft()
            if request.action == "subscribe" and self._full:
                self._leave_out({c: has for c, has in request.channels.items() if c in self._full})
                kept = {c: has for c, has in request.channels.items() if c not in self._full}
                request = _Request("subscribe", kept)
            if request.channels:
                self._active = request
                lists = {channel: list(has) for channel, has in request.channels.items()}
                self._send({"action": request.action, **lists})

    def _send(self, action: dict[str, Any]) -> None:
        self._out.append(codec.encode_action(action, binary=self._binary))


def _parts(request: _Request, code: int) -> list[_Request]:
    """What to ask instead: halves of the symbols; of a single symbol, its channels one by one."""
    symbols = request.symbols
    if len(symbols) > 1 and code != WRONG_CHANNEL:
        half = len(symbols) // 2
        return [request.only(symbols[:half]), request.only(symbols[half:])]
    if code == BAD_SYNTAX:
        return [request]
    return [_Request(request.action, {channel: has}) for channel, has in request.channels.items()]


def _clean(subscriptions: Subscriptions) -> dict[str, tuple[str, ...]]:
    """Each symbol once, no empty channel."""
    return {c: tuple(dict.fromkeys(has)) for c, has in subscriptions.items() if has}


def _minus(these: Subscriptions, those: Subscriptions) -> dict[str, tuple[str, ...]]:
    taken = {channel: set(symbols) for channel, symbols in those.items()}
    return _clean({c: [s for s in has if s not in taken.get(c, ())] for c, has in these.items()})


def _both(these: Subscriptions, those: Subscriptions) -> dict[str, tuple[str, ...]]:
    other = {channel: set(symbols) for channel, symbols in those.items()}
    return _clean({c: [s for s in has if s in other.get(c, ())] for c, has in these.items()})


def _is_control(message: object) -> bool:
    if type(message) is not dict:
        return False
    kind = message.get("T")
    return type(kind) is str and kind in CONTROL


def _advice(code: int, text: str) -> str:
    return f"{text}. {ADVICE[code]}" if code in ADVICE else text
