"""The archive of Spark's classes: that JVMs take it, and start without it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.streaming import class_archive
from pipelines.streaming.session import SparkConfig, spark_conf

FROM_ARCHIVE = "org.apache.spark.deploy.SparkSubmit source: shared objects file (top)"


def spark_version(options: str, *behind: str) -> str:
    """What a JVM of Spark says: its version, and where it took its classes from."""
    command = ["java", *shlex.split(options), "-XX:+UseSerialGC", "-Xlog:class+load"]
    path = ":".join([class_archive.class_path(), *behind])
    done = subprocess.run(
        [*command, "-cp", path, "org.apache.spark.deploy.SparkSubmit", "--version"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "version 4." in done.stderr, done.stderr
    return done.stdout


@pytest.mark.skipif(not class_archive.FILE.exists(), reason="`cluster/setup.sh spark` makes it")
def test_archive_of_the_installation_is_taken_by_executor_and_driver(tmp_path: Path) -> None:
    assert FROM_ARCHIVE in spark_version(class_archive.options())
    assert FROM_ARCHIVE in spark_version(class_archive.options(), str(tmp_path))


def test_archive_that_is_missing_or_broken_stops_nobody(tmp_path: Path) -> None:
    file = tmp_path / "my spark.jsa"
    assert FROM_ARCHIVE not in spark_version(class_archive.options(file))
    file.write_bytes(b"no archive" * 1000)
    assert FROM_ARCHIVE not in spark_version(class_archive.options(file))


def test_archive_that_cannot_be_made_says_what_java_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_archive, "class_path", lambda: str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)Java did not start.*SparkSubmit"):
        class_archive.make(tmp_path / "spark.jsa")
    assert list(tmp_path.iterdir()) == []


def test_options_for_raydps_master_have_no_quotes(tmp_path: Path) -> None:
    assert class_archive.options(tmp_path / "my spark.jsa", quotes=False) == ""
    conf = spark_conf(SparkConfig(), folder=tmp_path)
    assert '"' not in conf["spark.ray.raydp_app_master.extraJavaOptions"]
    assert f'"-XX:SharedArchiveFile={class_archive.FILE}"' in conf["spark.driver.extraJavaOptions"]
