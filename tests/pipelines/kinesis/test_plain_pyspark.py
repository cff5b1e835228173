"""The source in plain PySpark, without Ray, RayDP or the rest of this project."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.kinesis.clients import client_of
from pipelines.ports import KinesisConfig

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "plain_pyspark.py"
PAGE = ROOT / "docs" / "KINESIS_SOURCE.md"
LOCK = ROOT / "requirements.lock"
# Runs a script and says which modules of its process it should not need.
RUN = """
import json, runpy, sys
path, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(path, run_name="__main__")
tops = {name.split(".")[0] for name in sys.modules}
ours = {name for name in sys.modules if name.startswith("pipelines.")}
json.dump({"tops": sorted(tops), "ours": sorted(ours)}, open(sys.argv[2] + "/modules.json", "w"))
"""


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def packages_of(module: str) -> set[str]:
    """Packages of others that a module of ours imports, it or those of ours that it imports."""
    seen, left, packages = set(), {module}, set()
    while left:
        seen.add(name := left.pop())
        modules = imported(ROOT / f"{name.replace('.', '/')}.py")
        ours = {one for one in modules if one.startswith("pipelines.")}
        packages |= {one.split(".")[0] for one in modules - ours}
        left |= ours - seen
    return packages - sys.stdlib_module_names


def test_packages_that_the_page_names_are_those_that_the_source_imports() -> None:
    found = re.search(r"pip install (pyspark==.*)", PAGE.read_text())
    assert found
    named = found[1].split()
    # boto3 brings botocore.
    assert {one.split("==")[0] for one in named} | {"botocore"} == packages_of(
        "pipelines.kinesis.source"
    )
    assert set(named) <= set(LOCK.read_text().splitlines())


@pytest.mark.heavy
def test_example_in_plain_pyspark_copies_a_stream_and_imports_nothing_else(
    kinesis: KinesisConfig, tmp_path: Path
) -> None:
    client, stream = client_of(kinesis), kinesis.market_data
    texts = [f"m{n:03d}" for n in range(200)]
    client.put_records(
        StreamName=stream, Records=[{"Data": t.encode(), "PartitionKey": t} for t in texts]
    )
    # No keys of the options: those of AWS's own chain are used.
    environment = {
        "AWS_ACCESS_KEY_ID": "embedded",
        "AWS_SECRET_ACCESS_KEY": "embedded",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SUBMIT_OPTS": "-Dspark.ui.enabled=false -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "PYSPARK_PYTHON": sys.executable,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(EXAMPLE), stream, str(tmp_path), "--endpoint",
         str(kinesis.endpoint_url)],
        env=os.environ | environment,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [
        json.loads(line)
        for path in (tmp_path / "rows").glob("*.json")
        for line in path.read_text().splitlines()
    ]
    assert sorted(row["text"] for row in rows) == texts
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert not {"ray", "raydp", "cluster", "serve", "rl", "deltalake"} & set(modules["tops"])
    root = {"clock", "errors", "events", "kinesis", "ports", "retry", "workers"}
    assert {name.split(".")[1] for name in modules["ours"]} <= root
