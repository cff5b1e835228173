"""Against our exchange: after interruptions, everything it published is stored once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.events import Message, effective_ns
from pipelines.history import RestHistory
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.producer import Producer
from pipelines.kinesis.batching import Batcher
from pipelines.tape import read_tape
from tests.pipelines.exchange.conftest import exchange  # noqa: F401 (a fixture)
from tests.pipelines.ingest.conftest import MemoryStream, Running

SYMBOLS = ("AAPL", "MSFT", "SPY")


def _plain(message: Message) -> tuple[Any, ...]:
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in message.items()}
    return tuple(sorted((k, v) for k, v in kept.items() if k not in ("r", "bf")))


@pytest.fixture
def market(exchange: Callable[..., Any], tmp_path: Path) -> Any:  # noqa: F811
    return exchange(
        speed=150.0, messages_per_minute=300, max_minutes=7, record_dir=tmp_path / "tape"
    )


def _producer(market: Any, stream: MemoryStream, tmp_path: Path, **changed: Any) -> Running:
    config = ProducerConfig(
        url=market.ws + "/v2/iex",
        key="k",
        secret="s",
        symbols=SYMBOLS,
        clock_url=market.http + "/raytape/clock",
        state_path=tmp_path / "state.json",
        batch_ms=5,
        backoff_first_s=0.3,
        backoff_cap_s=0.5,
        backfill=BackfillConfig(
            delay_s=0.2, chunk=100, interval_s=0.005, retry_first_s=0.1, poll_s=0.05
        ),
    )
    history = RestHistory(base_url=market.http, key="k", secret="s")
    return Running(
        Producer(
            config,
            sink=stream,
            make_batcher=Batcher,
            tail=stream,
            history=history,
            rng=random.Random(1),
            **changed,
        )
    )


def _finished(market: Any) -> bool:
    return bool(market.get("/raytape/clock")["state"] == "finished")


def _is_whole(tape: list[Message], stored: list[Message]) -> int:
    """Whether each message of the tape is stored once, live or backfilled; how many were."""
    gaps = [m for m in stored if m["T"] == "gap"]
    declared = {(g["S"], g["from_ns"], g["to_ns"]) for g in gaps if not g.get("backfilled")}
    filled = {(g["S"], g["from_ns"], g["to_ns"]): g["filled"] for g in gaps if g.get("backfilled")}
    assert filled.keys() == declared
    market = [m for m in stored if m["T"] in "tqb"]
    assert Counter(map(_plain, market)) == Counter(map(_plain, tape))
    late = [m for m in market if m.get("bf")]
    for message in late:
        ns = effective_ns(message)
        assert any(message["S"] == s and from_ns < ns < to_ns for s, from_ns, to_ns in declared)
    assert Counter(m["T"] for m in late) == sum(map(Counter, filled.values()), Counter())
    live = [_plain(m) for m in market if not m.get("bf")]
    for symbol in SYMBOLS:
        mine = [m for m in live if ("S", symbol) in m]
        of_tape = [_plain(m) for m in tape if m["S"] == symbol]
        assert mine == list(filter(set(mine).__contains__, of_tape))
    return len(late)


def test_exchange_connections_dropped_in_session_are_filled_to_the_last_message(
    market: Any, stream: MemoryStream, tmp_path: Path
) -> None:
    running = _producer(market, stream, tmp_path)
    running.until(lambda s: s["acked"] > 100)
    for n in range(1, 4):
        market.post("/raytape/drop")
        running.until(lambda s, n=n: s["reconnects"] >= n and s["state"] == "streaming")
        acked = running.producer.stats()["acked"]
        running.until(  # on a slow machine the market is over before
            lambda s, acked=acked: s["acked"] > acked + 100 or _finished(market)
        )
    market.wait_finished()
    running.until(lambda s: s["backfills_open"] == 0 and s["queued"] == 0)
    assert running.drain()
    market.end(wait=True)  # now all of the tape is on disk
    tape = list(read_tape(tmp_path / "tape"))
    late = _is_whole(tape, stream.messages())
    assert late > 100
    stats = running.producer.stats()
    assert stats["received"] == len(tape)
    assert stats["backfilled"] == late
    assert stats["backfills_failed"] == 0


def test_exchange_producer_that_was_away_fills_what_it_missed(
    market: Any, stream: MemoryStream, tmp_path: Path
) -> None:
    first = _producer(market, stream, tmp_path)
    first.until(lambda s: s["acked"] > 100)
    assert first.drain()
    market.wait(lambda: market.get("/raytape/stats")["published"] > 1000)
    again = _producer(market, stream, tmp_path)
    again.until(lambda s: s["state"] == "streaming")
    market.wait_finished()
    again.until(lambda s: s["backfills_done"] == 3 and s["backfills_open"] == 0)
    assert again.drain()
    market.end(wait=True)
    assert _is_whole(list(read_tape(tmp_path / "tape")), stream.messages()) > 100
