"""Spark's Python daemon, with what its workers need loaded before it forks them.

Spark's own daemon forks workers that have nothing loaded: each of some ten imports pandas, pyarrow
and this project before its first row, 1.3 s of a core. Here the daemon loads them once, and what it
forks shares them: an executor takes 1.1 GB, not 1.5. Spark loads nothing beforehand because a
library might start threads that do not outlive a fork; of those here, OpenBLAS is told not to (the
session sets ``OPENBLAS_NUM_THREADS``), and the thread of jemalloc (in pyarrow and deltalake) is
made for it. Chosen by ``spark.python.daemon.module``; Spark runs ``python -m`` on it.
"""

from __future__ import annotations

import gc
import importlib
import sys

from pyspark import daemon

from pipelines.streaming.outliers import load

OF_WORKERS = ("pyspark.worker", "pipelines.streaming.archive_task", "pipelines.streaming.signals")


def main() -> None:
    """Load, then serve until Spark closes the standard input."""
    if sys.argv[1:] == ["pyspark.worker"]:  # others are the short-lived planners of a source
        for name in OF_WORKERS:
            importlib.import_module(name)
        load("trees")
        gc.collect()
        gc.freeze()  # or the first collection of each worker would copy all of it
    daemon.manager()


if __name__ == "__main__":
    main()
