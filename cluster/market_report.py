"""The stylised facts of the synthetic market, plotted and tabled, beside those of real bars.

Out: ``facts.json``, ``facts.md`` and ``facts.png`` in one folder. The real bars are read where they
are and never copied. Plots need matplotlib, which is no dependency of the platform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.settings import Settings
from pipelines.errors import ConfigError
from pipelines.exchange.facts import (
    DAY_LAGS,
    LAGS,
    PARTS,
    DayFacts,
    MinuteFacts,
    daily_closes,
    day_facts,
    minute_facts,
)
from pipelines.exchange.noise import Floats
from pipelines.exchange.profiles import read_profiles
from pipelines.exchange.replay import ReplayMarket
from pipelines.exchange.synthetic import SyntheticMarket

DAYS = 756
"""Sessions of daily returns: three years."""

_BLUE, _GREY = "#1f77b4", "#555555"
_STYLES = ((_GREY, "--", "s"), ("#c2571a", "--", "^"), ("#3a7d44", ":", "v"))

Facts = Mapping[str, MinuteFacts | DayFacts]


def write(settings: Settings, *, out: Path, real: Sequence[Path], sessions: int) -> list[Path]:
    """Write the report.

    Args:
        settings: Symbols, seed and profiles of the market.
        out: Folder of the report.
        real: Files of real bars, of minutes or days.
        sessions: Sessions of minutes that are looked at.

    Returns:
        The files that were written.

    Raises:
        ConfigError: A file of bars cannot be read, or matplotlib is not installed.
    """
    minutes: dict[str, MinuteFacts] = {}
    days: dict[str, DayFacts] = {}
    market = _synthetic(settings, sessions)
    minutes["synthetic"] = minute_facts(market, quoted=True)
    days["synthetic"] = day_facts(daily_closes(_synthetic(settings, DAYS)))
    for path in real:
        if (closes := _closes(path)) is not None:
            days[path.stem] = day_facts(closes)
            continue
        bars = ReplayMarket(path, sessions="regular")
        minutes[path.stem] = minute_facts(bars, quoted=False)
        if len(bars.symbols) == 1 and bars.symbols[0] in market.symbols:
            name = bars.symbols[0]
            minutes[f"synthetic {name}"] = minute_facts(
                _synthetic(settings, sessions, symbols=bars.symbols), quoted=True
            )
    out.mkdir(parents=True, exist_ok=True)
    table, text, picture = out / "facts.json", out / "facts.md", out / "facts.png"
    plain = {
        "minutes": {name: asdict(facts) for name, facts in minutes.items()},
        "days": {name: asdict(facts) for name, facts in days.items()},
    }
    table.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2))
    text.write_text(_markdown(minutes, days))
    _plot(minutes, days, picture)
    return [table, text, picture]


def _synthetic(
    settings: Settings, sessions: int, *, symbols: Sequence[str] | None = None
) -> SyntheticMarket:
    path = settings.market_profiles
    return SyntheticMarket(
        symbols or settings.symbols,
        seed=settings.seed,
        start_date=date(datetime.now(UTC).year - 1, 1, 1),
        max_sessions=sessions,
        profiles=None if path is None else read_profiles(path),
        news_drift_bps=settings.news_drift_bps,
    )


def _closes(path: Path) -> Floats | None:
    """Closes of a file of daily bars, shape ``(S, D)``; ``None`` if its bars are shorter."""
    try:
        frame = pq.read_table(path, columns=["symbol", "timestamp", "close"]).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"market-report {path}: no Parquet file of bars: {error}") from error
    wide = frame.pivot_table(index="symbol", columns="timestamp", values="close")
    if np.median(np.diff(wide.columns.to_numpy()).astype("timedelta64[h]").astype(int)) < 20:
        return None
    return np.asarray(wide.to_numpy(), dtype=np.float64)


def _markdown(minutes: Mapping[str, MinuteFacts], days: Mapping[str, DayFacts]) -> str:
    return (
        "# Stylised facts\n\n## Minutes, inside regular sessions\n\n"
        + _table({name: _minute_cells(facts) for name, facts in minutes.items()})
        + "\n## Days, from close to close\n\n"
        + _table({name: _day_cells(facts) for name, facts in days.items()})
    )


def _minute_cells(facts: MinuteFacts) -> dict[str, str]:
    return {
        "symbols × sessions": f"{facts.symbols} × {facts.sessions}",
        "kurtosis of returns (normal: 3)": f"{facts.kurtosis:.1f}",
        "autocorrelation of returns, lag 1": f"{facts.returns_acf[0]:+.3f}",
        "of absolute returns, lag 1": f"{facts.sizes_acf[0]:.3f}",
        f"of absolute returns, lag {LAGS[6]}": f"{facts.sizes_acf[6]:.3f}",
        "volatility at the open, over the day's mean": f"{facts.volatility_by_part[0]:.2f}",
        "volatility at midday": f"{facts.volatility_by_part[PARTS // 2]:.2f}",
        "volume at the close": f"{facts.volume_by_part[-1]:.2f}",
        "volume with absolute returns": f"{facts.volume_and_size:.2f}",
        "returns of two symbols of a sector": _or_dash(facts.same_sector),
        "of two sectors": _or_dash(facts.other_sector),
        "spread with range (ranks)": _or_dash(facts.spread_and_range),
    }


def _day_cells(facts: DayFacts) -> dict[str, str]:
    return {
        "symbols × sessions": f"{facts.symbols} × {facts.sessions}",
        "standard deviation": f"{facts.volatility:.2%}",
        "kurtosis": f"{facts.kurtosis:.1f}",
        "autocorrelation of returns, lag 1": f"{facts.returns_acf[0]:+.3f}",
        "of absolute returns, lag 1": f"{facts.sizes_acf[0]:.3f}",
        f"of absolute returns, lag {DAY_LAGS[4]}": f"{facts.sizes_acf[4]:.3f}",
        "returns of two symbols": _or_dash(facts.correlation),
    }


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """A Markdown table; each column has the same rows."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    labels = next(iter(columns.values()))
    lines += [f"| {row} | " + " | ".join(c[row] for c in columns.values()) + " |" for row in labels]
    return "\n".join(lines) + "\n"


def _plot(minutes: Mapping[str, MinuteFacts], days: Mapping[str, DayFacts], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "market-report needs matplotlib for its plots; run `pip install matplotlib`"
        ) from error
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes: Any = figure.subplots(2, 3)
    hours = 9.5 + (np.arange(PARTS) + 0.5) * 6.5 / PARTS
    panels = (
        (axes[0, 0], "Autocorrelation of minute returns", minutes, LAGS, "returns_acf"),
        (axes[0, 1], "… of their absolute values", minutes, LAGS, "sizes_acf"),
        (axes[1, 0], "Volatility through the day", minutes, hours, "volatility_by_part"),
        (axes[1, 1], "Volume through the day", minutes, hours, "volume_by_part"),
        (axes[0, 2], "Autocorrelation of absolute daily returns", days, DAY_LAGS, "sizes_acf"),
    )
    for axis, title, source, x, name in panels:
        _lines(axis, title, source, x, name)
    for axis, lags in ((axes[0, 0], LAGS), (axes[0, 1], LAGS), (axes[0, 2], DAY_LAGS)):
        axis.set_xscale("log")
        axis.set_xticks(lags, [str(lag) for lag in lags], fontsize=7)
        axis.minorticks_off()
        axis.axhline(0.0, color="black", linewidth=0.6)
    axes[0, 0].set_ylim(-0.1, 0.3)
    axes[0, 1].set_ylim(-0.05, 0.4)
    axes[0, 1].set_xlabel("lag, minutes")
    axes[0, 0].set_xlabel("lag, minutes")
    axes[0, 2].set_xlabel("lag, days")
    for axis in (axes[1, 0], axes[1, 1]):
        axis.set_xlabel("hour in New York")
        axis.set_ylim(bottom=0.0)
        axis.set_ylabel("over the day's mean")
    _bars(axes[1, 2], minutes, days)
    figure.savefig(path, dpi=90)


def _lines(axis: Any, title: str, source: Facts, x: Sequence[float] | Floats, name: str) -> None:
    styles = iter(_STYLES)
    for label, facts in source.items():
        style = (_BLUE, "-", "o")
        if label != "synthetic":
            style = ("#7fb2dd", "-", ".") if label.startswith("synthetic") else next(styles)
        colour, line, marker = style
        axis.plot(x, getattr(facts, name), line, color=colour, marker=marker, markersize=4,
                  label=label)  # fmt: skip
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=7)


def _bars(axis: Any, minutes: Mapping[str, MinuteFacts], days: Mapping[str, DayFacts]) -> None:
    found: list[tuple[str, float, str]] = [
        *((f"{n}, minutes", f.kurtosis, n) for n, f in minutes.items()),
        *((f"{n}, days", f.kurtosis, n) for n, f in days.items()),
    ]
    places = np.arange(len(found))
    colours = [_BLUE if name.startswith("synthetic") else _GREY for _, _, name in found]
    axis.barh(places, [value for _, value, _ in found], color=colours)
    axis.set_yticks(places, [label for label, _, _ in found], fontsize=7)
    axis.axvline(3.0, color="black", linewidth=0.8, linestyle=":")
    axis.invert_yaxis()
    axis.set_title("Kurtosis of returns (dotted: normal)", fontsize=10)
