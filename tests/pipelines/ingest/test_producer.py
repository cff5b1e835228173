"""The producer against a real socket and a stream in memory, with faults in both."""

from __future__ import annotations

import logging
import random
import shutil
import time

import pytest

from pipelines.errors import ConfigError, StreamError
from pipelines.ingest import state as states
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.ingest.state import ProducerState
from pipelines.ingest.watch import StalenessWatch
from pipelines.kinesis.batching import Batcher

SYMBOLS = ("SPY", "AAPL", "TSLA")


def _some(feed, rng, n=20):
    """A few frames: ticks in time order, sometimes the bars of all symbols, cut anywhere."""
    for _ in range(n):
        if rng.random() < 0.2:
            bars = feed.bars(rng.sample(SYMBOLS, 3))
            cut = rng.randrange(3)
            feed.publish(bars[:cut])
            yield
            feed.publish(bars[cut:])
        else:
            feed.publish([feed.trade(rng.choice(SYMBOLS)) for _ in range(rng.randrange(1, 6))])
        yield


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_producer_undisturbed_stores_all_in_order(feed, stream, start, balance, codec):
    running = start(codec=codec)
    running.streaming()
    for _ in _some(feed, random.Random(1), 200):
        pass
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert stream.messages("gap") == []
    stats = running.producer.stats()
    assert stats["received"] == stats["acked"] == len(feed.tape)
    assert (stats["state"], stats["queued"], stats["error"]) == ("stopped", 0, None)


@pytest.mark.parametrize("seed", range(4))
def test_producer_dropped_often_declares_exactly_what_it_missed(feed, stream, start, balance, seed):
    rng = random.Random(seed)
    stream.refuse, stream.lose_answer = 0.2, 0.1
    running = start()
    running.streaming()
    drops = 0
    for _ in _some(feed, rng, 300):
        if rng.random() < 0.08:
            feed.drop(mid_frame=rng.random() < 0.5)
            drops += 1
        if rng.random() < 0.15:  # let it come back now and then, else publish into the void
            running.streaming()
    running.until(lambda s: s["state"] == "streaming")
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert drops > 5
    assert len(stream.messages("gap")) >= len(SYMBOLS)
    assert feed.most_open == 1


@pytest.mark.parametrize("seed", range(4))
def test_producer_killed_and_restarted_declares_exactly_what_it_missed(
    feed, stream, start, balance, make_config, tmp_path, seed
):
    """Killed: the stream keeps what it has, the state file is older, memory is lost."""
    rng = random.Random(seed)
    stream.lose_answer = 0.1
    state = make_config().state_path
    for _ in range(4):
        stream.down = False
        running = start()
        running.streaming()
        frames = _some(feed, rng, 60)
        for _ in range(rng.randrange(60)):
            next(frames)
        old = tmp_path / "old.json"
        shutil.copy(state, old)
        for _ in frames:
            pass
        time.sleep(rng.random() * 0.02)
        stream.down = True
        for _ in _some(feed, rng, 10):
            pass
        running.drain(0.05)
        old.replace(state)
    stream.down = False
    running = start()
    running.streaming()
    feed.publish([feed.trade("SPY")])
    assert running.drain()
    stored = stream.messages()
    assert balance(feed.tape, stored) == {}
    stats = running.producer.stats()
    acked = sum(1 for m in stored if m["T"] not in ("hb", "gap"))
    assert stats["received"] == stats["acked"] == acked
    assert stats["gaps"] == len(stream.messages("gap"))
    assert len({r.epoch for r in stream.records()}) > 1


def test_producer_on_first_start_declares_no_gap(feed, stream, start):
    running = start()
    running.streaming()
    feed.publish([feed.trade("SPY")])
    assert running.drain()
    assert stream.messages("gap") == []


def test_gap_row_stands_before_the_first_new_message_of_its_symbol(feed, stream, start):
    running = start()
    running.streaming()
    feed.publish([feed.trade("SPY"), feed.trade("AAPL")])
    running.until(lambda s: s["acked"] == 2)
    feed.drop()
    running.until(lambda s: s["reconnects"] == 1 and s["state"] == "streaming")
    feed.publish([feed.trade("AAPL"), feed.trade("SPY")])
    assert running.drain()
    for symbol in ("SPY", "AAPL"):
        kinds = [m["T"] for m in stream.messages("t", "gap") if m["S"] == symbol]
        assert kinds == ["t", "gap", "t"]


def test_quiet_market_after_reconnect_still_gets_its_gap_rows(feed, stream, start, balance):
    running = start()
    running.streaming()
    feed.publish([feed.trade("SPY")])
    running.until(lambda s: s["acked"] == 1)
    feed.drop()
    feed.publish([feed.trade("SPY")])
    running.until(lambda s: s["gaps"] == 3)
    assert balance(feed.tape, stream.messages()) == {}


def test_heartbeats_go_into_every_subscribed_bucket_in_order(feed, stream, start):
    running = start(heartbeat_s=0.05)
    running.streaming()
    running.until(lambda _: len(stream.messages("hb")) >= 9)
    assert running.drain()
    beats = [m for m in stream.messages("hb") if "AAPL" in m["symbols"]]
    assert len(beats) >= 3
    assert [m["market_ns"] for m in beats] == sorted(m["market_ns"] for m in beats)


@pytest.mark.parametrize("code", [401, 402, 409])
def test_fatal_refusal_stops_with_a_clear_message(feed, start, code, caplog):
    feed.refuse = lambda action: {"T": "error", "code": code, "msg": "no"}
    with caplog.at_level(logging.ERROR):
        running = start()
        running.until(lambda s: s["state"] == "failed")
    assert str(code) in running.producer.stats()["error"]
    assert feed.connections == 1
    assert "very-secret" not in caplog.text


def test_connection_limit_is_tried_again_with_backoff_until_it_recovers(feed, start):
    feed.on_connect = [[{"T": "error", "code": 406, "msg": "connection limit exceeded"}]] * 4
    running = start()
    running.streaming()
    assert feed.connections == 5
    assert feed.most_open == 1


def test_symbol_limit_keeps_the_part_that_fits(feed, start):
    symbols = tuple(f"S{i}" for i in range(13))
    kept: set[str] = set()

    def limit(action):
        if action["action"] != "subscribe":
            return None
        asked = {symbol for c in ("trades", "quotes", "bars") for symbol in action.get(c, ())}
        if len(kept | asked) > 5:
            return {"T": "error", "code": 405, "msg": "symbol limit exceeded"}
        kept.update(asked)
        return None

    feed.refuse = limit
    running = start(symbols=symbols)
    running.streaming()
    stats = running.producer.stats()
    assert len(stats["symbols"]) == 5
    assert "405" in stats["error"]


def test_set_symbols_while_streaming_asks_only_the_difference(feed, stream, start, balance):
    running = start(symbols=("SPY", "AAPL"))
    running.streaming()
    running.producer.set_symbols(["AAPL", "TSLA"])
    running.until(lambda s: s["symbols"] == ["AAPL", "TSLA"])
    assert [(a["action"], a["trades"]) for a in feed.actions[2:]] == [
        ("unsubscribe", ["SPY"]),
        ("subscribe", ["TSLA"]),
    ]
    assert feed.connections == 1
    feed.publish([feed.trade("TSLA")])
    running.until(lambda s: s["acked"] == 1)
    feed.drop()
    feed.publish([feed.trade("TSLA"), feed.trade("AAPL")])
    running.streaming()
    feed.publish([feed.trade("TSLA")])
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert {m["S"] for m in stream.messages("gap")} == {"AAPL", "TSLA"}


def test_pause_and_resume_declare_what_was_missed(feed, stream, start, balance):
    running = start()
    running.streaming()
    feed.publish([feed.trade("SPY")])
    running.until(lambda s: s["acked"] == 1)
    running.producer.pause()
    running.until(lambda s: s["state"] == "paused")
    feed.publish([feed.trade("SPY"), feed.trade("TSLA")])
    running.producer.resume()
    running.streaming()
    feed.publish([feed.trade("SPY")])
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert {m["reason"] for m in stream.messages("gap")} == {"paused"}


def test_bad_input_is_kept_raw_and_the_rest_of_the_frame_stored(feed, stream, start):
    running = start(codec="json")
    running.streaming()
    good = feed.trade("SPY")
    feed.send_raw("[{broken")
    feed.send_raw(b"\xff\xfe")
    feed.publish([good])
    feed.send_raw('[7,{"S":"SPY"},{"T":"t"},{"T":["x"],"S":"SPY"},{"T":"hb","S":"SPY"},'
                  '{"T":"t","S":"SPY","p":NaN,"s":1,"t":"2024-01-01T00:00:00Z"},'
                  '{"T":"zz","S":"SPY"}]')  # fmt: skip
    running.until(lambda s: s["received"] == 10)
    assert running.drain()
    bad = [m["reason"].split(":")[0] for m in stream.messages("bad")]
    assert sorted(bad) == sorted(
        ["no JSON", "no msgpack", "not_an_object", "missing_field", "missing_field",
         "missing_field", "reserved_type", "bad_number"]
    )  # fmt: skip
    assert [m["p"] for m in stream.messages("t")] == [10.5]
    assert len(stream.messages("zz")) == 1
    assert running.producer.stats()["acked"] == 10


def test_stream_down_stops_reading_at_the_limit_and_recovers(feed, stream, start, balance):
    stream.down = True
    running = start(max_queued=200, journal_max_mb=0)
    running.streaming()
    for _ in range(100):
        feed.publish([feed.trade("SPY") for _ in range(20)])
    running.until(lambda s: s["stalls"] >= 1 and s["error"] == "down")
    assert running.producer.stats()["queued"] < 250
    stream.down = False
    running.until(lambda s: s["acked"] == 2000)
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


def test_mute_feed_in_open_market_reconnects_once_and_declares_a_gap(
    feed, stream, start, monkeypatch
):
    monkeypatch.setattr("pipelines.ingest.watch.phase_at", lambda *_: "midday")
    running = start(stale_s=0.1)
    running.streaming()
    feed.publish([feed.trade("SPY")])
    running.until(lambda s: s["reconnects"] == 1 and s["state"] == "streaming")
    feed.publish([feed.trade("SPY")])
    assert running.drain()
    assert feed.connections == 2
    assert "no trades and quotes" in stream.messages("gap")[0]["reason"]


def test_mute_feed_that_speaks_again_by_itself_declares_all_that_it_kept_silent_about(
    feed, stream, start, balance, monkeypatch
):
    """Reconnecting did not help; long after the new subscription the feed speaks again."""
    monkeypatch.setattr("pipelines.ingest.watch.phase_at", lambda *_: "midday")
    monkeypatch.setattr("pipelines.ingest.reception.QUIET_S", 0.05)
    running = start(stale_s=0.2)
    running.streaming()
    for _ in range(30):
        feed.publish([feed.trade("SPY"), feed.trade("AAPL")])
    running.until(lambda s: s["reconnects"] == 1 and s["state"] == "streaming")
    assert [a["name"] for a in running.producer.stats()["alarms"]] == ["stale_feed"]
    looks = []
    judge = StalenessWatch.suspicious
    monkeypatch.setattr(
        StalenessWatch, "suspicious", lambda *a, **k: looks.append(1) or judge(*a, **k)
    )
    running.until(lambda _: len(looks) >= 2)  # it was quiet for long enough, and was not believed
    feed.tape += [feed.trade("SPY"), feed.trade("TSLA")]  # published, and kept from us
    feed.publish([feed.trade("AAPL")])
    running.until(lambda s: s["acked"] == 61 and s["gaps"] == 3)
    assert running.producer.stats()["alarms"] == []
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


def test_mute_feed_in_closed_market_is_left_alone(feed, start, monkeypatch):
    judged = []
    monkeypatch.setattr("pipelines.ingest.watch.phase_at", lambda *_: judged.append(1))
    running = start(stale_s=0.01)
    running.until(lambda _: len(judged) >= 5)
    assert feed.connections == 1


def test_drain_with_stream_down_says_so(stream, feed, start):
    running = start()
    running.streaming()
    stream.down = True
    feed.publish([feed.trade("SPY")])
    running.until(lambda s: s["received"] == 1)
    assert running.drain(0.2) is False


def test_start_on_a_full_disk_says_so_though_an_older_run_left_its_state(
    stream, make_config, monkeypatch
):
    def fails(*_):
        raise OSError(28, "No space left on device")

    states.save(make_config().state_path, ProducerState("before"))
    monkeypatch.setattr("pipelines.ingest.files.replace_text", fails)
    producer = Producer(make_config(), sink=stream, make_batcher=Batcher, tail=stream)
    producer.stop()
    with pytest.raises(ConfigError, match="disk full"):
        producer.run()


def test_config_never_shows_its_secret():
    config = ProducerConfig(url="ws://x", key="key-id", secret="very-secret", symbols=("SPY",))
    assert "very-secret" not in repr(config)
    assert "key-id" not in repr(config)


def test_config_without_symbols_is_refused():
    with pytest.raises(ConfigError, match="RAYTAPE_SYMBOLS"):
        ProducerConfig(url="ws://x", key="k", secret="s", symbols=())


def test_restart_on_a_stream_that_forgot_its_positions_reads_all_that_it_holds(
    feed, stream, start, balance
):
    class Forgetful:
        def read_after(self, positions):
            if positions:
                raise StreamError("no such sequence number")
            return stream.read_after(positions)

    for _ in range(2):
        running = start(tail=Forgetful())
        running.streaming()
        feed.publish([feed.trade("SPY")])
        running.until(lambda s: s["queued"] == 0 and s["received"] > 0)
        assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert running.producer.stats()["received"] == 2
