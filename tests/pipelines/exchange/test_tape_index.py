"""Ticks of a tape, read where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, SECOND_NS, Message, format_time_ns, parse_time_ns
from pipelines.exchange import tape_index
from pipelines.exchange.recorded import RecordedMarket
from pipelines.exchange.tape_index import TapeIndex
from pipelines.exchange.tick_history import TickHistory, TickQuery
from pipelines.tape import TapeHeader, TapeWriter

OPENS = parse_time_ns("2024-07-02T13:30:00Z")
HEADER = TapeHeader(feed="iex", source="test", started_ns=1)
MINUTES = 60


def _tick(number: int, at_ns: int, *, symbol: str = "SPY", kind: str = "t") -> Message:
    return {"T": kind, "S": symbol, "i": number, "x": f"{number**5}",
            "t": format_time_ns(OPENS + at_ns)}  # fmt: skip


def _ticks(late: Sequence[int] = ()) -> list[Message]:
    """Ticks second by second; each ``late`` one is of minute 3 but lies at that second."""
    made = []
    for second in range(MINUTES * 60):
        symbol, kind = ("SPY", "AAPL")[second % 2], ("t", "q", "q")[second % 3]
        made.append(_tick(second, second * SECOND_NS + 7, symbol=symbol, kind=kind))
        if second in late:
            made.append(_tick(10**6 + second, 3 * MINUTE_NS + second))
    return made


def _tape(folder: Path, messages: Sequence[Message], *, files: int = 2) -> Path:
    per_file = -(-len(messages) // files)
    for start in range(0, len(messages), per_file):
        tape = TapeWriter(folder, header=HEADER, max_mb=64)
        for i, message in enumerate(messages[start : start + per_file]):
            tape.write_messages([message], wall_ns=i * SECOND_NS // 50)
            tape.flush_if_due(i * SECOND_NS // 50)
        tape.close()
    return folder


def _indexed(path: Path, part_bytes: int) -> TapeIndex:
    index = TapeIndex(path, part_bytes=part_bytes)
    for entry in index.entries():
        index.note(entry["m"])
    return index


def _expected(messages: Sequence[Message], first: int, last: int, symbols: set[str]) -> list[int]:
    window = (OPENS + first * MINUTE_NS, OPENS + last * MINUTE_NS)
    return sorted(
        m["i"] for m in messages
        if m["S"] in symbols and window[0] <= parse_time_ns(m["t"]) < window[1]
    )  # fmt: skip


MESSAGES = _ticks(late=(1700, 3599))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tape(tmp_path_factory.mktemp("tape"), MESSAGES)


@settings(max_examples=10)
@example(1000, 0, MINUTES, {"SPY"})
@given(
    st.sampled_from([200, 1000, 5000, 10**9]),
    st.integers(-2, MINUTES), st.integers(1, MINUTES),
    st.sets(st.sampled_from(["SPY", "AAPL", "NOPE"])),
)  # fmt: skip
def test_index_gives_each_tick_of_a_piece_once(
    path: Path, part_bytes: int, first: int, length: int, symbols: set[str]
) -> None:
    index = _indexed(path, part_bytes)
    piece = (OPENS + first * MINUTE_NS, OPENS + (first + length) * MINUTE_NS)
    found = [t.message["i"] for t in index.ticks(piece, tuple(symbols))]
    assert sorted(found) == _expected(MESSAGES, first, first + length, symbols)


def test_index_ticks_far_behind_their_minute_are_read_where_they_lie_when_there_are_too_many(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape_index, "_STRAYS", 1)
    index = _indexed(path, 1000)
    piece = (OPENS + 3 * MINUTE_NS, OPENS + 4 * MINUTE_NS)
    found = [t.message["i"] for t in index.ticks(piece, ("SPY",))]
    assert sorted(found) == _expected(MESSAGES, 3, 4, {"SPY"})
    assert max(found) == 10**6 + 3599


def _counted(index: TapeIndex, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    read, inner = list[int](), index._read

    def reading(number: int, wanted: Any) -> Iterator[Any]:
        read.append(number)
        return inner(number, wanted)

    monkeypatch.setattr(index, "_read", reading)
    return read


def test_index_reads_no_more_than_it_must(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = _indexed(path, 1000)
    assert len(index._parts) > 20
    read = _counted(index, monkeypatch)
    piece = (OPENS + 30 * MINUTE_NS, OPENS + 31 * MINUTE_NS)
    assert len(list(index.ticks(piece, ("SPY",)))) == 30
    assert len(read) <= 4
    read.clear()
    assert list(index.ticks(piece, ("NOPE",))) == []
    assert list(index.ticks((OPENS - MINUTE_NS, OPENS), ("SPY",))) == []
    assert read == []


def test_history_of_a_tape_pages_through_late_trades_in_their_own_order(path: Path) -> None:
    market = RecordedMarket(path)
    history = TickHistory(market, ticks=market.ticks, together=True)
    query = TickQuery("trades", ("AAPL", "SPY"), OPENS, OPENS + MINUTES * MINUTE_NS, limit=97)
    found: dict[str, list[Message]] = {}
    for _ in range(100):
        page, token = history.page(query, now_ns=OPENS + MINUTES * MINUTE_NS)
        for symbol, rows in page.items():
            found.setdefault(symbol, []).extend(rows)
        if token is None:
            break
        query = TickQuery(**{**{f: getattr(query, f) for f in query.__slots__}, "token": token})
    for symbol, rows in found.items():
        times = [parse_time_ns(row["t"]) for row in rows]
        assert times == sorted(times)
        trades = [m for m in MESSAGES if m["T"] == "t"]
        assert sorted(row["i"] for row in rows) == _expected(trades, 0, MINUTES, {symbol})
