"""FAULTS 22–24, 42: the job killed -9 at every point, its checkpoints deleted now and then.

The places are those of :mod:`tests.chaos.streaming_job`. In the end every message sent is one row,
in the order of its symbol; with both queries every bar has the features of a run without faults
and one signal, which is on the stream as it stands in the lake, whoever was asked how often.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest

from tests.chaos.killed_job import KilledJob, Ledger, in_time
from tests.pipelines.kinesis.deadly import PLACES

LAKE_PLACES = ("before the state", "after the state", "before a table", "after a table")
OUTBOX_PLACES = ("before the items", "after the items")
TASK_PLACES = ("read", "shuffle", "write", "fold")
KILLS = int(os.environ.get("RAYTAPE_KILLS", "50"))

pytestmark = [pytest.mark.chaos, pytest.mark.heavy, pytest.mark.timeout(14_400)]


def drivers_die(job: KilledJob, places: Sequence[str], *, forget_every: int) -> Ledger:
    """Let the driver die at these places one after the other; the ledger after a quiet run."""
    for number, place in enumerate(in_time(places), start=1):
        job.die_at(place)
        if number % forget_every == 0:
            job.forget()
    return job.ledger(job.drained())


def tasks_die(job: KilledJob, places: Sequence[str]) -> Ledger:
    """Let tasks die at these places while the driver lives; the ledger after a quiet run."""
    job.begun()
    for place in in_time(places):
        job.task_dies_at(place)
    job.kill()
    return job.ledger(job.drained())


@pytest.mark.long
def test_archive_killed_fifty_times_at_every_point_is_clean(job, clean):
    places = [*PLACES, *LAKE_PLACES]
    chosen = [places[k % len(places)] for k in range(KILLS)]
    clean(drivers_die(job(23, task_dies="executor"), chosen, forget_every=7))


@pytest.mark.long
def test_both_queries_killed_fifty_times_at_every_point_decide_and_publish_once(job, clean, policy):
    places = [*PLACES, *LAKE_PLACES, *OUTBOX_PLACES, "fold", "state store"]
    chosen = [places[k % len(places)] for k in range(KILLS)]
    both = job(24, signals=True, policy_url=policy, task_dies="executor")
    clean(drivers_die(both, chosen, forget_every=9))


@pytest.mark.long
def test_workers_killed_fifty_times_reading_shuffling_writing_and_folding_are_clean(
    job, clean, policy
):
    rng = random.Random(25)
    chosen = [rng.choice(TASK_PLACES) for _ in range(KILLS)]
    both = job(25, signals=True, policy_url=policy, parts=2)
    clean(tasks_die(both, chosen))
    assert both.parts() == {"0", "1"}  # so there was a shuffle


def test_both_queries_killed_in_a_task_and_before_publishing_decide_and_publish_once(
    job, clean, policy
):
    both = job(26, signals=True, policy_url=policy, parts=2)
    both.begun()
    both.task_dies_at("shuffle")
    both.kill()
    both.die_at("before the items")
    clean(both.ledger(both.drained()))
