"""`up` and `down` as an operator types them: twice, over kept data, a port taken, after a kill.

The last to use the platform that the tests of this folder share: it is down at the end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster import processes, runtime
from tests.running import FAST, Running, free_ports, prepared, until

pytestmark = [pytest.mark.heavy, pytest.mark.integration, pytest.mark.timeout(600)]


def remains(running: Running) -> list[str]:
    """Processes, ports and files of a platform that should be none."""
    settings = running.settings
    marks = (str(settings.var_dir), str(runtime.ray_temp_dir(settings)))
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + str(process.environ())
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(mark in text for mark in marks):
            found.append(text[:200])
    found += [f"port {p}" for p in free_ports(running) if processes.port_in_use(p)]
    if runtime.ray_temp_dir(settings).exists():
        found.append(str(runtime.ray_temp_dir(settings)))
    return found


def test_up_down_up_goes_on_where_it_stopped(running: Running) -> None:
    assert "training" in running.said
    assert "● first signal" in running.said
    assert "up already" in running.cli("up")
    before = running.get("/v1/ledger")
    running.cli("down")
    assert remains(running) == []
    assert "not running" in running.cli("down")

    second = running.cli("up")
    assert "● first signal" in second
    assert "training" not in second
    after = until(
        lambda: (found := running.get("/v1/ledger"))["stored"] > before["stored"] and found,
        timeout_s=60,
        what="the lake grows again",
    )
    assert after["received"] >= before["received"]
    assert after["lost"] == 0
    bars = running.get("/v1/bars/AAPL", window="1m", limit=500)["items"]
    times = [bar["event_time"] for bar in bars]
    assert times == sorted(set(times), reverse=True)


def test_down_after_ray_was_killed_leaves_nothing(running: Running) -> None:
    child = processes.find("ray", run_dir=running.settings.run_dir)
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    running.cli("down")
    assert remains(running) == []


def test_up_with_a_port_taken_names_port_setting_and_owner(tmp_path: Path) -> None:
    running = prepared(tmp_path, **FAST)
    with socket.create_server(("127.0.0.1", running.settings.gateway_port)):
        done = subprocess.run(
            [Path(sys.executable).with_name("raytape"), "up"],
            env=running.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "RAYTAPE_GATEWAY_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert remains(running) == []
