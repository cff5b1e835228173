"""Laws of the batcher under any mixture of acknowledgements, refusals and lost answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import codec
from pipelines.kinesis.batching import MAX_PUT_BYTES, MAX_PUT_RECORDS, Batcher, PlainSealer
from pipelines.ports import Put, PutResult, Shelved


def _batcher(**changed):
    return Batcher(
        **{
            "epoch": "e",
            "sealer": PlainSealer(),
            "linger_s": 0.04,
            "max_messages": 5,
            "max_bytes": 2000,
            "rng": random.Random(1),
            **changed,
        }
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.integers(1, 12)),
        st.tuples(st.just("put"), st.lists(st.sampled_from(["ok", "refused"]), max_size=8)),
        st.tuples(st.just("lost"), st.booleans()),
        st.tuples(st.just("spill"), st.booleans(), st.booleans()),
        st.tuples(st.just("anew"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.floats(0, 6)),
    ),
    max_size=60,
)


@given(steps, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_batcher_under_any_faults_keeps_order_and_loses_nothing(plan, rng):
    journal: dict[tuple[int, int], tuple[Shelved, Put]] = {}
    batcher = _batcher(load=lambda shelved: journal[shelved.bucket, shelved.bseq][1])
    now, added = 0.0, {}
    stored: dict[int, dict[int, bytes]] = {}
    acked: dict[int, int] = {}

    def write(puts):
        for put in puts:
            shelved = Shelved(int(put.key), put.epoch, put.bseq, put.n_messages, (0, 0, 0))
            journal.setdefault((shelved.bucket, shelved.bseq), (shelved, put))
        return [journal[int(put.key), put.bseq][0] for put in puts]

    def store(put):
        record = codec.decode_record(put.data)
        lane = stored.setdefault(record.bucket, {})
        assert lane.setdefault(record.bseq, put.data) == put.data, "resent with other bytes"
        assert sorted(lane) == list(range(1, len(lane) + 1)), "newer before older"

    def send(outcomes, *, lost=None, flush=False):
        puts = batcher.next_puts(now, wall_ns=1, market_ns=1, flush=flush)
        write(puts)
        assert len({put.key for put in puts}) == len(puts), "two records of a bucket at once"
        assert len(puts) <= MAX_PUT_RECORDS
        assert sum(len(put.data) for put in puts) <= MAX_PUT_BYTES
        results = []
        for i, put in enumerate(puts):
            ok = lost if lost is not None else (outcomes[i : i + 1] or ["ok"])[0] == "ok"
            if ok:
                store(put)
            results.append(PutResult() if ok else PutResult(error="Throttled"))
        done = batcher.settle(puts, None if lost is not None else results, now)
        for one in done:
            assert one.bseq == acked.get(one.bucket, 0) + 1
            acked[one.bucket] = one.bseq
        return puts

    for step in plan:
        if step[0] == "add":
            _, bucket, count = step
            for _ in range(count):
                lane = added.setdefault(bucket, [])
                message = {
                    "T": "t",
                    "S": str(bucket),
                    "i": len(lane),
                    "pad": "x" * rng.randrange(900),
                }
                lane.append(message)
                batcher.queue(bucket).append(message)
        elif step[0] == "put":
            send(step[1])
        elif step[0] == "lost":
            send([], lost=step[1])
        elif step[0] == "spill":
            spilled = batcher.spill(wall_ns=1, market_ns=1, everything=step[1])
            if step[2]:  # else the disk is full: they stay in memory
                batcher.shelve(write(spilled))
        elif step[0] == "anew":  # the stream lost what it had of a bucket after a mark
            held = max(0, acked.get(step[1], 0) - 2)
            lost = [s for (b, n), (s, _) in journal.items() if b == step[1] and n > held]
            batcher.restore(lost)
            acked[step[1]] = held
            stored[step[1]] = {n: d for n, d in stored.get(step[1], {}).items() if n <= held}
        else:
            now += step[1]
    while batcher.unsent:
        now += 10
        send([], flush=True)
    assert batcher.in_memory == 0
    for bucket, lane in added.items():
        records = [codec.decode_record(stored[bucket][n]) for n in sorted(stored[bucket])]
        assert [m for record in records for m in record.messages] == lane
        assert all(len(data) <= 2000 for data in stored[bucket].values())
        assert acked[bucket] == len(records)


def test_batcher_before_linger_waits_and_makes_one_record_per_bucket():
    batcher = _batcher()
    for bucket in range(30):
        batcher.queue(bucket).append({"T": "t"})
    first = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    batcher.settle(first, [PutResult()] * 30, 0.01)
    batcher.queue(1).append({"T": "t"})
    assert batcher.next_puts(0.02, wall_ns=1, market_ns=1) == []
    assert batcher.wait_s(0.02) == pytest.approx(0.02)
    batcher.queue(1).append({"T": "t"})
    (put,) = batcher.next_puts(0.05, wall_ns=1, market_ns=1)
    assert len(codec.decode_record(put.data).messages) == 2


def test_batcher_with_little_to_do_does_not_linger():
    batcher = _batcher()
    for n in range(20):
        batcher.queue(n % 3).append({"T": "t"})
        (put,) = batcher.next_puts(n * 0.01, wall_ns=1, market_ns=1)
        batcher.settle([put], [PutResult()], n * 0.01 + 0.005)


def test_batcher_under_throttling_makes_fewer_and_larger_records_until_it_is_over():
    batcher, now, gaps = _batcher(max_messages=1000), 0.0, []
    for n in range(60):
        batcher.queue(1).append({"T": "t"})
        while not (puts := batcher.next_puts(now, wall_ns=1, market_ns=1)):
            now += 0.001
        error = "ProvisionedThroughputExceededException" if n < 4 else None
        batcher.settle(puts, [PutResult(shard="a", error=error)], now)
        gaps.append(batcher.wait_s(now) or 0.0)
    assert max(gaps) > 3 * 0.04
    assert gaps[-1] < 0.01


def test_batcher_backs_off_per_shard():
    batcher = _batcher()
    for bucket in range(4):
        batcher.queue(bucket).append({"T": "t"})

    def put(now, refused=()):
        puts = batcher.next_puts(now, wall_ns=1, market_ns=1)
        results = [
            PutResult(shard=None if int(p.key) in refused else "ab"[int(p.key) % 2],
                      error="Throttled" if int(p.key) in refused else None)
            for p in puts
        ]  # fmt: skip
        batcher.settle(puts, results, now)
        return sorted(int(p.key) for p in puts)

    assert put(0.0) == [0, 1, 2, 3]
    for bucket in range(4):
        batcher.queue(bucket).append({"T": "t"})
    assert put(1.0, refused={0, 2}) == [0, 1, 2, 3]
    batcher.queue(1).append({"T": "t"})
    assert put(1.02) == [1]  # shard a is left alone
    assert put(1.2) == [0, 2]


def test_batcher_with_full_bucket_does_not_linger():
    batcher = _batcher()
    batcher.queue(1).append({"T": "t"})
    batcher.settle(batcher.next_puts(0.0, wall_ns=1, market_ns=1), [PutResult()], 0.0)
    batcher.queue(1).extend({"T": "t"} for _ in range(7))
    (put,) = batcher.next_puts(0.001, wall_ns=1, market_ns=1)
    assert len(codec.decode_record(put.data).messages) == 5


def test_batcher_with_value_that_json_cannot_hold_keeps_the_rest():
    batcher = _batcher()
    batcher.queue(1).extend(
        [{"T": "t", "i": 1}, {"T": "t", "x": b"\x00", "r": 3}, {"T": "t", "i": 2}]
    )
    (put,) = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    messages = codec.decode_record(put.data).messages
    assert [m["T"] for m in messages] == ["t", "bad", "t"]
    assert messages[1]["reason"].startswith("not_storable")


def test_batcher_with_message_over_the_limit_keeps_its_beginning():
    batcher = _batcher()
    batcher.queue(1).extend([{"T": "n", "x": "y" * 9000, "r": 3}, {"T": "t"}])
    (put,) = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    (message,) = codec.decode_record(put.data).messages
    assert message["reason"].startswith("oversize")
    assert len(put.data) <= 2000


def test_batcher_over_the_call_limit_starves_no_bucket():
    batcher = _batcher(max_messages=1, max_bytes=900_000)
    for bucket in range(12):
        batcher.queue(bucket).extend({"T": "t", "x": "y" * 800_000} for _ in range(2))
    order = []
    while puts := batcher.next_puts(0.0, wall_ns=1, market_ns=1, flush=True):
        assert sum(len(put.data) for put in puts) <= MAX_PUT_BYTES
        order += [int(put.key) for put in puts]
        batcher.settle(puts, [PutResult()] * len(puts), 0.0)
    assert sorted(order[:12]) == list(range(12))


def test_batcher_settling_a_record_that_is_not_on_its_way_is_refused():
    batcher = _batcher()
    batcher.queue(1).append({"T": "t"})
    puts = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    batcher.settle(puts, [PutResult()], 0.0)
    with pytest.raises(ValueError, match="not on its way"):
        batcher.settle(puts, [PutResult()], 0.0)


def test_batcher_restoring_keeps_what_it_has_and_puts_it_after():
    old = [Shelved(1, "old", n, 2, (n, 0, 0)) for n in (4, 5)]
    batcher = _batcher(load=lambda s: Put("1", b"old", s.epoch, s.bseq, s.n_messages))
    batcher.queue(1).extend({"T": "t"} for _ in range(3))
    puts = batcher.next_puts(0.0, wall_ns=1, market_ns=1)
    batcher.settle(puts, None, 0.0)  # it stays in memory, and is on no disk
    batcher.restore(old)
    batcher.restore(old)
    assert (batcher.unsent, batcher.in_memory) == (7, 3)
    order, now = [], 0.0
    while batcher.unsent:
        now += 10
        puts = batcher.next_puts(now, wall_ns=1, market_ns=1)
        order += [(put.epoch, put.bseq) for put in puts]
        batcher.settle(puts, [PutResult()] * len(puts), now)
    assert order == [("old", 4), ("old", 5), ("e", 1)]


@given(st.data())
def test_batcher_restored_puts_the_records_of_a_bucket_by_age_whatever_waits(data):
    """Runs and their numbers only grow; some of what waits is restored, the rest is kept."""
    runs = ["first", "second", "third"]
    old = [Shelved(1, run, n, 1, (0, 0, 0)) for run in runs for n in (8, 9, 3)[: len(run) % 4]]
    old = sorted(old, key=lambda e: (runs.index(e.epoch), e.bseq))
    batcher = _batcher(load=lambda e: Put("1", b"x", e.epoch, e.bseq, 1))
    batcher.restore(old)
    batcher.queue(1).extend({"T": "t", "S": "A"} for _ in range(8))
    made = batcher.spill(wall_ns=1, market_ns=1)
    places = [Shelved(1, "e", put.bseq, put.n_messages, (0, 0, 0)) for put in made]
    # The lake holds a beginning of all that was made; the rest is what the journal gives back.
    held = data.draw(st.integers(0, len(old)))
    batcher.restore([*old[held:], *places])
    seen = []
    while puts := batcher.next_puts(99.0, wall_ns=1, market_ns=1, flush=True):
        seen += [(put.epoch, put.bseq) for put in puts]
        batcher.settle(puts, [PutResult(sequence="1", shard="s")] * len(puts), 99.0)
    assert seen == [(e.epoch, e.bseq) for e in [*old, *places]]
    assert batcher.unsent == 0
