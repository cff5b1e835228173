"""The producer's statistics become metrics: counters grow by what is new, states are exclusive."""

from __future__ import annotations

from typing import Any

from cluster.producer_metrics import PREFIX, ProducerMetrics

S = 1_000_000_000


class Metric:
    def __init__(self, name: str, _text: str, _tags: Any) -> None:
        self.name = name
        self.values: dict[tuple[str, ...], float] = {}

    def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
        return tuple(value for key, value in tags.items() if key != "producer")

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._key(tags)] = self.values.get(self._key(tags), 0) + value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._key(tags)] = value


def _made():
    made: dict[str, Metric] = {}

    def make(name: str, text: str, tags: Any) -> Metric:
        made[name.removeprefix(PREFIX)] = metric = Metric(name, text, tags)
        return metric

    return made, ProducerMetrics("raytape-producer", counter=make, gauge=make)


def _stats(**changed: Any) -> dict[str, Any]:
    return {"state": "streaming", "acked": 100, "records_acked": 10, "source": "iex", **changed}


def test_counters_grow_by_what_is_new_since_the_first_look():
    made, metrics = _made()
    metrics.update(_stats(), {}, now_ns=0)
    metrics.update(_stats(acked=160, records_acked=12), {("t", "SPY"): 7}, now_ns=0)
    metrics.update(_stats(acked=160, records_acked=12), {("t", "SPY"): 9}, now_ns=0)
    assert made["acked"].values == {(): 60}
    assert made["batch_messages"].values == {(): 30}
    assert made["messages"].values == {("t", "SPY"): 9}


def test_counter_that_began_again_never_shrinks():
    made, metrics = _made()
    for acked in (100, 150, 20):
        metrics.update(_stats(acked=acked), {}, now_ns=0)
    assert made["acked"].values == {(): 70}


def test_state_and_source_are_exclusive():
    made, metrics = _made()
    metrics.update(_stats(), {}, now_ns=0)
    metrics.update(_stats(state="backing_off", source="rest", degraded="iex: 409"), {}, now_ns=0)
    assert [state for (state,), on in made["connection_state"].values.items() if on] == [
        "backing_off"
    ]
    assert made["degraded"].values == {("iex",): 0.0, ("rest",): 1.0}


def test_age_of_the_last_message_and_puts_are_gauges():
    made, metrics = _made()
    metrics.update(_stats(), {}, now_ns=5 * S)
    assert made["last_message_age_s"].values == {}
    metrics.update(_stats(last_message_wall_ns=3 * S, put_ms_p50=7.5), {}, now_ns=5 * S)
    assert made["last_message_age_s"].values == {(): 2.0}
    assert made["put_ms"].values == {("p50",): 7.5}
