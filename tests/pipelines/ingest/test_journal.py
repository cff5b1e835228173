"""The journal: what was appended comes back, in order, whatever the last write looked like."""

from __future__ import annotations

import errno
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import codec
from pipelines.errors import ConfigError
from pipelines.events import Record, format_time_ns
from pipelines.ingest.gaps import account
from pipelines.ingest.journal import Journal
from pipelines.ports import Put

NOW_NS = 1_700_000_000_000_000_000


def _put(bucket, bseq, n=3, epoch="e", pad=0):
    messages = [
        {"T": "t", "S": "SPY", "p": 1.5, "s": 1, "pad": "x" * pad,
         "t": format_time_ns(NOW_NS + bseq * 1000 + i)}
        for i in range(n)
    ]  # fmt: skip
    data = codec.encode_record(Record(epoch, bucket, bseq, NOW_NS, NOW_NS, messages))
    return Put(str(bucket), data, epoch, bseq, n, account(messages, NOW_NS))


def _ids(journal):
    return [(e.shelved.epoch, e.shelved.bucket, e.shelved.bseq) for e in journal.entries()]


def test_journal_reopened_holds_the_records_in_their_order_with_their_notes(tmp_path):
    journal = Journal(tmp_path, max_bytes=10**7)
    puts = [_put(b, n) for n in range(1, 4) for b in (1, 2)]
    places = journal.append(puts[:2]) + journal.append(puts[2:])
    assert [journal.load(place) for place in places] == puts
    journal.close()
    again = Journal(tmp_path, max_bytes=10**7)
    assert _ids(again) == [(p.epoch, int(p.key), p.bseq) for p in puts]
    assert [again.load(e.shelved) for e in again.entries()] == puts
    assert [(e.n_bytes, e.n_market, e.n_gaps) for e in again.entries()] == [
        (len(p.data), 3, 0) for p in puts
    ]
    again.append([_put(1, 4)])  # a new run writes to a file of its own
    assert len(list(tmp_path.iterdir())) == 2
    again.close()


@given(cut=st.integers(1, 400), flip=st.booleans())
def test_journal_torn_in_its_last_block_keeps_all_before_it(tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, max_bytes=10**7)
    journal.append([_put(1, 1), _put(2, 1)])
    whole = journal.size
    journal.append([_put(1, 2)])
    journal.close()
    (path,) = folder.iterdir()
    raw = bytearray(path.read_bytes())
    at = max(whole, len(raw) - cut)
    if flip:
        raw[at] ^= 0xFF
    else:
        del raw[at:]
    path.write_bytes(raw)
    again = Journal(folder, max_bytes=10**7)
    assert _ids(again) == [("e", 1, 1), ("e", 2, 1)]
    assert again.torn == (0 if len(raw) == whole else 1)


def test_journal_drops_only_oldest_segments_that_are_covered(tmp_path):
    journal = Journal(tmp_path, max_bytes=80_000)  # segments of 10 kB
    rng = random.Random(1)
    for n in range(1, 200):
        journal.append([_put(1, n), _put(2, n, pad=rng.randrange(90))])
    assert not journal.has_room or journal.size > 10_000
    before = len(list(tmp_path.iterdir()))
    assert before > 2
    assert journal.drop(lambda _, bucket, top: bucket == 1 or top < 1) == 0
    assert journal.drop(lambda *_: True, most=1) == 1
    assert journal.drop(lambda *_: True) == before - 2  # the one that is written stays
    left = _ids(journal)
    assert left[-1] == ("e", 2, 199)
    journal.close()


def test_journal_on_a_full_disk_is_as_before_and_goes_on_later(tmp_path, monkeypatch):
    journal = Journal(tmp_path, max_bytes=10**7)
    journal.append([_put(1, 1)])
    real, left = os.write, [20]

    def write(fd, data):
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = real(fd, bytes(data)[: left[0]])
        left[0] -= n
        return n

    monkeypatch.setattr("os.write", write)
    with pytest.raises(OSError, match="No space"):
        journal.append([_put(1, 2)])
    monkeypatch.undo()
    journal.append([_put(1, 2)])
    assert _ids(journal) == [("e", 1, 1), ("e", 1, 2)]
    journal.close()
    again = Journal(tmp_path, max_bytes=10**7)
    assert (again.torn, _ids(again)) == (0, [("e", 1, 1), ("e", 1, 2)])


def test_journal_record_that_cannot_be_read_is_none(tmp_path):
    journal = Journal(tmp_path, max_bytes=10**7)
    (place,) = journal.append([_put(1, 1)])
    journal.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"?" * 200)
    assert journal.load(place) is None


def test_journal_in_a_folder_that_cannot_be_made_says_which(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/journal"):
        Journal(tmp_path / "file" / "journal", max_bytes=1)


def test_journal_on_a_full_disk_keeps_no_part_of_a_write_and_no_empty_files(tmp_path, monkeypatch):
    journal = Journal(tmp_path, max_bytes=10**7)
    puts = [_put(1, n, pad=200_000) for n in (1, 2, 3)]  # three blocks
    real = os.write

    def full_soon(fd, data):
        if os.fstat(fd).st_size > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_soon)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                journal.append(puts)
    assert (list(tmp_path.iterdir()), journal.size) == ([], 0)
    journal.append(puts)
    assert _ids(journal) == [("e", 1, 1), ("e", 1, 2), ("e", 1, 3)]
    journal.close()
