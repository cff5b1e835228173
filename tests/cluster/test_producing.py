"""What the settings ask of the producer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import choice, producing
from cluster.settings import load


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of ours


@pytest.mark.parametrize("live", [False, True])
def test_test_feed_goes_by_the_wall_clock_wherever_it_is(
    live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTAPE_FEED", "test")
    settings = load(live=live)
    config = producing.config(settings)
    assert config.symbols == ("FAKEPACA",)
    assert config.url.endswith("/v2/test")
    assert (config.clock_url, config.news_url) == (None, None)
    assert choice.run_of(settings) == "test"


def test_test_feed_with_symbols_of_its_own_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTAPE_FEED", "test")
    monkeypatch.setenv("RAYTAPE_SYMBOLS", "FAKEPACA,SPY")
    assert load().symbols == ("FAKEPACA", "SPY")


def test_simulated_market_has_a_clock_of_its_own() -> None:
    config = producing.config(load())
    assert config.clock_url is not None
    assert config.clock_url.endswith("/raytape/clock")
    assert config.news_url is not None
