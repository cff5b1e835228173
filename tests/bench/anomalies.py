"""Anomalies: precision and recall on planted ones, cost per bar, state and memory per symbol."""

from __future__ import annotations

import gc
import time
import tracemalloc
import zlib
from collections.abc import Sequence

import orjson

from pipelines.features.builder import FeatureBuilder, FeatureRow, Floats
from pipelines.streaming import outliers
from pipelines.streaming.anomalies import AnomalyConfig, Watch
from pipelines.streaming.outliers import Model, Outliers
from tests.bench.rows import Row, Say
from tests.planted import KINDS, Planted, planted, score

SYMBOLS, SESSIONS = 8, 10
MODELS: tuple[Model, ...] = ("trees", "lof")


def run(say: Say) -> list[Row]:
    say(f"{SYMBOLS} symbols, {SESSIONS} sessions of the synthetic market, seeded")
    series = planted(SYMBOLS, SESSIONS)
    sessions = SYMBOLS * (SESSIONS - 2)
    rows = []
    for model in MODELS:
        scores = score(AnomalyConfig(live=True, model=model), series)
        for kind in KINDS if model == MODELS[0] else ("outlier",):
            one = scores[kind]
            name = f"{kind} ({model})" if kind == "outlier" else kind
            least = (40, 80) if kind == "outlier" else (90, 97)
            rows += [
                Row(f"{name}: planted", one.planted, "bars"),
                Row(f"{name}: precision", one.precision * 100, "%", least[0], at_least=True),
                Row(f"{name}: recall", one.recall * 100, "%", least[1], at_least=True),
                Row(f"{name}: by the market itself", one.natural / sessions, "a session"),
            ]  # fmt: skip
    told = [_features(one) for one in series[:2]]
    for model in ("off", *MODELS):
        say(f"cost with the model {model}")
        rows.append(Row(f"cost of a bar, model {model}", _cost_us(series, told, model), "µs"))
    for model in MODELS:
        rows.append(Row(f"memory of a symbol's model, {model}", _memory_kb(model), "kB"))
        rows.append(Row(f"made anew from its state, {model}", _rebuilt_ms(model), "ms"))
    watch = Watch()
    for bar in series[0].bars[: 3 * outliers.WINDOW - 1]:
        watch.push(bar)
    rows.append(Row("state of a symbol, at most", len(orjson.dumps(watch.state())) / 1e3, "kB", 4))
    return rows


def _features(one: Planted) -> list[tuple[Floats, FeatureRow]]:
    builder, made = FeatureBuilder(), []
    for bar in one.bars:
        row = builder.update(bar)
        made.append((builder.closes[-32:].copy(), row))
    return made


def _cost_us(
    series: Sequence[Planted], told: Sequence[Sequence[tuple[Floats, FeatureRow]]], model: Model
) -> float:
    bars, spent = 0, 0.0
    for one, rows in zip(series, told, strict=False):
        watch = Watch(AnomalyConfig(live=True, model=model), seed=zlib.crc32(one.symbol.encode()))
        began = time.process_time()
        for bar, (closes, row) in zip(one.bars, rows, strict=True):
            watch.update(bar, closes=closes, row=row)
        spent += time.process_time() - began
        bars += len(rows)
    return spent / bars * 1e6


def _full(model: Model, seed: int) -> Outliers:
    made = Outliers(model, seed=seed)
    for i in range(2 * outliers.WINDOW - 1):
        made.push((i % 7 / 2, i % 5 / 3, i % 3 / 3))
    return made


def _memory_kb(model: Model, symbols: int = 20) -> float:
    _full(model, 10_000).update((1.0, 1.0, 1.0))  # the library itself is no symbol's
    outliers.forget()
    waiting = [_full(model, seed) for seed in range(symbols)]
    gc.collect()
    tracemalloc.start()
    for one in waiting:
        one.update((1.0, 1.0, 1.0))
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / symbols / 1e3


def _rebuilt_ms(model: Model, symbols: int = 20) -> float:
    waiting = [_full(model, seed) for seed in range(symbols)]
    outliers.forget()
    began = time.process_time()
    for one in waiting:
        one.update((1.0, 1.0, 1.0))
    return (time.process_time() - began) / symbols * 1e3
