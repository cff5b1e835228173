from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.ports import KinesisConfig
from serve.config import FeedConfig, ServeConfig
from serve.ingress import clean, serve_env, socket_dir


@pytest.fixture
def config(tmp_path: Path):
    config = ServeConfig(
        feed=FeedConfig(kinesis=KinesisConfig()), registry_uri=str(tmp_path / "models"),
        run_dir=tmp_path / "haproxy",
    )  # fmt: skip
    yield config
    clean(config)


def test_two_platforms_share_no_file_of_haproxy(config, tmp_path: Path) -> None:
    other = replace(config, run_dir=tmp_path / "other")
    try:
        ours, theirs = serve_env(config), serve_env(other)
        files = [name for name, value in ours.items() if value.startswith("/")]
        assert len(files) >= 6
        assert all(ours[name] != theirs[name] for name in files)
    finally:
        clean(other)


def test_paths_of_sockets_fit_however_deep_the_checkout_is(tmp_path: Path, config) -> None:
    deep = replace(config, run_dir=tmp_path / "/".join(["long-name"] * 12))
    longest = socket_dir(deep) / ("n" * 56) / "admin.sock.4194304.tmp"
    assert len(str(longest)) <= 107


def test_launcher_moves_metrics_and_statistics_to_loopback(config, tmp_path: Path) -> None:
    launcher = Path(serve_env(config)["RAY_SERVE_HAPROXY_BINARY_PATH"])
    text = launcher.read_text()
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    launcher.write_text("\n".join([*text.splitlines()[:-1], f'exec {fake} "$@"', ""]))
    file = tmp_path / "h.cfg"
    file.write_text(
        "frontend prometheus\n    bind :9101\nfrontend http_frontend\n    bind 127.0.0.1:8000\n"
        "listen stats\n  bind *:8404\n  stats enable\n"
    )
    done = subprocess.run(
        [launcher, "-db", "-f", file, "-sf", "1"], capture_output=True, text=True, check=True,
        env={"PATH": os.defpath},
    )  # fmt: skip
    assert done.stdout.split() == ["-db", "-f", str(file), "-sf", "1"]
    binds = [line.split()[1] for line in file.read_text().splitlines() if "bind" in line]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8000", "127.0.0.1:8404"]


def test_cleaning_leaves_no_file(config) -> None:
    serve_env(config)
    clean(config)
    assert not config.run_dir.exists()
    assert not socket_dir(config).exists()
