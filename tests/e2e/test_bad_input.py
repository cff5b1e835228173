"""Bad input on the wire of a running platform: quarantined with its reason, the rest stored."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest

from pipelines.lake.query import LakeQuery
from tests.running import Running, until

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
]

FUTURE_PRICE, PAST_PRICE, NEGATIVE_PRICE, GOOD_PRICE = 987.25, 987.5, -5.0, 123.456789
BAD = 7


@pytest.fixture(scope="module")
def quarantine(running: Running) -> list[dict[str, Any]]:
    """What lies in quarantine after one bad batch of everything."""
    now = datetime.fromisoformat(running.get("/v1/system")["market"]["time"])

    def trade(price: float, at: datetime) -> dict[str, Any]:
        stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "T": "t", "S": "AAPL", "i": 1, "x": "V", "p": price, "s": 10,
            "c": ["@"], "z": "C", "t": stamp,
        }  # fmt: skip

    messages = [
        trade(NEGATIVE_PRICE, now),
        trade(FUTURE_PRICE, now + timedelta(days=365)),
        trade(PAST_PRICE, now - timedelta(days=365)),
        {"T": "zz", "S": "AAPL", "what": "is this"},
        trade(GOOD_PRICE, now),
    ]
    corrupt = [b"\xc1 this is no msgpack", msgpack.packb({"T": "t"}), msgpack.packb([7])]
    frames = [base64.b64encode(frame).decode() for frame in corrupt]
    running.exchange("/raytape/inject", {"messages": messages, "frames_b64": frames})
    lake = LakeQuery(running.settings.uri("lake"))
    sql = "SELECT * FROM quarantine"
    until(lambda: lake.sql(sql).num_rows >= BAD, timeout_s=60, what="all in quarantine")
    return lake.sql(sql).to_pylist()


def test_bad_messages_are_quarantined_each_with_its_reason(
    quarantine: list[dict[str, Any]],
) -> None:
    reasons = Counter(row["reason"].split(":")[0] for row in quarantine)
    assert reasons["bad_number"] == 1
    assert reasons["future_event"] == 1
    assert reasons["ancient_event"] == 1
    assert reasons["unknown_type"] == 1
    assert sum(reasons.values()) == BAD, reasons


def test_corrupt_frame_is_kept_as_it_came(quarantine: list[dict[str, Any]]) -> None:
    assert b"\xc1 this is no msgpack" in [row["raw"] for row in quarantine]


def test_rest_of_a_bad_frame_is_stored(running: Running, quarantine: list[dict[str, Any]]) -> None:
    lake = LakeQuery(running.settings.uri("lake"))
    prices = f"SELECT count(*) AS n FROM trades WHERE price = {GOOD_PRICE}"
    assert lake.sql(prices).to_pylist() == [{"n": 1}]
    left_out = (FUTURE_PRICE, PAST_PRICE, NEGATIVE_PRICE)
    bad = f"SELECT count(*) AS n FROM trades WHERE price IN {left_out}"
    assert lake.sql(bad).to_pylist() == [{"n": 0}]


def test_quarantine_is_counted_and_later_data_is_unharmed(
    running: Running,
    quarantine: list[dict[str, Any]],
    record_property: Callable[[str, object], None],
) -> None:
    seen = running.get("/v1/signals/AAPL", limit=1)["items"][0]["event_time"]

    def later() -> bool:
        newest = running.get("/v1/signals/AAPL", limit=1)["items"][0]
        return newest["event_time"] > seen and newest["reason"] is None

    until(later, timeout_s=60, what="a newer signal with an opinion of its own")
    ledger = until(
        lambda: (
            (found := running.get("/v1/ledger"))["quarantined"] == BAD
            and found["imbalance"] is not None
            and found
        ),
        timeout_s=30,
        what="all of it in the ledger",
    )
    settled, surplus = ledger["received"] - ledger["in_flight"], -ledger["imbalance"]
    counts = {"sent": settled, "stored": ledger["stored"]}
    record_property("ledger", {**counts, "lost": max(0, -surplus), "twice": max(0, surplus)})
    assert ledger["lost"] == 0
