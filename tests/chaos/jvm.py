"""JVMs that start quickly, because a kill matrix starts one after each death.

Nothing is compiled for the long run, and the classes of Spark come from an archive that the first
JVM left behind when it ended: a session with its first Python task takes 7 s of two cores, not 15.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ARCHIVE = Path(__file__).parents[2] / "build" / "spark.jsa"
FLAGS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss4m -XX:-UsePerfData -Xshare:auto"

_WARM = """
import sys
from pyspark.sql import SparkSession
options = {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": sys.argv[1]}
spark = SparkSession.builder.master("local[2]").config(map=options).getOrCreate()
spark.readStream.format("rate").load().groupBy("value").count().createOrReplaceTempView("x")
spark.range(10).groupBy("id").count().mapInArrow(lambda rows: rows, "id long, count long").collect()
process = spark.sparkContext._gateway.proc
spark.stop()
process.stdin.close()
process.wait()
"""


def quick_java() -> str:
    """Options for a JVM of Spark; makes the archive of classes where it is not there yet."""
    if not ARCHIVE.exists():
        ARCHIVE.parent.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-c", _WARM, f"{FLAGS} -XX:ArchiveClassesAtExit={ARCHIVE}"],
            env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600, check=True,
        )  # fmt: skip
    return (
        f"{FLAGS} -Xshare:auto -XX:SharedArchiveFile={ARCHIVE} -Xlog:cds=off -Xlog:cds+dynamic=off"
    )
