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
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from pipelines.errors import ConfigError, RaytapeError
from pipelines.features.spec import FEATURE_SPEC
from rl.account import ACCOUNT_INPUTS
from rl.env import EnvConfig
from rl.episodes import PURGE_BARS, Market
from rl.evaluate import report
from rl.export import export
from rl.modules import PolicyModule, QModule
from rl.registry import Manifest
from rl.vector_env import TradingVectorEnv

log = logging.getLogger(__name__)

OnProgress = Callable[[float, Mapping[str, float]], None]


class TrainingFailed(RaytapeError):
    """Training went wrong: a loss, a weight or a reward is not finite."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train.

    Args:
        algorithm: ``ppo`` or ``dqn``.
        model_id: Name in the registry; the algorithm's when empty.
        budget_s: Wall time of :func:`train` as a whole (building and evaluating included); one
            iteration is always made.
        max_steps: Environment steps after which to stop in any case.
        seed: Of the networks, the environments and the sampling.
        env: Episodes, costs, scale of the reward.
        hidden: Units of each hidden layer.
        lr: Learning rate of Adam.
        gamma: Discount per bar.
        num_envs: Environments side by side in each sampler.
        num_env_runners: Sampling processes; 0 samples in the learner's own.
        batch_steps: Environment steps of one PPO batch.
        minibatch_steps: Steps of one gradient step.
        epochs: Passes over a PPO batch.
        gae_lambda: PPO's advantage estimation.
        clip: PPO's ratio clip.
        entropy: PPO's entropy bonus.
        dqn_batch_steps: Steps of one DQN gradient step, drawn from the replay buffer.
        temperature: Divisor of DQN's Q-values before the softmax.
        validation_fraction: Last part of the time, kept from training.
        purge_bars: Bars dropped between both parts.
        torch_threads: Threads of PyTorch while training; small networks want few.
    """

    algorithm: Literal["ppo", "dqn"] = "ppo"
    model_id: str = ""
    budget_s: float = 45.0
    max_steps: int = 2_000_000
    seed: int = 7
    env: EnvConfig = field(default_factory=EnvConfig)
    hidden: tuple[int, ...] = (64, 64)
    lr: float = 5e-4
    gamma: float = 0.97
    num_envs: int = 64
    num_env_runners: int = 0
    batch_steps: int = 4096
    minibatch_steps: int = 1024
    epochs: int = 6
    gae_lambda: float = 0.9
    clip: float = 0.2
    entropy: float = 0.003
    dqn_batch_steps: int = 256
    temperature: float = 1.0
    validation_fraction: float = 0.2
    purge_bars: int = PURGE_BARS
    torch_threads: int = 1

    def __post_init__(self) -> None:
        if self.algorithm not in ("ppo", "dqn"):
            raise ConfigError(f"algorithm must be ppo or dqn, not {self.algorithm!r}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError("hidden needs at least one layer")
        positive = (self.budget_s, self.max_steps, self.lr, self.num_envs, self.temperature)
        if min(positive) <= 0 or self.minibatch_steps > self.batch_steps:
            raise ConfigError(f"impossible training: {self}")


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
        algorithm = _algorithm(config, learnt_from, mean=mean, std=std)
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
    """Mean and standard deviation of the 13 inputs, from warm rows; each of shape ``(13,)``.

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


def _algorithm(
    config: TrainConfig,
    market: Market,
    *,
    mean: np.ndarray[Any, Any],
    std: np.ndarray[Any, Any],
) -> Algorithm:
    reference = ray.put(market)
    name = f"raytape-trading-{uuid.uuid4().hex[:8]}"  # two trainings may run in one cluster
    env = config.env

    def create(context: Any) -> TradingVectorEnv:
        count = int(context.get("num_envs", 1))
        return TradingVectorEnv(ray.get(reference), num_envs=count, config=env)

    register_env(name, create)
    built: Algorithm = (
        _specific(config, {"hidden": config.hidden, "mean": mean.tolist(), "std": std.tolist()})
        .environment(name)
        .env_runners(
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length="auto",
        )
        .learners(num_learners=0)
        .debugging(seed=config.seed, log_level="ERROR")
        .build_algo()
    )
    return built


def _specific(config: TrainConfig, model: dict[str, Any]) -> AlgorithmConfig:
    """The part of RLlib's configuration that is the algorithm's own."""
    if config.algorithm == "ppo":
        return (
            PPOConfig()  # type: ignore[no-untyped-call]
            .training(
                lr=config.lr,
                gamma=config.gamma,
                lambda_=config.gae_lambda,
                clip_param=config.clip,
                entropy_coeff=config.entropy,
                use_kl_loss=False,
                vf_clip_param=float("inf"),
                vf_loss_coeff=0.5,
                grad_clip=0.5,
                train_batch_size_per_learner=config.batch_steps,
                minibatch_size=config.minibatch_steps,
                num_epochs=config.epochs,
            )
            .rl_module(rl_module_spec=RLModuleSpec(module_class=PolicyModule, model_config=model))
        )
    return (
        DQNConfig()  # type: ignore[no-untyped-call]
        .training(
            lr=config.lr,
            gamma=config.gamma,
            train_batch_size_per_learner=config.dqn_batch_steps,
            double_q=True,
            dueling=False,
            num_atoms=1,
            n_step=1,
            epsilon=[(0, 1.0), (10_000, 0.05)],
            target_network_update_freq=1_000,
            num_steps_sampled_before_learning_starts=config.num_envs * 16,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 200_000},
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=QModule, model_config=model))
    )


def _manifest(
    config: TrainConfig, learnt_from: Market, validation: Market, progress: Mapping[str, float]
) -> Manifest:
    return Manifest(
        id=config.model_id or config.algorithm,
        kind=config.algorithm,
        fingerprint=FEATURE_SPEC.fingerprint,
        feature_names=tuple(FEATURE_SPEC.names),
        inputs=(*FEATURE_SPEC.names, *ACCOUNT_INPUTS),
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
