"""FAULTS 10: what was missed is fetched later, whole and once, whatever happens meanwhile."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

FILL = {"delay_s": 0.3, "chunk": 50, "interval_s": 0.02, "retry_first_s": 0.1, "poll_s": 0.05}
QUICK = {"backoff_first_s": 0.2, "backoff_cap_s": 0.5}


@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.long)])
def test_gaps_of_drops_and_kills_are_filled_to_the_last_message(rig, clean, rounds):
    exchange = rig(
        speed=60, messages_per_minute=200, max_minutes=2 * rounds + 6,
        correction_rate=0.0, cancel_rate=0.0,  # of these there is no history
    )  # fmt: skip
    child = exchange.produce(backfill=FILL, **QUICK)
    exchange.streaming()
    for n in range(rounds):
        before = exchange.stats().get("received", 0)
        exchange.until(lambda b=before: exchange.stats().get("received", 0) > b + 60, what="data")
        if n % 2:  # often in the middle of filling the gap before
            exchange.kill(child)
            child = exchange.produce(backfill=FILL, **QUICK)
        else:
            exchange.fault({"do": "drop"})
            exchange.until(lambda: exchange.stats()["state"] != "streaming", what="the break")
        exchange.streaming()
    ledger = clean(exchange.finish(timeout_s=240))
    assert ledger.gaps == 2 * ledger.filled > 5 * rounds  # each symbol's, and its second row
    assert ledger.in_gaps == 0
    assert ledger.backfilled > 0
    assert ledger.stored + ledger.backfilled == ledger.sent
