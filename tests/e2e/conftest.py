"""One running platform for what is tested of it from outside: on the wire and on the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import FAST, Running, platform


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform on `local[2]`: the way out if RayDP fails is a setting, and it works."""
    folder = tmp_path_factory.mktemp("page")
    with platform(folder, speed=20, spark_master="local[2]", **FAST) as up:
        yield up
