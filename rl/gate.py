"""Whether a candidate may serve: the decision, its reason, and both in the registry.

Thin for now: what cannot be right is refused; the first sound model is let in and its reason says
``bootstrap``; afterwards a candidate must earn at least what the incumbent earns, with costs, on
the same bars that neither of them saw.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.errors import ModelError
from rl.account import Costs
from rl.episodes import Market
from rl.evaluate import backtest
from rl.policy import OnnxPolicy
from rl.registry import RULES_ID, Manifest, ModelRef, Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said.

    Args:
        promoted: Whether the candidate serves now.
        reason: Why, or why not, as a sentence.
        incumbent: The model that served before, ``id:version``, if any.
    """

    promoted: bool
    reason: str
    incumbent: str | None = None


def unsound(manifest: Manifest) -> str | None:
    """Why a model cannot be right whatever its competitors are; ``None`` if nothing says so."""
    metrics = manifest.metrics
    if not metrics:
        return "it was never evaluated"
    if not metrics["finite"]:
        return "its outputs are not finite"
    if not metrics["varies"]:
        return "degenerate: it says the same whatever it sees"
    return None


def judge(
    manifest: Manifest, *, incumbent: Manifest | None, incumbent_return: float | None
) -> Verdict:
    """Decide, without touching the registry.

    Args:
        manifest: The candidate's, with its metrics.
        incumbent: The promoted model, if any.
        incumbent_return: Its net return on the candidate's validation bars; ``None`` when it
            was made for other features and cannot run on them.
    """
    name = str(incumbent.ref) if incumbent else None
    wrong = unsound(manifest)
    if wrong:
        return Verdict(False, f"refused: {wrong}", name)
    summary = _summary(manifest.metrics)
    if incumbent is None or incumbent.id == RULES_ID:
        return Verdict(True, f"bootstrap: the first sound model; {summary}", name)
    if incumbent_return is None:
        return Verdict(True, f"{name} cannot serve the present features; {summary}", name)
    earned = float(manifest.metrics["net_return"])
    if earned < incumbent_return:
        return Verdict(
            False,
            f"refused: {name} earned {incumbent_return:+.3%} on the same bars; {summary}",
            name,
        )
    return Verdict(True, f"{name} earned {incumbent_return:+.3%} on the same bars; {summary}", name)


def admit(
    registry: Registry, manifest: Manifest, onnx: bytes, *, validation: Market, costs: Costs
) -> tuple[ModelRef, Verdict]:
    """Register a candidate, judge it, and promote it if it may; everything is kept.

    Args:
        registry: Where.
        manifest: The candidate's, with its metrics.
        onnx: Its graph.
        validation: The bars of its metrics.
        costs: Of fills.

    Returns:
        Its reference, and the verdict, which also lies beside it in the registry.

    Raises:
        ModelError: The manifest is not complete.
    """
    ref = registry.register(manifest, onnx)
    serving = registry.promoted()
    incumbent = registry.manifest(serving) if serving else None
    verdict = judge(
        manifest,
        incumbent=incumbent,
        incumbent_return=_return_of(registry, serving, manifest, validation, costs),
    )
    registry.write_verdict(ref, asdict(verdict))
    if verdict.promoted:
        registry.promote(ref, reason=verdict.reason)
    log.info("gate: %s: %s", ref, verdict.reason)
    return ref, verdict


def _return_of(
    registry: Registry,
    serving: ModelRef | None,
    candidate: Manifest,
    validation: Market,
    costs: Costs,
) -> float | None:
    if serving is None:
        return None
    try:
        _, onnx = registry.load(serving, expected_fingerprint=candidate.fingerprint)
    except ModelError as error:
        log.warning("gate: the incumbent %s cannot be compared: %s", serving, error)
        return None
    found = backtest(OnnxPolicy(onnx), validation, costs=costs).metrics()
    return float(found["net_return"])


def _summary(metrics: Any) -> str:
    parts = [f"{metrics['net_return']:+.3%} net in {metrics['trades']} trades"]
    for name, found in metrics["baselines"].items():
        parts.append(f"{name} {found['net_return']:+.3%}")
    return ", ".join(parts) + " on validation"
