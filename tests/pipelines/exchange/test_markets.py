from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.exchange.config import DEFAULT_SYMBOLS, ExchangeConfig
from pipelines.exchange.market import BarSource, Block, needed_trades
from pipelines.exchange.replay import ReplayMarket
from pipelines.exchange.synthetic import SyntheticMarket

SPY = "bars_1min_spy_2011_01.parquet"


def _synthetic(*symbols: str, seed: int = 7) -> SyntheticMarket:
    return SyntheticMarket(symbols, seed=seed, start_date=date(2024, 7, 1), max_sessions=20)


def _same(one: Block, other: Block) -> bool:
    names = ("starts_ns", "open", "high", "low", "close", "volume", "trades")
    return all((getattr(one, n) == getattr(other, n)).all() for n in names)


def test_synthetic_same_seed_is_the_same_market() -> None:
    one, other = _synthetic("AAPL", "SPY"), _synthetic("AAPL", "SPY")
    last = one.playable()[-1]
    for session in one.playable():
        one.block(session)
    assert _same(one.block(last), other.block(last))
    assert not _same(one.block(last), _synthetic("AAPL", "SPY", seed=8).block(last))


def test_synthetic_symbol_in_other_company_moves_the_same() -> None:
    session = _synthetic("AAPL").playable()[3]
    alone = _synthetic("AAPL").block(session)
    among = _synthetic("NEWCO", "SPY", "AAPL").block(session)
    assert (alone.close[0] == among.close[2]).all()
    assert (alone.volume[0] == among.volume[2]).all()


def test_synthetic_bars_are_possible_and_on_the_tick() -> None:
    market = _synthetic(*DEFAULT_SYMBOLS)
    for session in market.playable():
        block = market.block(session)
        assert (block.low <= np.minimum(block.open, block.close)).all()
        assert (block.high >= np.maximum(block.open, block.close)).all()
        assert (block.low > 0).all()
        needed = needed_trades(block.open, block.high, block.low, block.close)
        assert (block.trades >= needed).all()
        assert (block.volume >= block.trades).all()
        assert np.allclose(block.close * 100, np.round(block.close * 100), atol=1e-6)


def test_synthetic_half_day_is_short() -> None:
    minutes = [len(_synthetic("SPY").block(s).starts_ns) for s in _synthetic("SPY").playable()[:4]]
    assert minutes == [390, 390, 210, 390]


def test_synthetic_symbols_are_correlated_and_busy_at_both_ends() -> None:
    market = _synthetic(*DEFAULT_SYMBOLS)
    blocks = [market.block(s) for s in market.playable() if s[1] - s[0] == 390 * MINUTE_NS]
    moves = np.concatenate([np.diff(np.log(b.close), axis=1) for b in blocks], axis=1)
    with_spy = np.corrcoef(moves)[DEFAULT_SYMBOLS.index("SPY")]
    assert (with_spy > 0.15).all()
    assert np.median(with_spy) > 0.4
    volume = np.mean([b.volume / b.volume.mean(axis=1, keepdims=True) for b in blocks], axis=(0, 1))
    assert volume[:15].mean() > 1.5 > 1.0 > volume[150:250].mean()
    assert volume[-15:].mean() > 1.2


def test_synthetic_levels_stay_plausible_over_years() -> None:
    market = SyntheticMarket(("SPY",), seed=7, start_date=date(2010, 1, 4), max_sessions=5000)
    closes = np.array([market.block(s).close[0, -1] for s in market.playable()[:3500:50]])
    assert 200 < closes.min() < closes.max() < 1500


def test_synthetic_start_before_its_base_is_refused() -> None:
    with pytest.raises(ConfigError, match="start_date"):
        SyntheticMarket(("SPY",), seed=7, start_date=date(1999, 1, 4))


def _rows(source: BarSource) -> list[tuple[int, float, float, float, float, int]]:
    out = []
    for session in source.playable():
        b = source.block(session)
        out += zip(b.starts_ns.tolist(), *(x[0].tolist() for x in (b.open, b.high, b.low, b.close, b.volume)), strict=True)  # fmt: skip  # noqa: E501
    return out


def test_replay_all_equals_the_file(shared_data: Path) -> None:
    market = ReplayMarket(shared_data / SPY)
    table = pq.read_table(shared_data / SPY)
    starts = table["timestamp"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist()
    columns = (table[c].to_pylist() for c in ("open", "high", "low", "close", "volume"))
    assert _rows(market) == sorted(zip(starts, *columns, strict=True))
    assert len(market.playable()) == 20
    assert market.symbols == ("SPY",)


def test_replay_regular_has_only_regular_minutes(shared_data: Path) -> None:
    market = ReplayMarket(shared_data / SPY, sessions="regular", max_sessions=2)
    assert len(market.playable()) == 2
    assert len(_rows(market)) == 780
    assert _rows(market)[0][0] == parse_time_ns("2011-01-03T14:30:00Z")


def _file(path: Path, **columns: list[object]) -> Path:
    row = {
        "symbol": ["A"],
        "timestamp": [1_700_000_040_000_000],
        "open": [2.0], "high": [3.0], "low": [1.0], "close": [2.0], "volume": [10],
    } | columns  # fmt: skip
    table = pa.table(row)
    stamp = table["timestamp"].cast(pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(1, "timestamp", stamp), path)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {"high": [1.5]},
        {"low": [-1.0]},
        {"volume": [-1]},
        {"open": [float("nan")]},
        {"timestamp": [1_700_000_041_000_000]},
        {"volume": [None]},
    ],
)
def test_replay_impossible_bar_is_refused(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    with pytest.raises(ConfigError, match="replay"):
        ReplayMarket(_file(tmp_path / "bars.parquet", **columns))


def test_replay_unknown_symbols_names_what_the_file_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has A"):
        ReplayMarket(_file(tmp_path / "bars.parquet"), symbols=("B",))


def test_replay_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no")
    with pytest.raises(ConfigError, match="no Parquet file"):
        ReplayMarket(tmp_path / "x")


def test_config_as_json_and_back_is_the_same(tmp_path: Path) -> None:
    config = ExchangeConfig(
        symbols=("A",), start_date=date(2024, 1, 2), record_dir=tmp_path, max_minutes=3
    )
    assert ExchangeConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "wrong", [{"speed": 0}, {"nope": 1}, {"symbols": []}, {"start_date": "soon"}, {"feed": "x"}]
)
def test_config_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="exchange"):
        ExchangeConfig.from_dict(wrong)
