"""``make chaos``: the fault tests, one after the other; a table, and JSON under ``build/``.

``-k`` chooses tests by name, ``--fault 22 --fault 23`` by the numbers of ``docs/FAULTS.md``;
``--short`` leaves out those that take minutes; ``--docs`` writes the results into that page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.chaos import faults

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "chaos.json"
COLUMNS = ("rounds", "sent", "stored", "lost", "twice")


class Results:
    """Collects the outcome of every test and what it says of itself.

    Args:
        console: Gets a line when a test ends.
    """

    def __init__(self, console: Console) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._console = console

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("::")[-1]
        row = self.rows.setdefault(
            name, {"faults": faults.of(name), "outcome": "not finished", "seconds": 0.0}
        )
        row["seconds"] = round(row["seconds"] + report.duration, 1)
        if report.when == "call" or report.outcome != "passed":
            row["outcome"] = report.outcome
        if report.when == "call":
            row |= dict(report.user_properties)
            row |= row.pop("ledger", {})
        if report.when == "teardown":
            text = f"{name}: {row['outcome']}, {row['seconds']:.0f} s"
            self._console.print(text, markup=False)


def table_of(rows: dict[str, dict[str, Any]]) -> Table:
    """The table of what was tried."""
    table = Table(title="faults")
    for column in ("fault", "test", "outcome", *COLUMNS, "recovery s", "took s"):
        table.add_column(column, justify="left" if column in ("test", "outcome") else "right")
    for name, row in sorted(rows.items(), key=lambda entry: (entry[1]["faults"], entry[0])):
        colour = "green" if row["outcome"] == "passed" else "red"
        table.add_row(
            ", ".join(map(str, row["faults"])), escape(faults.words(name)),
            f"[{colour}]{row['outcome']}[/]", *faults.numbers(row), faults.recovery(row),
            f"{row['seconds']:.0f}",
        )  # fmt: skip
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("-k", default="", help="only the tests whose names match")
    parser.add_argument("--fault", type=int, action="append", help="only the tests of this fault")
    parser.add_argument("--short", action="store_true", help="only the short forms")
    parser.add_argument("--docs", action="store_true", help="write the results into docs/FAULTS.md")
    parser.add_argument("--basetemp", default="", help="where the tests write")
    options = parser.parse_args()
    console = Console(highlight=False, width=max(160, Console().width))
    results = Results(console)
    chosen = options.k or " or ".join(
        name for number in options.fault or () for name in faults.names_of(number)
    )
    files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.chaos" in p.read_text()]
    arguments = ["-m", "chaos and not long" if options.short else "chaos", *map(str, files)]
    arguments += ["-p", "no:cacheprovider"]
    arguments += ["-k", chosen] if chosen else []
    arguments += [f"--basetemp={options.basetemp}"] if options.basetemp else []
    status = pytest.main(arguments, plugins=[results])
    console.print(table_of(results.rows))
    RESULTS.parent.mkdir(exist_ok=True)
    known = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    known |= results.rows  # what was not run this time stands as it was
    RESULTS.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2))
    if options.docs:
        faults.write(known)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
