"""ONNX graphs, built by hand from weights: every model that is served is made here.

All take ``observation`` float32 ``[N, n_inputs]``, raw as the features are; whatever a model does
to its inputs is inside its graph. No exporter and no training library is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rl.account import N_ACTIONS

Array = NDArray[np.float32]

OPSET = 17
IR_VERSION = 9
CLIP = 5.0
"""Normalised inputs are cut off so many standard deviations from their mean."""

INPUT = "observation"
OUTPUT_SHAPES: Mapping[str, Sequence[str | int]] = {
    "logits": ["N", N_ACTIONS],
    "q_values": ["N", N_ACTIONS],
    "value": ["N"],
}


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer ``x @ weight.T + bias``.

    Args:
        weight: Shape ``(n_out, n_in)``.
        bias: Shape ``(n_out,)``.
    """

    weight: Array
    bias: Array


class GraphBuilder:
    """Collects nodes and constants of one graph."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Name of a constant."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Add an operator; the name of what it gives."""
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def finish(self, name: str, outputs: Sequence[str], *, n_inputs: int) -> bytes:
        """The checked model, as bytes; it takes observations of ``n_inputs`` numbers."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", n_inputs])],
            [
                helper.make_tensor_value_info(o, TensorProto.FLOAT, OUTPUT_SHAPES[o])
                for o in outputs
            ],
            initializer=self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="raytape",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def network(
    heads: Mapping[str, Sequence[Dense]], *, mean: Array, std: Array, name: str = "policy"
) -> bytes:
    """Tanh networks side by side over the normalised observation.

    Args:
        heads: Layers of each output; ``tanh`` between them, none after the last. ``value`` has
            one unit and comes out with shape ``[N]``.
        mean: Subtracted from the observation, shape ``(n_inputs,)``.
        std: Its divisor, shape ``(n_inputs,)``.
        name: Name inside the file.
    """
    build = GraphBuilder()
    centred = build.node("Sub", INPUT, build.constant(mean))
    scaled = build.node("Div", centred, build.constant(std))
    inputs = build.node("Clip", scaled, build.constant(-CLIP), build.constant(CLIP))
    for output, layers in heads.items():
        x = inputs
        for i, layer in enumerate(layers):
            last = i == len(layers) - 1
            ends_here = last and output != "value"
            x = build.node(
                "Gemm",
                x,
                build.constant(layer.weight),
                build.constant(layer.bias),
                transB=1,
                output=output if ends_here else None,
            )
            if not last:
                x = build.node("Tanh", x)
        if output == "value":
            build.node("Squeeze", x, build.constant([1], np.int64), output="value")
    return build.finish(name, list(heads), n_inputs=len(mean))
