"""A model as a function from observations to actions, for evaluating; serving has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rl.graphs import INPUT

Observations = NDArray[np.float32]
Actions = NDArray[np.int64]
Policy = Callable[[Observations], Actions]
"""Observations ``(n, n_inputs)`` to actions ``(n,)``."""


class OnnxPolicy:
    """An ONNX model that takes the most probable action.

    Args:
        onnx: The graph.
    """

    def __init__(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            onnx, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def outputs(self, observations: Observations) -> dict[str, NDArray[Any]]:
        """All outputs by name: ``logits`` and ``value``, or ``q_values``."""
        values = self._session.run(self._names, {INPUT: observations.astype(np.float32)})
        return dict(zip(self._names, values, strict=True))

    def scores(self, observations: Observations) -> NDArray[Any]:
        """Logits or Q-values, shape ``(n, 3)``."""
        found = self.outputs(observations)
        return found["q_values"] if "q_values" in found else found["logits"]

    def __call__(self, observations: Observations) -> Actions:
        """The best action of each observation, shape ``(n,)``."""
        return np.asarray(self.scores(observations).argmax(axis=1), dtype=np.int64)
