"""FAULTS 26, 29, 30, 40, 44: the whole job beside a zombie, for long, twice, on a full disk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import local_aws
from tests.chaos.deciding import deciding
from tests.chaos.killed_job import KilledJob

SOAK_MINUTES = float(os.environ.get("RAYTAPE_SOAK_MINUTES", "10"))
KILL_EVERY_S = float(os.environ.get("RAYTAPE_SOAK_KILL_EVERY_S", "120"))

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(14_400)]


def test_zombie_driver_beside_the_new_one_is_fenced(job, clean, policy):
    one = job(26, signals=True, policy_url=policy)
    one.begun()
    zombie = one.process
    os.killpg(zombie.pid, signal.SIGSTOP)
    try:
        one.sender.send(20)
        one.scratch = "spark-2"
        one.begun()  # the new one, from the same checkpoint
        os.killpg(zombie.pid, signal.SIGCONT)
        woken = time.monotonic()
        one.rounds += 1
        while zombie.poll() is None:
            assert time.monotonic() < woken + 300, "the zombie works on"
            one.sender.send(2)
            time.sleep(0.3)
            if one.dead():  # Spark itself noticed that two write one log, and chose this one
                one.start()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(zombie.pid, signal.SIGKILL)
        zombie.wait(10)
    assert re.search(r"Fenced|[Cc]oncurrent", (one.folder / "log").read_text())
    one.kill()
    clean(one.ledger(one.drained()))


def test_soak_with_a_kill_now_and_then_stays_bounded_and_clean(job, clean, policy, record_property):
    one = job(29, signals=True, policy_url=policy)
    begun = time.monotonic()
    sizes: list[dict[str, int]] = []
    while time.monotonic() - begun < SOAK_MINUTES * 60:
        before, started = one.stored(), time.monotonic()
        one.start(maintenance_every_s=15)
        while time.monotonic() - started < KILL_EVERY_S:
            if one.dead():
                one.again()
            one.sender.send(4)
            time.sleep(0.2)
        one.kept_alive_until(lambda n=before: one.stored() > n)
        sizes.append(_sizes(one))
        one.kill()
        one.rounds += 1
    record_property("sizes", sizes)
    clean(one.ledger(one.drained()))
    half = len(sizes) // 2
    for name, most in (
        ("rss_mb", 1.5),
        ("checkpoint_files", 2.0),
        ("scratch_files", 2.0),
        ("state_kb", 2.0),
    ):
        early, late = (max(s[name] for s in part) for part in (sizes[:half], sizes[half:]))
        assert late <= most * early, f"{name} grows: {[s[name] for s in sizes]}"
    assert sizes[-1]["live_files"] < 400  # compaction keeps up with a commit every half second


def _sizes(one: KilledJob) -> dict[str, int]:
    """What must not grow for ever."""
    family = [p := psutil.Process(one.process.pid), *p.children(recursive=True)]
    checkpoints = one.folder / "checkpoints"
    files = [path for path in checkpoints.rglob("*") if path.is_file()]
    state = [path for path in files if "/state/" in str(path)]
    return {
        "rss_mb": sum(p.memory_info().rss for p in family) // 2**20,
        "checkpoint_files": len(files),
        "scratch_files": sum(path.is_file() for path in (one.folder / "spark").rglob("*")),
        "state_kb": sum(path.stat().st_size for path in state) // 1024,
        "live_files": len(one.lake.dataset("trades").files),
        "rows": one.stored(),
    }


def test_job_on_a_checkpoint_of_a_newer_version_refuses_and_says_why(job, clean):
    one = job(30)
    one.begun()
    one.kill()
    (offsets,) = (one.folder / "checkpoints").glob("*/archive/offsets")
    last = max((p for p in offsets.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    known = last.read_text()
    last.write_text(re.sub(r'"v(ersion)?":\s*\d+(?=[^\n]*$)', r'"v\1":99', known))
    assert last.read_text() != known
    one.start()
    one.until(one.dead)
    assert "99" in one.log(80)
    last.write_text(known)  # the newer code is back
    one.rounds += 1
    clean(one.ledger(one.drained()))


def test_same_recorded_day_twice_gives_identical_bars_features_and_signals(
    job, clean, kinesis, tmp_path
):
    runs: list[list[list[dict[str, Any]]]] = []
    with deciding(by_features=True) as url:
        for n, pieces in enumerate((1, 8)):  # all at once; in pieces, and killed on the way
            stream = f"{kinesis.market_data}-{n}"
            own = replace(kinesis, market_data=stream, market_signals=f"{stream}-signals")
            local_aws.ensure_streams(own, shards=1 + n)
            one = job(40, folder=tmp_path / str(n), kinesis=own, signals=True, policy_url=url)
            if pieces > 1:
                one.start()
            for piece in range(pieces):
                one.sender.send(160 // pieces)
                if pieces > 1 and piece == pieces // 2:
                    sent = len(one.sender.trades)
                    one.until(lambda one=one, sent=sent: one.stored() >= sent)
                    one.kill()
                    one.start()
            one.kill()
            one.rounds = n
            clean(one.ledger(one.drained()))
            runs.append([one.lake.sql(sql).to_pylist() for sql in COMPARED])
    for first, second in zip(*runs, strict=True):
        assert first == second
        assert len(first) > 40


COMPARED = (
    "SELECT * EXCLUDE (known_at) FROM features ORDER BY symbol, event_time_ns",
    "SELECT symbol, event_time_ns, open, high, low, close, volume, vwap FROM bars ORDER BY ALL",
    "SELECT symbol, event_time_ns, action, confidence, value, probabilities, reason FROM signals "
    "ORDER BY symbol, event_time_ns",
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs root and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_job_on_a_full_disk_stops_says_so_and_resumes_when_there_is_room(
    job, clean, policy, small_disk, tmp_path
):
    for name in ("lake", "checkpoints"):
        (small_disk / name).mkdir()
        (tmp_path / name).symlink_to(small_disk / name)
    one = job(44, signals=True, policy_url=policy)
    one.begun()
    hog = small_disk / "hog"
    with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
        while True:
            file.write(os.urandom(4096))
    one.rounds += 1
    full = time.monotonic()
    while not one.dead():
        assert time.monotonic() < full + 300, "it goes on, on a full disk"
        one.sender.send(3)
        time.sleep(0.3)
    assert "No space left on device" in (one.folder / "log").read_text()
    hog.unlink()
    clean(one.ledger(one.drained()))
