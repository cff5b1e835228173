"""FAULTS 1–9, 16, 17: the feed breaks, refuses, is silent, talks nonsense. The tape judges."""

from __future__ import annotations

import os
import signal

import pytest

from pipelines.ingest import watch

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def long(*values: object) -> object:
    """A parameter for ``make chaos`` only."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize("cuts", [6, long(100)])
def test_connection_cut_in_mid_frame_many_times_is_clean(rig, clean, cuts):
    exchange = rig(speed=60, messages_per_minute=300, max_minutes=cuts // 2 + 5)
    exchange.produce(backoff_first_s=0.02, backoff_cap_s=0.1)
    exchange.streaming()
    exchange.fault({"do": "half_frame", "every": "0.4s", "times": cuts})
    exchange.until(lambda: exchange.fired() >= cuts, what="all cuts", timeout_s=120)
    ledger = clean(exchange.finish())
    assert exchange.stats()["reconnects"] >= cuts * 0.8  # two cuts may meet one connection
    assert 0 < ledger.in_gaps < ledger.sent / 2


@pytest.mark.parametrize(("mute_s", "stale_s", "minutes"), [(15, 1.5, 25), long(300, 30.0, 340)])
def test_connected_but_mute_feed_is_left_once_and_declared(rig, clean, mute_s, stale_s, minutes):
    exchange = rig(speed=60, messages_per_minute=60, max_minutes=minutes)
    exchange.produce(stale_s=stale_s, stale_bars_s=3 * stale_s)
    exchange.streaming()
    exchange.until(lambda: exchange.stats()["received"] > 300, what="data came")
    before = exchange.stats()["reconnects"]
    exchange.fault({"do": "mute", "for_s": mute_s})
    exchange.until(
        lambda: exchange.stats()["reconnects"] > before,
        what="the silence was noticed", timeout_s=stale_s * watch.UNLEARNED_PATIENCE + 20,
    )  # fmt: skip
    ledger = clean(exchange.finish(timeout_s=mute_s + 120))
    # While it stays mute, each new connection is given twice the time of the one before.
    assert exchange.stats()["reconnects"] - before <= 1 + mute_s / stale_s / 2
    assert ledger.in_gaps > 0


def test_silence_after_the_close_is_no_fault(rig, clean):
    exchange = rig(speed=120, max_minutes=3, messages_per_minute=60)
    exchange.produce(stale_s=0.5, stale_bars_s=0.5)
    exchange.until(lambda: exchange.market()["state"] == "finished", what="the close")
    exchange.until(lambda: exchange.stats().get("messages_per_s") == 0, what="silence for a while")
    assert exchange.stats()["reconnects"] == 0
    assert clean(exchange.finish()).gaps == 0


@pytest.mark.parametrize("refused_s", [5, long(60)])
def test_connection_limit_on_reconnect_costs_one_try_per_step(rig, clean, refused_s):
    exchange = rig(speed=60, messages_per_minute=60, max_minutes=refused_s + 6)
    exchange.produce(backoff_first_s=0.5, backoff_cap_s=2.0)
    exchange.streaming()
    exchange.fault(
        {"do": "refuse", "code": 406, "where": "auth", "for_s": refused_s}, {"do": "drop"}
    )
    exchange.until(lambda: exchange.stats()["state"] == "backing_off", what="refused", timeout_s=20)
    exchange.streaming(timeout_s=refused_s + 30)
    ledger = clean(exchange.finish(timeout_s=refused_s + 60))
    assert exchange.stats()["reconnects"] <= 4 + refused_s  # full jitter halves the mean delay
    assert ledger.in_gaps > 0


@pytest.mark.parametrize(
    ("code", "where", "stops"),
    [(401, "handshake", True), (402, "auth", True), (409, "auth", True), (429, "handshake", False)],
)
def test_refusal_on_connect_makes_no_storm(rig, code, where, stops):
    exchange = rig(speed=60, max_minutes=20, messages_per_minute=60)
    exchange.fault({"do": "refuse", "code": code, "where": where, "for_s": 4})
    exchange.produce(backoff_first_s=0.5, backoff_cap_s=2.0)
    if stops:
        exchange.until(lambda: exchange.stats().get("state") == "failed", what="it stops")
        assert str(code) in exchange.stats()["error"]
        assert exchange.stats()["reconnects"] == 0
        return
    exchange.streaming()
    assert exchange.stats()["reconnects"] <= 12


def test_symbol_limit_keeps_the_valid_subset_and_says_which(rig, clean):
    exchange = rig(speed=60, symbol_limit=3, max_minutes=6, messages_per_minute=60)
    exchange.produce()
    exchange.streaming()
    exchange.until(lambda: exchange.stats()["received"] > 100, what="data of the subset")
    stats = exchange.stats()
    assert len(set(stats["symbols"])) >= 3
    assert "405" in str(stats.get("error")) or "405" in str(stats)
    exchange.finish()


@pytest.mark.parametrize("burst", [60_000, long(400_000)])
def test_burst_and_slow_link_lose_nothing_in_silence(rig, clean, burst):
    exchange = rig(
        speed=60, messages_per_minute=300, max_minutes=11, client_queue=20_000, frame_messages=500
    )
    exchange.produce(max_queued=30_000)
    exchange.streaming()
    exchange.fault(
        {"do": "burst", "messages": burst},
        {"at": "+3s", "do": "slow", "messages_per_s": 50, "for_s": 3},
    )
    exchange.until(lambda: exchange.published() > burst, what="the burst")
    exchange.streaming()
    clean(exchange.finish())
    assert exchange.stats()["rss"] < 512e6


def test_disconnects_during_auth_subscribe_and_backoff_end_in_streaming(rig, clean):
    exchange = rig(speed=60, messages_per_minute=60, max_minutes=12)
    exchange.produce(backoff_first_s=0.1, backoff_cap_s=0.5, connect_timeout_s=2.0)
    exchange.streaming()
    exchange.fault(
        {"do": "drop"},
        {"do": "refuse", "code": 404, "where": "auth", "for_s": 1.5},
        {"at": "+2s", "do": "drop"},
        {"at": "+2s", "do": "refuse", "code": 500, "where": "handshake", "for_s": 1.5},
        {"at": "+4s", "do": "error", "code": 500},
        {"at": "+5s", "every": "0.2s", "times": 10, "do": "drop"},
    )
    exchange.until(lambda: exchange.fired() >= 15, what="all faults")
    exchange.streaming()
    clean(exchange.finish())


def test_nonsense_on_the_wire_is_quarantined_and_the_rest_kept(rig, clean):
    exchange = rig(speed=60, messages_per_minute=300, max_minutes=11)
    exchange.produce()
    exchange.streaming()
    exchange.fault(
        {"do": "garbage", "frames": 5},
        {"at": "+1s", "do": "bad_price"},
        {"at": "+1s", "do": "unknown_type", "messages": 7},
        {"at": "+2s", "do": "duplicate", "for_s": 2},
        {"at": "+5s", "do": "skew", "skew_s": -5, "for_s": 1},
        {"at": "+7s", "do": "skew", "skew_s": 5, "for_s": 1},
    )
    exchange.until(lambda: exchange.fired() >= 6, what="all faults")
    ledger = exchange.finish()
    assert ledger.lost == ledger.holes == ledger.twice == 0, str(ledger)
    assert ledger.quarantined >= 5
    assert exchange.stats()["reconnects"] == 0


@pytest.mark.long
def test_one_symbol_with_most_of_the_load_is_an_alarm_and_clean(rig, clean):
    """FAULTS 17: of one symbol all ticks come, of the others their bars alone."""
    ticks = {"trades": ["TSLA"], "quotes": ["TSLA"]}
    exchange = rig(speed=60, messages_per_minute=900, max_minutes=30, channel_symbols=ticks)
    exchange.produce()
    exchange.streaming()

    def hot() -> list[str]:
        alarms = exchange.stats().get("alarms", [])
        return [a["detail"] for a in alarms if a["name"] == "hot_symbol"]

    exchange.until(hot, what="it says so", timeout_s=40)
    assert "TSLA" in hot()[0]
    ledger = clean(exchange.finish(timeout_s=90))
    assert (ledger.gaps, ledger.stored) == (0, ledger.sent)


@pytest.mark.long
def test_producer_moves_when_its_node_dies(rig, clean):
    exchange = rig(speed=30, messages_per_minute=300, max_minutes=45)
    host = exchange.produce(module="tests.chaos.moving_producer")
    exchange.streaming(timeout_s=120)
    exchange.until(lambda: exchange.stats()["received"] > 1000, what="data came")
    os.kill(host.pid, signal.SIGUSR1)
    exchange.until(
        lambda: exchange.stats()["homes"] == 2 and exchange.stats()["state"] == "streaming",
        what="it streams from the other node", timeout_s=60,
    )  # fmt: skip
    ledger = clean(exchange.finish(timeout_s=180))
    assert 0 < ledger.in_gaps < ledger.sent / 2
