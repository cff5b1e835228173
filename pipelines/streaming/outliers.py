"""Outliers of one symbol, found without being told what one is; the only file that knows River.

In: what a bar was like, as multiples of what is usual. Out: a score. Two models:

``trees``  half-space trees. They score against the window of :data:`WINDOW` bars before the one
           that is being filled; from 0 to 1, which is the strangest.
``lof``    local outlier factor among the last :data:`LOF_WINDOW` bars; 1 is usual. Costs more.

A model is a function of its seed and of the bars since the last but one window began. These bars
are its state; the model itself is never stored. A process keeps the models that it used last and
makes one anew, from these bars, where it has none that has seen exactly them.
"""

from __future__ import annotations

import base64
import functools
import gc
import importlib
from array import array
from collections.abc import Sequence
from typing import Any, Final, Literal

Model = Literal["trees", "lof", "off"]

WINDOW: Final = 128
"""Bars of a window of the trees."""

LOF_WINDOW: Final = 64

_TREES, _HEIGHT, _NEIGHBOURS = 25, 4, 10
_SCALE: Final = 1000
_MAX: Final = 32_000  # of 16 bits
_INPUTS: Final = ("move", "volume", "range")
_FULL: Final = (6.0, 2.2, 2.2)  # inputs that are as strange as the trees can tell
_ONE: Final = (8.0, 5.0, 5.0)  # inputs of equal weight in a distance
_MAX_MODELS: Final = 1024  # 180 kB each; more symbols than that make theirs anew at each bar


class Outliers:
    """Scores the bars of one symbol, one after the other.

    Args:
        model: Which model; ``off``: bars are remembered, none is scored.
        seed: Seed of the trees.

    >>> outliers = Outliers("trees", seed=1)
    >>> scores = [outliers.update((1.0, 0.1 * (i % 5), 0.0)) for i in range(WINDOW + 1)]
    >>> scores[0], 0 <= scores[-1] < outliers.update((9.0, 2.0, 2.0)) <= 1
    (None, True)
    """

    __slots__ = ("_kept", "_model", "_seed")

    def __init__(self, model: Model, *, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._kept = array("h")

    def push(self, inputs: Sequence[float]) -> None:
        """Take a bar in without a score, for warming up.

        Args:
            inputs: Size of the move over the usual one; logarithms of volume and of range over
                the usual ones.
        """
        self._keep([_whole(x) for x in inputs])

    def update(self, inputs: Sequence[float]) -> float | None:
        """Take the next bar in; its score, ``None`` while too few came before."""
        row = [_whole(x) for x in inputs]
        if self._model == "off":
            self._keep(row)
            return None
        if len(self._kept) < WINDOW * len(_INPUTS):
            self._keep(row)
            return None
        place = _place(self._model, self._seed)
        known = place.take(self._kept)
        score = known.score(row)
        known.learn(row)
        self._keep(row)
        place.put(self._kept, known)
        return score

    def state(self) -> str:
        """The bars that it goes on from."""
        return base64.b64encode(self._kept.tobytes()).decode()

    def restore(self, state: str) -> None:
        """Go on from what :meth:`state` gave; nothing: begin."""
        self._kept = array("h", base64.b64decode(state))

    def _keep(self, row: Sequence[int]) -> None:
        self._kept.extend(row)
        if len(self._kept) == 2 * WINDOW * len(_INPUTS):
            del self._kept[: WINDOW * len(_INPUTS)]


class _Trees:
    """Half-space trees over sizes alone: what is below the usual is as usual."""

    def __init__(self, seed: int) -> None:
        from river.anomaly import HalfSpaceTrees

        self._trees: Any = HalfSpaceTrees(_TREES, _HEIGHT, WINDOW, seed=seed)

    def learn(self, row: Sequence[int]) -> None:
        self._trees.learn_one(self._inputs(row))

    def score(self, row: Sequence[int]) -> float:
        return float(self._trees.score_one(self._inputs(row)))

    def _inputs(self, row: Sequence[int]) -> dict[str, float]:
        move, volume, range_ = (x / _SCALE for x in row)
        return {
            "move": _unit(move / 6),
            "volume": _unit(volume / 2.2),
            "range": _unit(range_ / 2.2),
        }


class _Factor:
    """Local outlier factor over a window that forgets."""

    def __init__(self) -> None:
        from river.anomaly import LocalOutlierFactor
        from river.neighbors import LazySearch

        engine = LazySearch(window_size=LOF_WINDOW)
        self._factor: Any = LocalOutlierFactor(_NEIGHBOURS, engine)

    def learn(self, row: Sequence[int]) -> None:
        self._factor.learn_one(self._inputs(row))

    def score(self, row: Sequence[int]) -> float:
        return float(self._factor.score_one(self._inputs(row)))

    def _inputs(self, row: Sequence[int]) -> dict[str, float]:
        return {n: x / _SCALE / one for n, x, one in zip(_INPUTS, row, _ONE, strict=True)}


class _Place:
    """Where a process leaves a symbol's model between two bars."""

    def __init__(self, model: Model, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._left: tuple[bytes, _Trees | _Factor] | None = None

    def take(self, kept: array[int]) -> _Trees | _Factor:
        """The model that has seen these bars: the one that was left, or a new one."""
        left, self._left = self._left, None
        if left is not None and left[0] == kept.tobytes():
            return left[1]
        made = _Trees(self._seed) if self._model == "trees" else _Factor()
        for at in range(0, len(kept), len(_INPUTS)):
            made.learn(kept[at : at + len(_INPUTS)])
        # It stays, and is thousands of objects: Spark's daemon collects garbage after every task.
        gc.freeze()
        return made

    def put(self, kept: array[int], model: _Trees | _Factor) -> None:
        self._left = (kept.tobytes(), model)


@functools.lru_cache(maxsize=_MAX_MODELS)
def _place(model: Model, seed: int) -> _Place:
    return _Place(model, seed)


def _whole(x: float) -> int:
    return max(-_MAX, min(_MAX, round(x * _SCALE)))


def _unit(x: float) -> float:
    return max(0.0, min(1.0, x))


@functools.cache
def load(model: Model) -> None:
    """Import the library, which takes a second, before a bar waits for it."""
    if model != "off":
        importlib.import_module("river.anomaly")


def forget() -> None:
    """Drop the models that this process keeps; they are made anew on demand."""
    _place.cache_clear()
