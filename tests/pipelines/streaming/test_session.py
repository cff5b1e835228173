"""The Spark session's configuration; that it starts is shown by every Spark test."""

from __future__ import annotations

from pathlib import Path

from pipelines.streaming.session import SparkConfig, close_session, spark_conf


def test_conf_keeps_alpacas_keys_apart_and_the_ui_at_home(tmp_path: Path) -> None:
    conf = spark_conf(SparkConfig(master="local[2]"), folder=tmp_path)
    assert conf["spark.sql.caseSensitive"] == "true"
    assert conf["spark.driver.bindAddress"] == "127.0.0.1"


def test_conf_of_the_user_wins(tmp_path: Path) -> None:
    config = SparkConfig(extra={"spark.sql.shuffle.partitions": "7"})
    assert spark_conf(config, folder=tmp_path)["spark.sql.shuffle.partitions"] == "7"


def test_conf_for_checkpoints_elsewhere_leaves_hadoop_as_it_is(tmp_path: Path) -> None:
    conf = spark_conf(SparkConfig(local_checkpoints=False), folder=tmp_path)
    assert "spark.hadoop.fs.file.impl" not in conf


def test_close_without_a_session_is_harmless() -> None:
    close_session(SparkConfig(master="local[2]"))
