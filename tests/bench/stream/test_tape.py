"""What the benchmarks offer is what the job would get from the producer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import orjson
import pytest

from pipelines.codec import decode_record
from pipelines.events import BAR, MINUTE_NS, SECOND_NS, bucket_of, parse_time_ns, reject_reason
from pipelines.streaming.parse import parse_records
from tests.bench.__main__ import chosen, suites
from tests.bench.rows import Samples
from tests.bench.stream.latency import LATENCIES, Measured, rows_of
from tests.bench.stream.load import between
from tests.bench.stream.plots import draw
from tests.bench.stream.tape import Cutter, Tape, symbols_of


def test_tape_over_two_minutes_holds_good_messages_and_a_bar_of_each_symbol_and_minute() -> None:
    tape = Tape(symbols_of(30), step_ns=SECOND_NS // 10)
    messages = list(tape.messages(1201, received_ns=1))
    assert {reject_reason(m, market_ns=tape.market_ns) for m in messages} == {None}
    bars = [m for m in messages if m["T"] == BAR]
    assert len({(m["S"], m["t"]) for m in bars}) == len(bars) == 60
    assert parse_time_ns(bars[-1]["t"]) == tape.begin_ns + MINUTE_NS


def test_cutter_over_pieces_leaves_no_hole_and_loses_nothing() -> None:
    tape, cutter = Tape(symbols_of(100), step_ns=SECOND_NS // 10), Cutter("e")
    data = [
        record
        for _ in range(3)
        for _, record in cutter.cut(
            tape.messages(500, received_ns=1), wall_ns=1, market_ns=tape.market_ns
        )
    ]
    parsed = parse_records([(one, 1) for one in data], marks={})
    bars = sum(m["T"] == BAR for one in data for m in decode_record(one).messages)
    assert parsed.counts.stored == 1500 + bars
    assert all(ranges == [(1, ranges[0][1])] for ranges in parsed.accepted["e"].values())
    assert set(parsed.accepted["e"]) == {bucket_of(s) for s in symbols_of(100)}


def test_symbols_of_a_thousand_are_different() -> None:
    assert len(set(symbols_of(1000))) == 1000


def test_between_counts_only_what_came() -> None:
    sent = {("SPY", "a"): 1_000_000, ("SPY", "b"): 2_000_000}
    assert between(sent, {("SPY", "a"): 4_000_000}).values == [3.0]


def test_chosen_part_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ValueError, match="no part x of streaming; there are drain, cost"):
        chosen(["streaming:x"])
    assert list(chosen(["streaming:drain"])) == ["streaming:drain"]
    assert "streaming" in suites()


def test_rows_of_latencies_have_targets_at_their_rate_alone() -> None:
    took = Samples([500.0, 900.0, 3000.0])
    rows = rows_of([Measured("raydp", rate, 3, took, took, 900.0) for rate in (500, 5000)])
    assert [row.met for row in rows] == [*[None] * 4, True, False, True, False, *[True] * 3]


def test_draw_with_results_writes_a_picture(tmp_path: Path) -> None:
    assert draw(tmp_path, tmp_path) == []
    one = Measured("raydp", 500, 1, Samples([400.0]), Samples([410.0]), 900.0)
    document = [{**dataclasses.asdict(one), "took_ms": one.took.values}]
    (tmp_path / LATENCIES).write_bytes(orjson.dumps(document))
    (drawn,) = draw(tmp_path, tmp_path)
    assert drawn.read_bytes().startswith(b"\x89PNG")
