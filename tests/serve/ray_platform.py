"""A Ray with the feed and the applications, in a process of its own: the tests are its clients.

Reads one JSON document (ports, folders, Kinesis) from its arguments, says ``ready``, and obeys
``kill-feed`` and ``stop`` on its standard input. ``serve_env`` must be set before Ray is imported.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    from pipelines.ports import KinesisConfig
    from serve.config import FeedConfig, ServeConfig
    from serve.ingress import clean, serve_env

    given = json.loads(sys.argv[1])
    feed = FeedConfig(
        kinesis=KinesisConfig(**given["kinesis"]), symbols=("SPY", "AAPL"), rate=10,
        namespace="serve-test", poll_s=0.05, lake_uri=given["lake_uri"], conflate_s=0.05,
    )  # fmt: skip
    config = ServeConfig(
        feed=feed, registry_uri=given["registry_uri"], port=given["port"],
        haproxy_metrics_port=given["metrics_port"], haproxy_stats_port=given["stats_port"],
        fallback_port=given["fallback_port"], run_dir=Path(given["run_dir"]), models_poll_s=0.2,
    )  # fmt: skip
    os.environ.update(serve_env(config))

    import ray

    from serve.app import deploy, shutdown
    from serve.ray_feed import FeedActor

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, namespace=feed.namespace,
        object_store_memory=100 * 2**20, log_to_driver=False, configure_logging=False,
    )  # fmt: skip
    try:
        actor = (
            ray.remote(FeedActor)
            .options(name=feed.actor, max_concurrency=100, max_restarts=-1, num_cpus=0.1)
            .remote(feed)
        )
        ray.get(actor.start.remote())
        deploy(config)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.strip() == "kill-feed":
                ray.kill(actor, no_restart=False)
            if line.strip() == "stop":
                break
    finally:
        shutdown()
        ray.shutdown()
        clean(config)


if __name__ == "__main__":
    main()
