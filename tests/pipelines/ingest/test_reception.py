"""One session after the other, by hand: what a source refuses, grants later, and cannot be read."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import pytest

from pipelines.codec import decode_record
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.intake import Intake
from pipelines.ingest.meter import Meter
from pipelines.ingest.reception import Desk, Reception
from pipelines.ingest.watch import StalenessWatch
from pipelines.kinesis.batching import Batcher
from pipelines.ports import PutResult

BOTH = ("SPY", "TSLA")


class Market:
    """What was published, a desk that takes it, and what it stores."""

    def __init__(self, feed):
        self.feed = feed
        self.tape, self.stored = [], []
        self.tracker = GapTracker()
        self.batcher = Batcher(
            epoch="e", sealer=self.tracker, linger_s=0.0, max_messages=10, max_bytes=900_000,
            rng=random.Random(1),
        )  # fmt: skip
        self.sender = SimpleNamespace(
            has_room=lambda: True, nudge=lambda: None, save=lambda: None, wake=lambda: None,
            failure=None, room=threading.Event(),
        )  # fmt: skip
        self.desk = Desk(
            ProducerConfig(url="ws://x", key="k", secret="s", symbols=BOTH),
            intake=Intake(self.batcher, self.tracker),
            tracker=self.tracker,
            sender=self.sender,
            lock=threading.Lock(),
            watch=StalenessWatch(stale_s=60, stale_bars_s=60),
            meter=Meter(),
            alarms=Alarms(),
        )
        self.session = None

    def connect(self, wanted=BOTH, *, leaving=lambda: False):
        self.session = Reception(
            self.desk, wanted={"trades": wanted}, leaving=leaving, on_state=lambda *_: None
        )
        self.session.asks()
        return self.session

    def grant(self, *symbols, settled=True):
        self.session.granted({"trades": symbols}, settled=settled)

    def refuse(self, *symbols, granted):
        self.session.refused("405", {"trades": symbols}, granted={"trades": granted})

    def publish(self, *symbols, to=BOTH):
        """A trade of each; those of ``to`` reach us."""
        for symbol in symbols:
            trade = self.feed.trade(symbol)
            trade["i"] = len(self.tape)
            self.tape.append(dict(trade))
            if symbol in to:
                self.session.take([trade], self.feed.now_ns())

    def lose(self):
        self.tracker.interrupted(self.desk.lost(), reason="lost")

    def store(self):
        now_ns = self.feed.now_ns()
        while puts := self.batcher.next_puts(0.0, wall_ns=now_ns, market_ns=now_ns, flush=True):
            for put in puts:
                self.stored += decode_record(put.data).messages
            for acked in self.batcher.settle(puts, [PutResult()] * len(puts), 0.0):
                self.tracker.stored(acked.note)
        return self.stored


@pytest.fixture
def market(feed):
    return Market(feed)


def test_symbol_that_one_source_refused_is_declared_until_the_next_one_grants_it(market, balance):
    market.connect()
    market.grant(*BOTH)
    market.publish(*BOTH)
    market.lose()
    for _ in range(2):  # the second source is left, and refuses it again
        market.connect()
        market.publish(*BOTH, to=())
        market.refuse("TSLA", granted=("SPY",))
        market.grant("SPY")
        market.publish("SPY", "TSLA", "SPY", to=("SPY",))
        market.store()
        market.publish("SPY", "TSLA", to=("SPY",))
        market.lose()
    market.connect()
    market.grant(*BOTH)
    market.publish("TSLA", "SPY", "TSLA")
    assert balance(market.tape, market.store()) == {}
    assert len([m for m in market.stored if m["T"] == "t" and m["S"] == "TSLA"]) == 3


def test_symbol_that_fits_after_another_was_given_up_is_declared_until_then(market, balance):
    market.connect()
    market.grant(*BOTH)
    market.publish(*BOTH)
    market.lose()
    market.connect(("SPY", "TSLA", "AAPL"))
    market.refuse("TSLA", granted=("SPY", "AAPL"))
    market.grant("SPY", "AAPL")
    market.publish("SPY", "TSLA", "SPY", to=("SPY",))
    market.session.changes({"trades": BOTH}, asked=True)
    market.publish("TSLA", to=())
    market.grant(*BOTH)
    market.publish("SPY", "TSLA")
    market.lose()
    market.publish("TSLA", to=())
    market.connect()
    market.grant(*BOTH)
    market.publish("SPY", "TSLA")
    assert balance(market.tape, market.store()) == {}


def test_symbol_that_is_granted_after_the_first_message_is_declared_until_then(market, balance):
    market.connect()
    market.grant(*BOTH)
    market.publish(*BOTH)
    market.lose()
    market.connect()
    market.grant("SPY", settled=False)
    market.publish("SPY", "SPY", "TSLA", to=("SPY",))
    market.grant(*BOTH)
    market.publish("SPY", "TSLA")
    assert balance(market.tape, market.store()) == {}


def test_symbol_that_was_refused_and_is_wanted_no_more_is_declared_no_more(market):
    market.connect()
    market.grant(*BOTH)
    market.publish(*BOTH)
    market.lose()
    market.connect()
    market.refuse("TSLA", granted=("SPY",))
    market.grant("SPY")
    market.session.changes({"trades": ("SPY",)}, asked=True)
    market.publish("SPY")
    declared = sum(m["T"] == "gap" and m["S"] == "TSLA" for m in market.store())
    market.lose()
    market.connect(("SPY",))
    market.grant("SPY")
    market.publish("SPY")
    assert sum(m["T"] == "gap" and m["S"] == "TSLA" for m in market.store()) == declared == 1


def test_frame_that_cannot_be_read_waits_for_room_as_any_other(market):
    asked = []
    market.sender.has_room = lambda: asked.append(market.batcher.unsent) or len(asked) > 2
    market.connect().take_malformed("no JSON", b"[", 1)
    assert asked == [0, 0, 0]
    assert (market.desk.meter.stalls, market.batcher.unsent) == (1, 1)
