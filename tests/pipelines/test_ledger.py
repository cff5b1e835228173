"""The balance of every stage, whatever its numbers say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipelines.kinesis.batching import SPILL_MESSAGES
from pipelines.ledger import RECORD_MESSAGES, Declared, Overdue, rows

counts = st.integers(0, 10**9)
some = counts | st.none()
producers = st.none() | st.fixed_dictionaries({"received": some, "acked": some, "gaps": some})
archives = st.fixed_dictionaries(
    dict.fromkeys(("stored", "duplicates", "quarantined", "holes", "gaps"), counts)
) | st.just({})


@given(producers, archives, counts, counts, some)
def test_rows_balance_at_every_stage_and_nothing_in_flight_is_negative(
    producer: Any, archive: Any, bars: int, signals: int, overdue: int | None
) -> None:
    said = {"archive": archive, "signals": {"bars": bars, "signals": signals}}
    for row in rows(producer, said, overdue=overdue):
        places = ("stored", "duplicates", "quarantined", "in_flight", "imbalance")
        assert row["received"] == sum(row[place] for place in places), row
        assert row["in_flight"] >= 0


@given(counts, counts, st.integers(0, 100))
def test_message_that_is_nowhere_after_a_minute_is_an_imbalance_and_before_in_flight(
    stored: int, quarantined: int, lost: int
) -> None:
    producer = {"received": stored + quarantined + lost, "acked": stored + quarantined + lost}
    archive = {"stored": stored, "quarantined": quarantined}
    overdue = Overdue(after_s=60)
    for now_s, missed in ((0, 0), (59, 0), (60, lost), (600, lost)):
        found = overdue.note(producer["acked"], stored + quarantined, now_s=now_s)
        (row,) = (r for r in rows(producer, {"archive": archive}, overdue=found)
                  if r["stage"] == "stream")  # fmt: skip
        assert (row["imbalance"], row["in_flight"]) == (missed, lost - missed)


def test_archive_that_is_behind_the_tip_is_late_and_loses_nothing() -> None:
    archive = {"stored": 1, "quarantined": 0, "lag": {"shard-0": {"ms": 60_000, "records": 9}}}
    stream = rows({"received": 9, "acked": 9}, {"archive": archive}, overdue=8)[1]
    assert (stream["in_flight"], stream["imbalance"]) == (8, 0)


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_overdue_is_what_was_sent_a_minute_ago_and_is_not_stored(steps: list[Any]) -> None:
    overdue, history, now_s, sent, stored = Overdue(after_s=60), [], 0.0, 0, 0
    for later_s, more_sent, more_stored in steps:
        now_s, sent, stored = now_s + later_s, sent + more_sent, stored + more_stored
        history.append((now_s, sent))
        old = [n for at_s, n in history if now_s - at_s >= 60]
        wanted = max(0, old[-1] - stored) if old else None
        assert overdue.note(sent, stored, now_s=now_s) == wanted


def test_overdue_begins_anew_when_the_producer_counts_from_the_start() -> None:
    overdue = Overdue(after_s=1)
    overdue.note(100, 100, now_s=0)
    assert overdue.note(5, 0, now_s=2) is None
    assert overdue.note(None, 0, now_s=3) is None
    assert overdue.note(5, 0, now_s=4) == 5


lost = st.tuples(st.integers(10, 50), st.integers(0, 9), st.booleans())


@given(st.lists(lost, min_size=1, max_size=10), st.booleans())
def test_loss_of_messages_is_undeclared_until_holes_account_for_it_and_no_longer(
    losses: list[Any], restarted: bool
) -> None:
    declared, missing, holes, now_s = Declared(settled_s=60), 0, 0, 0.0

    def undeclared(flying: int) -> int:
        row = {"received": 10**6, "in_flight": flying, "imbalance": missing, "holes": holes}
        return declared.undeclared(row, now_s=now_s)

    for n, flying, told in losses:
        missing, now_s = missing + n, now_s + 1
        known = undeclared(flying)
        now_s += 100
        assert undeclared(flying) in (0, known)
        holes += told  # told of late: the next record of its bucket comes later
        undeclared(flying)
        now_s += 60
        assert not told or undeclared(flying) == 0
        if restarted:
            earlier, declared = declared, Declared(settled_s=60)
            declared.restore(earlier.state())
            assert not told or undeclared(flying) == 0
    missing += 1_000
    if losses[-1][2] or not holes:  # no hole is left that could account for these
        assert undeclared(0) > 0
        now_s += 10_000
        assert undeclared(0) > 0


def test_hole_accounts_for_no_more_messages_than_a_record_holds() -> None:
    assert RECORD_MESSAGES == SPILL_MESSAGES
    declared = Declared(settled_s=60)
    row = {"received": 10**6, "in_flight": 0, "imbalance": RECORD_MESSAGES + 1, "holes": 1}
    declared.undeclared(row, now_s=0)
    assert declared.undeclared(row, now_s=100) == RECORD_MESSAGES + 1


def test_what_is_declared_is_forgotten_when_the_producer_counts_from_the_start() -> None:
    declared = Declared(settled_s=60)
    row = {"received": 100, "in_flight": 0, "imbalance": 5, "holes": 1}
    declared.undeclared(row, now_s=0)
    assert declared.undeclared(row, now_s=60) == 0
    row = {"received": 50, "in_flight": 0, "imbalance": 5, "holes": 1}
    assert [declared.undeclared(row, now_s=s) for s in (65, 500)] == [5, 5]
