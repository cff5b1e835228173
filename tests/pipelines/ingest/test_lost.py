"""Records that the journal cannot give back: an alarm, a gap row, and it goes on."""

from __future__ import annotations

import random
import shutil

import pytest

from pipelines import codec
from pipelines.events import Record, bucket_of, format_time_ns
from pipelines.ingest.journal import HEADER, Journal
from pipelines.ingest.lost import REASON, LostRecords
from pipelines.ports import Put, Shelved
from tests.pipelines.ingest.test_backfill import FAST, History
from tests.pipelines.ingest.test_journal import _ids, _put

SYMBOLS = ("SPY", "AAPL", "TSLA")
NOW_NS = 1_700_000_000_000_000_000


def _break(folder, start=None):
    """Spoil the block of the only file that begins there; else the last one."""
    (path,) = folder.glob("*.journal")
    raw = bytearray(path.read_bytes())
    starts = [at for at in range(len(raw)) if raw[at : at + 4] == b"RTJ1"]
    start = starts[-1] if start is None else start
    for at in range(start + HEADER.size, next((at for at in starts if at > start), len(raw))):
        raw[at] ^= 0x55
    path.write_bytes(raw)


def _first_spilled(running):
    """Where the first block lies whose records wait on disk alone."""
    buckets = running.producer._sender._batcher._batcher._buckets.values()
    return min(e.place[1] for b in buckets for e in b.backlog if isinstance(e, Shelved))


@pytest.mark.parametrize(
    ("restart", "which"), [(False, "spilled"), (True, "spilled"), (True, "last")]
)
def test_records_that_cannot_be_read_are_declared_and_fetched_anew(
    feed, stream, start, make_config, tmp_path, restart, which
):
    rng = random.Random(3)
    history = History(feed.tape)
    running = start(spill_at=50, history=history, backfill=FAST)
    running.streaming()
    for n in range(60):
        if n == 10:
            running.until(lambda s: s["acked"] == 50)
            stream.down = True
        if n == 30:
            running.until(lambda s: s["error"] is not None)
        feed.publish([feed.trade(rng.choice(SYMBOLS), i=10 * n + k) for k in range(5)])
    running.until(lambda s: s["spilled"] > 0 and s["received"] == 300)
    state = make_config().state_path
    place = _first_spilled(running) if which == "spilled" else None
    if restart:
        copy = tmp_path / "copy"
        shutil.copytree(state.parent, copy, ignore=shutil.ignore_patterns("copy", "*.tmp"))
        running.drain(0.01)
        shutil.rmtree(state.with_name(f"{state.stem}-journal"))
        shutil.copytree(copy, state.parent, dirs_exist_ok=True)
    _break(state.with_name(f"{state.stem}-journal"), place)
    stream.down = False
    if restart:
        running = start(spill_at=50, history=history, backfill=FAST)
        running.streaming()
    feed.publish([feed.trade(symbol, i=1000) for symbol in SYMBOLS])
    running.until(
        lambda s: (
            s["backfills_done"] >= 3
            and not s["backfills_open"] + s["queued"]
            and s["received"] == s["acked"] == 303
        )
    )
    stats = running.producer.stats()
    assert running.drain()
    records = [codec.decode_record(put.data) for _, _, put in stream.stored]
    stored = [m for record in records for m in record.messages]
    got = [(m["S"], m["i"]) for m in stored if m["T"] == "t"]
    assert sorted(got) == sorted((m["S"], m["i"]) for m in feed.tape)
    if stats["lost_records"]:
        assert "journal_unreadable" in {a["name"] for a in stats["alarms"]}
        assert REASON in {m["reason"] for m in stored if m["T"] == "gap"}
        assert list(tmp_path.rglob("*.unreadable"))
    else:
        assert restart  # what was lost last lies in the gap of the restart
        assert which == "last"


def test_journal_broken_in_the_middle_gives_back_what_follows(tmp_path):
    journal = Journal(tmp_path, max_bytes=10**7)
    places = [journal.append([_put(1, n)])[0] for n in range(1, 6)]
    journal.close()
    _break(tmp_path, places[2].place[1])
    again = Journal(tmp_path, max_bytes=10**7)
    assert [bseq for *_, bseq in _ids(again)] == [1, 2, 4, 5]
    assert again.torn == 1
    assert len(list(tmp_path.glob("*.unreadable"))) == 1
    again.close()


def _following(*messages):
    data = codec.encode_record(Record("e", bucket_of("SPY"), 9, NOW_NS, NOW_NS, messages))
    return Put(str(bucket_of("SPY")), data, "e", 9, len(messages))


def _trade(at, **changed):
    t = format_time_ns(NOW_NS - at)
    return {"T": "t", "S": "SPY", "p": 1.0, "s": 1, "t": t, **changed}


GAP = {"T": "gap", "S": "SPY", "from_ns": NOW_NS - 9, "to_ns": NOW_NS, "reason": "lost"}


@pytest.mark.parametrize(
    ("following", "to_ns", "n_seen"),
    [
        ((_trade(7), _trade(3)), NOW_NS - 7 + 1, 2),
        ((_trade(7), _trade(7, p=2.0), _trade(3)), NOW_NS - 7 + 1, 3),
        (({**_trade(8), "bf": True}, _trade(3, p=-1.0), _trade(2)), NOW_NS - 2 + 1, 2),
        ((GAP, _trade(3)), NOW_NS - 9 + 1, 1),
    ],
)
def test_lost_record_reaches_to_what_comes_next(following, to_ns, n_seen):
    records = LostRecords()
    records.note(
        bucket_of("SPY"),
        stored={"SPY": NOW_NS - 20, "AAPL": 1}, ends={"SPY": (NOW_NS - 20, frozenset({7}))},
        made={"SPY": NOW_NS - 5, "AAPL": 2},
    )  # fmt: skip
    beat = {"T": "hb", "market_ns": NOW_NS, "symbols": ["SPY"]}
    assert records.rows([_following(beat, _trade(4, S="AAPL"))]) == []
    (row,) = records.rows([_following(*following)])
    assert (row["from_ns"], row["to_ns"], len(row["seen"])) == (NOW_NS - 21, to_ns, n_seen)
    assert not records


def test_lost_record_of_a_bucket_of_which_nothing_is_missing_needs_no_row():
    records = LostRecords()
    records.note(bucket_of("SPY"), stored={"SPY": NOW_NS}, ends={}, made={"SPY": NOW_NS})
    assert not records
