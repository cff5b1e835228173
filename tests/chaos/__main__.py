"""``make chaos``: the fault tests, one after the other; a table, and JSON under ``build/``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson
import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]


class Results:
    """Collects the outcome of every test."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, object]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.rows.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        row["seconds"] = float(str(row["seconds"])) + report.duration
        if report.outcome != "passed":
            row["outcome"] = report.outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("-k", default="", help="only the tests whose names match")
    options = parser.parse_args()
    results = Results()
    arguments = ["-m", "chaos", str(ROOT / "tests"), "-p", "no:cacheprovider"]
    arguments += ["-k", options.k] if options.k else []
    status = pytest.main(arguments, plugins=[results])
    table = Table(title="faults")
    for column in ("fault", "outcome", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for name, row in results.rows.items():
        colour = "green" if row["outcome"] == "passed" else "red"
        label = name.split("::")[-1].removeprefix("test_").replace("_", " ")
        table.add_row(label, f"[{colour}]{row['outcome']}[/]", f"{row['seconds']:.1f}")
    Console(highlight=False).print(table)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "chaos.json").write_bytes(
        orjson.dumps(results.rows, option=orjson.OPT_INDENT_2)
    )
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
