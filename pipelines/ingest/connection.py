"""A session at the feed's websocket: handshake, subscription, reading, leaving."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from pipelines.errors import FeedTransient
from pipelines.ingest.alpaca_protocol import (
    AlpacaProtocol,
    Authenticated,
    Connected,
    Credentials,
    Data,
    Event,
    Failed,
    Malformed,
    Refused,
    Subscribed,
)
from pipelines.ingest.alpaca_stream import AlpacaStream
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.meter import Meter
from pipelines.ingest.reception import POLL_S, Reception
from pipelines.ingest.subscriptions import Subscriptions

log = logging.getLogger(__name__)

GOODBYE_S = 1.0


class Connection:
    """One connection, used once; :meth:`run` opens it and returns or raises when it is over.

    Args:
        url: The feed.
        reception: Takes what comes.
        meter: Counts bytes.
        wanted: What to subscribe, now.
    """

    def __init__(
        self, url: str, reception: Reception, *, meter: Meter, wanted: Callable[[], Subscriptions]
    ) -> None:
        config = reception.config
        self._url = url
        self._config = config
        self._reception = reception
        self._meter = meter
        self._wanted = wanted
        self._asking = wanted()
        self._protocol = AlpacaProtocol(
            Credentials(config.key, config.secret), self._asking, binary=config.codec == "msgpack"
        )

    @property
    def subscriptions(self) -> Subscriptions:
        """What the server says is subscribed."""
        return self._protocol.subscriptions

    def run(self) -> None:
        """Open, stream, and say goodbye when we are to leave.

        Raises:
            FeedFatal: The feed refused us for good.
            FeedTransient: The connection ended.
        """
        reception = self._reception
        with contextlib.closing(_open(self._url, self._protocol, self._config)) as stream:
            reception.on_state("authenticating", None)
            deadline_s = time.monotonic() + self._config.connect_timeout_s
            while not reception.leaving():
                self._follow_wishes()
                received_ns, events = stream.receive(POLL_S)
                self._meter.n_bytes += stream.take_bytes()
                for event in events:
                    self._handle(event, received_ns)
                if not reception.settled and time.monotonic() > deadline_s:
                    raise FeedTransient("the feed did not answer the handshake in time")
                reception.tick(quiet=not events)
            self._say_goodbye(stream)

    def _handle(self, event: Event, received_ns: int) -> None:
        reception = self._reception
        if isinstance(event, Data):
            reception.take(event.messages, received_ns)
        elif isinstance(event, Subscribed):
            reception.granted(self._protocol.subscriptions, settled=event.settled)
        elif isinstance(event, Authenticated):
            reception.asks()
        elif isinstance(event, Malformed):
            reception.take_malformed(event.reason, event.raw, received_ns)
        elif isinstance(event, Refused):
            reception.refused(event.message, event.left_out, granted=self._protocol.subscriptions)
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, Connected):
            log.info("connected to %s", self._url)

    def _follow_wishes(self) -> None:
        wanted = self._wanted()
        if wanted is self._asking or wanted == self._asking:
            return
        self._asking = wanted
        self._reception.changes(wanted, asked=self._protocol.asked)
        self._protocol.set_subscriptions(wanted)

    def _say_goodbye(self, stream: AlpacaStream) -> None:
        """Close in order; what the server sent before it heard of it is still taken.

        Raises:
            FeedTransient: The server did not close in order: something may be missed.
        """
        deadline_s = time.monotonic() + GOODBYE_S
        stream.say_goodbye()
        while not stream.closed:
            if time.monotonic() > deadline_s:
                raise FeedTransient("the feed did not close in order")
            received_ns, events = stream.receive(POLL_S)
            for event in events:
                if isinstance(event, (Data, Malformed)):
                    self._handle(event, received_ns)


def probe(url: str, config: ProducerConfig, *, stopped: Callable[[], bool]) -> None:
    """Find out whether a feed would let us in: authenticate, subscribe nothing, leave.

    Raises:
        FeedError: It would not.
    """
    protocol = AlpacaProtocol(
        Credentials(config.key, config.secret), {}, binary=config.codec == "msgpack"
    )
    with contextlib.closing(_open(url, protocol, config)) as stream:
        deadline_s = time.monotonic() + config.connect_timeout_s
        while not protocol.asked and not stopped():
            for event in stream.receive(POLL_S)[1]:
                if isinstance(event, Failed):
                    raise event.error
            if time.monotonic() > deadline_s:
                raise FeedTransient("the feed did not answer the handshake in time")


def _open(url: str, protocol: AlpacaProtocol, config: ProducerConfig) -> AlpacaStream:
    return AlpacaStream(
        url,
        protocol,
        binary=config.codec == "msgpack",
        connect_timeout_s=config.connect_timeout_s,
        ping_s=config.ping_s,
    )
