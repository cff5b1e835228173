"""Failover, the lock of a connection, subscriptions and their shares, repeats, totals."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError, FeedTransient
from pipelines.ingest import lease, subscriptions
from pipelines.ingest.config import ProducerConfig, SourceConfig
from pipelines.ingest.failover import Failover
from pipelines.ingest.meter import MAX_SERIES, OTHER, Meter, count
from pipelines.ingest.repeats import GENERATION, RecentTicks
from pipelines.ingest.totals import total

NAMES = ("sip", "iex", "rest")


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_failover_uses_a_source_that_did_not_refuse_while_there_is_one(events):
    failover, refused = Failover(NAMES, after=2), set()
    for fatal, streams in events:
        if streams:
            failover.streamed()
        before = failover.name
        switched = failover.failed("no", fatal=fatal)
        if fatal:
            refused.add(before)
        assert switched == (failover.name != before)
        assert failover.refused == (refused == set(NAMES))
        assert failover.name not in refused or failover.refused
        assert (failover.degraded is None) == (failover.name == "sip")


def test_failover_with_one_source_never_switches_for_a_passing_failure():
    failover = Failover(["iex"], after=2)
    assert not any(failover.failed("lost") for _ in range(20))
    assert not failover.refused


def test_failover_from_the_last_source_goes_on_at_the_best():
    failover = Failover(NAMES, after=1)
    assert [(failover.failed("lost"), failover.name)[1] for _ in range(4)] == [
        "iex", "rest", "sip", "iex"
    ]  # fmt: skip


def test_lock_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path):
    where = {"url": "wss://feed/v2/iex", "key": "very-secret", "index": 0}
    program = (
        "import sys, time; from pathlib import Path; from pipelines.ingest import lease\n"
        f"with lease.held(Path({str(tmp_path)!r}), **{where!r}):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FeedTransient, match="another process"), lease.held(tmp_path, **where):
            pass
        with lease.held(tmp_path, **{**where, "index": 1}):
            pass
    finally:
        other.kill()
        other.wait(10)
        other.stdout.close()
    with lease.held(tmp_path, **where):
        assert not [path for path in tmp_path.iterdir() if "secret" in path.name]


def test_lock_in_a_folder_that_cannot_be_made_is_tried_again(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FeedTransient, match="RAYTAPE_LOCK_DIR"),
        lease.held(tmp_path / "file" / "x", url="ws://x", key="k", index=0),
    ):
        pass


symbols = st.text("ABCDEFGH", min_size=1, max_size=4)
lists = st.dictionaries(st.sampled_from(subscriptions.CHANNELS), st.lists(symbols, max_size=30))


@given(lists, st.integers(1, 5))
def test_shares_are_the_whole_and_every_symbol_has_one_producer(wanted, n):
    shares = [subscriptions.share(wanted, i, n) for i in range(n)]
    for channel, has in subscriptions.tidy(wanted).items():
        parts = [set(share.get(channel, ())) for share in shares]
        assert set.union(*parts) == set(has)
        assert sum(map(len, parts)) == len(has)
    owners = [set(subscriptions.symbols_of(share)) for share in shares]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_share_of_all_symbols_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="RAYTAPE_PRODUCERS"):
        subscriptions.share({"trades": ["*"]}, 0, 2)


def test_unknown_channel_is_refused_with_the_ones_there_are():
    with pytest.raises(ConfigError, match=r"orderbooks.*trades"):
        ProducerConfig(
            url="ws://x", key="k", secret="s", symbols=("SPY",), channels=("orderbooks",)
        )


def test_channel_with_symbols_of_its_own_keeps_them_beside_the_others():
    config = ProducerConfig(
        url="ws://x", key="k", secret="s", symbols=("SPY", "AAPL"),
        channels=("trades", "quotes"), channel_symbols={"quotes": ("SPY",), "bars": ("*",)},
    )  # fmt: skip
    assert config.subscriptions == {
        "trades": ("SPY", "AAPL"), "quotes": ("SPY",), "bars": ("*",)
    }  # fmt: skip


def test_subscriptions_changed_at_run_time_last_until_the_settings_change(tmp_path):
    path, first, changed = tmp_path / "s.json", {"trades": ("SPY",)}, {"trades": ("TSLA", "SPY")}
    assert subscriptions.load(path, configured=first) == first
    subscriptions.save(path, changed, configured=first)
    assert subscriptions.load(path, configured=first) == changed
    assert subscriptions.load(path, configured={"bars": ("SPY",)}) == {"bars": ("SPY",)}
    path.write_text("[")
    assert subscriptions.load(path, configured=first) == first


def test_news_are_a_producer_of_their_own_beside_the_first(tmp_path):
    base = {"url": "ws://x", "key": "k", "secret": "s", "symbols": ("SPY",)}
    one = ProducerConfig(**base, news_url="ws://n", state_path=tmp_path / "state.json")
    news = one.news()
    assert news.subscriptions == {"news": ("SPY",)}
    assert news.state_path != one.state_path
    assert news.news() is None
    assert ProducerConfig(**base).news() is None
    assert ProducerConfig(**base, news_url="ws://n", index=1, producers=2).news() is None


def test_trade_that_came_before_is_a_repeat_within_the_window_only():
    recent = RecentTicks()
    trade = {"T": "t", "S": "SPY", "i": 1, "x": "V", "t": "2024-01-02T15:00:00Z"}
    assert not recent.repeats("SPY", trade)
    assert not recent.repeats("AAPL", trade)
    assert not recent.repeats("SPY", {**trade, "x": "Q"})
    assert not recent.repeats("SPY", {**trade, "t": "2024-01-02T15:00:01Z"})
    assert not recent.repeats("SPY", {**trade, "i": None})
    assert not recent.repeats("SPY", {**trade, "i": [7]})
    assert recent.repeats("SPY", dict(trade))
    for i in range(2 * GENERATION + 2):
        recent.repeats("SPY", {**trade, "i": i + 10})
    assert not recent.repeats("SPY", trade)


def test_quote_or_bar_that_says_nothing_new_is_a_repeat():
    recent = RecentTicks()
    at = "2024-01-02T15:00:00Z"
    quote = {"T": "q", "S": "SPY", "t": at, "bp": 1.0, "ap": 1.1, "bs": 1, "as": 2}
    bar = {"T": "b", "S": "SPY", "t": at, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 5}
    assert not recent.repeats("SPY", quote) and not recent.repeats("SPY", bar)
    assert not recent.repeats("SPY", {**quote, "bs": 3}) and not recent.repeats(
        "SPY", {**bar, "v": 6}
    )
    assert recent.repeats("SPY", dict(quote)) and recent.repeats("SPY", dict(bar))
    status = {"T": "s", "S": "SPY", "t": at, "sc": "H"}
    assert [recent.repeats("SPY", dict(status)) for _ in range(2)] == [False, True]
    assert not any(recent.repeats("SPY", {**bar, "T": "d"}) for _ in range(2))


def test_meter_counts_types_and_symbols_in_bounded_memory():
    meter = Meter()
    for i in range(MAX_SERIES + 50):
        meter.add(count([{"T": "t", "S": f"S{i}"}, 7]), now_s=i / 100, received_ns=i)
    assert len(meter.series()) == MAX_SERIES + 1
    assert meter.series()["t", OTHER] == 50
    assert meter.by_type() == {"t": MAX_SERIES + 50}


def test_total_of_one_producer_is_its_own_word():
    stats = {"state": "streaming", "received": 3}
    assert total([stats], None) == stats


def test_total_is_as_bad_as_the_worst_and_names_each():
    market = [
        {"name": "raytape-producer", "state": "streaming", "acked": 5, "error": None,
         "symbols": ["SPY"], "clock": {"rate": 1}, "last_message_wall_ns": 5},
        {"name": "raytape-producer-1", "state": "failed", "acked": 7, "error": "402",
         "symbols": ["AAPL"], "clock": None, "last_message_wall_ns": None},
    ]  # fmt: skip
    found = total(market, None)
    assert (found["state"], found["error"], found["acked"]) == ("failed", "402", 12)
    assert found["symbols"] == ["AAPL", "SPY"]
    assert found["last_message_wall_ns"] == 5
    assert [p["name"] for p in found["producers"]] == ["raytape-producer", "raytape-producer-1"]


def test_source_with_an_http_address_is_polled():
    assert SourceConfig("rest", "https://data.alpaca.markets").polled
    assert not SourceConfig("iex", "wss://stream.data.alpaca.markets/v2/iex").polled
