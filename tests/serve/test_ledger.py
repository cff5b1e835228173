from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.ledger import ledger

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


def test_ledger_that_knows_a_stage_not_says_no_balance() -> None:
    assert ledger({"received": 1}, None, as_of="now")["imbalance"] is None
    assert ledger(None, {"archive": {"stored": 1, "quarantined": 0}}, as_of="")["imbalance"] is None
