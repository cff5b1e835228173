"""From a trained module to the ONNX file that is served, and the proof that both agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns

from pipelines.errors import ModelError
from rl.graphs import network
from rl.modules import PolicyModule, QModule, layers_of
from rl.policy import OnnxPolicy

TOLERANCE = 1e-5
"""Largest difference of an output between PyTorch and ONNX Runtime."""


def export(module: PolicyModule | QModule, *, seed: int = 0) -> bytes:
    """The ONNX graph of a trained module, its normalisation inside.

    The graph is run beside the module on random observations before it is given out.

    Raises:
        ModelError: A weight is not finite, or graph and module differ by more than 1e-5.
    """
    layers = layers_of(module)
    for name, head in layers.items():
        if not all(np.isfinite(d.weight).all() and np.isfinite(d.bias).all() for d in head):
            raise ModelError(f"the weights of {name} are not finite")
    dqn = isinstance(module, QModule)
    normalise = module.encoder.normalise if dqn else module.normalise
    mean, std = normalise.mean.cpu().numpy(), normalise.std.cpu().numpy()
    onnx = network(layers, mean=mean, std=std, name="dqn" if dqn else "ppo")
    rng = np.random.default_rng(seed)
    observations = (mean + std * rng.normal(0, 2, (256, len(mean)))).astype(np.float32)
    difference = largest_difference(module, onnx, observations)
    if not difference <= TOLERANCE:
        raise ModelError(f"the exported graph differs from the module by {difference:g}")
    return onnx


def outputs_of(
    module: PolicyModule | QModule, observations: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """What the module itself says, under the names of the graph's outputs."""
    batch: dict[str, Any] = {Columns.OBS: torch.from_numpy(observations)}
    with torch.no_grad():
        if isinstance(module, QModule):
            return {"q_values": np.asarray(module.compute_q_values(batch)["qf_preds"])}
        return {
            "logits": module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].numpy(),
            "value": module.compute_values(batch).numpy(),
        }


def largest_difference(
    module: PolicyModule | QModule,
    onnx: bytes,
    observations: NDArray[np.float32],
) -> float:
    """Largest difference of any output, relative where outputs are larger than 1."""
    wanted, got = outputs_of(module, observations), OnnxPolicy(onnx).outputs(observations)
    return max(
        float(np.max(np.abs(got[name] - values) / np.maximum(1.0, np.abs(values))))
        for name, values in wanted.items()
    )
