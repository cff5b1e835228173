"""Ray: starting a local head, connecting, and the names of our actors.

The head is a child process of the platform (``ray start --head --block``), so it ends with all
that it started when it is told to; ``ray stop`` would end every Ray on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster import processes
from cluster.settings import Settings

NAMESPACE = "raytape"
PRODUCER = "raytape-producer"
STREAMING = "raytape-streaming"
FEED = "raytape-feed"

# Ray's and Spark's Java reach into the JDK; Java 17 forbids it unless each package is opened.
_OPENED = (
    "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio",
    "java.math", "java.text", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
    "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar",
)  # fmt: skip


def java_options() -> str:
    """The value of ``JDK_JAVA_OPTIONS`` that Ray's Java workers need."""
    return " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED)


def ray_temp_dir(settings: Settings) -> Path:
    """Ray's session folder of this platform: short, because Unix sockets live in it."""
    key = hashlib.sha256(str(settings.var_dir.resolve()).encode()).hexdigest()[:8]
    return Path("/tmp") / f"raytape-{key}"  # noqa: S108 (socket paths are limited to 107 bytes)


def ray_address(settings: Settings) -> str:
    """Address of the head's control store."""
    return f"{settings.host}:{settings.ray_port}"


def token_file(settings: Settings) -> Path:
    """File with the token that Ray's own ports and its dashboard ask for."""
    return settings.run_dir / "ray.token"


def ray_token(settings: Settings) -> str:
    """The token that Ray's own ports ask for; made once per ``var`` folder, readable by us only."""
    path = token_file(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def ray_env(settings: Settings, *, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that must be set before Ray starts or is connected to."""
    ray_token(settings)
    return {
        "RAY_AUTH_MODE": "token",  # the control store listens on every interface
        "RAY_AUTH_TOKEN_PATH": str(token_file(settings).resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",  # 15 by default; here Spark and training are niced instead
        "RAY_TMPDIR": str(ray_temp_dir(settings)),
        "JDK_JAVA_OPTIONS": java_options(),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        **(extra or {}),
    }


def producers(settings: Settings) -> tuple[str, ...]:
    """Names of the producers' actors; the first speaks for all of them."""
    return (PRODUCER, *(f"{PRODUCER}-{i}" for i in range(1, settings.producers)))


def start_head(settings: Settings, *, extra_env: Mapping[str, str]) -> processes.Child:
    """Start the head node of this machine and return when its dashboard listens.

    Args:
        settings: Ports, logical CPUs, memory of the object store.
        extra_env: Further variables for everything under Ray (Serve's proxy settings).

    Raises:
        PartFailed: It did not come up; the message ends with its log.
    """
    temp_dir = ray_temp_dir(settings)
    temp_dir.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--node-ip-address={settings.host}",
        f"--port={settings.ray_port}",
        f"--dashboard-host={settings.host}",
        f"--dashboard-port={settings.ray_dashboard_port}",
        "--dashboard-agent-listen-port=0",
        "--include-log-monitor=false",  # every actor has a log file of its own
        f"--ray-client-server-port={processes.free_port()}",
        f"--metrics-export-port={settings.metrics_port}",
        f"--num-cpus={settings.ray_cpus}",
        f"--object-store-memory={settings.ray_object_store_mb * 1024 * 1024}",
        f"--temp-dir={temp_dir}",
        "--disable-usage-stats",
    ]  # fmt: skip
    env = {**os.environ, **ray_env(settings, extra=extra_env)}
    child = processes.start(
        "ray", command, run_dir=settings.run_dir, log_dir=settings.log_dir, env=env
    )
    processes.wait_until(
        lambda: processes.port_in_use(settings.ray_dashboard_port, host=settings.host),
        name="ray",
        timeout_s=60,
        child=child,
    )
    return child


def remove_session(settings: Settings) -> None:
    """Remove what Ray leaves behind on disk."""
    shutil.rmtree(ray_temp_dir(settings), ignore_errors=True)


def prepare(settings: Settings) -> None:
    """Set what Ray reads when it is imported; call it before anything imports Ray.

    Ray's native code looks at the authentication mode once, when it is loaded.
    """
    os.environ.update(ray_env(settings))


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    """Connect this process to the platform's Ray for a while; yields the ``ray`` module.

    Raises:
        ConnectionError: No Ray listens there. (Ray itself would try for minutes.)
    """
    if not processes.port_in_use(settings.ray_port, host=settings.host):
        raise ConnectionError(f"no Ray listens on {ray_address(settings)}")
    prepare(settings)
    import ray

    ray.init(
        address=ray_address(settings),
        namespace=NAMESPACE,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def actor(ray: Any, name: str) -> Any | None:
    """Handle of a named actor of ours, or ``None`` if there is none."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def ask_all(
    ray: Any, names: Iterable[str], method: str, *args: Any, timeout_s: float
) -> list[Any | None]:
    """Results of a method of named actors, asked together; ``None`` for who does not answer."""
    handles = [actor(ray, name) for name in names]
    calls = [getattr(h, method).remote(*args) if h is not None else None for h in handles]
    deadline = time.monotonic() + timeout_s
    answers: list[Any | None] = []
    for call in calls:
        try:
            left_s = max(0.1, deadline - time.monotonic())
            answers.append(None if call is None else ray.get(call, timeout=left_s))
        except ray.exceptions.RayError:
            answers.append(None)
    return answers


def stats_of(name: str, timeout_s: float = 2) -> Mapping[str, Any] | None:
    """Statistics of a named actor, asked from within another; ``None`` if it does not answer."""
    import ray

    answer: Mapping[str, Any] | None = ask(ray, name, "stats", timeout_s=timeout_s)
    return answer


def ask(ray: Any, name: str, method: str, *args: Any, timeout_s: float = 5) -> Any | None:
    """Result of a method of a named actor, or ``None`` if it is not there or does not answer."""
    handle = actor(ray, name)
    if handle is None:
        return None
    try:
        return ray.get(getattr(handle, method).remote(*args), timeout=timeout_s)
    except ray.exceptions.RayError:
        return None
