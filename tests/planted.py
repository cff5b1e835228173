"""Bars of the synthetic market with anomalies planted in them, and what was found of these."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from talib import _ta_lib as ta

from pipelines.events import MINUTE_NS
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.synthetic import SyntheticMarket
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureBuilder
from pipelines.streaming.anomalies import AnomalyConfig, Watch

KINDS = ("price_spike", "volume_spike", "spread_blowout", "feed_latency", "outlier", "rsi")
WARM_SESSIONS, EVERY, EDGE = 2, 57, 15
"""Sessions without any; minutes between two planted ones; minutes of a session's ends without."""

LATENCY_MS, SLOW_MS, SIGMAS = 30.0, 250.0, 6.0


@dataclass
class Planted:
    """The bars of a symbol, and the kind of anomaly in each, if any."""

    symbol: str
    bars: list[ClosedBar]
    kinds: dict[int, str] = field(default_factory=dict)
    edges: set[int] = field(default_factory=set)


@dataclass
class Score:
    """Of one detector.

    Args:
        found: Planted ones that were found.
        planted: All that were planted.
        false: Findings where neither anybody planted one nor its rule was broken by the market.
        natural: Findings where the market itself broke the rule; for a model, at its auctions.
    """

    found: int = 0
    planted: int = 0
    false: int = 0
    natural: int = 0

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.false)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.planted)


@cache
def planted(symbols: int = 8, sessions: int = 6, seed: int = 7) -> tuple[Planted, ...]:
    """Series of symbols, every kind but RSI planted in turn; the RSI crosses by itself."""
    names = DEFAULT_SYMBOLS[:symbols]
    market = SyntheticMarket(names, seed=seed, start_date=date(2024, 3, 4), max_sessions=sessions)
    made = [Planted(name, []) for name in names]
    for number, session in enumerate(market.playable()):
        block = market.block(session)
        last = len(block.starts_ns) - 1
        for i, series in enumerate(made):
            for minute in np.flatnonzero(block.present[i]):
                at = len(series.bars)
                numbers = (getattr(block, n)[i, minute] for n in ("open", "high", "low", "close"))
                bar = ClosedBar(
                    int(block.starts_ns[minute]), *map(float, numbers),
                    float(block.volume[i, minute]), spread_bps=float(block.spread_bps[i, minute]),
                )  # fmt: skip
                if not EDGE < minute < last - EDGE:
                    series.edges.add(at)
                elif number >= WARM_SESSIONS and (minute + 7 * i) % EVERY == 0:
                    turn = (minute // EVERY + number) % (len(KINDS) - 1)
                    series.kinds[at] = KINDS[turn]
                    bar = _with(KINDS[turn], bar, series.bars)
                series.bars.append(bar)
    return tuple(made)


def _with(kind: str, bar: ClosedBar, before: Sequence[ClosedBar]) -> ClosedBar:
    last = before[-20:]
    if kind == "price_spike":
        close = last[-1].close * (1.08 if bar.start_ns // MINUTE_NS % 2 else 0.92)
        return replace(
            bar, close=close, high=max(bar.high, close), low=min(bar.low, close)
        )  # fmt: skip
    if kind == "volume_spike":
        return replace(bar, volume=5.0 * sum(b.volume for b in last) / len(last))
    if kind == "spread_blowout":
        return replace(bar, spread_bps=8.0 * (bar.spread_bps or 1.0))
    if kind == "outlier":  # none of its numbers breaks a rule
        moves = [abs(math.log(b.close / a.close)) for a, b in pairwise(last)]
        up = 1 + SIGMAS * 1.25 * sum(moves) / len(moves)
        volume = 2.6 * sum(b.volume for b in last) / len(last)
        close, high = bar.open * up, bar.open * up**1.2
        return replace(bar, close=close, high=high, low=bar.open / up**0.2, volume=volume)
    return bar


def findings(series: Planted, config: AnomalyConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a watch says about a series, by index of the bar."""
    watch = Watch(config, seed=zlib.crc32(series.symbol.encode()))
    builder = FeatureBuilder()
    for at, bar in enumerate(series.bars):
        slow = series.kinds.get(at) == "feed_latency"
        watch.latency(50, 50 * (SLOW_MS if slow else LATENCY_MS + at % 40))
        row = builder.update(bar)
        for finding in watch.update(bar, closes=builder.closes, row=row):
            yield at, finding


def score(config: AnomalyConfig, series: Sequence[Planted] | None = None) -> dict[str, Score]:
    """How well each detector does on what was planted.

    A finding on a bar where something else was planted, or on the one after, counts for nothing:
    the way back is strange as well. The market breaks rules by itself: its RSI crosses, and its
    news and auctions bring volume; whether it did is told by other means than the detectors'.
    """
    scores = {kind: Score() for kind in KINDS}
    for one in planted() if series is None else series:
        begin = min(one.kinds)
        near = {k + d for k in one.kinds for d in (0, 1)}
        rsi = ta.RSI(np.array([bar.close for bar in one.bars]), 14)
        natural = {"rsi": set(np.flatnonzero((rsi > 70) | (rsi < 30)).tolist())}
        natural |= {"volume_spike": _loud(one.bars), "outlier": one.edges}
        truth = {kind: {k for k, v in one.kinds.items() if v == kind} for kind in KINDS}
        truth["rsi"] = {k for k in _crossings(rsi) if k >= begin}
        seen: dict[str, set[int]] = {kind: set() for kind in KINDS}
        for at, finding in findings(one, config):
            if at >= begin:
                seen[finding["kind"]].add(at)
        for kind, there in seen.items():
            mine, wrong = scores[kind], there - truth[kind] - near
            mine.planted += len(truth[kind])
            mine.found += len(there & truth[kind])
            mine.natural += len(wrong & natural.get(kind, set()))
            mine.false += len(wrong - natural.get(kind, set()))
    return scores


def _loud(bars: Sequence[ClosedBar]) -> set[int]:
    """Bars with more than 3 times the average volume of the 19 before."""
    volume = np.array([bar.volume for bar in bars])
    before = np.lib.stride_tricks.sliding_window_view(volume, 19)[:-1].mean(axis=1)
    return set((np.flatnonzero(volume[19:] > 3 * before) + 19).tolist())


def _crossings(rsi: Any) -> Iterator[int]:
    for at in range(1, len(rsi)):
        if (rsi[at] > 70 >= rsi[at - 1]) or (rsi[at] < 30 <= rsi[at - 1]):
            yield at
