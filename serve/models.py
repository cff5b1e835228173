"""Models of the registry, as the policy runs them: ONNX Runtime with one thread.

The only file that knows the registry and ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from pipelines.errors import ModelError
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from rl.registry import ModelRef, Registry
from serve.policy import Model

MAX_BATCH_WARM = 32


def open_session(onnx: bytes, *, inputs: int) -> onnxruntime.InferenceSession:
    """A session that computes in the caller's thread.

    Args:
        onnx: The graph.
        inputs: How many numbers an observation has.

    Raises:
        ModelError: The graph cannot be run, or its input is not ``observation [n, inputs]``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            onnx, sess_options=options, providers=["CPUExecutionProvider"]
        )
        for rows in (1, MAX_BATCH_WARM):  # the first run of a size is slow
            session.run(None, {"observation": np.zeros((rows, inputs), dtype=np.float32)})
    except Exception as error:  # ONNX Runtime raises plain exceptions of its own
        raise ModelError(
            f"the graph cannot be run on observation [n, {inputs}]: {error}"
        ) from error
    return session


class RegistryLoader:
    """Loads models of a registry.

    Args:
        root_uri: Where it is.
        options: Its storage options.
        spec: The features that are served; the rules are made for them.
    """

    def __init__(
        self,
        root_uri: str,
        options: Mapping[str, str] | None = None,
        *,
        spec: FeatureSpec = FEATURE_SPEC,
    ) -> None:
        self._spec = spec
        self._registry = Registry(root_uri, storage_options=options)

    def promoted(self) -> tuple[str, int] | None:
        """Id and version of the promoted model."""
        ref = self._registry.promoted()
        return (ref.id, ref.version) if ref else None

    def load(self, ref: tuple[str, int]) -> Model:
        """Load one; raises :class:`~pipelines.errors.ModelError`."""
        manifest, onnx = self._registry.load(ModelRef(*ref))
        session = open_session(onnx, inputs=len(manifest.inputs))
        return Model(
            id=manifest.id,
            version=manifest.version,
            fingerprint=manifest.fingerprint,
            outputs=tuple(o.name for o in session.get_outputs()),
            temperature=manifest.temperature or 1.0,
            runner=session,
        )

    def rules(self) -> Model:
        """The rule-based model, registered where it is missing."""
        ref = self._registry.ensure_rules(self._spec)
        return self.load((ref.id, ref.version))

    def rows(self) -> Sequence[dict[str, Any]]:
        """All models with their manifests, as JSON types."""
        promoted = self.promoted()
        found = []
        for manifest in self._registry.list():
            row = json.loads(manifest.to_json())
            found.append({**row, "promoted": (manifest.id, manifest.version) == promoted})
        return found
