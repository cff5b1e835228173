"""A wrong machine gets a message that names the value and the way out."""

import socket

import pytest

from cluster import preflight
from cluster.processes import free_port
from cluster.settings import load


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)]
)
def test_python_outside_range_is_refused(version: tuple[int, int], ok: bool) -> None:
    assert preflight.check_python(version).ok is ok


def test_python_built_without_optimization_is_taken_and_told() -> None:
    check = preflight.check_python((3, 11), optimized=False)
    assert check.ok
    assert "without optimization" in check.found


@pytest.mark.parametrize(
    ("banner", "ok"),
    [
        ('openjdk version "11.0.2"', False),
        ('openjdk version "17.0.15"', True),
        ('openjdk version "21"', True),
        (None, False),
    ],
)
def test_java_other_than_17_or_21_is_refused_with_the_way_out(banner: str | None, ok: bool) -> None:
    check = preflight.check_java(banner)
    assert check.ok is ok
    assert ("openjdk-17" in check.fix) is not ok


def test_full_disk_is_refused_with_the_way_out() -> None:
    check = preflight.check_disk(0.2, where="var")
    assert not check.ok
    assert "RAYTAPE_VAR_DIR" in check.fix


def test_port_in_use_names_setting_and_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = load(gateway_port=port, spark_ui_port=free_port())
        check = next(c for c in preflight.free_ports(settings) if c.name == f"port {port}")
    assert not check.ok
    assert "pid" in check.found
    assert "RAYTAPE_GATEWAY_PORT" in check.fix
