"""An archive of Spark's classes, from which its JVMs take them parsed and checked (AppCDS).

Nearly all of a start of Spark is 20,000 classes being loaded, in four JVMs under RayDP. With the
archive a start takes three quarters of the CPU time, and 35 s, not 48 s, on two cores. It is made
once for an installation (`cluster/setup.sh spark`), by a JVM that runs two small streaming queries
of the kind that ours are and then writes down what it has loaded::

    python -m pipelines.streaming.class_archive

A JVM takes it only if it is the same JVM and the same jars stand first on its class path, and
starts as it always did otherwise; so nobody has to know whether it fits.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

FILE: Final = Path(sys.prefix) / "spark.jsa"
"""The archive: beside the packages whose jars it is of."""

_BATCHES: Final = 4
_LONGEST_S: Final = 180.0


def options(file: Path = FILE, *, quotes: bool = True) -> str:
    """Options of a JVM that takes its classes from an archive, where it fits.

    The archive is mapped where it was made for, and so shared between the JVMs. The kernel would
    rather move it, and then each JVM rewrites all of its 170 MB; the option against that is one
    that Java calls diagnostic.

    Args:
        file: The archive; it need not be there.
        quotes: Whether who reads the options knows quotes. RayDP's master does not: it gets no
            archive that has a space in its path.
    """
    if not quotes and " " in str(file):
        return ""
    quote = '"' if quotes else ""
    return (
        f"{quote}-XX:SharedArchiveFile={file}{quote} -Xshare:auto -Xlog:cds=off "
        "-Xlog:cds+dynamic=off -XX:+UnlockDiagnosticVMOptions -XX:ArchiveRelocationMode=0"
    )


def class_path() -> str:
    """The class path that all of RayDP's JVMs begin with; that of one which is to use the archive.

    RayDP's jars come first: they replace classes of Spark.
    """

    def jars(package: str) -> Path:
        spec = find_spec(package)  # to import RayDP takes more than a second
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{package} is not installed", name=package)
        return Path(spec.origin).parent / "jars"

    # In the order of the folder, unsorted, as RayDP and Ray list them.
    theirs = [*jars("raydp").iterdir(), jars("pyspark") / "*", *jars("ray").iterdir()]
    return ":".join(map(str, theirs))


def make(file: Path = FILE) -> None:
    """Make an archive, by a JVM that this process then talks to; half a minute.

    Args:
        file: Where it goes; what is there is replaced once all is well.

    Raises:
        RuntimeError: It could not be made; the message ends with what Java said.
    """
    draft = file.with_name(f"{file.name}.draft")
    draft.unlink(missing_ok=True)  # of one that was killed
    with tempfile.TemporaryDirectory(prefix="raytape-classes-") as folder:
        log = Path(folder) / "log"
        try:
            with _java(draft, Path(folder), log):
                _run(Path(folder))
            draft.replace(file)
        except Exception as error:
            said = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise RuntimeError(f"no archive of Spark's classes: {error}\n{said}") from error
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _java(draft: Path, folder: Path, log: Path) -> Iterator[None]:
    """PySpark's JVM, with a class path of our choice; it writes the archive when it ends.

    PySpark's own launcher would put more on the class path than an executor has.
    """
    home, told = os.environ.get("JAVA_HOME"), folder / "connection"
    command = [
        f"{home}/bin/java" if home else "java",
        f"-XX:ArchiveClassesAtExit={draft}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-Xss4m", "-XX:-UsePerfData", *_MODULES, "-cp", class_path(),
        "org.apache.spark.deploy.SparkSubmit", "--conf", "spark.master=local[2]", "pyspark-shell",
    ]  # fmt: skip
    more = {"_PYSPARK_DRIVER_CONN_INFO_PATH": str(told), "SPARK_LOCAL_IP": "127.0.0.1"}
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command, env=os.environ | more, stdin=subprocess.PIPE, stdout=said, stderr=said
        ) as java,
    ):
        try:
            port, secret = _connection(java, told)
            os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"] = port, secret
            os.environ["PYSPARK_PYTHON"] = sys.executable
            yield
            assert java.stdin is not None  # noqa: S101 (a pipe was asked for)
            java.stdin.close()  # it ends with its standard input
            if code := java.wait(_LONGEST_S):
                raise RuntimeError(f"Java ended with {code}")
        finally:
            java.kill()


def _connection(java: subprocess.Popen[bytes], told: Path) -> tuple[str, str]:
    """Port and secret of a JVM, as it writes them for PySpark: two numbers, then the secret."""
    deadline = time.monotonic() + _LONGEST_S
    while not told.exists() or len(text := told.read_bytes()) <= 8:
        if java.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Java did not start")
        time.sleep(0.05)
    return str(int.from_bytes(text[:4], "big")), text[8:].decode()


# What Spark's launcher opens to Arrow and to Spark itself.
_MODULES = [
    "--add-modules=jdk.incubator.vector",
    *(
        f"--add-opens=java.base/{name}=ALL-UNNAMED"
        for name in (
            "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio",
            "java.util", "java.util.concurrent", "sun.nio.ch", "sun.nio.cs",
        )
    ),
]  # fmt: skip


class _Numbers(DataSource):
    """A small stream."""

    @classmethod
    def name(cls) -> str:
        return "numbers"

    def schema(self) -> str:
        return "k int, n long"

    def streamReader(self, schema: Any) -> _NumbersReader:  # noqa: N802, ARG002
        return _NumbersReader()


class _NumbersReader(DataSourceStreamReader):
    def __init__(self) -> None:
        self._at = 0

    def initialOffset(self) -> dict[str, int]:  # noqa: N802
        return {"at": 0}

    def latestOffset(self, *_: Any) -> dict[str, int]:  # noqa: N802
        self._at += 10
        return {"at": self._at}

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[InputPartition]:
        return [InputPartition(range(start["at"], end["at"]))]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        numbers = list(partition.value)
        yield pa.record_batch(
            {
                "k": pa.array([n % 2 for n in numbers], pa.int32()),
                "n": pa.array(numbers, pa.int64()),
            }
        )


def _run(folder: Path) -> None:
    """Queries like ours: a Python source, state in Python and RocksDB, Arrow to the driver."""
    import pandas as pd

    def fold(_: Any, frames: Any, state: Any) -> Iterator[Any]:
        state.update((b"state",))
        yield pd.DataFrame({"n": [sum(len(frame) for frame in frames)]})

    def collect(frame: Any, _: int) -> None:
        frame.toArrow()

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.port", "0")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.local.dir", str(folder))
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config(
            "spark.sql.streaming.stateStore.providerClass",
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        )
        .getOrCreate()
    )
    spark.dataSource.register(_Numbers)
    rows = spark.readStream.format("numbers").load()
    plain = rows.writeStream.foreachBatch(
        lambda frame, _: frame.mapInArrow(lambda batches: batches, "k int, n long").toArrow()
    )
    folded = (
        rows.groupBy("k")
        .applyInPandasWithState(fold, "n long", "state binary", "append", "NoTimeout")
        .mapInArrow(lambda batches: batches, "n long")
        .writeStream.foreachBatch(collect)
    )
    for name, writer in (("plain", plain), ("folded", folded)):
        query = (
            writer.option("checkpointLocation", str(folder / name))
            .trigger(processingTime="100 milliseconds")
            .start()
        )
        deadline = time.monotonic() + _LONGEST_S
        while (last := query.lastProgress) is None or last["batchId"] < _BATCHES:
            if not query.isActive or time.monotonic() > deadline:
                raise RuntimeError(f"the query {name} ended: {query.exception()}")
            time.sleep(0.05)
        query.stop()
    spark.stop()


if __name__ == "__main__":
    make()
