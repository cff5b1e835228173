"""The producer at its sources: failover and back, shares, news, repeats; over real sockets."""

from __future__ import annotations

import base64
import socket
import threading
import time
from dataclasses import replace

import pytest

from pipelines.errors import FeedFatal, FeedTransient
from pipelines.events import effective_ns
from pipelines.ingest import subscriptions
from pipelines.ingest.actor import ProducerActor
from pipelines.ingest.config import ProducerConfig, SourceConfig
from pipelines.ingest.producer import Producer
from pipelines.ingest.sources import rest_client
from pipelines.kinesis.batching import Batcher

SYMBOLS = ("SPY", "AAPL", "TSLA")
CHANNEL = {"t": "trades", "q": "quotes", "b": "bars"}
REST = SourceConfig("rest", "https://127.0.0.1:9")


class Tape:
    """Answers as REST would, from what the feed has published."""

    def __init__(self, feed, *, fails=()):
        self.feed = feed
        self.fails = list(fails)
        self.asked = 0

    def pages(self, kind, symbols, *, start_ns, end_ns):
        self.asked += 1
        if self.fails:
            raise self.fails.pop(0)
        shift = 60_000_000_000 if kind == "b" else 0
        with self.feed.lock:
            found = [
                dict(m)
                for m in self.feed.tape
                if m["T"] == kind
                and m["S"] in symbols
                and start_ns <= effective_ns(m) - shift <= end_ns
            ]
        half = len(found) // 2
        yield from (found[:half], found[half:])


@pytest.fixture
def start_with(make_config, stream):
    """Starts producers whose polled source is a given client."""
    running = []

    def begin(client, **changed):
        settings = {"rest_poll_s": 0.05, "rest_lag_s": 0.02, **changed}
        producer = Producer(
            make_config(**settings),
            sink=stream,
            make_batcher=Batcher,
            tail=stream,
            make_client=lambda *_: client,
        )
        thread = threading.Thread(target=producer.run, daemon=True)
        thread.start()
        running.append((producer, thread))
        return producer

    yield begin
    for producer, thread in running:
        producer.stop()
        thread.join(10)


def test_plan_without_the_feed_falls_back_to_rest_and_returns_when_it_may(
    feed, stream, start_with, balance, wait
):
    refusing = threading.Event()
    refusing.set()
    no_plan = {"T": "error", "code": 409, "msg": "insufficient subscription"}
    feed.refuse = lambda action: (
        no_plan if action["action"] == "auth" and refusing.is_set() else None
    )
    producer = start_with(Tape(feed), fallbacks=(REST,), probe_s=0.2, symbols=SYMBOLS)
    wait(lambda: producer.stats()["source"] == "rest" and producer.stats()["state"] == "streaming")
    assert "409" in producer.stats()["degraded"]
    (alarm,) = producer.stats()["alarms"]
    assert (alarm["name"], "409" in alarm["detail"]) == ("failover", True)
    for _ in range(10):
        feed.publish([feed.trade("SPY"), feed.trade("AAPL", x="V")])
        feed.publish(feed.bars(SYMBOLS))
    wait(lambda: producer.stats()["received"] == 50)
    refusing.clear()
    wait(lambda: producer.stats()["source"] == "feed" and producer.stats()["state"] == "streaming")
    assert producer.stats()["degraded"] is None
    assert producer.stats()["alarms"] == []
    feed.publish([feed.trade(s) for s in SYMBOLS])
    assert producer.drain(10)
    assert balance(feed.tape, stream.messages()) == {}
    assert {m["reason"] for m in stream.messages("gap")} == {"back to feed"}
    assert feed.most_open == 1


def test_feed_that_keeps_failing_is_left_for_the_next_source(feed, start_with, wait):
    feed.on_connect = [[{"T": "error", "code": 406, "msg": "connection limit exceeded"}]] * 50
    producer = start_with(Tape(feed), fallbacks=(REST,), failover_after=3, probe_s=60)
    wait(lambda: producer.stats()["source"] == "rest" and producer.stats()["state"] == "streaming")
    assert feed.connections == 3
    assert "406" in producer.stats()["degraded"]


def test_every_source_refusing_for_good_is_the_end_with_its_reason(feed, start_with, wait):
    feed.refuse = lambda _: {"T": "error", "code": 402, "msg": "auth failed"}
    client = Tape(feed, fails=[FeedFatal("HTTP 401", code=401)])
    producer = start_with(client, fallbacks=(REST,))
    wait(lambda: producer.stats()["state"] == "failed")
    assert "401" in producer.stats()["error"]
    assert feed.connections == 1
    feed.refuse = lambda _: None
    producer.resume()
    wait(lambda: producer.stats()["state"] == "streaming")
    assert producer.stats()["source"] == "feed"


def test_rest_that_allows_no_more_is_asked_more_slowly_and_loses_nothing(
    feed, stream, start_with, balance, wait
):
    busy = FeedTransient("HTTP 429", code=429)
    client = Tape(feed)
    producer = start_with(client, url="https://127.0.0.1:9", source="rest")
    wait(lambda: producer.stats()["state"] == "streaming")
    feed.publish([feed.trade("SPY")])
    client.fails = [busy, busy]
    feed.publish([feed.trade("SPY"), feed.trade("TSLA")])
    wait(lambda: producer.stats()["received"] == 3)
    assert client.fails == []
    assert producer.stats()["reconnects"] == 0
    assert producer.drain(10)
    assert balance(feed.tape, stream.messages()) == {}
    assert stream.messages("gap") == []


def test_rest_that_has_to_wait_for_its_next_minute_is_left_at_once():
    leaving = threading.Event()
    config = ProducerConfig(url="https://x", key="k", secret="s", symbols=SYMBOLS)
    client = rest_client(REST, replace(config, rest_per_minute=1), leaving.is_set)
    client._asked_s.append(time.monotonic())
    threading.Timer(0.05, leaving.set).start()
    began_s = time.monotonic()
    with pytest.raises(FeedTransient, match="left"):
        next(client.pages("t", SYMBOLS, start_ns=1, end_ns=2))
    assert time.monotonic() - began_s < 30  # of the 60 that are left


def test_prober_that_waits_for_an_answer_delays_no_record(feed, stream, start_with, wait):
    """What is queued at the end is stored before anybody waits for a question under way."""
    deaf = socket.create_server(("127.0.0.1", 0))
    url = f"ws://127.0.0.1:{deaf.getsockname()[1]}"
    producer = start_with(
        Tape(feed), url=url, source="deaf", fallbacks=(SourceConfig("feed", feed.url),),
        failover_after=1, probe_s=0.01, connect_timeout_s=1.0, batch_ms=1e6, max_queued=10,
    )  # fmt: skip
    wait(lambda: producer.stats()["source"] == "feed" and producer.stats()["state"] == "streaming")
    wait(lambda: any(t.name == "prober" for t in threading.enumerate()))
    feed.publish([feed.trade("SPY")])
    wait(lambda: producer.stats()["received"] == 1)
    order = []
    join, put = producer._sessions.join, stream.put
    producer._sessions.join = lambda: order.append("joined") or join()
    stream.put = lambda records: order.append("stored") or put(records)
    assert producer.drain(10)
    assert order[-1] == "joined"
    deaf.close()


def test_limit_of_attempts_ends_in_failed_with_the_way_out(feed, start_with, wait):
    feed.on_connect = [[{"T": "error", "code": 500, "msg": "internal error"}]] * 50
    producer = start_with(Tape(feed), max_attempts=3)
    wait(lambda: producer.stats()["state"] == "failed")
    assert feed.connections == 3
    assert "RAYTAPE_RECONNECT_ATTEMPTS" in producer.stats()["error"]


def test_subscriptions_changed_at_run_time_survive_a_restart(feed, start_with, wait):
    producer = start_with(Tape(feed), symbols=("SPY",))
    wait(lambda: producer.stats()["state"] == "streaming")
    producer.set_subscriptions({"trades": ["SPY", "TSLA"], "quotes": ["TSLA"]})
    wait(lambda: producer.stats()["subscriptions"] == {"trades": 2, "quotes": 1})
    assert feed.connections == 1
    assert producer.drain(5)
    again = start_with(Tape(feed), symbols=("SPY",))
    wait(lambda: again.stats()["state"] == "streaming")
    assert again.stats()["subscriptions"] == {"trades": 2, "quotes": 1}


def test_subscriptions_that_cannot_be_kept_are_not_changed(stream, make_config, monkeypatch):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    producer = Producer(make_config(symbols=("SPY",)), sink=stream, make_batcher=Batcher)
    monkeypatch.setattr("pipelines.ingest.subscriptions.save", fails)
    with pytest.raises(OSError, match="No space"):
        producer.set_symbols(["TSLA"])
    assert producer.stats()["symbols"] == ["SPY"]


def test_subscriptions_changed_by_two_at_once_are_kept_as_they_are_obeyed(
    stream, make_config, monkeypatch
):
    config = make_config(symbols=("SPY",))
    producer = Producer(config, sink=stream, make_batcher=Batcher)
    save, others = subscriptions.save, []

    def interrupted(path, wanted, *, configured):
        if not others:
            others.append(threading.Thread(target=producer.set_symbols, args=(["TSLA"],)))
            others[0].start()
            others[0].join(0.1)  # as far as it gets
        save(path, wanted, configured=configured)

    monkeypatch.setattr("pipelines.ingest.subscriptions.save", interrupted)
    producer.set_symbols(["AAPL"])
    others[0].join()
    kept = subscriptions.load(config.subscriptions_path, configured=config.configured)
    assert producer.stats()["symbols"] == sorted(subscriptions.symbols_of(kept)) == ["TSLA"]


def test_producer_without_symbols_is_idle_until_it_has_some(feed, stream, start_with, wait):
    producer = start_with(Tape(feed), symbols=("SPY",))
    wait(lambda: producer.stats()["state"] == "streaming")
    producer.set_symbols([])
    wait(lambda: producer.stats()["state"] == "idle")
    wait(lambda: feed.open_now == 0)
    feed.publish([feed.trade("SPY")])
    producer.set_symbols(["SPY"])
    wait(lambda: producer.stats()["state"] == "streaming")
    feed.publish([feed.trade("SPY")])
    wait(lambda: producer.stats()["acked"] == 1)
    assert stream.messages("gap") == []


def test_trade_that_the_feed_repeats_is_stored_once_and_kept_raw(feed, stream, start_with, wait):
    producer = start_with(Tape(feed))
    wait(lambda: producer.stats()["state"] == "streaming")
    trade, other = feed.trade("SPY", i=7, x="V"), feed.trade("SPY", i=8, x="V")
    feed.publish([trade, trade, other])
    feed.publish([trade, {**trade, "S": "AAPL"}])
    feed.drop()
    wait(lambda: producer.stats()["reconnects"] == 1 and producer.stats()["state"] == "streaming")
    feed.publish([trade])
    wait(lambda: producer.stats()["acked"] == 6)
    assert producer.drain(5)
    assert sorted((m["S"], m["i"]) for m in stream.messages("t")) == [
        ("AAPL", 7), ("SPY", 7), ("SPY", 8)
    ]  # fmt: skip
    assert [m["reason"] for m in stream.messages("bad")] == ["duplicate_trade"] * 3
    assert producer.stats()["duplicates"] == producer.stats()["malformed"] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_that_json_cannot_carry_is_kept_raw(feed, stream, start_with, wait, value):
    producer = start_with(Tape(feed), codec="msgpack")
    wait(lambda: producer.stats()["state"] == "streaming")
    feed.publish([feed.trade("SPY", p=value), feed.trade("SPY", i=2)])
    wait(lambda: producer.stats()["acked"] == 2)
    assert producer.drain(5)
    (bad,) = stream.messages("bad")
    assert bad["reason"] == "bad_number:p"
    assert str(value).encode() in base64.b64decode(bad["raw"])


def test_two_producers_share_the_symbols_each_over_its_own_connection(
    feed, stream, start_with, balance, wait, tmp_path
):
    symbols = tuple(f"S{i}" for i in range(12))
    two = [
        start_with(
            Tape(feed), symbols=symbols, index=i, producers=2, lock_dir=tmp_path,
            state_path=tmp_path / str(i) / "state.json",
        )
        for i in range(2)
    ]  # fmt: skip
    for producer in two:
        wait(lambda p=producer: p.stats()["state"] == "streaming")
    assert feed.open_now == 2
    for i in range(60):
        feed.publish([feed.trade(s) for s in symbols[i % 3 :]])
        feed.publish(feed.bars(symbols))
        if i == 30:
            feed.drop()
            for producer in two:
                wait(lambda p=producer: p.stats()["reconnects"] == 1)
                wait(lambda p=producer: p.stats()["state"] == "streaming")
    feed.publish([feed.trade(s) for s in symbols])
    drained = [producer.drain(10) for producer in two]
    assert drained == [True, True]
    assert balance(feed.tape, stream.messages()) == {}
    of = [set(producer.stats()["symbols"]) for producer in two]
    assert of[0] | of[1] == set(symbols)
    assert not of[0] & of[1]
    received = sum(producer.stats()["received"] for producer in two)
    acked = sum(producer.stats()["acked"] for producer in two)
    assert received == acked == len(stream.messages("t", "b"))


def test_second_process_with_the_same_key_waits_for_the_first(feed, start_with, wait, tmp_path):
    first = start_with(Tape(feed), lock_dir=tmp_path, state_path=None)
    wait(lambda: first.stats()["state"] == "streaming")
    second = start_with(Tape(feed), lock_dir=tmp_path, state_path=None)
    wait(lambda: second.stats()["state"] == "backing_off")
    assert "another process" in second.stats()["error"]
    assert feed.connections == 1
    assert first.drain(5)
    wait(lambda: second.stats()["state"] == "streaming")
    assert feed.most_open == 1


def test_news_come_over_a_connection_of_their_own_and_are_stored_once(
    feed, stream, make_config, wait
):
    actor = ProducerActor(make_config(news_url=feed.url), lambda: stream, Batcher, lambda: stream)
    try:
        wait(lambda: feed.open_now == 2 and actor.stats()["state"] == "streaming")
        wait(lambda: actor.stats()["news"]["state"] == "streaming")
        item = _news(feed, 1, ["SPY", "AAPL"])
        feed.publish([item, feed.trade("SPY")])
        wait(lambda: actor.stats()["acked"] == 2)
        feed.drop()
        feed.publish([_news(feed, 2, ["TSLA"])])
        wait(lambda: actor.stats()["news"]["reconnects"] == 1 and feed.open_now == 2)
        wait(lambda: actor.stats()["news"]["state"] == "streaming")
        feed.publish([_news(feed, 3, ["SPY"])])
        wait(lambda: len(stream.messages("n")) == 2)
        actor.set_symbols(["TSLA"])
        wait(lambda: actor.stats()["subscriptions"]["news"] == 1)
    finally:
        actor.drain(5)
    assert [m["id"] for m in stream.messages("n")] == [1, 3]
    assert {m["S"] for m in stream.messages("gap")} >= {"@news"}
    assert not any(m["symbols"] == ["@news"] for m in stream.messages("hb"))
    assert len({r.epoch for r in stream.records()}) == 2


def _news(feed, number, symbols):
    t = feed.trade("SPY")["t"]
    return {
        "T": "n", "id": number, "headline": "h", "symbols": symbols, "created_at": t,
        "updated_at": t,
    }  # fmt: skip
