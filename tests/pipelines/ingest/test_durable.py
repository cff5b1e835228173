"""Outages, kills and a stream that lost everything, against a stream in memory; exact each time."""

from __future__ import annotations

import random
import shutil
import threading
from functools import partial

import pytest

from pipelines import codec
from pipelines.errors import LakeError
from pipelines.ingest.alarms import Alarms
from pipelines.ingest.durable import JournaledBatcher
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.hot import HotBucket
from pipelines.ingest.intake import Intake
from pipelines.ingest.journal import Journal
from pipelines.ingest.keeper import Keeper
from pipelines.ingest.progress import Progress
from pipelines.ingest.sender import Sender
from pipelines.ingest.state import ProducerState
from pipelines.kinesis.batching import Batcher
from pipelines.ports import PutResult

SYMBOLS = ("SPY", "AAPL", "TSLA")


def _publish(feed, n, rng=None):
    rng = rng or random.Random(n)
    for _ in range(n):
        feed.publish([feed.trade(rng.choice(SYMBOLS)) for _ in range(10)])


def _alarms(stats):
    return {alarm["name"] for alarm in stats["alarms"]}


def _journaled(
    journal, tracker, *, max_messages, progress, spill_at, max_bytes=900_000, max_queued=100,
    alarms=None,
):  # fmt: skip
    """A batcher of an epoch without a thread of its own."""
    plain = Batcher(
        epoch="e", sealer=tracker, linger_s=0.04, max_messages=max_messages, max_bytes=max_bytes,
        rng=random.Random(1), load=journal.load if journal else None,
    )  # fmt: skip
    return JournaledBatcher(
        plain, journal, progress=progress, alarms=alarms or Alarms(),
        spill_at=spill_at, max_queued=max_queued,
    )  # fmt: skip


def test_outage_beyond_memory_waits_on_disk_and_drains_in_order(feed, stream, start, balance):
    running = start(spill_at=100, max_queued=1000)
    running.streaming()
    _publish(feed, 5)
    running.until(lambda s: s["acked"] == 50)
    stream.down = True
    _publish(feed, 100)
    running.until(lambda s: s["error"] is not None)
    _publish(feed, 100)
    running.until(lambda s: s["received"] == 2050 and {"spilling", "stream_refuses"} <= _alarms(s))
    stats = running.producer.stats()
    assert (stats["stalls"], stats["spilled"]) == (0, stats["spilled_total"])
    assert stats["spilled"] > 900
    assert stats["queued"] >= 2000
    stream.down = False
    _publish(feed, 20)
    running.until(lambda s: s["acked"] == 2250)
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}
    assert running.producer.stats()["alarms"] == []


def test_outage_that_begins_in_a_quiet_moment_spills_as_well(
    feed, stream, start, balance, monkeypatch
):
    """Nothing is on its way: the stream is asked who it is before the first put, in vain."""
    monkeypatch.setattr("pipelines.ingest.sender.IDENTITY_AFTER_S", -1.0)
    running = start(spill_at=100, max_queued=1000)
    running.streaming()
    running.until(lambda s: s["queued"] == 0)
    stream.down = True
    _publish(feed, 200)
    running.until(lambda s: s["received"] == 2000)
    assert running.producer.stats()["spilled"] > 0
    stream.down = False
    running.until(lambda s: s["acked"] == 2000)
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


def test_journal_that_is_full_stops_the_reading_and_says_so(
    feed, stream, start, balance, monkeypatch
):
    monkeypatch.setattr("pipelines.ingest.journal.Journal.has_room", False)
    stream.down = True
    running = start(spill_at=100, max_queued=300)
    running.streaming()
    _publish(feed, 100)
    running.until(lambda s: s["stalls"] > 0 and "journal_full" in _alarms(s))
    assert running.producer.stats()["queued"] < 1000
    stream.down = False
    running.until(lambda s: s["acked"] == 1000)
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


def test_disk_that_takes_nothing_is_an_alarm_and_no_loss(feed, stream, start, balance, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    running = start(spill_at=100)
    running.streaming()
    monkeypatch.setattr("pipelines.ingest.journal.Journal._write", fails)
    _publish(feed, 20)
    running.until(lambda s: s["acked"] == 200)
    assert "journal_failed" in _alarms(running.producer.stats())
    monkeypatch.undo()
    _publish(feed, 20)
    running.until(lambda s: s["acked"] == 400 and "journal_failed" not in _alarms(s))
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


@pytest.mark.parametrize("seed", range(3))
def test_killed_with_records_that_were_not_stored_sends_them_first(
    feed, stream, start, balance, make_config, tmp_path, seed
):
    """Killed again and again while the stream is down; the copy is what the disk held then."""
    rng = random.Random(seed)
    running = start(spill_at=50)
    running.streaming()
    _publish(feed, 20)
    running.until(lambda s: s["acked"] == 200)
    for _ in range(3):
        stream.down = True
        received = running.producer.stats()["received"] + 300
        _publish(feed, 10, rng)
        running.until(lambda s: s["error"] is not None)
        _publish(feed, 20, rng)
        running.until(lambda s, n=received: s["spilled"] > 0 and s["received"] == n)
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        state = make_config().state_path
        shutil.copytree(state.parent, copy, ignore=shutil.ignore_patterns("copy", "*.tmp"))
        running.drain(0.01)
        _publish(feed, 5, rng)  # nobody is there
        shutil.rmtree(state.with_name(f"{state.stem}-journal"))
        shutil.copytree(copy, state.parent, dirs_exist_ok=True)
        stream.down = rng.random() < 0.5
        running = start(spill_at=50)
        running.streaming()
    stream.down = False
    _publish(feed, 5, rng)
    running.until(lambda s: s["queued"] == 0)
    assert running.drain()
    stored = stream.messages()
    assert balance(feed.tape, stored) == {}
    stats = running.producer.stats()
    assert stats["received"] == stats["acked"]
    assert stats["acked"] == sum(1 for m in stored if m["T"] not in ("hb", "gap"))


class _Lake:
    """Holds what was in the stream when it was asked to read it."""

    def __init__(self, stream):
        self._stream = stream
        self.data = []
        self.failures = 0
        self.error: Exception = LakeError("the lake is away")

    def read(self):
        self.data = [put for _, _, put in self._stream.stored]

    def marks(self):
        if self.failures:
            self.failures -= 1
            raise self.error
        held = {}
        for put in self.data:
            record = codec.decode_record(put.data)
            lane = held.setdefault(record.epoch, {})
            lane[record.bucket] = max(record.bseq, lane.get(record.bucket, 0))
        return held


@pytest.mark.parametrize(
    ("restart", "error"), [(False, KeyError("a broken file")), (True, LakeError("it is away"))]
)
def test_stream_made_anew_gets_back_what_the_lake_lacks_and_nothing_else(
    feed, stream, start, balance, restart, error
):
    lake = _Lake(stream)
    lake.failures, lake.error = 1, error
    running = start(lake=lake)
    running.streaming()
    _publish(feed, 20)
    running.until(lambda s: s["acked"] == 200)
    lake.read()
    _publish(feed, 20, random.Random(7))
    running.until(lambda s: s["acked"] == 400)
    if restart:
        assert running.drain()
    stream.down = True
    stream.stored, stream.name = [], "memory@2"
    _publish(feed, 10, random.Random(8))
    if not restart:
        running.until(lambda s: s["error"] is not None)  # none is made anew unnoticed
    stream.down = False
    if restart:
        running = start(lake=lake)
        running.streaming()
    _publish(feed, 10, random.Random(9))
    running.until(lambda s: s["replayed_records"] > 0 and s["queued"] == 0)
    assert running.drain()
    held = lake.marks()
    again = [codec.decode_record(put.data) for _, _, put in stream.stored]
    assert all(r.bseq > held.get(r.epoch, {}).get(r.bucket, 0) for r in again)
    stream.stored = [("shard-0", 0, put) for put in lake.data] + stream.stored
    assert balance(feed.tape, stream.messages()) == {}
    stats = running.producer.stats()
    assert stats["received"] == stats["acked"]
    assert "lost_records" not in _alarms(stats)


def test_stream_made_anew_and_a_journal_that_lacks_records_says_how_many(feed, stream, start):
    running = start(journal_max_mb=0)
    running.streaming()
    for _ in range(5):
        _publish(feed, 5)
        running.until(lambda s: s["queued"] == 0)
    stream.stored, stream.name, stream.down = [], "memory@2", True
    _publish(feed, 1)
    running.until(lambda s: s["error"] is not None)
    stream.down = False
    running.until(lambda s: "lost_records" in _alarms(s))


def test_one_symbol_with_most_of_the_load_is_an_alarm_and_clean(
    feed, stream, start, balance, monkeypatch
):
    monkeypatch.setattr("pipelines.ingest.hot.WINDOW_S", 0.2)
    symbols = tuple(f"S{n}" for n in range(12))
    running = start(symbols=symbols)
    running.streaming()
    rng = random.Random(4)
    for _ in range(30):
        hot = ["S0"] * 9 + [rng.choice(symbols)]
        feed.publish([feed.trade(symbol) for symbol in hot for _ in range(4)])  # 1200 messages
    feed.publish([feed.trade(symbol) for symbol in symbols])
    running.until(lambda s: s["queued"] == 0)
    feed.publish([feed.trade("S0")])
    running.until(lambda s: s["queued"] == 0 and s["acked"] == len(feed.tape))
    assert running.drain()
    assert balance(feed.tape, stream.messages()) == {}


def test_journal_after_a_full_disk_has_no_hole(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    journal, tracker = Journal(tmp_path, max_bytes=10**7), GapTracker()
    progress = Progress(ProducerState("old"), epoch="e")
    batcher = _journaled(
        journal, tracker, max_messages=5, max_bytes=10**5, progress=progress, spill_at=10
    )
    at = {"wall_ns": 1, "market_ns": 1}
    for bucket, broken in ((1, False), (1, True), (2, True), (1, True), (1, False), (2, False)):
        batcher.queue(bucket).extend({"T": "x", "S": str(bucket)} for _ in range(12))
        with monkeypatch.context() as patch:
            if broken:
                patch.setattr(journal, "_write", fails)
            batcher.next_puts(0.0, **at)
            batcher.has_room(**at, stuck=True)
        assert progress.journaled is not broken
    written = [(e.shelved.bucket, e.shelved.bseq) for e in journal.entries()]
    assert len(written) == len(set(written)) > 6
    for bucket in (1, 2):
        mine = [bseq for b, bseq in written if b == bucket]
        assert mine == list(range(1, len(mine) + 1))
    journal.close()


@pytest.mark.parametrize("end", ["spill", "shelve_all"])
def test_journal_of_more_than_one_call_takes_has_every_record(tmp_path, end):
    """A dozen buckets of records of 800 kB: one call to the stream takes six of them."""
    journal, tracker = Journal(tmp_path, max_bytes=10**8), GapTracker()
    batcher = _journaled(
        journal, tracker, max_messages=1, progress=Progress(ProducerState("old"), epoch="e"),
        spill_at=1,
    )  # fmt: skip
    at = {"wall_ns": 1, "market_ns": 1}
    for bucket in range(12):
        batcher.queue(bucket).extend({"T": "x", "x": "y" * 800_000} for _ in range(2))
    first = batcher.next_puts(0.0, **at)
    assert 0 < len(first) < 12
    if end == "spill":
        batcher.has_room(**at)
        batcher.settle(first, [PutResult()] * len(first), 0.0)
        while batcher.unsent:
            puts = batcher.next_puts(9.0, **at, flush=True)
            batcher.settle(puts, [PutResult()] * len(puts), 9.0)
    else:
        batcher.shelve_all(**at)
    written = [(entry.shelved.bucket, entry.shelved.bseq) for entry in journal.entries()]
    for bucket in range(12):
        assert [bseq for b, bseq in written if b == bucket] == [1, 2]
    journal.close()


@pytest.mark.parametrize("journaled", [True, False])
def test_quarantine_that_grows_large_asks_for_room_by_its_bytes(tmp_path, journaled, monkeypatch):
    monkeypatch.setattr("pipelines.ingest.sender.QUARANTINE_BYTES", 1_000_000)
    journal, tracker, alarms = Journal(tmp_path, max_bytes=10**8), GapTracker(), Alarms()
    progress = Progress(ProducerState("old"), epoch="e")
    batcher = _journaled(
        journal if journaled else None, tracker, max_messages=100, progress=progress,
        alarms=alarms, spill_at=1000, max_queued=1000,
    )  # fmt: skip
    intake = Intake(batcher, tracker)
    sender = Sender(
        batcher, None, tracker=tracker, intake=intake, lock=threading.Lock(), linger_s=0.04,
        progress=progress, alarms=alarms, lake=None, state_path=None, save_s=1.0,
        rng=random.Random(1),
    )  # fmt: skip
    assert sender.has_room()
    for _ in range(4):
        intake.take_malformed("no JSON", b"x" * 300_000, received_ns=1)
    assert sender.has_room() is journaled
    assert (batcher.in_memory < 4) is journaled
    while puts := batcher.next_puts(9.0, wall_ns=1, market_ns=1, flush=True):
        batcher.settle(puts, [PutResult()] * len(puts), 9.0)
    assert sender.has_room()
    journal.close()


def test_hot_bucket_is_over_when_the_load_is_even():
    alarms = Alarms()
    hot = HotBucket(alarms)
    hot.add([(0, 9000), (1, 300), (2, 300), (3, 400)], now_s=0.0)
    hot.add([(0, 1)], now_s=11.0)
    assert [a["name"] for a in alarms.to_list()] == ["hot_symbol"]
    hot.add([(0, 900), (1, 800), (2, 800), (3, 400)], now_s=12.0)
    hot.add([(1, 1)], now_s=22.0)
    assert alarms.to_list() == []


def test_alarm_logs_now_and_then_and_keeps_its_beginning(caplog):
    now = [0.0]
    alarms = Alarms(now_s=lambda: now[0])
    alarms.on("x", "first")
    since = alarms.to_list()[0]["since_ns"]
    for now[0] in (1.0, 5.0, 11.0):
        alarms.on("x", "again")
    assert [r.getMessage() for r in caplog.records] == ["alarm x: first", "alarm x: again"]
    assert alarms.to_list() == [{"name": "x", "detail": "again", "since_ns": since}]


def test_producer_that_runs_asks_the_lake_what_its_journal_need_not_keep(
    feed, stream, start, wait, monkeypatch
):
    class Lake:
        asked = 0

        def marks(self):
            self.asked += 1
            if self.asked < 3:
                raise [OSError("no route"), KeyError("a broken file")][self.asked - 1]
            return {}

    monkeypatch.setattr("pipelines.ingest.keeper.SYNC_S", 0.01)
    monkeypatch.setattr("pipelines.ingest.assembly.Keeper", partial(Keeper, prune_s=0.02))
    lake = Lake()
    running = start(lake=lake)
    running.streaming()
    wait(lambda: lake.asked > 3)  # its failures end nothing
    assert running.drain()
