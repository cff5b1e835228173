"""The whole platform against the exchange's own record of what it sent, with parts killed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import parts
from pipelines.codec import decode_items
from pipelines.events import MINUTE_NS, NEWS, effective_ns, parse_time_ns
from pipelines.kinesis.reader import StreamReader
from pipelines.lake.query import LakeQuery
from pipelines.tape import read_tape
from tests.running import FAST, Running, platform, until

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
]

SYMBOLS = ("AAPL", "MSFT", "SPY", "QQQ", "IWM", "TSLA")
TABLES = {"t": "trades", "q": "quotes", "b": "bars"}
Key = tuple[str, str, int]  # type, symbol, event time in ns: unique on our exchange


@dataclass(frozen=True)
class Outcome:
    """What a session left behind, after a drain."""

    sent: list[dict[str, Any]]
    rows: dict[str, list[dict[str, Any]]]
    others: int
    gaps: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    published: list[dict[str, Any]]
    ledger: dict[str, Any]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """A known session in which the producer and the Spark driver are killed once each."""
    folder = tmp_path_factory.mktemp("platform")
    with platform(
        folder, symbols=",".join(SYMBOLS), speed=20, max_minutes=36, messages_per_minute=60, **FAST
    ) as running:
        await_signals(running, 12)
        kill(running, "producer")
        state_of(running, "producer", "streaming", timeout_s=60)
        await_signals(running, 18)
        kill(running, "streaming")
        state_of(running, "streaming", "running", timeout_s=120)
        until(
            lambda: running.exchange("/raytape/clock")["state"] == "finished",
            timeout_s=180,
            what="the exchange has played its minutes",
        )
        assert running.ask("producer", "drain", 20.0)
        assert running.ask("streaming", "drain", 60.0, timeout_s=70)
        yield collect(running, folder)


def await_signals(running: Running, minutes: int) -> None:
    """Wait until the platform has decided on so many minutes of the first symbol."""
    path = f"/v1/signals/{SYMBOLS[0]}"
    until(
        lambda: len(running.get(path, limit=100)["items"]) >= minutes,
        timeout_s=120,
        what=f"{minutes} signals of {SYMBOLS[0]}",
    )


def kill(running: Running, actor: str) -> None:
    """kill -9 of an actor's process; Ray starts it again."""
    running.cli("kill", actor)


def state_of(running: Running, actor: str, state: str, *, timeout_s: float) -> None:
    until(
        lambda: (running.ask(actor, "stats") or {}).get("state") == state,
        timeout_s=timeout_s,
        what=f"{actor} is {state}",
    )


def collect(running: Running, folder: Path) -> Outcome:
    lake = LakeQuery(running.settings.uri("lake"))
    order = "ORDER BY symbol, received_at_ns, bseq, position"
    rows = {t: lake.sql(f"SELECT * FROM {name} {order}").to_pylist() for t, name in TABLES.items()}
    config = parts.kinesis_config(running.settings)
    reader = StreamReader(config, config.market_signals, start="TRIM_HORIZON")
    items: dict[str, dict[str, Any]] = {}
    while True:
        records = reader.poll()
        for record in records:
            items.update((item["id"], item) for item in decode_items(record.data))
        if not records and reader.at_tip:
            break
    reader.close()
    return Outcome(
        sent=[m for m in read_tape(folder / "exchange" / "tape") if m["T"] in TABLES],
        rows=rows,
        others=sum(
            lake.sql(f"SELECT count(*) AS n FROM {name}").to_pylist()[0]["n"]
            for name in ("events", "corrections")
        ),
        gaps=lake.sql("SELECT * FROM gaps").to_pylist(),
        signals=lake.sql("SELECT * FROM signals").to_pylist(),
        published=[item for item in items.values() if item["kind"] == "signal"],
        ledger=running.get("/v1/ledger"),
    )


def sent_keys(outcome: Outcome) -> list[Key]:
    return [(m["T"], m["S"], parse_time_ns(m["t"])) for m in outcome.sent]


def stored_keys(outcome: Outcome, *, backfilled: bool | None = None) -> list[Key]:
    """Keys of rows: of all, or of those that came live or were fetched later."""
    return [
        (kind, row["symbol"], row["event_time_ns"])
        for kind, rows in outcome.rows.items()
        for row in rows
        if backfilled is None or bool(row["backfilled"]) is backfilled
    ]


def in_gap(outcome: Outcome, message: dict[str, Any], *, ends: bool = True) -> bool:
    """Whether a message lies in a gap of its symbol; ``ends``: or at its first or last instant."""
    at, inset = effective_ns(message), 0 if ends else 1
    return any(
        gap["symbol"] == message["S"] and (gap["from_ns"] or 0) + inset < at < gap["to_ns"] - inset
        for gap in outcome.gaps
    )


def test_each_message_sent_is_a_row_or_in_a_gap(outcome: Outcome) -> None:
    live = set(stored_keys(outcome, backfilled=False))
    for message, key in zip(outcome.sent, sent_keys(outcome), strict=True):
        if key in live:  # of the instants at a gap's ends some may be stored
            assert not in_gap(outcome, message, ends=False), (key, outcome.gaps)
        else:
            assert in_gap(outcome, message), (key, outcome.gaps)
    assert live <= set(sent_keys(outcome))


def test_backfilled_rows_are_what_was_missed_in_gaps(outcome: Outcome) -> None:
    missed = {
        key
        for message, key in zip(outcome.sent, sent_keys(outcome), strict=True)
        if in_gap(outcome, message)
    }
    assert set(stored_keys(outcome, backfilled=True)) <= missed


def test_killed_producer_declares_a_gap_for_every_symbol(outcome: Outcome) -> None:
    assert {gap["symbol"] for gap in outcome.gaps} - {NEWS} == set(SYMBOLS)


def test_no_message_is_stored_twice(outcome: Outcome) -> None:
    twice = [key for key, n in Counter(stored_keys(outcome)).items() if n > 1]
    assert twice == []


def test_rows_of_a_symbol_keep_the_order_sent(outcome: Outcome) -> None:
    position = {key: i for i, key in enumerate(sent_keys(outcome))}
    for kind, rows in outcome.rows.items():
        by_symbol: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            if not row["backfilled"]:
                key = (kind, row["symbol"], row["event_time_ns"])
                by_symbol[row["symbol"]].append(position[key])
        for symbol, order in by_symbol.items():
            assert order == sorted(order), (kind, symbol)


def test_every_closed_bar_has_one_signal(outcome: Outcome) -> None:
    count = Counter((s["symbol"], s["event_time"]) for s in outcome.signals)
    for row in outcome.rows["b"]:
        if row["backfilled"]:
            continue  # its minute was decided on without it, or not at all
        assert count[row["symbol"], row["event_time"]] == 1, (row["symbol"], row["event_time"])
    assert set(count.values()) == {1}


def test_signals_on_the_stream_are_those_of_the_lake(outcome: Outcome) -> None:
    def of_lake(row: dict[str, Any]) -> tuple[Any, ...]:
        at = int(row["event_time"].timestamp()) * 10**9
        return row["symbol"], at, row["action"], row["confidence"], row["model_id"]

    def of_stream(item: dict[str, Any]) -> tuple[Any, ...]:
        data = item["data"]
        at = parse_time_ns(item["event_time"])
        return item["symbol"], at, data["action"], data["confidence"], data["model"]["id"]

    assert sorted(map(of_lake, outcome.signals)) == sorted(map(of_stream, outcome.published))


def test_ledger_accounts_for_every_message(outcome: Outcome) -> None:
    ledger = outcome.ledger
    assert ledger["lost"] == ledger["holes"] == 0
    assert ledger["in_flight"] == 0
    assert ledger["stored"] == len(stored_keys(outcome)) + outcome.others
    assert ledger["received"] == ledger["stored"] + ledger["duplicates"] + ledger["quarantined"]


def test_bars_of_whole_minutes_equal_their_trades(outcome: Outcome) -> None:
    trades: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in outcome.rows["t"]:
        trades[row["symbol"], row["event_time_ns"] // MINUTE_NS].append(row)
    whole = 0
    for bar in outcome.rows["b"]:
        inside = trades[bar["symbol"], bar["event_time_ns"] // MINUTE_NS]
        if len(inside) == bar["trade_count"]:
            whole += 1
            inside.sort(key=lambda row: row["event_time_ns"])  # backfilled ones came later
            prices = [row["price"] for row in inside]
            assert (prices[0], max(prices), min(prices), prices[-1]) == (
                bar["open"],
                bar["high"],
                bar["low"],
                bar["close"],
            )
            assert sum(row["size"] for row in inside) == bar["volume"]
    assert whole > len(outcome.rows["b"]) / 2
