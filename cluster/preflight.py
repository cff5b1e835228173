"""What must be true of a machine before the platform starts; each failure says the way out.

Pure checks over injected facts where they can be; ``raytape doctor`` prints all of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from cluster import processes
from cluster.settings import Settings

MIN_DISK_GB = 3.0
MIN_MEMORY_GB = 6.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Args:
        name: What was checked.
        ok: Whether it is as needed.
        found: What was found.
        fix: What to do when it is not; empty when it is.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


def parse_java_major(banner: str) -> int | None:
    """Major version in the output of ``java -version``.

    >>> parse_java_major('openjdk version "17.0.15" 2025-04-15')
    17
    >>> parse_java_major('java version "1.8.0_392"')
    8
    """
    match = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(match[1]) if match else None


def check_python(version: tuple[int, int], *, optimized: bool = True) -> Check:
    """Python must be 3.11 or 3.12; one built without optimization is slow, and this is told."""
    found = f"{version[0]}.{version[1]}" + ("" if optimized else ", built without optimization")
    ok = (3, 11) <= version < (3, 13)
    return Check("Python 3.11 or 3.12", ok, found, "" if ok else "install Python 3.12")


def check_java(banner: str | None) -> Check:
    """Java must be 17 or 21: what Spark 4 and Ray's Java workers run on."""
    major = parse_java_major(banner) if banner else None
    ok = major in (17, 21)
    fix = "" if ok else "install openjdk-17-jre-headless and put its java first on the PATH"
    return Check("Java 17 or 21", ok, str(major or "none"), fix)


def check_node(version: str | None) -> Check:
    """Node must be there for the embedded Kinesis and the build of the dashboard."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version or "")[:2])
    ok = numbers >= (20, 9)
    return Check("Node 20.9 or newer", ok, version or "none", "" if ok else "run `make setup`")


def check_disk(free_gb: float, *, where: str) -> Check:
    """There must be room for data, checkpoints and logs."""
    ok = free_gb >= MIN_DISK_GB
    fix = "" if ok else f"free {MIN_DISK_GB:.0f} GB there, or set RAYTAPE_VAR_DIR to another disk"
    return Check(f"disk for {where}", ok, f"{free_gb:.1f} GB free", fix)


def check_memory(available_gb: float) -> Check:
    """All parts together take up to 8 GB; less than six free ends in the kernel killing one."""
    ok = available_gb >= MIN_MEMORY_GB
    fix = "" if ok else "close other programs, or use a machine with 8 GB free"
    return Check("memory", ok, f"{available_gb:.1f} GB available", fix)


def check_port(port: int, *, setting: str, owner: str | None) -> Check:
    """A port must be free."""
    fix = "" if owner is None else f"stop that program, or set {setting} to another port"
    return Check(f"port {port}", owner is None, owner or "free", fix)


def ports(settings: Settings) -> dict[str, int]:
    """Setting → port, of every port that the platform opens on this machine."""
    wanted = {
        "RAYTAPE_GATEWAY_PORT": settings.gateway_port,
        "RAYTAPE_RAY_PORT": settings.ray_port,
        "RAYTAPE_RAY_DASHBOARD_PORT": settings.ray_dashboard_port,
        "RAYTAPE_SPARK_UI_PORT": settings.spark_ui_port,
        "RAYTAPE_METRICS_PORT": settings.metrics_port,
        "RAYTAPE_SERVE_PORT": settings.serve_port,
        "RAYTAPE_HAPROXY_METRICS_PORT": settings.haproxy_metrics_port,
        "RAYTAPE_HAPROXY_STATS_PORT": settings.haproxy_stats_port,
    }
    if not settings.live:
        wanted["RAYTAPE_EXCHANGE_PORT"] = settings.exchange_port
    if settings.kinesis == "embedded":
        wanted["RAYTAPE_KINESIS_PORT"] = settings.kinesis_port
    return wanted


def machine(settings: Settings) -> Iterator[Check]:
    """Checks of what is installed, and of disk and memory."""
    yield check_python(sys.version_info[:2], optimized=_optimized())
    yield check_java(_output("java", "-version"))
    yield check_node(_output("node", "--version"))
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(settings.var_dir).free / 1e9
    yield check_disk(free_gb, where=str(settings.var_dir))
    yield check_memory(psutil.virtual_memory().available / 1e9)


def free_ports(settings: Settings) -> Iterator[Check]:
    """Checks of every port that is to be opened."""
    for setting, port in ports(settings).items():
        used = processes.port_in_use(port, host=settings.host)
        yield check_port(port, setting=setting, owner=_owner(port) if used else None)


def _optimized() -> bool:
    """Whether this Python is a distribution's, or was built with profile-guided optimization."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return sys.base_prefix == "/usr" or "--enable-optimizations" in flags


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"used by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return "in use"  # another user's process is not ours to see
    return "in use"


def _output(*command: str) -> str | None:
    path = processes.program(command[0])
    if path is None:
        return None
    done = subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, timeout=30, check=False
    )
    return (done.stdout + done.stderr).strip()
