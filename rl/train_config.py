"""How to train: one documented set of numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.errors import ConfigError
from rl.env import EnvConfig
from rl.episodes import PURGE_BARS


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
