"""The policy: the promoted model, ready to decide, swapped in place when another is promoted.

In: observations ``(n, n_inputs)`` float32, features and the account's two fractions. Out: one
:class:`Decision` per row. A model of other features is refused; without a promoted model that
can be used, ``rules-1`` decides and every answer says ``no_model``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import FingerprintMismatch, ModelError, RaytapeError

log = logging.getLogger(__name__)

ACTIONS = ("HOLD", "BUY", "SELL")
RULES = "rules-1"
_AGAIN = ("", -1)
"""No model is named so: what was refused is looked at again."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a model says of one observation.

    Args:
        action_id: HOLD=0, BUY=1, SELL=2.
        probabilities: Of the three, summing to 1.
        value: Value estimate, or ``None`` when the model has none.
        q_values: Of the three; DQN only.
    """

    action_id: int
    probabilities: tuple[float, float, float]
    value: float | None
    q_values: tuple[float, float, float] | None


class Runner(Protocol):
    """Runs the graph; ONNX Runtime's session is one."""

    def run(self, outputs: Sequence[str] | None, feed: dict[str, Any], /) -> Sequence[Any]:
        """Outputs of a feed."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model.

    Args:
        id: Its name.
        version: Its version.
        fingerprint: Of the features that it was trained on.
        outputs: Names of the graph's outputs.
        temperature: Of the softmax over Q-values.
        runner: Runs it.
    """

    id: str
    version: int
    fingerprint: str
    outputs: tuple[str, ...]
    temperature: float
    runner: Runner

    @property
    def key(self) -> str:
        """``id:version``."""
        return f"{self.id}:{self.version}"

    def ref(self) -> dict[str, Any]:
        """As answers carry it."""
        return {"id": self.id, "version": self.version, "fingerprint": self.fingerprint}

    def decide(self, observations: NDArray[np.float32]) -> list[Decision]:
        """Decide on observations of shape ``(n, n_inputs)``; the action is the argmax.

        Raises:
            ModelError: The model gave numbers that are none.
        """
        out = dict(
            zip(self.outputs, self.runner.run(None, {"observation": observations}), strict=True)
        )
        q_values = out.get("q_values")
        scores = np.asarray(q_values if q_values is not None else out["logits"], dtype=np.float64)
        if not np.isfinite(scores).all():
            raise ModelError(f"{self.key} gave a number that is none")
        probabilities = softmax(
            scores, temperature=self.temperature if q_values is not None else 1.0
        ).tolist()
        actions = scores.argmax(axis=1).tolist()
        values = None
        if "value" in out:
            values = np.asarray(out["value"], dtype=np.float64).reshape(-1).tolist()
        elif q_values is not None:
            values = scores.max(axis=1).tolist()
        rows = scores.tolist() if q_values is not None else None
        return [
            Decision(
                action_id=action,
                probabilities=tuple(probabilities[i]),
                value=values[i] if values is not None else None,
                q_values=tuple(rows[i]) if rows is not None else None,
            )
            for i, action in enumerate(actions)
        ]


def softmax(scores: NDArray[np.float64], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of each row.

    >>> softmax(np.array([[0.0, 0.0, 1000.0]])).round(3).tolist()
    [[0.0, 0.0, 1.0]]
    """
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    exps = np.exp(scaled)
    result: NDArray[np.float64] = exps / exps.sum(axis=1, keepdims=True)
    return result


class Loader(Protocol):
    """Gives models; :class:`serve.models.RegistryLoader` reads the registry."""

    def promoted(self) -> tuple[str, int] | None:
        """Id and version of the promoted model."""
        ...

    def load(self, ref: tuple[str, int]) -> Model:
        """Load one; raises :class:`~pipelines.errors.ModelError`."""
        ...

    def rules(self) -> Model:
        """The rule-based model."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that decides now.

    Args:
        model: It.
        reason: ``no_model`` when it stands in for a promoted one.
        note: Why it stands in, for people.
    """

    model: Model
    reason: str | None = None
    note: str = ""


class Policy:
    """Holds the choice of the model, and looks for a newer one in a thread.

    Args:
        loader: Gives models.
        fingerprint: Of the features that are served.
        poll_s: Wall seconds between two looks.
    """

    def __init__(self, loader: Loader, *, fingerprint: str, poll_s: float = 3.0) -> None:
        self._loader = loader
        self._fingerprint = fingerprint
        self._poll_s = poll_s
        self._choice: Choice | None = None
        self._wanted: tuple[str, int] | None = None
        self._failing = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.swaps = 0

    @property
    def choice(self) -> Choice | None:
        """The model that decides; ``None`` when not even the rules could be loaded."""
        return self._choice

    def refresh(self) -> bool:
        """Look once; whether another model decides now.

        A registry that cannot be read keeps the model that decides; a promoted model that must
        not be used hands over to the rules, and is looked at again the next time.
        """
        before = self._choice
        try:
            wanted = self._loader.promoted()
            if before is None or wanted != self._wanted:
                self._choice = self._choose(wanted)
                self._wanted = wanted if self._choice.reason is None or wanted is None else _AGAIN
        except (RaytapeError, OSError) as error:
            if not self._failing:
                log.warning("policy: the registry cannot be read: %s", error)
            self._failing = True
            return False
        self._failing = False
        changed = before is None or before.model.key != self._choice_key()
        if changed:
            self.swaps += 1
            log.info("policy: %s decides", self._choice_key())
        return changed

    def start(self) -> None:
        """Load now, and look for a newer model from now on."""
        self.refresh()
        self._thread = threading.Thread(target=self._watch, name="policy-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._poll_s + 5)
            self._thread = None

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_s):
            self.refresh()

    def _choice_key(self) -> str:
        return self._choice.model.key if self._choice else ""

    def _choose(self, wanted: tuple[str, int] | None) -> Choice:
        if wanted is None:
            return Choice(self._loader.rules(), reason="no_model", note="no model is promoted")
        try:
            model = self._loader.load(wanted)
            if model.fingerprint != self._fingerprint:
                raise FingerprintMismatch(
                    f"{model.key} was trained on features {model.fingerprint}, "
                    f"but {self._fingerprint} are served"
                )
            return Choice(model)
        except ModelError as error:
            if self._wanted != _AGAIN:
                log.warning("policy: %s:%s is refused: %s", *wanted, error)
            return Choice(self._loader.rules(), reason="no_model", note=str(error))
