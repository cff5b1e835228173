"""The Spark session: on Ray (RayDP), in one process (``local[N]``) or on a cluster (a URL).

In: a :class:`SparkConfig`. Out: a session with our data sources registered, two fair
pools, small JVMs and a UI on the loopback. One session per process; :func:`close_session` ends
its JVM too, so that nothing is left behind in a process that lives on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from pipelines.errors import PartFailed
from pipelines.kinesis.source import KinesisDataSource
from pipelines.streaming import class_archive
from pipelines.streaming.market_data import MarketDataSource

log = logging.getLogger(__name__)

SIGNALS_POOL, ARCHIVE_POOL = "signals", "archive"
"""Fair pools; a query's thread chooses one with ``setLocalProperty("spark.scheduler.pool", …)``."""

_ALLOCATION = f"""<?xml version="1.0"?>
<allocations>
  <pool name="{SIGNALS_POOL}">
    <schedulingMode>FIFO</schedulingMode><weight>8</weight><minShare>1</minShare>
  </pool>
  <pool name="{ARCHIVE_POOL}">
    <schedulingMode>FIFO</schedulingMode><weight>1</weight><minShare>0</minShare>
  </pool>
</allocations>
"""
# Serial: on the few cores of a laptop the parallel collectors cost threads and memory for nothing.
# No second compiler: rows are worked on in Python, and for minutes after a start it took more from
# the two cores than it gave back (CPU of the JVMs at 5,400 messages a second: 47 % of a core, and
# 28 % without it).
# What there is compiles early: until then for a minute each batch takes a quarter more.
_JVM = (
    "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:CompileThresholdScaling=0.3 "
    "-XX:ReservedCodeCacheSize=96m -Xss4m -XX:-UsePerfData"
)
# Without Hadoop's native library every file that is made forks `chmod`, twice with its checksum
# file, four times with Spark's own: 49 forks and 47 ms per batch. So Spark's checkpoints are made
# without either: 5 forks. `fs.file.impl` must stay as it is: RocksDB's snapshots are copied through
# `FileSystem.getLocal`, which casts it.
_LOCAL_CHECKPOINTS = {
    "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
}
_FOLDER_CONF = "spark.raytape.folder"
_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class SparkConfig:
    """Where Spark runs and how large it is.

    Args:
        master: ``raydp``, ``local[N]``, or the URL of a Spark master.
        app_name: Name of the application; under RayDP one of a name at a time.
        executors: Executors (RayDP and URLs).
        executor_cores: Tasks that each runs at once. One more than the archive has (one for each
            shard), so that signals find a place while it works.
        executor_memory: Heap of each, in Spark's notation.
        driver_memory: Heap of the driver; with ``local[N]`` of all there is.
        ui_port: Port of the Spark UI; ``None`` for no UI.
        ui_host: Address of the Spark UI.
        shuffle_partitions: Parts of the state of a stateful query, each folded by one task. A query
            that finds a checkpoint keeps that one's. With one there is nothing to shuffle.
        local_checkpoints: Checkpoints lie on this machine's disk: written the fast way.
        folder: Where scratch files go, of one driver at a time: what another left is removed. A
            temporary folder, removed at the end, by default.
        executor_tmp: Where executors unpack their native libraries; a folder that every machine of
            theirs has. What one leaves that was killed stays there. The machine's own by default.
        extra: Further Spark configuration; it wins. It may hold secrets, so no ``repr`` shows it.
    """

    master: str = "raydp"
    app_name: str = "raytape"
    executors: int = 1
    executor_cores: int = 3
    executor_memory: str = "768m"
    driver_memory: str = "768m"
    ui_port: int | None = 4040
    ui_host: str = "127.0.0.1"
    shuffle_partitions: int = 1
    local_checkpoints: bool = True
    folder: str | None = None
    executor_tmp: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)


def spark_conf(config: SparkConfig, *, folder: Path) -> dict[str, str]:
    """The Spark configuration of a session.

    Args:
        config: What was asked for.
        folder: Scratch folder that exists.
    """
    conf = {
        "spark.sql.caseSensitive": "true",  # Alpaca's keys differ only by case
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(config.shuffle_partitions),
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        # A batch of a few hundred records must not pay for what large jobs need.
        "spark.locality.wait": "0",
        "spark.scheduler.mode": "FAIR",
        # No `as_uri()`: Hadoop takes the %20 of a folder with a space as it stands.
        "spark.scheduler.allocation.file": f"file://{folder / 'pools.xml'}",
        "spark.python.worker.reuse": "true",
        "spark.python.daemon.module": "pipelines.streaming.daemon",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",  # it would start threads before the forks
        "spark.sql.streaming.minBatchesToRetain": "20",
        "spark.sql.streaming.numRecentProgressUpdates": "30",
        "spark.sql.streaming.stopTimeout": "20000",
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        # What the UI remembers lives in the driver's heap.
        "spark.ui.retainedJobs": "60",
        "spark.ui.retainedStages": "120",
        "spark.ui.retainedTasks": "600",
        "spark.sql.ui.retainedExecutions": "30",
        "spark.ui.showConsoleProgress": "false",
        "spark.ui.enabled": str(config.ui_port is not None).lower(),
        "spark.ui.port": str(config.ui_port or 0),
        "spark.local.dir": str(folder / _SCRATCH),
        "spark.driver.memory": config.driver_memory,
        "spark.driver.extraJavaOptions": _jvm(folder / _SCRATCH),
        "spark.executor.extraJavaOptions": _jvm(config.executor_tmp),
        _FOLDER_CONF: str(folder),
    }
    if config.master == "raydp":
        classes = class_archive.options(quotes=False)
        conf["spark.ray.raydp_app_master.extraJavaOptions"] = f"-Xmx256m {_JVM} {classes}".strip()
        conf["spark.ray.raydp_spark_master.actor.resource.CPU"] = "0.1"
    elif config.master.startswith("local"):
        conf |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraClassPath": class_archive.class_path(),  # else it would not fit
        }
    else:
        conf |= {
            "spark.executor.instances": str(config.executors),
            "spark.executor.cores": str(config.executor_cores),
            "spark.executor.memory": config.executor_memory,
        }
    if config.local_checkpoints:
        conf |= _LOCAL_CHECKPOINTS
    return conf | dict(config.extra)


def _jvm(tmp: str | Path | None) -> str:
    """Options of a JVM that keeps its temporary files in a folder, and none in the machine's."""
    options = f"{_JVM} {class_archive.options()}"
    return options if tmp is None else f'{options} "-Djava.io.tmpdir={tmp}"'


def master_url(master: str) -> str:
    """The master for Spark: ``local[N]`` gets the same four attempts of a task as a cluster.

    >>> master_url("local[2]"), master_url("spark://host:7077")
    ('local[2,4]', 'spark://host:7077')
    """
    return re.sub(r"^local\[(\d+|\*)\]$", r"local[\1,4]", master)


def open_session(config: SparkConfig) -> SparkSession:
    """Start Spark and return its session, with our data sources registered.

    Under ``raydp`` this process must be connected to Ray (an actor is), and ``JDK_JAVA_OPTIONS``
    must have opened the JDK's packages before Ray started.

    Raises:
        PartFailed: Spark did not start; the message says what it said.
        RuntimeError: This process has a session already.
    """
    if SparkContext._active_spark_context is not None:
        raise RuntimeError("this process has a Spark session already; close it first")
    folder = Path(config.folder or tempfile.mkdtemp(prefix="raytape-spark-"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)  # a driver that was killed left it
    (folder / _SCRATCH).mkdir(exist_ok=True)  # what still ends there may hold it
    (folder / "pools.xml").write_text(_ALLOCATION)
    conf = spark_conf(config, folder=folder)
    # Spark takes these three from the environment of the JVM that it starts, and from nowhere else.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = config.ui_host
    try:
        spark = _raydp(config, conf) if config.master == "raydp" else _plain(config, conf)
    except Exception as error:
        failed = PartFailed(
            f"Spark did not start: {_said(error)}"
        )  # Java, which ends now, is asked
        _give_up(config, folder)
        raise failed from error
    except BaseException:
        _give_up(config, folder)
        raise
    spark.sparkContext.setLogLevel("WARN")
    for source in (KinesisDataSource, MarketDataSource):
        spark.dataSource.register(source)
    return spark


def _give_up(config: SparkConfig, folder: Path) -> None:
    close_session(config)
    if config.folder is None:
        shutil.rmtree(folder, ignore_errors=True)


def _said(error: Exception) -> str:
    """The line that says what happened; of an error in Java the one behind where it was called."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line[2:] for line in lines if line.startswith(": ")), lines[0])


def _raydp(config: SparkConfig, conf: Mapping[str, str]) -> SparkSession:
    import raydp

    session: SparkSession = raydp.init_spark(
        app_name=config.app_name,
        num_executors=config.executors,
        executor_cores=config.executor_cores,
        executor_memory=config.executor_memory,
        configs=dict(conf),
    )
    return session


def _plain(config: SparkConfig, conf: Mapping[str, str]) -> SparkSession:
    builder = SparkSession.builder.appName(config.app_name).master(master_url(config.master))
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def close_session(config: SparkConfig) -> None:
    """Stop the streaming queries, Spark and its JVM; harmless when there is none."""
    # The active session is one of a thread, and who stops is often not who started.
    session = SparkSession.getActiveSession() or SparkSession._instantiatedSession
    folder = None
    if session is not None:
        folder = session.conf.get(_FOLDER_CONF, None)
        for query in session.streams.active:
            with contextlib.suppress(Exception):  # a query that failed says so again here
                query.stop()
    gateway = SparkContext._gateway
    if config.master == "raydp":
        import raydp

        raydp.stop_spark()
    elif session is not None:
        session.stop()
    SparkSession.builder._options.clear()  # PySpark would give them to the next session
    _end_jvm(gateway)
    if folder and config.folder is None:
        shutil.rmtree(folder, ignore_errors=True)


def _end_jvm(gateway: Any | None) -> None:
    """End the JVM that PySpark keeps for the life of the process."""
    if gateway is None:
        return
    gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    process = getattr(gateway, "proc", None)
    if process is not None:
        process.stdin.close()  # the JVM ends with its standard input
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)
