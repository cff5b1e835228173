"""Training: RLlib over the vectorised environment, bounded by wall time and by steps.

In: a :class:`~rl.episodes.Market` and a :class:`TrainConfig`. Out: an ONNX model with a manifest
that says what it learnt from and how it did on data it never saw. Registering and promoting are
somebody else's decision (:mod:`rl.gate`).

Metrics handed to ``on_progress``:

==================  ==========================================================
``steps``           environment steps so far
``steps_per_s``     of training as a whole, learning included
``iterations``      batches learnt from
``reward``          mean reward of the episodes that ended lately (per episode, scaled)
``entropy``         of the policy (PPO): ln 3 = 1.1 is a coin with three sides
``loss``            total loss of the last batch
``elapsed_s``       wall time since the beginning
==================  ==========================================================
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from pipelines.errors import ConfigError, RaytapeError
from rl.account import ACCOUNT_INPUTS
from rl.algorithms import build
from rl.episodes import Market
from rl.evaluate import report
from rl.export import export
from rl.modules import PolicyModule, QModule
from rl.registry import Manifest
from rl.train_config import TrainConfig

__all__ = ["OnProgress", "TrainConfig", "TrainResult", "TrainingFailed", "normalisation", "train"]

log = logging.getLogger(__name__)

OnProgress = Callable[[float, Mapping[str, float]], None]


class TrainingFailed(RaytapeError):
    """Training went wrong: a loss, a weight or a reward is not finite."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained model.

    Args:
        manifest: What it is; not registered yet.
        onnx: Its graph.
        validation: The rows it never saw, on which its metrics were measured.
        steps: Environment steps.
        iterations: Batches.
        wall_s: Wall time of sampling and learning.
        steps_per_s: ``steps / wall_s``.
    """

    manifest: Manifest
    onnx: bytes
    validation: Market
    steps: int
    iterations: int
    wall_s: float
    steps_per_s: float


def train(
    config: TrainConfig,
    data: Market,
    *,
    on_progress: OnProgress | None = None,
    start_ray: bool = False,
    clock_s: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train on the earlier part of a market, and measure on the later.

    Args:
        config: How.
        data: The bars.
        on_progress: Called after each iteration with the part that is done, 0 to 1, and metrics.
        start_ray: Start a local Ray for this call if none is running in this process.
        clock_s: Monotonic clock.

    Raises:
        NotEnoughData: Too few bars for one episode, or for the split.
        TrainingFailed: A loss, weight or reward is not finite.
        ConfigError: No Ray is running and ``start_ray`` is false.
    """
    begin_s = clock_s()
    learnt_from, validation = data.split(
        validation_fraction=config.validation_fraction, purge_bars=config.purge_bars
    )
    learnt_from.starts(config.env.episode_bars)
    mean, std = normalisation(learnt_from)
    tell = on_progress or (lambda _fraction, _metrics: None)
    with _ray(start=start_ray), _threads(config.torch_threads), _quiet():
        algorithm = build(config, learnt_from, mean=mean, std=std)
        try:
            loop_s = clock_s()
            progress = _learn(algorithm, config, begin_s=begin_s, clock_s=clock_s, tell=tell)
            wall_s = clock_s() - loop_s
            onnx = export(cast("PolicyModule | QModule", algorithm.get_module(DEFAULT_MODULE_ID)))
        finally:
            algorithm.stop()  # type: ignore[no-untyped-call]
            with suppress(OSError):  # RLlib makes a folder in the home directory, for nothing
                Path(algorithm.logdir).rmdir()
    manifest = _manifest(config, learnt_from, validation, progress)
    metrics = report(onnx, manifest, validation, costs=config.env.costs, seed=config.seed)
    tell(1.0, progress)
    return TrainResult(
        manifest=replace(manifest, metrics=metrics),
        onnx=onnx,
        validation=validation,
        steps=int(progress["steps"]),
        iterations=int(progress["iterations"]),
        wall_s=wall_s,
        steps_per_s=progress["steps"] / max(wall_s, 1e-9),
    )


def normalisation(market: Market) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and standard deviation of the inputs, from warm rows; each of shape ``(n_inputs,)``.

    The account's fractions are centred at one half. An input that never changes (an assumed
    spread) gets the larger of its size and 1 as its deviation, so that a new value is a small
    one.
    """
    rows = market.features[market.warm]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    flat = std < 1e-9 * np.maximum(np.abs(mean), 1e-3)
    std = np.where(flat, np.maximum(np.abs(mean), 1.0), std)
    return (
        np.concatenate([mean, [0.5, 0.5]]).astype(np.float32),
        np.concatenate([std, [0.5, 0.5]]).astype(np.float32),
    )


def _learn(
    algorithm: Algorithm,
    config: TrainConfig,
    *,
    begin_s: float,
    clock_s: Callable[[], float],
    tell: OnProgress,
) -> dict[str, float]:
    """Iterate until time or steps are used up; the last metrics."""
    progress: dict[str, float] = {"steps": 0, "iterations": 0}
    loop_s = clock_s()
    longest_s = 0.0
    reserve_s = 0.05 * config.budget_s  # for exporting and evaluating
    while True:
        round_s = clock_s()
        result = _iteration(algorithm)
        now_s = clock_s()
        longest_s = max(longest_s, now_s - round_s)
        iterations = int(progress["iterations"]) + 1
        progress = progress | _metrics(result, iterations=iterations)
        progress["elapsed_s"] = now_s - begin_s
        progress["steps_per_s"] = progress["steps"] / max(now_s - loop_s, 1e-9)
        fraction = max(
            progress["elapsed_s"] / config.budget_s, progress["steps"] / config.max_steps
        )
        tell(min(fraction, 0.99), progress)
        ends_s = progress["elapsed_s"] + longest_s + reserve_s
        if ends_s > config.budget_s or progress["steps"] >= config.max_steps:
            return progress


def _iteration(algorithm: Algorithm) -> Mapping[str, Any]:
    """One batch, sampled and learnt from.

    Raises:
        TrainingFailed: The environment met a number that is not finite.
    """
    try:
        found: Mapping[str, Any] = algorithm.train()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # RLlib's wrapping of whatever the environment raised
        if isinstance(error.__cause__, FloatingPointError):
            raise TrainingFailed(f"the environment stopped: {error.__cause__}") from error
        raise
    return found


def _metrics(result: Mapping[str, Any], *, iterations: int) -> dict[str, float]:
    """The metrics of one iteration.

    Raises:
        TrainingFailed: A loss is not finite.
    """
    runners = result.get("env_runners", {})
    learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
    loss = float(learner.get("total_loss", 0.0))
    if not math.isfinite(loss):
        raise TrainingFailed(f"the loss became {loss} in iteration {iterations}")
    found = {
        "steps": float(runners.get("num_env_steps_sampled_lifetime", 0)),
        "iterations": float(iterations),
        "loss": loss,
    }
    for name, value in (
        ("reward", runners.get("episode_return_mean")),
        ("entropy", learner.get("entropy")),
    ):
        if value is not None and math.isfinite(float(value)):
            found[name] = float(value)
    return found


def _manifest(
    config: TrainConfig, learnt_from: Market, validation: Market, progress: Mapping[str, float]
) -> Manifest:
    return Manifest(
        id=config.model_id or config.algorithm,
        kind=config.algorithm,
        fingerprint=learnt_from.spec.fingerprint,
        feature_names=learnt_from.spec.names,
        inputs=(*learnt_from.spec.names, *ACCOUNT_INPUTS),
        temperature=config.temperature if config.algorithm == "dqn" else 1.0,
        training={
            "config": asdict(config),
            "train": learnt_from.summary(),
            "validation": validation.summary(),
            "progress": dict(progress),
        },
    )


@contextmanager
def _ray(*, start: bool) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    if not start:
        raise ConfigError("training needs a running Ray; connect first, or ask for a local one")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Only errors of RLlib and Tune: their remarks would tear a progress bar apart."""
    loggers = [logging.getLogger(name) for name in ("ray.rllib", "ray.tune", "ray._common")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
