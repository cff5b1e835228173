"""Ray Serve: the applications by prefix, and their deployment. The only file that binds.

==========  ==============  ===========================================================
name        prefix          why on its own
==========  ==============  ===========================================================
``signals`` ``/v1/signals`` answers in about a millisecond; nothing may delay it
``stream``  ``/v1/stream``  writes to many sockets; a burst must not delay the others
``gateway`` ``/``           asks the lake and the registry, serves files
==========  ==============  ===========================================================

Each has one replica process, so none shares an event loop. Models are swapped inside the replica:
a redeployment would reload HAProxy and end open WebSockets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp

from serve.config import ServeConfig

REQUESTS = {"signals": 256, "stream": 1000, "gateway": 256}
"""Requests that one replica handles at a time; a WebSocket is one."""


def build_app(config: ServeConfig) -> list[tuple[str, str, Any]]:
    """The applications: ``(name, route_prefix, ray.serve.Application)``."""
    makers: Sequence[tuple[str, str, Callable[[], ASGIApp]]] = (
        ("signals", "/v1/signals", lambda: _signals(config)),
        ("stream", "/v1/stream", lambda: _stream(config)),
        ("gateway", "/", lambda: _gateway(config)),
    )
    return [(name, prefix, _bind(config, name, prefix, make)) for name, prefix, make in makers]


def deploy(config: ServeConfig, *, timeout_s: float = 60) -> None:
    """Start Serve behind HAProxy and all applications; returns when they answer.

    Ray runs already, and was started with :func:`serve.ingress.serve_env` in its environment.

    Args:
        config: Where and how.
        timeout_s: Longest wait for the applications, wall seconds.

    Raises:
        PartFailed: They did not come up; the message names them.
    """
    from ray import serve as ray_serve

    from pipelines.errors import PartFailed

    ray_serve.start(
        proxy_location="HeadOnly",
        http_options={"host": config.host, "port": config.port},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    targets = [
        ray_serve.RunTarget(app, name=name, route_prefix=prefix)
        for name, prefix, app in build_app(config)
    ]
    try:
        ray_serve.run_many(targets, wait_for_ingress_deployment_creation=True)
        _wait(config, timeout_s)
    except RuntimeError as error:
        raise PartFailed(f"serve: the applications did not start: {error}") from error


def shutdown() -> None:
    """Stop the applications, Serve and HAProxy; harmless when nothing runs."""
    from ray import serve as ray_serve

    ray_serve.shutdown()  # type: ignore[no-untyped-call]


def _wait(config: ServeConfig, timeout_s: float) -> None:
    import time

    import httpx

    from pipelines.errors import PartFailed

    deadline = time.monotonic() + timeout_s
    paths = ["/healthz", "/v1/symbols", "/v1/signals/batch"]
    with httpx.Client(base_url=f"http://{config.host}:{config.port}", timeout=2) as client:
        while paths:
            try:
                # The batch answers 405 to a GET: it is there.
                if client.get(paths[0]).status_code < 500:
                    paths.pop(0)
                    continue
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                raise PartFailed(f"serve: {paths[0]} does not answer after {timeout_s:.0f} s")
            time.sleep(0.1)


def _bind(config: ServeConfig, name: str, prefix: str, make: Callable[[], ASGIApp]) -> Any:
    from ray import serve as ray_serve

    def build() -> ASGIApp:
        from serve.metrics import Measured

        return Measured(make(), name=name, prefix=prefix)

    deployment = ray_serve.deployment(
        name=name,
        num_replicas=1,
        max_ongoing_requests=REQUESTS[name],
        graceful_shutdown_timeout_s=5,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": config.num_cpus},
    )
    return deployment(ray_serve.ingress(build)()).bind()


# ---- what each replica opens, in its own process


def _signals(config: ServeConfig) -> ASGIApp:
    from serve.api import signals
    from serve.decide import SignalService
    from serve.market import Staleness
    from serve.mirror import Mirror
    from serve.models import RegistryLoader
    from serve.policy import Policy
    from serve.ray_feed import RayFeed

    def open_parts() -> signals.SignalParts:
        mirror = Mirror(
            RayFeed(config.feed),
            # The state of the platform comes each second, and the market time with it.
            channels=("features", "signals", "system"),
            symbols=config.feed.symbols,
        )
        spec = config.features
        loader = RegistryLoader(config.registry_uri, config.registry_options, spec=spec)
        policy = Policy(loader, fingerprint=spec.fingerprint, poll_s=config.models_poll_s)
        staleness = Staleness(config.stale_after_ms, config.stale_after_wall_ms)
        service = SignalService(mirror, policy, spec=spec, staleness=staleness)
        return signals.SignalParts(mirror, policy, service)

    return signals.build(open_parts)


def _stream(config: ServeConfig) -> ASGIApp:
    from serve.api import stream
    from serve.mirror import Mirror
    from serve.ray_feed import RayFeed

    return stream.build(lambda: Mirror(RayFeed(config.feed), symbols=config.feed.symbols))


def _gateway(config: ServeConfig) -> ASGIApp:
    from serve.api import gateway
    from serve.lake import ServedLake
    from serve.mirror import Mirror
    from serve.models import RegistryLoader
    from serve.ray_feed import RayFeed

    def open_parts() -> gateway.GatewayParts:
        feed = config.feed
        lake = ServedLake(feed.lake_uri, feed.lake_options) if feed.lake_uri else None

        def models() -> Sequence[Mapping[str, Any]]:
            return RegistryLoader(config.registry_uri, config.registry_options).rows()

        return gateway.GatewayParts(
            mirror=Mirror(RayFeed(feed), symbols=feed.symbols, every_s=0.25),
            symbols=feed.symbols,
            lake=lake,
            models=models,
            dashboard_dir=config.dashboard_dir,
            links=config.links,
        )

    return gateway.build(open_parts)
