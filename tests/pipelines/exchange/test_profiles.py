from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import orjson
import pytest

from pipelines.errors import ConfigError
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.profiles import profile, read_profiles
from pipelines.exchange.synthetic import SyntheticMarket


def _file(path: Path, content: object) -> Path:
    path.write_bytes(orjson.dumps(content))
    return path


def test_profile_every_default_symbol_is_written_down() -> None:
    assert {profile(s).price_usd for s in DEFAULT_SYMBOLS} <= {
        profile(s).price_usd for s in (*DEFAULT_SYMBOLS, "FAKEPACA")
    }
    assert profile("SPY").own_volatility < profile("TSLA").own_volatility


def test_profiles_of_a_file_change_the_market(tmp_path: Path) -> None:
    given = read_profiles(
        _file(tmp_path / "p.json", {"PENNY": {"price_usd": 0.4, "spread_bps": 50.0}})
    )
    market = SyntheticMarket(("PENNY",), seed=7, start_date=date(2024, 7, 2), profiles=given)
    block = market.block(market.playable()[0])
    assert block.close.max() < 1.5
    cents = block.close[block.close < 1.0] * 10_000
    assert len(cents)
    assert np.allclose(cents, np.round(cents), atol=1e-6)
    assert (
        np.round(block.close * 100, 6) % 1 > 0
    ).any()  # sub-dollar ticks are a hundredth of a cent


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "expected"),
        ({"A": 1}, "expected"),
        ({"A": {"colour": 1}}, "colour"),
        ({"A": {"sector": "magic"}}, "sector='magic'"),
        ({"A": {"price_usd": -1}}, "price_usd=-1"),
        ({"A": {"price_usd": "much"}}, "profile of A"),
        ({"A": {"jumps_per_day": 3}}, "jumps_per_day"),
    ],
)
def test_profiles_wrong_file_names_symbol_and_field(
    tmp_path: Path, content: object, said: str
) -> None:
    path = _file(tmp_path / "p.json", content)
    with pytest.raises(ConfigError, match=said) as caught:
        read_profiles(path)
    assert str(path) in str(caught.value)


def test_profiles_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_profiles(tmp_path / "none.json")
