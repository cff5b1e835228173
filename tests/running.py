"""A whole platform of a test's own: started with the command that users type, on free ports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson

from cluster import processes
from cluster.settings import Settings, load

PORTS = (
    "gateway_port", "ray_dashboard_port", "spark_ui_port", "exchange_port", "kinesis_port",
    "metrics_port", "ray_port", "serve_port", "haproxy_metrics_port", "haproxy_stats_port",
)  # fmt: skip

FAST: dict[str, Any] = {"train_budget_s": 8, "train_bars": 1500, "archive_trigger_s": 2}
"""Settings that make a platform quick to start and to drain; the training is short, but real."""


@dataclass(frozen=True)
class Running:
    """A platform that is up."""

    settings: Settings
    env: dict[str, str]
    said: str = ""
    """What ``raytape up`` printed."""

    def cli(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run ``raytape`` against this platform; its output.

        Raises:
            AssertionError: It failed; the message holds its output.
        """
        done = subprocess.run(
            [Path(sys.executable).with_name("raytape"), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"raytape {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def get(self, path: str, **params: Any) -> Any:
        """JSON of a GET on the gateway."""
        answer = httpx.get(self.settings.gateway_url + path, params=params, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def exchange(self, path: str, body: Any | None = None) -> Any:
        """JSON of a control call on the exchange (GET, or POST with a body)."""
        url = self.settings.exchange_url + path
        answer = httpx.get(url) if body is None else httpx.post(url, json=body)
        answer.raise_for_status()
        return answer.json()

    def ask(self, part: str, method: str, *arguments: Any, timeout_s: float = 30) -> Any:
        """Result of a method of one of the platform's parts; ``None`` if it does not answer."""
        words = [orjson.dumps(a).decode() for a in arguments]
        answer = self.cli("call", part, method, *words, "--timeout-s", str(timeout_s))
        return orjson.loads(answer)

    def stats(self, part: str) -> dict[str, Any]:
        """What a part (``producer``, ``archive``, ``signals``) says of itself, by the gateway."""
        return self.get("/v1/ledger")["stages"].get(part) or {}


def prepared(folder: Path, **overrides: Any) -> Running:
    """A platform in a folder, on free ports, that is not started yet."""
    chosen = {name: processes.free_port() for name in PORTS}
    chosen |= {"var_dir": folder, **overrides}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAYTAPE_", "RAY_"))}
    env |= {f"RAYTAPE_{name.upper()}": str(value) for name, value in chosen.items()}
    return Running(settings=load(**chosen), env=env)


def free_ports(running: Running) -> list[int]:
    """The ports that were chosen for a platform."""
    return [getattr(running.settings, name) for name in PORTS]


@contextmanager
def platform(folder: Path, **overrides: Any) -> Iterator[Running]:
    """Start a platform in a folder, and stop it at the end, whatever happened."""
    running = prepared(folder, **overrides)
    try:
        yield replace(running, said=running.cli("up"))
    finally:
        running.cli("down")


def until(condition: Callable[[], Any], *, timeout_s: float, what: str, poll_s: float = 0.2) -> Any:
    """Poll until a condition is true; its value.

    Raises:
        AssertionError: It was not in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(poll_s)
