"""``make bench``: every suite, or the ones that are named; tables, and JSON under ``build/``.

A suite is a module beside this one with ``run(say) -> list[Row]``. Speeds stand beside a baseline
of the same run: ratios hold where absolute figures of a shared machine do not.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Row

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"


def suites() -> list[str]:
    """Names of the suites there are, the whole platform last."""
    found = {path.stem for path in HERE.glob("[a-z]*.py")} - {"rows"}
    return sorted(found, key=lambda name: (name == "platform", name))


def table_of(name: str, rows: Sequence[Row]) -> Table:
    """The rows of a suite, for people."""
    table = Table(title=f"{name}, {os.cpu_count()} cores, one run")
    for column in ("what", "measured", "target", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        measured = f"{row.value:,.1f} {row.unit}"
        if row.target is None:
            table.add_row(row.name, measured, "", "")
            continue
        sign = "≥" if row.at_least else "≤"
        verdict = "[green]met[/]" if row.met else "[red]missed[/]"
        table.add_row(row.name, measured, f"{sign} {row.target:,g} {row.unit}", verdict)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(suites())}")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(suites()):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(suites())}")
    console = Console(highlight=False)
    BUILD.mkdir(exist_ok=True)
    for name in options.suites or suites():
        console.print(f"[bold]{name}[/]")
        rows = importlib.import_module(f"tests.bench.{name}").run(console.print)
        console.print(table_of(name, rows))
        document = [{**vars(row), "met": row.met} for row in rows]
        (BUILD / f"bench-{name}.json").write_bytes(
            orjson.dumps(document, option=orjson.OPT_INDENT_2)
        )


if __name__ == "__main__":
    main()
