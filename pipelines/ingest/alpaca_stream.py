"""The socket around :class:`~pipelines.ingest.alpaca_protocol.AlpacaProtocol`.

In: frames of the server. Out: events with their time of receipt. A broken connection, a refused
handshake and a peer that answers no ping raise; the caller makes a new stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import websocket
from websocket import ABNF

from pipelines.clock import wall_ns
from pipelines.errors import FeedError, FeedFatal, FeedTransient
from pipelines.ingest.alpaca_protocol import AlpacaProtocol, Event

log = logging.getLogger(__name__)

CONTENT_TYPES = {True: "application/msgpack", False: "application/json"}
FATAL_STATUS = frozenset({401, 402, 403})
TOO_MANY_REQUESTS = 429
DEAD_AFTER_PINGS = 3


class AlpacaStream:
    """One connection.

    Args:
        url: The feed.
        protocol: The session that runs over it.
        binary: msgpack, else JSON.
        connect_timeout_s: Longest wait for TCP, TLS and the handshake.
        ping_s: Interval of pings.
        now_s: A steady clock.
        now_ns: The wall clock, for times of receipt.

    Attributes:
        closed: The server has answered our goodbye: nothing more comes, nothing is missed.

    Raises:
        FeedFatal: The handshake was refused for good (401, 402, 403).
        FeedTransient: No connection now.
    """

    def __init__(
        self,
        url: str,
        protocol: AlpacaProtocol,
        *,
        binary: bool,
        connect_timeout_s: float,
        ping_s: float,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = wall_ns,
    ) -> None:
        self._protocol = protocol
        self._binary = binary
        self._ping_s = ping_s
        self._now_s = now_s
        self._now_ns = now_ns
        self._timeout_s = connect_timeout_s
        self._ws = _connect(url, binary=binary, timeout_s=connect_timeout_s)
        self._heard_s = self._pinged_s = now_s()
        self._leaving = False
        self._n_bytes = 0
        self.closed = False

    def receive(self, timeout_s: float) -> tuple[int, list[Event]]:
        """The events of the next frame, if one comes in time.

        Returns:
            ``(received_ns, events)``; no events when nothing came.

        Raises:
            FeedTransient: The connection broke or is dead.
        """
        self.send_pending()
        self._ping_when_due()
        if timeout_s != self._timeout_s:
            self._ws.settimeout(timeout_s)
            self._timeout_s = timeout_s
        try:
            opcode, data = self._ws.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            # Judged only when nothing waits to be read: a busy reader is no dead peer.
            if self._now_s() - self._heard_s > DEAD_AFTER_PINGS * self._ping_s:
                raise FeedTransient("the feed answers no ping") from None
            return 0, []
        except (websocket.WebSocketException, OSError) as error:
            raise FeedTransient(f"the connection broke: {error}") from error
        received_ns = self._now_ns()
        self._heard_s = self._now_s()
        self._n_bytes += len(data)
        if opcode == ABNF.OPCODE_CLOSE:
            if self._leaving:
                self.closed = True
                return received_ns, []
            raise FeedTransient(f"the feed closed the connection{_close_reason(data)}")
        if opcode not in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
            return received_ns, []
        events = self._protocol.receive(bytes(data), text=opcode == ABNF.OPCODE_TEXT)
        self.send_pending()
        return received_ns, events

    def take_bytes(self) -> int:
        """Bytes of payload that came since the last time this was asked."""
        n_bytes, self._n_bytes = self._n_bytes, 0
        return n_bytes

    def send_pending(self) -> None:
        """Send what the session wants to say."""
        opcode = ABNF.OPCODE_BINARY if self._binary else ABNF.OPCODE_TEXT
        for frame in self._protocol.outgoing():
            self._send(frame, opcode)

    def say_goodbye(self) -> None:
        """Tell the server that we close; what it sent comes until :attr:`closed`."""
        self._leaving = True
        try:
            self._ws.send_close()
        except (websocket.WebSocketException, OSError) as error:
            raise FeedTransient(f"the connection broke: {error}") from error

    def close(self) -> None:
        """Close the socket at once."""
        self._ws.shutdown()  # type: ignore[no-untyped-call]

    def _ping_when_due(self) -> None:
        now = self._now_s()
        if now - self._pinged_s >= self._ping_s:
            self._pinged_s = now
            self._send(b"", ABNF.OPCODE_PING)

    def _send(self, payload: bytes, opcode: int) -> None:
        try:
            # A text frame is given as text: the library encodes it again otherwise.
            text = opcode == ABNF.OPCODE_TEXT
            self._ws.send(payload.decode() if text else payload, opcode)
        except (websocket.WebSocketException, OSError) as error:
            raise FeedTransient(f"the connection broke: {error}") from error


def _connect(url: str, *, binary: bool, timeout_s: float) -> websocket.WebSocket:
    try:
        return websocket.create_connection(
            url,
            timeout=timeout_s,
            header=[f"Content-Type: {CONTENT_TYPES[binary]}", "User-Agent: raytape"],
            skip_utf8_validation=True,  # the JSON parser checks; the library's check is slow
            enable_multithread=False,
            suppress_origin=True,
        )
    except websocket.WebSocketBadStatusException as error:
        raise _refused(error, url) from error
    except (websocket.WebSocketException, OSError, ValueError) as error:
        raise FeedTransient(f"cannot connect to {url}: {error}") from error


def _refused(error: websocket.WebSocketBadStatusException, url: str) -> FeedError:
    status = error.status_code
    text = f"{url} refused the connection with HTTP status {status}"
    if status in FATAL_STATUS:
        return FeedFatal(
            f"{text}. Check APCA_API_KEY_ID, APCA_API_SECRET_KEY and the plan", code=status
        )
    if status == TOO_MANY_REQUESTS:
        return FeedTransient(f"{text}: too many requests", code=status)
    return FeedTransient(text, code=status)


def _close_reason(data: bytes) -> str:
    if len(data) < 2:
        return ""
    reason = data[2:].decode(errors="replace")
    return f" ({int.from_bytes(data[:2], 'big')}{' ' + reason if reason else ''})"
