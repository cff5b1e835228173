"""The synthetic market looks like a market; and real bars, measured the same way, look so too."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.facts import (
    DayFacts,
    MinuteFacts,
    daily_closes,
    day_facts,
    minute_facts,
)
from pipelines.exchange.replay import ReplayMarket
from pipelines.exchange.synthetic import SyntheticMarket


def _market(sessions: int) -> SyntheticMarket:
    return SyntheticMarket(
        DEFAULT_SYMBOLS, seed=7, start_date=date(2023, 1, 3), max_sessions=sessions
    )


@pytest.fixture(scope="module")
def minutes() -> MinuteFacts:
    return minute_facts(_market(60), quoted=True)


@pytest.fixture(scope="module")
def days() -> DayFacts:
    return day_facts(daily_closes(_market(500)))


def test_minutes_returns_have_no_memory_but_their_sizes_have_a_long_one(
    minutes: MinuteFacts,
) -> None:
    assert np.abs(minutes.returns_acf).max() < 0.03
    assert min(minutes.sizes_acf) > 0.03
    assert minutes.sizes_acf[0] > minutes.sizes_acf[-1]
    assert minutes.sizes_acf[6] > 0.3 * minutes.sizes_acf[0]


def test_minutes_tails_are_fat(minutes: MinuteFacts) -> None:
    assert 5 < minutes.kurtosis < 60


def test_minutes_volatility_and_volume_are_a_u(minutes: MinuteFacts) -> None:
    for shape in (minutes.volatility_by_part, minutes.volume_by_part):
        middle = np.mean(shape[10:16])
        assert shape[0] > 1.5 * middle
        assert shape[-1] > 1.1 * middle
    assert minutes.volume_and_size > 0.3


def test_minutes_symbols_move_together_most_inside_a_sector(minutes: MinuteFacts) -> None:
    assert minutes.same_sector is not None
    assert minutes.other_sector is not None
    assert minutes.same_sector > minutes.other_sector > 0.1


def test_minutes_spread_follows_the_range(minutes: MinuteFacts) -> None:
    assert minutes.spread_and_range is not None
    assert minutes.spread_and_range > 0.2


def test_days_look_like_days(days: DayFacts) -> None:
    assert 0.008 < days.volatility < 0.03
    assert 3.5 < days.kurtosis < 40
    assert np.abs(days.returns_acf).max() < 0.08
    assert days.sizes_acf[0] > days.sizes_acf[-1]
    assert np.mean(days.sizes_acf[:4]) > 0.03
    assert days.correlation is not None
    assert 0.15 < days.correlation < 0.6


def test_open_gap_says_nothing_of_the_day() -> None:
    market = _market(500)
    blocks = [market.block(s) for s in market.playable()]
    closes = np.stack([b.close[:, -1] for b in blocks], axis=1)
    opens = np.stack([b.open[:, 0] for b in blocks], axis=1)
    gap = np.log(opens[:, 1:] / closes[:, :-1])
    day = np.log(closes[:, 1:] / opens[:, 1:])
    together = [np.corrcoef(g, d)[0, 1] for g, d in zip(gap, day, strict=True)]
    assert abs(np.mean(together)) < 0.08


def test_real_minutes_have_the_same_facts(shared_data: Path, minutes: MinuteFacts) -> None:
    path = shared_data / "bars_1min_spy_2011_01.parquet"
    real = minute_facts(ReplayMarket(path, sessions="regular"), quoted=False)
    assert real.kurtosis > 3
    assert abs(real.returns_acf[0]) < 0.1
    assert real.sizes_acf[0] > 0.05
    shapes = zip(minutes.volatility_by_part, real.volatility_by_part, strict=True)
    assert np.mean([abs(a - b) for a, b in shapes]) < 0.15
    assert real.volume_and_size == pytest.approx(minutes.volume_and_size, abs=0.25)


def test_facts_of_independent_normal_returns_are_those_of_none() -> None:
    rng = np.random.default_rng(3)
    facts = day_facts(np.exp(np.cumsum(rng.normal(0, 0.01, (20, 5000)), axis=1)))
    assert facts.kurtosis == pytest.approx(3, abs=0.3)
    assert facts.volatility == pytest.approx(0.01, rel=0.05)
    assert np.abs([*facts.returns_acf, *facts.sizes_acf]).max() < 0.02
    assert facts.correlation == pytest.approx(0, abs=0.02)
