"""FAULTS 22 and 23 on Ray: RayDP's executors and the driver killed -9, five of each kind."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import processes, runtime
from tests.chaos.deciding import deciding
from tests.chaos.killed_job import KilledJob, in_time
from tests.pipelines.kinesis.deadly import PLACES
from tests.running import PORTS, prepared

EACH = int(os.environ.get("RAYTAPE_RAY_KILLS", "5"))
TASK_PLACES = ("read", "shuffle", "write", "fold", "state store")

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(14_400)]


@pytest.fixture
def job(kinesis, tmp_path: Path) -> Iterator[Callable[..., KilledJob]]:
    """Makes a job on a Ray of its own."""
    made: list[KilledJob] = []
    settings = prepared(tmp_path / "var").settings
    head = runtime.start_head(settings, extra_env={})
    chosen = {name: getattr(settings, name) for name in PORTS}
    ray = {"var_dir": str(settings.var_dir), **chosen}
    with deciding() as url:

        def make(*, parts: int = 1) -> KilledJob:
            made.append(
                KilledJob(
                    kinesis, tmp_path, random.Random(5), signals=True, policy_url=url,
                    master="raydp", ray=ray, task_dies="executor", parts=parts,
                )
            )  # fmt: skip
            return made[-1]

        yield make
        for one in made:
            one.close()
    processes.stop(head, run_dir=settings.run_dir)
    runtime.remove_session(settings)


def test_executors_on_ray_killed_reading_shuffling_writing_and_in_their_state_are_clean(job, clean):
    one = job(parts=2)
    one.begun()
    for place in in_time(TASK_PLACES * EACH):
        one.task_dies_at(place)
    one.kill()
    clean(one.ledger(one.drained()))
    assert one.parts() == {"0", "1"}  # so there was a shuffle


def test_driver_on_ray_killed_before_and_after_each_log_is_clean(job, clean):
    driver = [place for place in PLACES if place != "read"] + ["before the state"]
    one = job()
    for place in in_time(driver * EACH):
        one.die_at(place)
    clean(one.ledger(one.drained()))
