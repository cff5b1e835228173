"""The networks, as RLlib modules of its new API stack, and their weights as plain layers.

Normalisation is part of the module: mean and standard deviation of the training data are
constants in it. So nothing stateful has to travel with the weights, and what
:func:`layers_of` gives is all that serving needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from rl.account import N_ACTIONS
from rl.graphs import CLIP, Dense


class Normalise(nn.Module):
    """``clip((x - mean) / std)`` with constants.

    Args:
        mean: One number for each input.
        std: Likewise, positive.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised observations, shape as given."""
        return torch.clamp((x - self.mean) / self.std, -CLIP, CLIP)


def mlp(sizes: Sequence[int], *, last_gain: float) -> nn.Sequential:
    """Linear layers with ``tanh`` between them, orthogonally initialised.

    Args:
        sizes: Units of input, hidden layers and output.
        last_gain: Gain of the last layer; a small one begins near a uniform policy.
    """
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else float(np.sqrt(2)))
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


class PolicyModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic side by side (PPO).

    ``model_config``: ``hidden`` (units of each hidden layer), ``mean`` and ``std`` (one
    number for each input).
    """

    def setup(self) -> None:
        """Build the networks."""
        config = _config_of(self)
        self.normalise = Normalise(config["mean"], config["std"])
        sizes = [len(config["mean"]), *config["hidden"]]
        self.policy = mlp([*sizes, N_ACTIONS], last_gain=0.01)
        self.critic = mlp([*sizes, 1], last_gain=1.0)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.normalise(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Value of each observation, shape ``(n,)``."""
        del embeddings
        values: torch.Tensor = self.critic(self.normalise(batch[Columns.OBS])).squeeze(-1)
        return values


class _Encoder(nn.Module):
    """Normalisation and hidden layers, in the form that RLlib's DQN module asks for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.normalise = Normalise(config["mean"], config["std"])
        self.hidden = mlp([len(config["mean"]), *config["hidden"]], last_gain=float(np.sqrt(2)))

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {ENCODER_OUT: torch.tanh(self.hidden(self.normalise(batch[Columns.OBS])))}


class QModule(DefaultDQNTorchRLModule):
    """One Q-value for each action (double DQN, no dueling, no distribution).

    ``model_config`` as of :class:`PolicyModule`.
    """

    def setup(self) -> None:
        """Let RLlib set up its own, then put our networks in place of its."""
        super().setup()  # type: ignore[no-untyped-call]
        config = _config_of(self)
        self.uses_dueling = False
        self.encoder = _Encoder(config)
        self.af = mlp([config["hidden"][-1], N_ACTIONS], last_gain=0.1)


def layers_of(module: PolicyModule | QModule) -> dict[str, list[Dense]]:
    """The weights of a trained module: layers of each output of its ONNX graph."""
    if isinstance(module, QModule):
        return {"q_values": [*_dense(module.encoder.hidden), *_dense(module.af)]}
    return {"logits": _dense(module.policy), "value": _dense(module.critic)}


def _config_of(module: TorchRLModule) -> dict[str, Any]:
    config = module.model_config
    if not isinstance(config, dict):
        raise TypeError(f"model_config must be a dict, not {type(config).__name__}")
    return config


def _dense(network: nn.Sequential) -> list[Dense]:
    return [
        Dense(
            layer.weight.detach().cpu().numpy().astype(np.float32),
            layer.bias.detach().cpu().numpy().astype(np.float32),
        )
        for layer in network
        if isinstance(layer, nn.Linear)
    ]
