"""What is unusual about a closed bar of one symbol. Pure but for the models of ``outliers``.

======================  =====================================================================
``price_spike``         the close lies more than 5 % from the median of the 20 closes before
``volume_spike``        the volume is more than 3 times the average of the 19 bars before
``rsi``                 RSI 14 went above 70 or below 30
``spread_blowout``      the quoted spread is more than 5 times the median of the last 20
``feed_latency``        trades and quotes of the minute took over 100 ms on average (live only)
``outlier``             move, volume and range of the bar are strange together, by a model that
                        learns what is usual (:mod:`pipelines.streaming.outliers`)
======================  =====================================================================

A finding is made when something becomes unusual, and again when it becomes worse by a level of
severity or turns to the other side; not with every bar for which it stays so. Its ``score`` is
how many times its threshold it reaches (RSI below: by its distance from 100); an ``outlier`` has
its model's score.

All of it is a function of the bars; a state is some 3 kB at most, whatever came before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow, Floats
from pipelines.features.spec import FEATURE_SPEC
from pipelines.streaming.outliers import Model, Outliers

Kind = Literal[
    "price_spike", "volume_spike", "rsi", "spread_blowout", "feed_latency", "outlier"
]  # fmt: skip
Severity = Literal["info", "warning", "critical"]

SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")

REFERENCE_BARS: Final = 20
"""Bars before this one that say what is usual."""

_LEAST: Final = 5
_USUAL: Final = 1 / REFERENCE_BARS
_PAUSE_NS: Final = 30 * MINUTE_NS
_WORST: Final = 3.0  # how much of a usual size one bar may add to what is usual
_AT: Final = {name: i for i, name in enumerate(FEATURE_SPEC.names)}

# Multiples of the threshold at which a finding is a warning, and critical.
_LEVELS: Final[Mapping[str, tuple[float, float]]] = {
    "price_spike": (1.0, 2.0),
    "volume_spike": (2.0, 4.0),
    "rsi": (80 / 70, math.inf),
    "spread_blowout": (2.0, 4.0),
    "feed_latency": (2.5, 10.0),
    "trees": (1.03, math.inf),
    "lof": (1.5, 3.0),
}


@dataclass(frozen=True, slots=True)
class AnomalyConfig:
    """The thresholds.

    Args:
        price_pct: Per cent of the reference.
        volume_ratio: Multiple of the average volume.
        rsi_high: RSI above which a symbol is overbought.
        rsi_low: RSI below which it is oversold.
        spread_ratio: Multiple of the usual spread.
        latency_ms: Average milliseconds from a message's time to its receipt.
        live: Whether times of messages are those of the wall clock; without, no latency.
        model: The model of outliers: ``trees``, ``lof`` or ``off``.
        trees_score: Score of the trees, up to 1.
        lof_score: Local outlier factor, from 1 on.

    Raises:
        ConfigError: A threshold makes no sense.
    """

    price_pct: float = 5.0
    volume_ratio: float = 3.0
    rsi_high: float = 70.0
    rsi_low: float = 30.0
    spread_ratio: float = 5.0
    latency_ms: float = 100.0
    live: bool = False
    model: Model = "trees"
    trees_score: float = 0.9
    lof_score: float = 2.7

    def __post_init__(self) -> None:
        if not 0 < self.rsi_low < self.rsi_high < 100:
            raise ConfigError(
                f"anomalies: rsi_low={self.rsi_low}, rsi_high={self.rsi_high}: "
                "0 < rsi_low < rsi_high < 100 is needed"
            )
        for name in ("price_pct", "volume_ratio", "spread_ratio", "latency_ms"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"anomalies: {name}={getattr(self, name)}: must be positive")
        if self.model not in ("trees", "lof", "off"):
            raise ConfigError(f"anomalies: model={self.model!r}: trees, lof or off")


class Watch:
    """Looks at the closed bars of one symbol.

    Args:
        config: Thresholds.
        seed: Seed of its model.
    """

    __slots__ = ("_config", "_latency", "_levels", "_outliers", "_prev", "_spreads", "_usual")

    def __init__(self, config: AnomalyConfig | None = None, *, seed: int = 0) -> None:
        self._config = config or AnomalyConfig()
        self._outliers = Outliers(self._config.model, seed=seed)
        self.restore(())

    def latency(self, count: int, total_ms: float) -> None:
        """Take in how long some messages took; live only."""
        if self._config.live:
            self._latency[0] += count
            self._latency[1] += total_ms

    def push(self, bar: ClosedBar) -> None:
        """Take a bar of the past in, for warming up."""
        if (inputs := self._inputs(bar)) is not None:
            self._outliers.push(inputs)

    def update(self, bar: ClosedBar, *, closes: Floats, row: FeatureRow) -> list[dict[str, Any]]:
        """Take the next closed bar in; what is unusual about it.

        Args:
            bar: The bar.
            closes: The last closes up to it.
            row: Its features.

        Returns:
            Findings ``{kind, severity, score, value, threshold, reason, detector}``, JSON types.
        """
        found = (
            self._price(closes),
            self._volume(row.values[_AT["volume_ratio_20"]]),
            self._rsi(row.values[_AT["rsi_14"]]),
            self._spread(bar.spread_bps),
            self._feed(),
            self._outlier(bar),
        )
        return [finding for finding in found if finding is not None]

    def state(self) -> list[Any]:
        """Everything it knows, JSON types."""
        return [
            self._prev, self._usual, self._spreads, self._levels, self._latency,
            self._outliers.state(),
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what :meth:`state` gave; nothing: begin."""
        self._prev: list[float] = []  # start in ns, close
        self._usual: list[float] = []  # size of a move, range, volume
        self._spreads: list[float] = []
        self._levels: dict[str, list[int]] = {}  # kind: [side, 1 + its severity]
        self._latency: list[float] = [0, 0.0]
        kept = ""
        if state:
            self._prev, self._usual, self._spreads, self._levels, self._latency, kept = state
        self._outliers.restore(kept)

    def _price(self, closes: Floats) -> dict[str, Any] | None:
        before = closes[-REFERENCE_BARS - 1 : -1].tolist()
        if len(before) < _LEAST:
            return None
        close, usual = float(closes[-1]), statistics.median(before)
        off_pct = (close / usual - 1) * 100
        where = "above" if off_pct > 0 else "below"
        return self._found(
            "price_spike",
            value=off_pct,
            threshold=self._config.price_pct,
            score=abs(off_pct) / self._config.price_pct,
            reason=f"close {close:.2f} is {abs(off_pct):.1f} % {where} the median of "
            f"{len(before)} bars, {usual:.2f}",
        )

    def _volume(self, ratio: float | None) -> dict[str, Any] | None:
        # The feature's average holds the bar itself, one of 20; here it is that of the 19 others.
        if ratio is None or ratio >= REFERENCE_BARS - 1e-6:
            return None
        times = (REFERENCE_BARS - 1) * ratio / (REFERENCE_BARS - ratio)
        return self._found(
            "volume_spike",
            value=times,
            threshold=self._config.volume_ratio,
            score=times / self._config.volume_ratio,
            reason=f"volume is {times:.1f} times the average of {REFERENCE_BARS - 1} bars",
        )

    def _rsi(self, rsi: float | None) -> dict[str, Any] | None:
        if rsi is None:
            return None
        high, low = self._config.rsi_high, self._config.rsi_low
        above = rsi > 50
        threshold, word = (high, "above") if above else (low, "below")
        return self._found(
            "rsi",
            value=rsi,
            threshold=threshold,
            score=rsi / high if above else (100 - rsi) / (100 - low),
            side=1 if above else -1,
            reason=f"RSI 14 is {rsi:.1f}, {word} {threshold:g}",
            first=False,
        )

    def _spread(self, spread_bps: float | None) -> dict[str, Any] | None:
        if spread_bps is None:
            return None
        usual = statistics.median(self._spreads) if len(self._spreads) >= _LEAST else 0.0
        self._spreads = [*self._spreads, round(spread_bps, 4)][-REFERENCE_BARS:]
        if usual <= 0:
            return None
        times = spread_bps / usual
        return self._found(
            "spread_blowout",
            value=spread_bps,
            threshold=usual * self._config.spread_ratio,
            score=times / self._config.spread_ratio,
            reason=f"spread {spread_bps:.1f} bps is {times:.1f} times the usual {usual:.1f} bps",
        )

    def _feed(self) -> dict[str, Any] | None:
        count, total_ms = self._latency
        self._latency = [0, 0.0]
        if not count:
            return None
        mean_ms = total_ms / count
        return self._found(
            "feed_latency",
            value=mean_ms,
            threshold=self._config.latency_ms,
            score=max(0.0, mean_ms) / self._config.latency_ms,
            reason=f"{count:.0f} messages took {mean_ms:.0f} ms on average to arrive",
        )

    def _outlier(self, bar: ClosedBar) -> dict[str, Any] | None:
        inputs = self._inputs(bar)
        score = None if inputs is None else self._outliers.update(inputs)
        if inputs is None or score is None:
            return None
        model = self._config.model
        threshold = self._config.trees_score if model == "trees" else self._config.lof_score
        move, volume, range_ = inputs[0], math.exp(inputs[1]), math.exp(inputs[2])
        return self._found(
            "outlier",
            value=score,
            threshold=threshold,
            score=score / threshold,
            reason=f"the minute moved {move:.1f} times, traded {volume:.1f} times and ranged "
            f"{range_:.1f} times the usual",
            detector=model,
        )

    def _inputs(self, bar: ClosedBar) -> tuple[float, float, float] | None:
        """Move, volume and range over the usual ones; ``None`` for a first bar."""
        pause = not self._prev or bar.start_ns - self._prev[0] > _PAUSE_NS
        before = bar.open if pause else self._prev[1]
        self._prev = [bar.start_ns, bar.close]
        if not (before > 0 and bar.close > 0 and bar.low > 0 and bar.high >= bar.low):
            return None
        sizes = (
            abs(math.log(bar.close / before)) + 1e-6,
            math.log(bar.high / bar.low) + 1e-5,
            bar.volume + 1.0,
        )
        if not self._usual:
            self._usual = list(sizes)
            return None
        move, range_, volume = (size / u for size, u in zip(sizes, self._usual, strict=True))
        self._usual = [
            u + _USUAL * (min(size, _WORST * u) - u)
            for size, u in zip(sizes, self._usual, strict=True)
        ]
        return move / 1.25, math.log(volume), math.log(range_)  # 1.25: deviation over mean size

    def _found(
        self,
        kind: Kind,
        *,
        value: float,
        threshold: float,
        score: float,
        reason: str,
        side: int | None = None,
        detector: str = "rule",
        first: bool = True,
    ) -> dict[str, Any] | None:
        """A finding, if it became worse just now.

        Args:
            kind: What it is.
            value: What was measured.
            threshold: What it may be.
            score: How many times that it reaches; above 1 it is unusual.
            reason: A sentence with the numbers.
            side: Side on which it is unusual, 1 or -1; by the sign of the value.
            detector: What found it.
            first: Whether it is one although nothing was known before.
        """
        warning_at, critical_at = _LEVELS[detector if kind == "outlier" else kind]
        level = 0 if score <= 1 else 1 + (score >= warning_at) + (score >= critical_at)
        side = (1 if value > 0 else -1) if side is None else side
        known = kind in self._levels
        before_side, before = self._levels.get(kind, (side, 0))
        held = before if before_side == side else 0
        self._levels[kind] = [side, max(level, held) if level else 0]
        if level <= held or not (known or first):
            return None
        return {
            "kind": kind,
            "severity": SEVERITIES[level - 1],
            "score": round(value if kind == "outlier" else score, 4),
            "value": round(value, 4),
            "threshold": round(threshold, 4),
            "reason": reason,
            "detector": detector,
        }
