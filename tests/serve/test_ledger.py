from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.ledger import ledger
from serve.platform_schemas import StageRow

counts = st.integers(0, 10**9)


@given(counts, counts, counts)
def test_ledger_always_adds_up_and_a_surplus_is_shown(received, stored, quarantined) -> None:
    row = ledger(
        {"received": received},
        {"archive": {"stored": stored, "quarantined": quarantined}},
        as_of="now",
    )
    assert received == stored + quarantined + row["in_flight"] + row["imbalance"]
    assert row["in_flight"] >= 0
    assert (row["imbalance"] < 0) == (stored + quarantined > received)
    assert row["imbalance"] <= 0


def test_message_that_is_nowhere_is_no_longer_in_flight_and_every_stage_is_listed() -> None:
    producer = {"received": 10, "acked": 9}
    streaming = {"archive": {"stored": 6, "quarantined": 0}, "overdue": 2}
    row = ledger(producer, streaming, as_of="")
    assert (row["in_flight"], row["imbalance"]) == (2, 2)
    assert [s["stage"] for s in row["balance"]] == ["producer", "stream", "archive"]
    assert StageRow(**row["balance"][1]).imbalance == 2


def test_ledger_that_knows_a_stage_not_says_no_balance() -> None:
    assert ledger({"received": 1}, None, as_of="now")["imbalance"] is None
    assert ledger(None, {"archive": {"stored": 1, "quarantined": 0}}, as_of="")["imbalance"] is None
