from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from cluster.market_report import write
from cluster.settings import Settings
from pipelines.errors import ConfigError


def test_market_report_beside_real_bars_has_all_of_them(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.market_report.DAYS", 60)
    real = [shared_data / name for name in ("bars_1min_spy_2011_01.parquet",
                                            "bars_1day_2013_2017.parquet")]  # fmt: skip
    chosen = Settings(symbols=("SPY", "KO"), _env_file=None)  # type: ignore[call-arg]
    table, text, picture = write(chosen, out=tmp_path / "report", real=real, sessions=5)
    facts = orjson.loads(table.read_bytes())
    assert set(facts["minutes"]) == {"synthetic", "synthetic SPY", "bars_1min_spy_2011_01"}
    assert set(facts["days"]) == {"synthetic", "bars_1day_2013_2017"}
    assert "kurtosis" in text.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_market_report_of_no_bars_is_refused(tmp_path: Path) -> None:
    chosen = Settings(symbols=("SPY",), _env_file=None)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="no Parquet file"):
        write(chosen, out=tmp_path, real=[tmp_path / "none"], sessions=1)
