"""What a model has to beat: doing nothing, buying and holding, chance, and the rule strategy.

``rules-1`` follows the trend. With ``trend = sma_ratio_15 / (2 * volatility_20)``, cut to ±3:

* BUY when ``trend > 0.5``, the MACD histogram is positive and ``rsi_14 < 75``;
* SELL when ``trend < -0.5`` and the MACD histogram is negative, or when ``rsi_14 > 80``;
* HOLD otherwise.

The rule that applies has the logit ``0.5 + |trend|``, HOLD has 0, the rest -2: so a stronger trend
is a surer signal. It is an ONNX model like any other; its ``value`` is always 0.
"""

from __future__ import annotations

import numpy as np

from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from rl.account import ACCOUNT_INPUTS, N_ACTIONS, Action
from rl.graphs import INPUT, GraphBuilder
from rl.policy import Actions, Observations, Policy
from rl.registry import RULES_ID, Manifest

TREND_ENTRY = 0.5
TREND_LIMIT = 3.0
RSI_BUY_BELOW = 75.0
RSI_SELL_ABOVE = 80.0
NOT_APPLYING = -2.0
_TINY = 1e-6
_COLUMN = {name: i for i, name in enumerate(FEATURE_SPEC.names)}


def flat(observations: Observations) -> Actions:
    """Stay in cash."""
    return np.full(len(observations), Action.HOLD, dtype=np.int64)


def buy_and_hold(observations: Observations) -> Actions:
    """Buy at the first opportunity, never sell."""
    return np.full(len(observations), Action.BUY, dtype=np.int64)


def random_policy(seed: int) -> Policy:
    """Any action with the same probability; its sequence is fixed by the seed."""
    rng = np.random.default_rng(seed)
    return lambda observations: rng.integers(N_ACTIONS, size=len(observations))


def rules(observations: Observations) -> Actions:
    """The rule strategy in NumPy; the graph of :func:`rules_model` says the same."""
    x = observations.astype(np.float32)
    deviation = 2 * x[:, _COLUMN["volatility_20"]] + np.float32(_TINY)
    trend = np.clip(x[:, _COLUMN["sma_ratio_15"]] / deviation, -TREND_LIMIT, TREND_LIMIT)
    macd, rsi = x[:, _COLUMN["macd_hist_12_26_9"]], x[:, _COLUMN["rsi_14"]]
    buy = (trend > TREND_ENTRY) & (macd > 0) & (rsi < RSI_BUY_BELOW)
    sell = ((trend < -TREND_ENTRY) & (macd < 0)) | (rsi > RSI_SELL_ABOVE)
    return np.select([buy, sell], [Action.BUY, Action.SELL], Action.HOLD).astype(np.int64)


def rules_model(spec: FeatureSpec = FEATURE_SPEC) -> tuple[Manifest, bytes]:
    """The rule strategy as a model of some features: manifest and ONNX bytes, not registered yet.

    It looks at those that every specification begins with.
    """
    manifest = Manifest(
        id=RULES_ID,
        kind="rules",
        fingerprint=spec.fingerprint,
        feature_names=spec.names,
        inputs=(*spec.names, *ACCOUNT_INPUTS),
        training={
            "trend_entry": TREND_ENTRY,
            "rsi_buy_below": RSI_BUY_BELOW,
            "rsi_sell_above": RSI_SELL_ABOVE,
        },
    )
    return manifest, _rules_graph(len(manifest.inputs))


def _rules_graph(n_inputs: int) -> bytes:
    build = GraphBuilder()

    def column(name: str) -> str:
        index = build.constant([_COLUMN[name]], np.int64)
        return build.node("Gather", INPUT, index, axis=1)

    def is_(operator: str, left: str, right: float) -> str:
        return build.node(operator, left, build.constant(right))

    doubled = build.node("Mul", column("volatility_20"), build.constant(2.0))
    deviation = build.node("Add", doubled, build.constant(_TINY))
    ratio = build.node("Div", column("sma_ratio_15"), deviation)
    trend = build.node("Clip", ratio, build.constant(-TREND_LIMIT), build.constant(TREND_LIMIT))
    macd, rsi = column("macd_hist_12_26_9"), column("rsi_14")
    rising = build.node("And", is_("Greater", trend, TREND_ENTRY), is_("Greater", macd, 0.0))
    buy = build.node("And", rising, is_("Less", rsi, RSI_BUY_BELOW))
    falling = build.node("And", is_("Less", trend, -TREND_ENTRY), is_("Less", macd, 0.0))
    sell = build.node("Or", falling, is_("Greater", rsi, RSI_SELL_ABOVE))
    strength = build.node("Add", build.node("Abs", trend), build.constant(0.5))
    none = build.node("Mul", trend, build.constant(0.0))
    scores = [
        build.node("Where", applies, strength, build.constant([[NOT_APPLYING]]))
        for applies in (buy, sell)
    ]
    build.node("Concat", none, *scores, axis=1, output="logits")
    build.node("Squeeze", none, build.constant([1], np.int64), output="value")
    return build.finish(RULES_ID, ["logits", "value"], n_inputs=n_inputs)
