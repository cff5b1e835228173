"""What is unusual about a bar: each rule at its edge, the models, and planted anomalies."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.features.bar import ClosedBar
from pipelines.features.builder import FeatureRow
from pipelines.features.spec import FEATURE_SPEC
from pipelines.streaming import outliers
from pipelines.streaming.anomalies import AnomalyConfig, Watch
from pipelines.streaming.outliers import LOF_WINDOW, WINDOW, Outliers
from tests.planted import KINDS, findings, planted, score

T0 = parse_time_ns("2011-01-03T14:30:00Z")
CALM = [100.0] * 20


def look(watch: Watch, *, closes=(*CALM, 100.0), spread_bps=None, **features) -> list[Any]:
    named = dict.fromkeys(FEATURE_SPEC.names) | features
    row = FeatureRow(tuple(named.values()), spread_assumed=spread_bps is None)
    bar = ClosedBar(T0, 100.0, 101.0, 99.0, closes[-1], 100.0, spread_bps=spread_bps)
    return watch.update(bar, closes=np.array(closes), row=row)


@pytest.fixture
def watch() -> Watch:
    return Watch(AnomalyConfig(live=True, model="off"))


@pytest.mark.parametrize(("close", "severity"), [(105.1, "warning"), (89.9, "critical")])
def test_price_beyond_the_reference_is_found_once(watch, close, severity):
    (found,) = look(watch, closes=(*CALM, close))
    assert (found["kind"], found["severity"], found["threshold"]) == ("price_spike", severity, 5.0)
    assert found["score"] == pytest.approx(abs(close - 100) / 5)
    assert f"{close:.2f}" in found["reason"] and "100.00" in found["reason"]
    assert look(watch, closes=(*CALM, close)) == []
    assert look(watch) == []
    assert [f["kind"] for f in look(watch, closes=(*CALM, close))] == ["price_spike"]


def test_price_at_the_threshold_or_without_a_reference_is_usual(watch):
    assert look(watch, closes=(*CALM, 104.9)) == []
    assert look(watch, closes=(100.0, 100.0, 200.0)) == []


def test_price_that_becomes_worse_is_found_again(watch):
    found = [look(watch, closes=(*CALM, close)) for close in (106.0, 111.0, 106.0, 112.0, 94.0)]
    assert [[f["severity"] for f in some] for some in found] == [
        ["warning"], ["critical"], [], [], ["warning"],
    ]  # fmt: skip


def test_volume_over_three_times_the_others_is_found(watch):
    def ratio(times: float) -> float:
        return times * 20 / (19 + times)

    assert look(watch, volume_ratio_20=ratio(2.99)) == []
    (found,) = look(watch, volume_ratio_20=ratio(6.3))
    assert (found["kind"], found["severity"]) == ("volume_spike", "warning")
    assert found["value"] == pytest.approx(6.3)
    assert look(watch, volume_ratio_20=20.0) == []  # the others had none: no average


def test_rsi_is_found_when_it_crosses_only(watch):
    def kinds(rsi: float) -> list[str]:
        return [f["severity"] for f in look(watch, rsi_14=rsi)]

    assert kinds(75.0) == []  # nobody saw it cross
    assert [kinds(rsi) for rsi in (76, 69, 71, 72, 81, 72, 30, 29, 21)] == [
        [], [], ["info"], [], ["warning"], [], [], ["info"], [],
    ]  # fmt: skip


def test_spread_far_over_the_usual_is_found_and_assumed_ones_are_not_looked_at(watch):
    for _ in range(20):
        assert look(watch, spread_bps=2.0) == []
        assert look(watch) == []
    (found,) = look(watch, spread_bps=10.5)
    assert (found["kind"], found["value"], found["threshold"]) == ("spread_blowout", 10.5, 10.0)


def test_latency_is_found_by_its_average_of_the_minute_and_live_only(watch):
    for those in (watch, Watch(AnomalyConfig(model="off"))):
        those.latency(3, 90.0)
        assert look(those) == []
        those.latency(1, 50.0)
        those.latency(1, 170.0)
        found = look(those)
        assert [f["reason"] for f in found] == (
            ["2 messages took 110 ms on average to arrive"] if those is watch else []
        )


def test_restored_watch_goes_on_as_if_nothing_had_happened():
    series = planted(1, 3)[0]
    config = AnomalyConfig(live=True)
    expected = list(findings(series, config))
    assert {f["kind"] for _, f in expected} >= {"price_spike", "rsi", "outlier"}

    class Restarted(Watch):
        def update(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
            state = orjson.loads(orjson.dumps(self.state()))
            assert len(orjson.dumps(state)) < 3_500
            self.restore(state)
            if self._prev and int(self._prev[0]) // MINUTE_NS % 97 == 0:
                outliers.forget()
            return super().update(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.planted.Watch", Restarted)
        assert list(findings(series, config)) == expected


@pytest.mark.parametrize("model", ["trees", "lof"])
def test_outliers_rebuilt_from_state_score_as_those_that_lived_on(model):
    rng = np.random.default_rng(5)
    rows = np.abs(rng.normal(size=(3 * WINDOW + LOF_WINDOW, 3)))
    alive, scores = Outliers(model, seed=4), []
    for row in rows:
        state = alive.state()
        score_ = alive.update(row)
        scores.append(score_)
        if len(scores) % 41 == 0:
            outliers.forget()
            anew = Outliers(model, seed=4)
            anew.restore(state)
            assert anew.update(row) == score_
    assert scores[:WINDOW] == [None] * WINDOW
    assert None not in scores[WINDOW:]
    assert len(alive.state()) < 2 * WINDOW * 8 + 8


def test_outliers_of_two_seeds_differ_and_of_one_agree():
    def scores(seed: int) -> list[float | None]:
        those = Outliers("trees", seed=seed)
        return [those.update((i % 7 / 2, i % 5 / 3, 0.2)) for i in range(WINDOW + 20)]

    first = scores(1)
    outliers.forget()
    assert scores(1) == first
    assert scores(2) != first


@pytest.mark.parametrize(
    "wrong",
    [{"rsi_low": 71.0}, {"rsi_high": 100.0}, {"price_pct": 0.0}, {"model": "forest"}],
)
def test_config_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AnomalyConfig(**wrong)


def test_planted_anomalies_are_found_with_few_false_ones():
    scores = score(AnomalyConfig(live=True), planted(3, 6))
    for kind in KINDS:
        floor = (0.35, 0.8) if kind == "outlier" else (0.9, 0.97)
        assert scores[kind].planted >= 10
        assert scores[kind].precision >= floor[0], (kind, scores[kind])
        assert scores[kind].recall >= floor[1], (kind, scores[kind])


def test_planted_outliers_are_found_by_the_local_factor_too():
    found = score(AnomalyConfig(model="lof"), planted(2, 6)[:1])["outlier"]
    assert found.recall >= 0.8 and found.precision >= 0.35, found
