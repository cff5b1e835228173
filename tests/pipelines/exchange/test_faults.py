"""The fault script: what a file may say, and what is decided when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.events import SECOND_NS, parse_time_ns
from pipelines.exchange import faults as faults_module
from pipelines.exchange.controls import FAULT_ROUTES
from pipelines.exchange.distortions import at_source, on_the_way
from pipelines.exchange.fault_entries import _PARAMETERS, load_faults, parse_faults
from pipelines.exchange.faults import Fault, FaultScript
from pipelines.exchange.frames import Batch, Key
from pipelines.exchange.rest import ROUTES
from tests.pipelines.exchange.conftest import Running

OPEN = parse_time_ns("2024-07-02T13:30:00Z")
S = SECOND_NS
ROOT = Path(__file__).parents[3]


def _faults(*entries: dict[str, Any]) -> tuple[Fault, ...]:
    return parse_faults(list(entries), source="test")


def _script(*entries: dict[str, Any]) -> FaultScript:
    script = FaultScript()
    script.add(_faults(*entries), wall_ns=0)
    return script


def _began(script: FaultScript, wall_ns: int, market_ns: int | None = None) -> list[str]:
    began, _ = script.step(wall_ns=wall_ns, market_ns=market_ns, open_ns=OPEN)
    return [fault.do for fault in began]


def test_script_fault_without_a_time_begins_at_once() -> None:
    script = _script({"do": "drop"})
    assert _began(script, 0) == ["drop"]
    assert _began(script, 10 * S) == []


def test_script_wall_offset_counts_from_when_it_was_added() -> None:
    script = FaultScript()
    script.add(_faults({"do": "drop", "at": "+2s"}), wall_ns=5 * S)
    assert _began(script, 6 * S) == []
    assert _began(script, 7 * S) == ["drop"]


def test_script_repeated_fault_begins_so_many_times() -> None:
    script = _script({"do": "drop", "at": "+1s", "every": "2s", "times": 3})
    began = [t for t in range(20) if _began(script, t * S)]
    assert began == [1, 3, 5]


def test_script_missed_moments_are_not_made_up_for() -> None:
    script = _script({"do": "drop", "every": "1s"})
    assert _began(script, 100 * S + 1) == ["drop"]
    assert _began(script, 100 * S + 2) == []
    assert _began(script, 101 * S) == ["drop"]


def test_script_market_offset_waits_for_the_opening() -> None:
    script = _script({"do": "drop", "at": "open+5m"})
    assert _began(script, 10**18) == []
    assert _began(script, 10**18, OPEN + 299 * S) == []
    assert _began(script, 10**18, OPEN + 300 * S) == ["drop"]


def test_script_time_of_day_is_new_yorks_and_the_next_one() -> None:
    script = _script({"do": "drop", "at": "09:45:00"}, {"do": "cancel", "at": "09:00:00"})
    assert _began(script, 0, OPEN) == []
    assert _began(script, 0, parse_time_ns("2024-07-02T13:45:00Z")) == ["drop"]
    assert _began(script, 0, parse_time_ns("2024-07-03T12:59:59Z")) == []
    assert _began(script, 0, parse_time_ns("2024-07-03T13:30:00Z")) == ["cancel"]


def test_script_window_lasts_its_seconds_and_ends_once() -> None:
    script = _script({"do": "mute", "for_s": 3, "feed": "iex"})
    script.step(wall_ns=0)
    assert [f.do for f in script.lasting("mute", "iex")] == ["mute"]
    assert not list(script.lasting("mute", "sip"))
    assert not list(script.lasting("slow", "iex"))
    assert script.step(wall_ns=3 * S - 1) == ([], [])
    _, ended = script.step(wall_ns=3 * S)
    assert [f.do for f in ended] == ["mute"]
    assert script.windows == ()
    assert script.step(wall_ns=4 * S) == ([], [])


def test_script_refusal_is_for_its_place_and_feed() -> None:
    script = _script(
        {"do": "refuse", "code": 406, "feed": "iex"},
        {"do": "refuse", "code": 429, "feed": "sip"},
        {"do": "refuse", "code": 405, "feed": "news"},
        {"do": "refuse", "code": 401, "where": "handshake", "feed": "test"},
    )
    script.step(wall_ns=0)
    assert script.refusal("iex", "auth") == 406
    assert script.refusal("iex", "handshake") is None
    assert script.refusal("sip", "handshake") == 429
    assert script.refusal("news", "subscribe") == 405
    assert script.refusal("test", "handshake") == 401


def test_script_cleared_has_nothing_left() -> None:
    script = _script({"do": "mute"}, {"do": "drop", "at": "+9s"})
    script.step(wall_ns=0)
    script.clear()
    assert script.windows == ()
    assert _began(script, 100 * S) == []
    assert script.to_list() == []


def test_script_list_says_how_often_and_until_when() -> None:
    script = _script({"do": "mute", "for_s": 2})
    script.step(wall_ns=S)
    assert script.to_list() == [{"do": "mute", "for_s": 2, "fired": 1, "until_ns": 3 * S}]


@given(st.lists(st.integers(0, 60 * S), max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_script_begins_never_more_often_than_its_period_allows(
    moments: list[int], every: int, times: int
) -> None:
    script = _script({"do": "drop", "every": f"{every}s", "times": times})
    began = [t for t in sorted(moments) if _began(script, t)]
    assert len(began) <= times
    assert len({t // (every * S) for t in began}) == len(began)


@pytest.mark.parametrize(
    ("entry", "said"),
    [(3, "entry 1: must be an object"), ({}, "do=None: must be one of drop"),
     ({"do": "explode"}, "do='explode': must be one of drop"),
     ({"do": "drop", "at": "30s"}, r"\(drop\), at='30s': must be like \+30s"),
     ({"do": "drop", "at": "25:00:00"}, "at='25:00:00'"),
     ({"do": "drop", "at": 30}, "at=30"), ({"do": "drop", "every": "1w"}, "every='1w'"),
     ({"do": "drop", "times": 2}, "times=2: needs every"),
     ({"do": "drop", "every": "1s", "times": 0}, "times=0"),
     ({"do": "drop", "for_s": 3}, "unknown field for_s; usable: at, close_code, do, every"),
     ({"do": "drop", "close_code": 7}, "close_code=7"), ({"do": "mute", "for_s": -1}, "for_s=-1"),
     ({"do": "mute", "feed": "otc"}, "feed='otc': must be one of iex"),
     ({"do": "mute", "symbols": []}, r"symbols=\[\]"), ({"do": "refuse"}, "code=None"),
     ({"do": "refuse", "code": 999}, "code=999: must be one of 401, 402"),
     ({"do": "refuse", "code": 405, "where": "handshake"}, "code=405"),
     ({"do": "refuse", "code": 406, "where": "door"}, "where='door'"),
     ({"do": "error", "code": 429}, "code=429: must be one of 400"),
     ({"do": "garbage", "b64": "?"}, r"b64='\?': must be bytes in base64"),
     ({"do": "skew", "feed": "iex"}, "feed='iex': is published"),
     ({"do": "duplicate", "share": 1.5}, "share=1.5"),
     ({"do": "bad_price", "values": 3}, "values=3: must be a list")],
)  # fmt: skip
def test_entry_that_is_wrong_is_named_with_field_value_and_way_out(entry: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_faults([entry], source="test")


def test_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    with pytest.raises(ConfigError, match=r"faults\.json: cannot be read"):
        load_faults(path)
    path.write_bytes(orjson.dumps([{"do": "drop"}, {"do": "mute", "for_s": "x"}]))
    with pytest.raises(ConfigError, match=r"faults\.json, entry 2 \(mute\), for_s='x'"):
        load_faults(path)
    path.write_bytes(b"{}")
    with pytest.raises(ConfigError, match="must be an array"):
        load_faults(path)


def test_every_kind_of_fault_is_in_the_documented_table() -> None:
    told = {line.split()[0] for line in (faults_module.__doc__ or "").splitlines() if line.split()}
    page = (ROOT / "docs" / "EXCHANGE.md").read_text()
    for kind in _PARAMETERS:
        assert kind in told, kind
        assert f"| `{kind}` |" in page, kind


def test_every_control_is_in_the_documented_table() -> None:
    page = (ROOT / "docs" / "EXCHANGE.md").read_text()
    for route in (*ROUTES, *FAULT_ROUTES):
        assert f"| `{route.method} {route.path}` |" in page


def test_sample_script_runs_and_has_every_kind(exchange: Callable[..., Running]) -> None:
    running = exchange(
        faults=ROOT / "examples" / "faults.json", open_on="start", speed=1200.0, max_minutes=30
    )
    running.wait(lambda: all(entry["fired"] for entry in running.get("/raytape/faults")))
    assert {entry["do"] for entry in running.get("/raytape/faults")} == set(_PARAMETERS)


def _parts(*symbols: str) -> list[tuple[bytes, Key]]:
    return [(str(n).encode(), ("trades", s)) for n, s in enumerate(symbols)]


def test_way_muted_symbols_are_missing() -> None:
    now, later, _ = on_the_way(
        _parts("A", "B", "A"), _faults({"do": "mute", "symbols": ["A"]}), Random(1)
    )
    assert (now, later) == ([b"1"], [])


def test_way_delayed_messages_come_later_in_order() -> None:
    windows = _faults({"do": "delay", "delay_s": 2, "symbols": ["A"]})
    assert on_the_way(_parts("A", "B", "A"), windows, Random(1)) == ([b"1"], [b"0", b"2"], 2.0)


@given(st.lists(st.sampled_from("AB"), max_size=20), st.integers(0, 99))
def test_way_duplicate_and_disorder_lose_and_invent_nothing(symbols: list[str], seed: int) -> None:
    parts = _parts(*symbols)
    windows = _faults({"do": "disorder"}, {"do": "duplicate", "share": 0.5})
    now, later, _ = on_the_way(parts, windows, Random(seed))
    assert not later
    assert set(now) == {text for text, _ in parts}
    assert all(now.count(text) in (1, 2) for text in now)


def _batch() -> Batch:
    keys: list[Key] = [("trades", "A"), ("quotes", "B"), ("bars", "A")]
    return Batch([{"T": "t"}, {"T": "q"}, {"T": "b"}], times_ns=[OPEN, OPEN, OPEN], keys=keys)


def test_source_halted_symbol_is_silent() -> None:
    halted = at_source(_batch(), _faults({"do": "halt", "symbols": ["A"]}))
    assert halted is not None
    assert halted.keys == [("quotes", "B")]
    assert at_source(_batch(), _faults({"do": "halt"})) is None


def test_source_skew_moves_ticks_not_bars() -> None:
    skewed = at_source(_batch(), _faults({"do": "skew", "skew_s": -5}))
    assert skewed is not None
    assert skewed.times_ns == [OPEN - 5 * S, OPEN - 5 * S, OPEN]


def test_source_leaves_injected_messages_alone() -> None:
    batch = Batch.injected([{"T": "s", "S": "A"}])
    assert at_source(batch, _faults({"do": "halt"}, {"do": "skew"})) is batch


def test_first_day_moment_crosses_the_change_of_the_clocks() -> None:
    script = _script({"do": "drop", "at": "09:30:00"})
    friday_evening = parse_time_ns("2024-03-08T21:00:00Z")
    monday = datetime.fromisoformat("2024-03-11T09:30:00-04:00")
    assert _began(script, 0, friday_evening) == []
    assert _began(script, 0, int(monday.timestamp()) * S) == ["drop"]
