"""Registered models as they are served: the action is the model's own, whatever features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder, batch
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, SPECS, FeatureSpec
from rl.account import ACCOUNT_INPUTS
from rl.graphs import Dense, network
from rl.policy import OnnxPolicy
from rl.registry import Manifest, ModelRef, Registry
from serve.decide import SignalService
from serve.memory import FeedMemory
from serve.mirror import Mirror
from serve.models import RegistryLoader
from serve.policy import Policy
from tests.serve.conftest import OPEN_NS, FakeFeed, minute

BARS = 140
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))


def bars() -> list[ClosedBar]:
    rng = np.random.default_rng(2)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.1, BARS)), 2).tolist()
    volume = rng.integers(1, 1000, BARS).tolist()
    return [
        ClosedBar(OPEN_NS + i * MINUTE_NS, c, c + 0.1, c - 0.2, c, v)
        for i, (c, v) in enumerate(zip(close, volume, strict=True))
    ]


def features(spec: FeatureSpec) -> np.ndarray:
    rows = bars()
    return batch(
        close=[b.close for b in rows], volume=[b.volume for b in rows],
        high=[b.high for b in rows], low=[b.low for b in rows],
        start_ns=[b.start_ns for b in rows], spec=spec,
    )  # fmt: skip


def registered(root: Path, spec: FeatureSpec, seed: int = 4) -> tuple[ModelRef, bytes]:
    """A network of random weights that looks at every input."""
    rng = np.random.default_rng(seed)
    seen = features(spec)[spec.warm_bars :]
    n = len(spec.names) + len(ACCOUNT_INPUTS)
    mean = np.append(seen.mean(axis=0), [0.5, 0.5]).astype(np.float32)
    std = np.append(np.maximum(seen.std(axis=0), 1e-6), [0.5, 0.5]).astype(np.float32)
    layers = [(16, n), (3, 16)]
    head = [Dense(rng.normal(0, 1, shape).astype(np.float32), np.zeros(shape[0], np.float32))
            for shape in layers]  # fmt: skip
    value = Dense(np.zeros((1, n), np.float32), np.zeros(1, np.float32))
    onnx = network({"logits": head, "value": [value]}, mean=mean, std=std)
    manifest = Manifest(
        id="ppo", kind="ppo", fingerprint=spec.fingerprint, feature_names=spec.names,
        inputs=(*spec.names, *ACCOUNT_INPUTS),
    )  # fmt: skip
    registry = Registry(str(root))
    ref = registry.register(manifest, onnx)
    registry.promote(ref)
    return ref, onnx


def service(root: Path, spec: FeatureSpec) -> tuple[SignalService, Policy]:
    policy = Policy(RegistryLoader(str(root), spec=spec), fingerprint=spec.fingerprint)
    policy.refresh()
    mirror = Mirror(FakeFeed(FeedMemory(rate=1)), symbols=("SPY",))
    return SignalService(mirror, policy, spec=spec), policy


@each_spec
def test_served_action_of_streamed_features_is_the_trained_models_on_batched_ones(
    tmp_path: Path, spec: FeatureSpec
) -> None:
    _, onnx = registered(tmp_path, spec)
    served, _ = service(tmp_path, spec)
    builder, batched, said = FeatureBuilder(spec), features(spec), []
    for i, bar in enumerate(bars()):
        row = builder.update(bar)
        asked = {"event_time": minute(i), "open": bar.open, "close": bar.close}
        (answer,) = served.batch(
            ["SPY"], [row.values], [asked], fingerprint=row.spec.fingerprint
        )  # fmt: skip
        if not row.warm:
            assert (answer["action_id"], answer["reason"]) == (0, "warming_up")
            continue
        account = [answer["position_fraction"], answer["cash_fraction"]]
        observation = np.append(batched[i], account).astype(np.float32)[None]
        assert answer["action_id"] == OnnxPolicy(onnx)(observation)[0], i
        assert answer["reason"] is None
        said.append(answer["action_id"])
    assert len(said) == BARS - spec.warm_bars + 1
    assert len(set(said)) > 1
    assert answer["model"]["fingerprint"] == spec.fingerprint


@each_spec
def test_model_of_other_features_is_refused_and_the_rules_of_these_decide(
    tmp_path: Path, spec: FeatureSpec
) -> None:
    other = EXTENDED_SPEC if spec is FEATURE_SPEC else FEATURE_SPEC
    ref, _ = registered(tmp_path, other)
    served, policy = service(tmp_path, spec)
    assert policy.choice is not None
    assert f"{ref} was trained on features {other.fingerprint}" in policy.choice.note
    answer = served.given("SPY", features(spec)[-1].tolist())
    assert answer["reason"] == "no_model"
    assert answer["model"]["id"] == "rules-1"
    assert answer["model"]["fingerprint"] == spec.fingerprint
