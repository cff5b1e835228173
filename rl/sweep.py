"""A search over training configurations with Ray Tune; each trial is one :func:`rl.train.train`.

Trials are compared by what they earn on validation bars, costs paid. The best of many looks
better than it is: the gate judges it again, and its manifest says how many were tried.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipelines.errors import ConfigError
from rl.episodes import Market
from rl.train import TrainConfig, TrainingFailed, TrainResult, train

log = logging.getLogger(__name__)

RESULT = "result.pickle"
"""File of a trial's checkpoint."""

SPACE: Mapping[str, Any] = {
    "lr": tune.loguniform(1e-4, 2e-3),
    "gamma": tune.choice([0.9, 0.97, 0.99]),
    "entropy": tune.loguniform(1e-4, 2e-2),
    "hidden": tune.choice([(32, 32), (64, 64), (128, 64)]),
}
"""What is searched by default: fields of :class:`~rl.train.TrainConfig`."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a search found.

    Args:
        best: The trial that earned most on validation bars.
        trials: Of each trial that ended well: its changed fields, ``net_return``, ``trades``,
            ``steps``; best first.
        failed: Trials that ended in an error.
    """

    best: TrainResult
    trials: Sequence[Mapping[str, Any]]
    failed: int


def sweep(
    config: TrainConfig,
    data: Market,
    *,
    storage: Path,
    trials: int = 8,
    concurrent: int = 1,
    space: Mapping[str, Any] = SPACE,
) -> SweepResult:
    """Train ``trials`` variations of a configuration, in the Ray that is running.

    Args:
        config: What they share; ``budget_s`` is for each trial.
        data: The bars.
        storage: Folder of Tune's own records.
        trials: How many.
        concurrent: How many at the same time; each takes one logical CPU.
        space: Field of the configuration → Tune's search domain, or a value.

    Raises:
        ConfigError: A field does not exist, or no Ray is running.
        TrainingFailed: No trial ended well.
    """
    unknown = set(space) - {f.name for f in fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"TrainConfig has no {', '.join(sorted(unknown))}")
    if not ray.is_initialized():
        raise ConfigError("a sweep needs a running Ray; connect first")
    reference = ray.put(data)

    def trial(changes: dict[str, Any]) -> None:
        result = train(replace(config, **changes), ray.get(reference))
        metrics = {
            "net_return": float(result.manifest.metrics["net_return"]),
            "trades": int(result.manifest.metrics["trades"]),
            "steps": result.steps,
        }
        # As a file of Tune's, not as an object of Ray's: an object dies with its owner, and the
        # worker of a trial ends as soon as the trial has.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, RESULT).write_bytes(pickle.dumps(result))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    grid = _run(
        trial, space, trials=trials, concurrent=concurrent, storage=storage, seed=config.seed
    )
    done = sorted(
        (r for r in grid if r.error is None and "net_return" in (r.metrics or {})),
        key=lambda r: r.metrics["net_return"],
        reverse=True,
    )
    if not done:
        raise TrainingFailed(f"all {trials} trials failed; the first: {grid.errors[:1]}")
    with done[0].checkpoint.as_directory() as folder:
        best: TrainResult = pickle.loads(Path(folder, RESULT).read_bytes())  # noqa: S301 - our own
    noted = {**best.manifest.training, "sweep": {"trials": trials, "failed": grid.num_errors}}
    return SweepResult(
        best=replace(best, manifest=replace(best.manifest, training=noted)),
        trials=[_row(r) for r in done],
        failed=grid.num_errors,
    )


def _run(
    trial: Any,
    space: Mapping[str, Any],
    *,
    trials: int,
    concurrent: int,
    storage: Path,
    seed: int,
) -> Any:
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            metric="net_return",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=concurrent,
            search_alg=tune.search.BasicVariantGenerator(random_state=seed),
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(storage.resolve()), verbose=0),
    )
    return tuner.fit()


def _row(result: Any) -> dict[str, Any]:
    names = ("net_return", "trades", "steps")
    return {**result.config, **{name: result.metrics[name] for name in names}}
