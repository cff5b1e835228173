"""Training for real, in a Ray of its own; and that what is served is what was trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray

from pipelines.errors import ConfigError, FingerprintMismatch, ModelError
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC
from rl import gate
from rl.account import Costs
from rl.env import EnvConfig, observation_space
from rl.episodes import Market, NotEnoughData
from rl.export import export, largest_difference
from rl.modules import PolicyModule, QModule
from rl.registry import Registry
from rl.sweep import sweep
from rl.train import TrainConfig, TrainingFailed, normalisation, train

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore"),  # RLlib's own imports warn a good deal
]

SMALL = TrainConfig(
    budget_s=60,
    max_steps=2_048,
    batch_steps=1_024,
    minibatch_steps=512,
    epochs=2,
    num_envs=32,
    env=EnvConfig(episode_bars=32),
    hidden=(32, 32),
    purge_bars=20,
)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
    )
    yield
    ray.shutdown()


def module_of(kind: str, market: Market) -> Any:
    mean, std = normalisation(market)
    config: dict[str, Any] = {"hidden": (32, 16), "mean": mean.tolist(), "std": std.tolist()}
    if kind == "dqn":
        from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog

        config |= {"double_q": True, "dueling": False, "num_atoms": 1, "epsilon": 0.1}
        config |= {"fcnet_hiddens": [8]}
        extra: dict[str, Any] = {"catalog_class": DQNCatalog}
    else:
        extra = {}
    return {"ppo": PolicyModule, "dqn": QModule}[kind](
        observation_space=observation_space(market.features.shape[1]),
        action_space=gym.spaces.Discrete(3),
        model_config=config,
        **extra,
    )


@pytest.mark.parametrize("features", ["market", "extended_market"])
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_exported_graph_equals_the_module_on_random_observations(
    kind: str, features: str, request: pytest.FixtureRequest
) -> None:
    market: Market = request.getfixturevalue(features)
    module = module_of(kind, market)
    onnx = export(module)
    shape = (2_000, len(market.spec.names) + 2)
    observations = np.random.default_rng(3).normal(0, 3, shape).astype(np.float32)
    assert largest_difference(module, onnx, observations) <= 1e-5


def test_export_of_weights_that_are_not_finite_is_refused(market: Market) -> None:
    module = module_of("ppo", market)
    module.policy[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="finite"):
        export(module)


def test_normalisation_of_a_constant_input_stays_tame(market: Market) -> None:
    mean, std = normalisation(market)
    assert mean[10] == 1.0
    assert std[10] == 1.0
    assert (std > 0).all()


def test_train_without_ray_says_so(market: Market) -> None:
    if ray.is_initialized():
        pytest.skip("another test of this process holds a Ray")
    with pytest.raises(ConfigError, match="Ray"):
        train(SMALL, market)


def test_train_ppo_learns_and_its_model_is_promoted(
    local_ray: None, market: Market, tmp_path: Path
) -> None:
    seen: list[tuple[float, dict]] = []
    config = replace(SMALL, budget_s=8, max_steps=60_000, batch_steps=2_048, lr=2e-3)
    result = train(config, market, on_progress=lambda f, m: seen.append((f, dict(m))))
    fractions = [f for f, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    metrics = result.manifest.metrics
    assert metrics["net_return"] > metrics["baselines"]["random"]["net_return"]
    json.dumps(dict(metrics), allow_nan=False)
    registry = Registry(str(tmp_path))
    ref, verdict = gate.admit(
        registry, result.manifest, result.onnx, validation=result.validation, costs=Costs()
    )
    assert verdict.promoted, verdict.reason
    loaded, onnx = registry.load(ref, expected_fingerprint=result.manifest.fingerprint)
    assert onnx == result.onnx
    assert loaded.training["config"]["seed"] == config.seed


def test_train_twice_with_one_seed_gives_the_same_model(local_ray: None, market: Market) -> None:
    first, second = (train(SMALL, market) for _ in range(2))
    assert first.onnx == second.onnx
    assert first.steps == 2_048


def test_train_dqn_on_the_longer_features_gives_q_values_and_names_them(
    local_ray: None, extended_market: Market, tmp_path: Path
) -> None:
    config = replace(SMALL, algorithm="dqn", max_steps=1_000, budget_s=10, dqn_batch_steps=64)
    result = train(config, extended_market)
    manifest = result.manifest
    assert manifest.kind == "dqn"
    assert manifest.metrics["finite"]
    assert manifest.fingerprint == EXTENDED_SPEC.fingerprint
    assert manifest.inputs == (*EXTENDED_SPEC.names, "position_fraction", "cash_fraction")
    registry = Registry(str(tmp_path))
    ref = registry.register(manifest, result.onnx)
    with pytest.raises(FingerprintMismatch, match=FEATURE_SPEC.fingerprint):
        registry.load(ref, expected_fingerprint=FEATURE_SPEC.fingerprint)


def test_train_on_prices_with_nan_fails_loudly(local_ray: None, market: Market) -> None:
    broken = market.close.copy()
    broken[100:110] = np.nan
    with pytest.raises(TrainingFailed, match="reward"):
        train(SMALL, replace(market, close=broken))


def test_train_on_too_few_bars_is_refused_at_once(market: Market) -> None:
    with pytest.raises(NotEnoughData):
        train(replace(SMALL, env=EnvConfig(episode_bars=500)), market)


def test_sweep_of_two_trials_gives_the_better_one(
    local_ray: None, market: Market, tmp_path: Path
) -> None:
    from ray import tune

    found = sweep(
        replace(SMALL, max_steps=1_024),
        market,
        storage=tmp_path,
        trials=1,
        space={"lr": tune.grid_search([1e-4, 5e-3])},
    )
    assert (len(found.trials), found.failed) == (2, 0)
    best = max(t["net_return"] for t in found.trials)
    assert found.best.manifest.metrics["net_return"] == best
    assert found.best.manifest.training["sweep"]["failed"] == 0


def test_registry_in_a_fresh_process_needs_no_training_library(tmp_path: Path) -> None:
    code = (
        "import sys; from rl.registry import Registry; import rl.account;"
        f"Registry({str(tmp_path)!r}).ensure_rules();"
        "print([m for m in ('torch', 'ray', 'gymnasium') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"
