"""PPO and DQN as RLlib's new API stack wants them configured."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from rl.episodes import Market
from rl.modules import PolicyModule, QModule
from rl.train_config import TrainConfig
from rl.vector_env import TradingVectorEnv


def build(
    config: TrainConfig,
    market: Market,
    *,
    mean: np.ndarray[Any, Any],
    std: np.ndarray[Any, Any],
) -> Algorithm:
    """RLlib's algorithm over the vectorised environment of a market, ready to iterate.

    Args:
        config: How to train.
        market: What to train on.
        mean: Of the inputs, shape ``(n_inputs,)``; baked into the network.
        std: Likewise.
    """
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
