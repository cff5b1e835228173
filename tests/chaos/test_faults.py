"""The list of faults against the tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos import faults

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_list_names_exists():
    found = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = {name for fault in faults.FAULTS for name in fault.shown_by + fault.also}
    assert named - found == set()


def test_every_fault_of_feed_and_streaming_is_in_the_list():
    assert [f.number for f in faults.FAULTS] == [*range(1, 31), *range(40, 45)]
    assert all(fault.shown_by or fault.also for fault in faults.FAULTS)


def test_page_names_each_fault_and_each_result():
    rows = {
        "test_silence_after_the_close_is_no_fault": {
            "outcome": "passed", "sent": 1200, "stored": 1200, "lost": 0, "twice": 0,
        }
    }  # fmt: skip
    text = faults.page(rows)
    assert (
        "| 3 | silence after the close is no fault | passed |  | 1,200 | 1,200 | 0 | 0 |  |" in text
    )
    assert "| 1 | connection cut in mid frame many times is clean | not run yet |" in text
    assert all(f"| {fault.number}. " in text for fault in faults.FAULTS)
