"""The recorder against our exchange: its tape is the exchange's own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgpack import ExtType

from pipelines.clock import wall_ns
from pipelines.errors import FeedFatal
from pipelines.ingest.alpaca_protocol import Data
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.recorder import Recorder, header_of
from pipelines.tape import TapeWriter, read_entries, read_header, read_tape
from tests.pipelines.exchange.conftest import exchange  # noqa: F401 (a fixture)

SYMBOLS = ("AAPL", "MSFT", "SPY")


class Recording:
    """A recorder in a thread, and its tape."""

    def __init__(self, config: ProducerConfig, folder: Path) -> None:
        header = header_of(config, started_ns=wall_ns())
        self.tape = TapeWriter(folder, header=header, max_mb=8)
        self.recorder = Recorder(config, self.tape, rng=random.Random(1))
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.recorder.run()
        except FeedFatal as error:
            self.error = error

    def end(self) -> None:
        self.recorder.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.tape.close()


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[..., Recording]]:
    started: list[Recording] = []

    def start(url: str, **changed: Any) -> Recording:
        settings: dict[str, Any] = {
            "url": url, "key": "k", "secret": "s", "symbols": SYMBOLS,
            "backoff_first_s": 0.05, "backoff_cap_s": 0.1,
        }  # fmt: skip
        started.append(
            Recording(ProducerConfig(**(settings | changed)), tmp_path / f"rec-{len(started)}")
        )
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_recorder_of_a_whole_market_has_what_the_exchange_says_it_published(
    exchange: Callable[..., Any],  # noqa: F811
    record: Callable[..., Recording],
    tmp_path: Path,
    codec: str,
) -> None:
    market = exchange(record_dir=tmp_path / "own")
    recording = record(market.ws + "/v2/iex", codec=codec)
    market.wait_finished()
    recording.end()
    market.end(wait=True)
    own = list(read_entries(tmp_path / "own"))
    mine = list(read_entries(tmp_path / "rec-0"))
    assert len(own) > 300
    assert [(e["c"], e["m"]) for e in mine] == [(e["c"], e["m"]) for e in own]
    assert recording.recorder.stats()["messages"] == len(own)
    header = read_header(tmp_path / "rec-0")
    assert header is not None
    assert (header.feed, header.symbols) == ("iex", SYMBOLS)
    assert header.channels == ("trades", "quotes", "bars")


def test_recorder_of_a_broken_connection_notes_the_gap_and_goes_on(
    exchange: Callable[..., Any],  # noqa: F811
    record: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    market = exchange(record_dir=tmp_path / "own", speed=60.0, max_minutes=60)
    recording = record(market.ws + "/v2/iex")
    market.wait(lambda: recording.recorder.stats()["messages"] > 20)
    assert len(list(read_tape(tmp_path / "rec-0"))) >= 0  # it is read while it is written
    market.post("/raytape/drop")
    market.wait(lambda: recording.recorder.stats()["gaps"] == 1)
    before = recording.recorder.stats()["messages"]
    market.wait(lambda: recording.recorder.stats()["messages"] > before + 20)
    recording.end()
    market.end(wait=True)
    entries = list(read_entries(tmp_path / "rec-0"))
    (place,) = (i for i, e in enumerate(entries) if e["c"] == "gap")
    note = entries[place]
    assert entries[place - 1]["w"] <= note["m"]["since"] <= note["w"] <= entries[place + 1]["w"]
    assert note["m"]["reason"]
    own, mine = list(read_tape(tmp_path / "own")), list(read_tape(tmp_path / "rec-0"))
    assert mine[:place] == own[:place]
    rest = own.index(mine[place])
    assert mine[place:] == own[rest : rest + len(mine) - place]


def test_recorder_keeps_frames_that_are_no_messages(
    exchange: Callable[..., Any],  # noqa: F811
    record: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    market = exchange(max_minutes=60, speed=1.0)
    recording = record(market.ws + "/v2/iex")
    market.wait(lambda: recording.recorder.state == "recording")
    market.post("/raytape/inject", {"frames_b64": ["wQ=="]})
    market.wait(lambda: recording.recorder.stats()["raw_frames"] == 1)
    recording.end()
    assert [e["b64"] for e in read_entries(tmp_path / "rec-0") if e["c"] == "raw"] == ["wQ=="]


_DEEP: list[Any] = []
for _ in range(3000):
    _DEEP = [_DEEP]


@pytest.mark.parametrize(
    "odd",
    [
        {"T": "t", "S": "\ud800"},
        {"T": "t", "p": float("nan"), "i": 123456789012345678901},
        {"T": "t", "i": 10**22},
        {"T": "t", "x": _DEEP},
        b"\x00",
        ExtType(5, b"x"),
        "\ud800",
    ],
    ids=range(7),
)
def test_recorder_keeps_what_msgpack_cannot_hold_raw_and_the_rest_in_order(
    tmp_path: Path, odd: Any
) -> None:
    config = ProducerConfig(url="ws://x/v2/iex", key="k", secret="s", symbols=SYMBOLS)
    tape = TapeWriter(tmp_path, header=header_of(config, started_ns=1), max_mb=8)
    recorder = Recorder(config, tape)
    good = [{"T": "q", "S": "SPY", "t": "2024-01-02T15:00:00Z", "bp": n} for n in range(2)]
    recorder._handle(Data([good[0], odd, good[1]]), 7)
    tape.close()
    entries = list(read_entries(tmp_path))
    assert [e.get("m") for e in entries] == [good[0], None, good[1]]
    assert recorder.stats()["by_channel"] == {"quotes": 2}
    assert recorder.stats()["raw_frames"] == 1


def test_recorder_that_is_refused_for_good_says_so(
    exchange: Callable[..., Any],  # noqa: F811
    record: Callable[..., Recording],
) -> None:
    market = exchange(feeds=("iex",))
    recording = record(market.ws + "/v2/sip")
    market.wait(lambda: recording.error is not None)
    assert recording.recorder.state == "stopped"
