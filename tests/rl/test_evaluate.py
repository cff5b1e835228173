"""Backtests, baselines and the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, SPECS, FeatureSpec
from rl import baselines
from rl.account import ACCOUNT_INPUTS, Account, Action, Costs, advance
from rl.baselines import RULES_ID
from rl.episodes import Market
from rl.evaluate import backtest, report
from rl.gate import admit
from rl.graphs import Dense, network
from rl.policy import OnnxPolicy
from rl.registry import Manifest, Registry

FREE = Costs(0, 0)


def linear(weight: np.ndarray, *, bias: tuple[float, ...] = (0, 0, 0)) -> bytes:
    """A linear policy over the raw observation."""
    heads = {
        "logits": [Dense(weight.astype(np.float32), np.array(bias, dtype=np.float32))],
        "value": [Dense(np.zeros((1, 13), np.float32), np.zeros(1, np.float32))],
    }
    return network(heads, mean=np.zeros(13, np.float32), std=np.ones(13, np.float32))


def knowing(sign: float) -> bytes:
    """Buys where the first feature, which knows some of the next return, is positive."""
    weight = np.zeros((3, 13))
    weight[1, 0], weight[2, 0] = sign, -sign
    return linear(weight)


def candidate(onnx: bytes, market: Market) -> Manifest:
    manifest = Manifest(
        id="ppo",
        kind="ppo",
        fingerprint=FEATURE_SPEC.fingerprint,
        feature_names=FEATURE_SPEC.names,
        inputs=(*FEATURE_SPEC.names, *ACCOUNT_INPUTS),
    )
    return replace(manifest, metrics=report(onnx, manifest, market, costs=Costs()))


def test_backtest_of_flat_earns_nothing(market: Market) -> None:
    metrics = backtest(baselines.flat, market, costs=Costs()).metrics()
    assert (metrics["net_return"], metrics["trades"], metrics["sharpe"]) == (0.0, 0, None)


def test_backtest_of_buy_and_hold_is_the_price_from_the_second_open(market: Market) -> None:
    flat_spread = replace(market, spread_bps=np.zeros(len(market)))
    result = backtest(baselines.buy_and_hold, flat_spread, costs=FREE)
    for symbol, first, end in market.segments():
        expected = market.close[end - 1] / market.open[first + 1] - 1
        assert result.by_symbol[symbol] == pytest.approx(expected)


def test_backtest_equals_the_account_bar_by_bar(market: Market) -> None:
    one = market.where(np.arange(len(market)) < 200)
    policy = OnnxPolicy(knowing(1.0))
    account, action = Account(), int(Action.HOLD)
    for row in range(60, 200):
        account, _ = advance(
            account,
            action,
            open_usd=one.open[row],
            close_usd=one.close[row],
            spread_bps=one.spread_bps[row],
            costs=Costs(),
        )
        tail = [account.position_fraction, account.cash_fraction]
        action = int(policy(np.array([[*one.features[row], *tail]], dtype=np.float32))[0])
    result = backtest(policy, one, costs=Costs())
    assert result.equity_usd[-1] == pytest.approx(account.equity_usd, rel=1e-12)


def test_backtest_changed_future_changes_no_equity_before(market: Market) -> None:
    cut = int(market.time_ns[250])
    later = market.time_ns > cut
    other = replace(
        market,
        close=np.where(later, market.close * 1.7, market.close),
        open=np.where(later, market.open * 1.7, market.open),
        features=np.where(later[:, None], -market.features, market.features),
    )
    policy = OnnxPolicy(knowing(1.0))
    a, b = (backtest(policy, m, costs=Costs()) for m in (market, other))
    known = a.time_ns <= cut
    np.testing.assert_array_equal(a.equity_usd[known], b.equity_usd[known])
    assert a.equity_usd[-1] != b.equity_usd[-1]


def test_backtest_with_higher_costs_earns_less(market: Market) -> None:
    policy = OnnxPolicy(knowing(1.0))
    earned = [
        backtest(policy, market, costs=Costs(c, c)).metrics()["net_return"] for c in (0, 1, 5, 20)
    ]
    assert earned == sorted(earned, reverse=True)


def test_report_tells_knowledge_from_chance(market: Market) -> None:
    found = candidate(knowing(1.0), market).metrics
    assert found["net_return"] > 0
    assert all(b["net_return"] < found["net_return"] for b in found["baselines"].values())
    assert set(found["baselines"]) == {"flat", "buy_and_hold", "random", "rules-1"}


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_rules_graph_equals_the_rules(spec: FeatureSpec) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (5_000, len(spec.names) + 2)).astype(np.float32)
    names = FEATURE_SPEC.names
    x[:, names.index("volatility_20")] = np.abs(x[:, names.index("volatility_20")])
    x[:, names.index("rsi_14")] = rng.uniform(0, 100, len(x))
    _, onnx = baselines.rules_model(spec)
    policy = OnnxPolicy(onnx)
    np.testing.assert_array_equal(policy(x), baselines.rules(x))
    assert set(policy(x)) == {0, 1, 2}
    assert policy.outputs(x)["value"].shape == (5_000,)


def test_rules_are_registered_once(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    first = registry.ensure_rules()
    assert registry.ensure_rules() == first
    other = registry.ensure_rules(EXTENDED_SPEC)
    assert other != first
    assert [m.id for m in registry.list()] == [RULES_ID] * 2
    assert (registry.ensure_rules(), registry.ensure_rules(EXTENDED_SPEC)) == (first, other)
    manifest, _ = registry.load(first, expected_fingerprint=FEATURE_SPEC.fingerprint)
    assert manifest.kind == "rules"


def test_gate_first_sound_model_is_promoted_with_its_reason(tmp_path: Path, market: Market) -> None:
    registry, onnx = Registry(str(tmp_path)), knowing(1.0)
    ref, verdict = admit(registry, candidate(onnx, market), onnx, validation=market, costs=Costs())
    assert verdict.promoted
    assert "bootstrap" in verdict.reason
    assert registry.promoted() == ref
    kept = registry.verdict(ref)
    assert kept is not None
    assert kept["reason"] == verdict.reason


def test_gate_worse_model_is_refused_and_the_incumbent_stays(
    tmp_path: Path, market: Market
) -> None:
    registry, good, bad = Registry(str(tmp_path)), knowing(1.0), knowing(-1.0)
    first, _ = admit(registry, candidate(good, market), good, validation=market, costs=Costs())
    second, verdict = admit(registry, candidate(bad, market), bad, validation=market, costs=Costs())
    assert not verdict.promoted
    assert registry.promoted() == first
    assert str(first) in verdict.reason
    assert (registry.verdict(second) or {})["promoted"] is False


@pytest.mark.parametrize("bias", [(0, 5, 0), (float("nan"), 0, 0)])
def test_gate_degenerate_or_nan_model_is_refused(
    tmp_path: Path, market: Market, bias: tuple[float, ...]
) -> None:
    registry, onnx = Registry(str(tmp_path)), linear(np.zeros((3, 13)), bias=bias)
    _, verdict = admit(registry, candidate(onnx, market), onnx, validation=market, costs=Costs())
    assert not verdict.promoted
    assert registry.promoted() is None
