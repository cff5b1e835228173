"""``python -m tests.chaos.moving_producer CONFIG.json``: a producer actor on a Ray of two nodes.

As :mod:`tests.chaos.producer_process`; on SIGUSR1 the node that hosts the actor dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray reads it once, when it is imported

import ray
from ray.cluster_utils import Cluster

from pipelines.ingest.actor import ProducerActor
from tests.chaos.producer_process import DRAIN_S, arguments, write

STORE_BYTES = 80 * 2**20


class Movable(ProducerActor):
    """Says where it is."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def main(given: dict[str, object]) -> None:
    asked, harm = threading.Event(), threading.Event()
    small = {"object_store_memory": STORE_BYTES, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    nodes = [cluster.add_node(resources={"feed": 1}, **small) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    # After Ray, which has a handler of its own for SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.signal(signal.SIGUSR1, lambda *_: harm.set())
    positional, named = arguments(given)
    actor = (
        ray.remote(Movable)
        .options(max_restarts=-1, max_concurrency=8, num_cpus=0, resources={"feed": 1})
        .remote(*positional, **named)
    )
    out, homes = Path(str(given["stats"])), list[str]()
    try:
        while not asked.wait(0.1):
            if harm.is_set():
                harm.clear()
                home = ray.get(actor.node.remote())
                cluster.remove_node(next(n for n in nodes if n.node_id == home), False)
            with contextlib.suppress(ray.exceptions.RayError):
                home = ray.get(actor.node.remote(), timeout=2)
                homes += [home] if home not in homes else []
                stats = ray.get(actor.stats.remote(), timeout=2)
                write(out, {**stats, "homes": len(homes)})
        drained = ray.get(actor.drain.remote(DRAIN_S))
        stats = ray.get(actor.stats.remote())
        write(out, {**stats, "homes": len(homes), "drained": drained})
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
