"""The Spark session's configuration; that it starts is shown by every Spark test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from pipelines.errors import PartFailed
from pipelines.streaming import daemon, session
from pipelines.streaming.session import SparkConfig, close_session, spark_conf


def test_conf_keeps_alpacas_keys_apart_and_the_ui_at_home(tmp_path: Path) -> None:
    conf = spark_conf(SparkConfig(master="local[2]"), folder=tmp_path)
    assert conf["spark.sql.caseSensitive"] == "true"
    assert conf["spark.driver.bindAddress"] == "127.0.0.1"


def test_conf_of_the_user_wins(tmp_path: Path) -> None:
    config = SparkConfig(extra={"spark.sql.shuffle.partitions": "7"})
    assert spark_conf(config, folder=tmp_path)["spark.sql.shuffle.partitions"] == "7"


def test_conf_of_a_folder_with_a_space_names_it_as_it_is(tmp_path: Path) -> None:
    conf = spark_conf(SparkConfig(), folder=tmp_path / "my market")
    assert conf["spark.scheduler.allocation.file"] == f"file://{tmp_path}/my market/pools.xml"
    assert f'"-Djava.io.tmpdir={tmp_path}/my market/' in conf["spark.driver.extraJavaOptions"]


def test_conf_for_checkpoints_elsewhere_leaves_hadoop_as_it_is(tmp_path: Path) -> None:
    conf = spark_conf(SparkConfig(local_checkpoints=False), folder=tmp_path)
    assert not any("hadoop.fs" in key for key in conf)


def test_session_begins_without_the_scratch_of_a_driver_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch" / "blockmgr-1").mkdir(parents=True)
    (tmp_path / "warehouse").mkdir()
    monkeypatch.setattr(session.SparkContext, "_active_spark_context", None)
    monkeypatch.setattr(session, "_plain", lambda *_: MagicMock())
    session.open_session(SparkConfig(master="local[2]", folder=str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pools.xml", "scratch", "warehouse"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_open_that_fails_in_java_says_why_after_java_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class JavaError(Exception):
        gone = False

        def __str__(self) -> str:
            if self.gone:
                raise ConnectionRefusedError
            return "An error occurred while calling x.\n: java.io.IOException: no disk\n\tat y"

    def fail(*_: object) -> None:
        raise JavaError

    monkeypatch.setattr(session.SparkContext, "_active_spark_context", None)
    monkeypatch.setattr(session, "_plain", fail)
    monkeypatch.setattr(session, "close_session", lambda _: setattr(JavaError, "gone", True))
    with pytest.raises(PartFailed) as caught:
        session.open_session(SparkConfig(master="local[2]", folder=str(tmp_path)))
    assert str(caught.value) == "Spark did not start: java.io.IOException: no disk"


def test_close_without_a_session_is_harmless() -> None:
    close_session(SparkConfig(master="local[2]"))


def test_daemon_loads_what_its_workers_need_and_no_thread_that_a_fork_would_lose(
    tmp_path: Path,
) -> None:
    code = """
import json, pathlib, sys
from pyspark import daemon
def manager():
    threads = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    print(json.dumps({"loaded": sorted(sys.modules), "threads": threads}))
daemon.manager = manager
sys.argv[1:] = ["pyspark.worker"]
from pipelines.streaming.daemon import main
main()
"""
    conf = spark_conf(SparkConfig(), folder=tmp_path)
    prefix = "spark.executorEnv."
    given = {k.removeprefix(prefix): v for k, v in conf.items() if k.startswith(prefix)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | given, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert {*daemon.OF_WORKERS, "river.anomaly"} <= set(said["loaded"])
    assert len([name for name in said["threads"] if name != "jemalloc_bg_thd"]) == 1
