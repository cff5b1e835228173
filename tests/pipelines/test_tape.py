from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.codec import TIME_KEYS, encode_msgpack
from pipelines.errors import ConfigError
from pipelines.tape import (
    TapeHeader,
    TapePart,
    TapeWriter,
    read_entries,
    read_header,
    read_tape,
    tape_files,
)

HEADER = TapeHeader(
    feed="iex", source="wss://feed", started_ns=7, symbols=("A",), channels=("trades",)
)


def _writer(folder: Path, *, max_mb: int = 8) -> TapeWriter:
    return TapeWriter(folder, header=HEADER, max_mb=max_mb)


def _write(
    tape: TapeWriter, first: int, count: int = 3, *, wall_ns: int = 0, pad: str = ""
) -> None:
    for i in range(first, first + count):
        message = {"T": "t", "S": "A", "i": i, "x": pad, "t": "2024-07-02T13:30:00.5Z"}
        tape.write_messages([message], wall_ns=wall_ns)


def _ids(path: Path) -> list[int]:
    return [m["i"] for m in read_tape(path)]


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=5,
)


_message = st.dictionaries(st.text(max_size=12), _json, max_size=6).map(
    lambda m: {k: v for k, v in m.items() if k not in TIME_KEYS}
)


@settings(max_examples=25)
@given(
    st.lists(st.lists(_message, max_size=6), max_size=4),
    st.lists(st.binary(max_size=20), max_size=4),
)
def test_tape_round_trip_gives_back_every_entry(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[dict[str, Any]]],
    frames: list[bytes],
) -> None:
    folder = tmp_path_factory.mktemp("tape")
    tape = _writer(folder)
    for wall_ns, messages in enumerate(batches):
        tape.write_messages(messages, wall_ns=wall_ns)
    for frame in frames:
        tape.write_raw(frame, wall_ns=0)
    tape.close()
    entries = list(read_entries(folder))
    written = [(i, message) for i, messages in enumerate(batches) for message in messages]
    assert [(e["w"], e["m"]) for e in entries if e["c"] != "raw"] == written
    raw = [base64.b64decode(e["b64"]) for e in entries if e["c"] == "raw"]
    assert raw == frames
    assert list(read_tape(folder)) == [message for _, message in written]


def test_tape_says_what_it_is_in_every_file(tmp_path: Path) -> None:
    for run in range(2):
        tape = _writer(tmp_path)
        _write(tape, 3 * run)
        tape.close()
    assert len(tape_files(tmp_path)) == 2
    assert [read_header(file) for file in tape_files(tmp_path)] == [HEADER, HEADER]
    assert read_header(tmp_path) == HEADER
    assert _ids(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert _ids(tape_files(tmp_path)[1]) == [3, 4, 5]


def test_tape_gap_note_is_an_entry_but_no_message(tmp_path: Path) -> None:
    tape = _writer(tmp_path)
    tape.write_gap(since_ns=3, reason="dropped", wall_ns=9)
    tape.close()
    assert list(read_entries(tmp_path)) == [
        {"c": "gap", "w": 9, "m": {"since": 3, "reason": "dropped"}}
    ]
    assert list(read_tape(tmp_path)) == []


NO_TAPES = [b"no gzip", gzip.compress(b"\xc1", mtime=0), gzip.compress(b"\x91\x01", mtime=0)]


@pytest.mark.parametrize("data", NO_TAPES)
def test_tape_that_is_none_is_refused_with_its_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tape-000001.msgpack.gz").write_bytes(data)
    with pytest.raises(ConfigError, match=r"tape-000001.* is no tape"):
        list(read_entries(tmp_path))


def test_tape_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tape-000001.msgpack.gz"
    path.write_bytes(gzip.compress(encode_msgpack({"raytape_tape": 2, "feed": "iex"})))
    with pytest.raises(ConfigError, match="version 2"):
        read_header(tmp_path)


def test_tape_being_written_is_read_as_far_as_it_was_flushed(tmp_path: Path) -> None:
    tape = _writer(tmp_path)
    assert read_header(tmp_path) == HEADER
    _write(tape, 0)
    tape.flush_if_due(10**9)
    _write(tape, 3, wall_ns=10**9)
    assert _ids(tmp_path) == [0, 1, 2]
    tape.close()
    assert _ids(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_tape_cut_by_a_crash_is_read_up_to_the_last_whole_entry(tmp_path: Path) -> None:
    tape = _writer(tmp_path)
    _write(tape, 0, 300)
    tape.close()
    (path,) = tape_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    ids = _ids(tmp_path)
    assert ids == list(range(len(ids)))
    assert 0 < len(ids) < 300


def test_tape_over_its_budget_drops_its_oldest_files(tmp_path: Path) -> None:
    tape = _writer(tmp_path, max_mb=1)
    rng = np.random.default_rng(1)
    for i in range(40):
        _write(tape, i, 1, wall_ns=i * 10**9, pad=rng.bytes(30_000).hex())
        tape.flush_if_due(i * 10**9)
    tape.close()
    stats = tape.stats()
    assert stats["dropped_files"] > 0
    assert stats["bytes"] <= 1024 * 1024
    ids = _ids(tmp_path)
    assert ids == list(range(ids[0], 40))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3000), st.integers(1, 700))
def test_tape_is_read_on_from_any_copy(tmp_path: Path, cut: int, at_once: int) -> None:
    if not tape_files(tmp_path):
        tape = _writer(tmp_path)
        for i in range(40):
            _write(tape, 3 * i, pad=f"{i**9}", wall_ns=i * 10**9)
            tape.flush_if_due(i * 10**9)
        tape.close()
    (path,) = tape_files(tmp_path)
    part = TapePart(path)
    first = list(part.read(until=cut, at_once=at_once))
    twin = part.copy()
    rest = list(part.read())
    assert list(twin.read()) == rest
    assert first + rest == list(TapePart(path).read())
    assert len(first) + len(rest) == 121
