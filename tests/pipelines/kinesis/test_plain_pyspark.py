"""The source in plain PySpark, without Ray, RayDP or the rest of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.kinesis.clients import client_of
from pipelines.ports import KinesisConfig

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parents[3] / "examples" / "plain_pyspark.py"
# Runs a script and says which modules of its process it should not need.
RUN = """
import json, runpy, sys
path, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(path, run_name="__main__")
tops = {name.split(".")[0] for name in sys.modules}
ours = {name for name in sys.modules if name.startswith("pipelines.")}
json.dump({"tops": sorted(tops), "ours": sorted(ours)}, open(sys.argv[2] + "/modules.json", "w"))
"""


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
