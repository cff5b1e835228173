"""A rig per test, ended with it; the ledger of every fault is printed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.ports import KinesisConfig
from tests.chaos.deciding import deciding
from tests.chaos.killed_job import KilledJob
from tests.chaos.rig import Rig


@pytest.fixture
def rig(tmp_path: Path, kinesis: KinesisConfig) -> Iterator[Callable[..., Rig]]:
    """Starts rigs; ends what is left of them."""
    made: list[Rig] = []

    def make(**given: Any) -> Rig:
        made.append(Rig(tmp_path, kinesis, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def policy() -> Iterator[str]:
    """Address of a policy that decides."""
    with deciding() as url:
        yield url


@pytest.fixture
def job(kinesis: KinesisConfig, tmp_path: Path) -> Iterator[Callable[..., KilledJob]]:
    """Starts streaming jobs to be killed; ends what is left of them."""
    made: list[KilledJob] = []

    def make(seed: int, *, folder: Path = tmp_path, **given: Any) -> KilledJob:
        given = {"kinesis": kinesis} | given
        folder.mkdir(exist_ok=True)
        made.append(KilledJob(given.pop("kinesis"), folder, random.Random(seed), **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def clean(record_property: Callable[[str, object], None]) -> Callable[[Any], Any]:
    """Asserts that a ledger is clean; it stands in the report of ``make chaos`` in any case."""

    def check(ledger: Any) -> Any:
        record_property("ledger", asdict(ledger))
        assert ledger.clean, str(ledger)
        assert ledger.sent > 0
        return ledger

    return check
