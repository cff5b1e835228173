"""What the synthetic market knows of each symbol: its level, how it moves, how it trades.

The default symbols are written down; any other name gets a profile drawn from it. A file of
profiles (JSON: symbol → some or all fields) goes over both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipelines.errors import ConfigError
from pipelines.exchange import noise

SECTORS = ("tech", "consumer", "media", "finance", "energy", "health", "industry", "fund")
"""Every sector but ``fund`` has a factor of its own; a fund may lean on one of them too."""

_MOST = {
    "jumps_per_day": 0.5,
    "shocks_per_day": 0.5,
    "news_per_day": 4.0,
    "spread_bps": 1000.0,
    "own_volatility": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolProfile:
    """One symbol of the synthetic market.

    Args:
        sector: Which sector factor it follows, one of :data:`SECTORS`.
        price_usd: Level that the price wanders around.
        beta: Its part in the market factor.
        sector_beta: Its part in the sector's factor.
        own_volatility: Standard deviation of its own daily log return.
        daily_shares: Typical volume of a session.
        spread_bps: Typical quoted spread; never less than one tick.
        depth_shares: Typical shares at the best bid and ask.
        jumps_per_day: Mean number of jumps; half of them come overnight.
        shocks_per_day: Mean number of moves so large and sudden that trading pauses.
        news_per_day: Mean number of news items in a session.
        tape: ``A`` NYSE, ``B`` regional and Arca, ``C`` Nasdaq.
    """

    sector: str = "tech"
    price_usd: float = 100.0
    beta: float = 1.0
    sector_beta: float = 1.0
    own_volatility: float = 0.012
    daily_shares: float = 10e6
    spread_bps: float = 2.0
    depth_shares: float = 500.0
    jumps_per_day: float = 0.06
    shocks_per_day: float = 0.005
    news_per_day: float = 1.5
    tape: str = "C"

    def __post_init__(self) -> None:
        if self.sector not in SECTORS:
            raise ConfigError(f"sector={self.sector!r}: must be one of {', '.join(SECTORS)}")
        if self.tape not in ("A", "B", "C"):
            raise ConfigError(f"tape={self.tape!r}: must be A, B or C")
        for name in ("price_usd", "daily_shares", "own_volatility", "depth_shares"):
            if not 0 < getattr(self, name) < 1e12:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be positive")
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be from 0 to {most:g}")


def _known() -> dict[str, SymbolProfile]:
    #          sector   price  beta  sector own     shares spread depth  tape
    rows = {
        "AAPL": ("tech", 228.0, 1.1, 0.8, 0.009, 50e6, 0.6, 600, "C"),
        "TSLA": ("consumer", 310.0, 1.7, 0.9, 0.025, 95e6, 1.0, 300, "C"),
        "NVDA": ("tech", 142.0, 1.6, 1.5, 0.017, 210e6, 0.8, 1200, "C"),
        "MSFT": ("tech", 424.0, 1.0, 0.8, 0.008, 21e6, 0.7, 250, "C"),
        "GOOGL": ("tech", 178.0, 1.1, 0.8, 0.011, 28e6, 0.8, 400, "C"),
        "AMZN": ("consumer", 206.0, 1.2, 1.0, 0.011, 40e6, 0.7, 400, "C"),
        "META": ("tech", 585.0, 1.2, 0.9, 0.013, 14e6, 1.4, 150, "C"),
        "AMD": ("tech", 131.0, 1.6, 1.5, 0.018, 42e6, 1.0, 500, "C"),
        "NFLX": ("media", 880.0, 1.1, 0.9, 0.014, 4e6, 3.0, 80, "C"),
        "INTC": ("tech", 22.5, 1.2, 1.1, 0.019, 70e6, 4.4, 8000, "C"),
        "JPM": ("finance", 240.0, 0.9, 1.0, 0.006, 9e6, 1.2, 250, "A"),
        "BAC": ("finance", 45.5, 1.0, 1.1, 0.006, 34e6, 2.2, 5000, "A"),
        "XOM": ("energy", 112.0, 0.6, 1.2, 0.006, 15e6, 1.2, 700, "A"),
        "JNJ": ("health", 151.0, 0.4, 0.9, 0.006, 8e6, 1.5, 250, "A"),
        "KO": ("consumer", 63.5, 0.4, 0.4, 0.006, 15e6, 1.6, 2500, "A"),
        "DIS": ("media", 108.0, 1.0, 1.0, 0.010, 9e6, 1.4, 600, "A"),
        "BA": ("industry", 176.0, 1.2, 1.0, 0.014, 9e6, 2.4, 200, "A"),
        "SPY": ("fund", 590.0, 1.0, 0.0, 0.0008, 48e6, 0.3, 900, "B"),
        "QQQ": ("tech", 515.0, 1.15, 0.6, 0.002, 32e6, 0.4, 700, "C"),
        "IWM": ("fund", 225.0, 1.15, 0.0, 0.005, 29e6, 0.6, 1500, "B"),
        "FAKEPACA": ("fund", 134.0, 1.0, 0.0, 0.015, 5e6, 4.0, 300, "C"),
    }
    quiet = {"SPY", "QQQ", "IWM"}
    return {
        symbol: SymbolProfile(
            sector=sector, price_usd=price, beta=beta, sector_beta=sector_beta,
            own_volatility=own, daily_shares=shares, spread_bps=spread,
            depth_shares=float(depth), tape=tape, jumps_per_day=0.01 if symbol in quiet else 0.06,
            shocks_per_day=0.0 if symbol in quiet else 0.005,
        )
        for symbol, (sector, price, beta, sector_beta, own, shares, spread, depth, tape)
        in rows.items()
    }  # fmt: skip


_KNOWN = _known()


def profile(symbol: str, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> SymbolProfile:
    """The profile of a symbol; one that nobody wrote down is drawn from its name.

    Args:
        symbol: Its name.
        overrides: Fields that are different, per symbol, as :func:`read_profiles` gives them.

    Raises:
        ConfigError: A field is unknown, or its value makes no sense.

    >>> profile("AAPL").tape
    'C'
    >>> 20 <= profile("ZZZZ").price_usd <= 400
    True
    >>> profile("AAPL", {"AAPL": {"price_usd": 10.0}}).price_usd
    10.0
    """
    found = _KNOWN.get(symbol) or _drawn(symbol)
    changes = (overrides or {}).get(symbol)
    if not changes:
        return found
    unknown = set(changes) - {field.name for field in fields(SymbolProfile)}
    if unknown:
        known = ", ".join(field.name for field in fields(SymbolProfile))
        raise ConfigError(
            f"profile of {symbol}: unknown field {', '.join(sorted(unknown))}; there are {known}"
        )
    try:
        return replace(found, **changes)
    except ConfigError as wrong:
        raise ConfigError(f"profile of {symbol}: {wrong}") from wrong
    except TypeError as wrong:
        raise ConfigError(f"profile of {symbol}: a value is of the wrong type: {wrong}") from wrong


def read_profiles(path: Path) -> dict[str, dict[str, Any]]:
    """The fields of a file of profiles, ``{"AAPL": {"price_usd": 100, …}, …}``.

    Raises:
        ConfigError: It cannot be read, or does not have this form; names file, symbol and field.
    """
    try:
        plain = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"profiles {path}: cannot be read as JSON: {error}") from error
    if not isinstance(plain, dict) or not all(isinstance(v, dict) for v in plain.values()):
        raise ConfigError(f'profiles {path}: expected {{"AAPL": {{"price_usd": 100}}, …}}')
    for symbol in plain:
        try:
            profile(symbol, plain)
        except ConfigError as wrong:
            raise ConfigError(f"profiles {path}: {wrong}") from wrong
    return plain


def _drawn(symbol: str) -> SymbolProfile:
    u = noise.uniform(noise.keys(0, symbol), np.arange(7))
    price = round(20.0 * 20.0 ** float(u[0]), 2)
    shares = 1e6 * 20.0 ** float(u[3])
    return SymbolProfile(
        sector=SECTORS[int((len(SECTORS) - 1) * u[5])],
        price_usd=price,
        beta=0.5 + float(u[1]),
        sector_beta=0.5 + float(u[6]),
        own_volatility=0.008 + 0.012 * float(u[2]),
        daily_shares=shares,
        # What trades less is dearer to trade.
        spread_bps=round(2.0 * (20e6 / shares) ** 0.5, 2),
        depth_shares=round(100.0 + shares / price / 2000.0),
        tape="AC"[int(2 * u[4])],
    )
