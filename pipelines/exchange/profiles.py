"""What the synthetic market knows of each symbol: its price level, how it moves, how it trades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.exchange import noise


@dataclass(frozen=True, slots=True)
class Profile:
    """One symbol of the synthetic market.

    Args:
        price_usd: Level that the price wanders around.
        beta: Its part in the market factor.
        own_volatility: Standard deviation of its own daily log return.
        daily_shares: Typical volume of a session.
        tape: ``A`` NYSE, ``B`` regional and Arca, ``C`` Nasdaq.
    """

    price_usd: float
    beta: float
    own_volatility: float
    daily_shares: float
    tape: str


_KNOWN = {
    "AAPL": Profile(228.0, 1.1, 0.011, 50e6, "C"),
    "TSLA": Profile(310.0, 1.8, 0.027, 95e6, "C"),
    "NVDA": Profile(142.0, 1.7, 0.021, 210e6, "C"),
    "MSFT": Profile(424.0, 1.0, 0.009, 21e6, "C"),
    "GOOGL": Profile(178.0, 1.1, 0.013, 28e6, "C"),
    "AMZN": Profile(206.0, 1.2, 0.013, 40e6, "C"),
    "META": Profile(585.0, 1.2, 0.015, 14e6, "C"),
    "AMD": Profile(131.0, 1.7, 0.022, 42e6, "C"),
    "NFLX": Profile(880.0, 1.1, 0.016, 4e6, "C"),
    "INTC": Profile(22.5, 1.2, 0.021, 70e6, "C"),
    "JPM": Profile(240.0, 0.9, 0.009, 9e6, "A"),
    "BAC": Profile(45.5, 1.0, 0.010, 34e6, "A"),
    "XOM": Profile(112.0, 0.6, 0.011, 15e6, "A"),
    "JNJ": Profile(151.0, 0.4, 0.008, 8e6, "A"),
    "KO": Profile(63.5, 0.4, 0.007, 15e6, "A"),
    "DIS": Profile(108.0, 1.0, 0.012, 9e6, "A"),
    "BA": Profile(176.0, 1.2, 0.016, 9e6, "A"),
    "SPY": Profile(590.0, 1.0, 0.001, 48e6, "B"),
    "QQQ": Profile(515.0, 1.2, 0.003, 32e6, "C"),
    "IWM": Profile(225.0, 1.15, 0.005, 29e6, "B"),
    "FAKEPACA": Profile(134.0, 1.0, 0.015, 5e6, "C"),
}


def profile(symbol: str) -> Profile:
    """The profile of a symbol; one that nobody wrote down is drawn from its name.

    >>> profile("AAPL").tape
    'C'
    >>> 20 <= profile("ZZZZ").price_usd <= 400
    True
    """
    known = _KNOWN.get(symbol)
    if known is not None:
        return known
    u = noise.uniform(noise.keys(0, symbol), np.arange(5))
    return Profile(
        price_usd=round(20.0 * 20.0 ** float(u[0]), 2),
        beta=0.5 + float(u[1]),
        own_volatility=0.008 + 0.017 * float(u[2]),
        daily_shares=1e6 * 20.0 ** float(u[3]),
        tape="AC"[int(2 * u[4])],
    )
