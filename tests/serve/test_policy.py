from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ModelError
from pipelines.features.spec import FEATURE_SPEC
from serve.policy import Policy
from tests.serve.conftest import FakeLoader, FakeRunner, model


def policy(loader: FakeLoader) -> Policy:
    made = Policy(loader, fingerprint=FEATURE_SPEC.fingerprint, poll_s=0.01)
    made.refresh()
    return made


def test_policy_without_a_promoted_model_lets_the_rules_decide_and_says_so() -> None:
    choice = policy(FakeLoader()).choice
    assert choice is not None
    assert (choice.model.id, choice.reason) == ("rules-1", "no_model")


def test_policy_refuses_a_model_of_other_features() -> None:
    other = model(fingerprint="0" * 16)
    choice = policy(FakeLoader({("ppo", 1): other}, ("ppo", 1))).choice
    assert choice is not None
    assert choice.reason == "no_model"
    assert "0000" in choice.note


def test_policy_swaps_when_another_model_is_promoted_and_only_then() -> None:
    loader = FakeLoader({("ppo", 1): model(), ("ppo", 2): model(version=2)}, ("ppo", 1))
    made = policy(loader)
    assert not made.refresh()
    loader.chosen = ("ppo", 2)
    assert made.refresh()
    assert made.choice is not None
    assert (made.choice.model.key, made.swaps) == ("ppo:2", 2)


def test_policy_keeps_its_model_while_the_registry_cannot_be_read() -> None:
    loader = FakeLoader({("ppo", 1): model()}, ("ppo", 1))
    made = policy(loader)
    loader.failing = True
    assert not made.refresh()
    assert made.choice is not None
    assert made.choice.model.key == "ppo:1"


def test_policy_takes_a_refused_model_once_it_can_be_loaded() -> None:
    loader = FakeLoader({}, ("ppo", 1))
    made = policy(loader)
    loader.models[("ppo", 1)] = model()
    assert made.refresh()
    assert made.choice is not None
    assert made.choice.reason is None


def test_model_with_a_number_that_is_none_is_an_error_not_an_action() -> None:
    with pytest.raises(ModelError):
        model(runner=FakeRunner(broken=True)).decide(np.zeros((1, 13), dtype=np.float32))


class _Q:
    def run(self, outputs: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.array([[1.0, 3.0, 2.0]], dtype=np.float32)]


def test_dqn_gives_softmax_of_its_values_and_their_maximum() -> None:
    (decision,) = model(runner=_Q(), outputs=("q_values",)).decide(np.zeros((1, 13), np.float32))
    assert (decision.action_id, decision.value, decision.q_values) == (1, 3.0, (1.0, 3.0, 2.0))
    assert sum(decision.probabilities) == pytest.approx(1)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_decisions_of_a_batch_equal_those_of_single_rows(firsts: list[float]) -> None:
    rows = np.zeros((len(firsts), 13), dtype=np.float32)
    rows[:, 0] = firsts
    made = model()
    alone = [made.decide(row.reshape(1, 13))[0] for row in rows]
    together = made.decide(rows)
    assert [d.action_id for d in alone] == [d.action_id for d in together]
    for decision in together:
        assert sum(decision.probabilities) == pytest.approx(1)
        assert decision.probabilities[decision.action_id] == max(decision.probabilities)
