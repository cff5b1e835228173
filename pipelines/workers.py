"""What every function that runs in a Python worker of Spark does at the end of its first task."""

from __future__ import annotations

import gc
from functools import cache


@cache
def settle(task: str) -> None:
    """Take what the process has loaded so far out of garbage collection; once per kind of task.

    Spark's daemon runs a full ``gc.collect()`` after every task. With pandas, pyarrow and boto3
    loaded that took 65 % of a worker's time in our short batches, measured by sampling. What is
    frozen is never looked at again; it is called after a first task, when everything is loaded,
    and so few times that no garbage piles up in it. Needless once Spark lets reused workers skip
    the collection.

    Args:
        task: Name of the function that runs.
    """
    del task  # only the key of the cache
    gc.collect()
    gc.freeze()
