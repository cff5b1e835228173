"""What the parts of the platform are told of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.parts import streaming_config
from cluster.settings import load


def test_streaming_config_has_the_parts_of_the_state_and_further_configuration() -> None:
    text = "spark.jars.packages=a:b:1,c:d:2;spark.hadoop.fs.s3a.secret.key=hush"
    config = streaming_config(load(spark_state_parts=4, spark_conf=text))
    assert config.spark.shuffle_partitions == 4
    assert config.spark.extra == {
        "spark.jars.packages": "a:b:1,c:d:2",
        "spark.hadoop.fs.s3a.secret.key": "hush",
    }
    assert "hush" not in repr(config)


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        (None, True),
        ("checkpoints", True),
        ("{}/checkpoints", True),
        ("file://{}/checkpoints", True),
        ("s3a://bucket/checkpoints", False),
        ("hdfs://host:8020/checkpoints", False),
    ],
)
def test_streaming_config_writes_checkpoints_the_fast_way_on_this_machine_only(
    tmp_path: Path, uri: str | None, local: bool
) -> None:
    settings = load(checkpoint_uri=uri and uri.format(tmp_path))
    assert streaming_config(settings).spark.local_checkpoints is local
