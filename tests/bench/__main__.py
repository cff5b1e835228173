"""``make bench``: every suite, or the ones that are named; tables, and JSON under ``build/``.

A suite is a module beside this one with ``run(say) -> list[Row]``. One with several parts names
them in ``PARTS``, and ``SUITE:PART`` runs one of them. Speeds stand beside a baseline of the same
run: ratios hold where absolute figures of a shared machine do not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Row, Say

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
DOCS = HERE.parents[1] / "docs"


def suites() -> list[str]:
    """Names of the suites there are, the whole platform last."""
    found = {path.stem for path in HERE.glob("[a-z]*.py")} - {"rows"}
    return sorted(found, key=lambda name: (name == "platform", name))


def table_of(name: str, rows: Sequence[Row], stolen: float) -> Table:
    """The rows of a suite, for people, with the share of the machine that others took meanwhile."""
    title = f"{name}, {os.cpu_count()} cores, one run, {stolen:.0%} of their time stolen"
    table = Table(title=title)
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


def stolen_between(before: Any, after: Any) -> float:
    """Share of the cores' time that the hypervisor gave to other machines, 0 to 1."""
    stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)  # Linux alone tells
    return float(stolen / (sum(after) - sum(before)))


def chosen(names: Sequence[str]) -> dict[str, Callable[[Say], list[Row]]]:
    """What to run, by name: suites, and parts of suites as ``SUITE:PART``.

    Raises:
        ValueError: There is no such suite or part; the message names those that there are.
    """
    found: dict[str, Callable[[Say], list[Row]]] = {}
    for name in names or suites():
        suite, _, part = name.partition(":")
        if suite not in suites():
            raise ValueError(f"no suite {suite}; there are {', '.join(suites())}")
        module = importlib.import_module(f"tests.bench.{suite}")
        parts: Mapping[str, Callable[[Say], list[Row]]] = getattr(module, "PARTS", {})
        if part and part not in parts:
            raise ValueError(f"no part {part} of {suite}; there are {', '.join(parts) or 'none'}")
        found[name] = parts[part] if part else module.run
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE[:PART]", help=f"of {', '.join(suites())}"
    )
    parser.add_argument("--plots", action="store_true", help="draw docs/*.png from the results")
    options = parser.parse_args()
    try:
        runs = chosen(options.suites)
    except ValueError as error:
        parser.error(str(error))
    # What a suite started is stopped on the way out, also when it takes too long for somebody.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False)
    BUILD.mkdir(exist_ok=True)
    for name, run in runs.items():
        console.print(f"[bold]{name}[/]")
        before = psutil.cpu_times()
        rows = run(console.print)
        stolen = stolen_between(before, psutil.cpu_times())
        console.print(table_of(name, rows, stolen))
        document = [{**vars(row), "met": row.met, "stolen": stolen} for row in rows]
        (BUILD / f"bench-{name.replace(':', '-')}.json").write_bytes(
            orjson.dumps(document, option=orjson.OPT_INDENT_2)
        )
    if options.plots:
        from tests.bench.stream.plots import draw  # matplotlib is a developer's

        for path in draw(BUILD, DOCS):
            console.print(f"drawn: {path}")


if __name__ == "__main__":
    main()
