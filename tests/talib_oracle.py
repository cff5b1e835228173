"""The price and volume features by plain TA-Lib over a whole history: what ours must equal."""

from __future__ import annotations

import numpy as np
import talib
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def features(close: Floats, volume: Floats) -> dict[str, Floats]:
    """Every feature but ``spread_bps``, each of shape ``(n,)``, NaN until it is warm."""
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    log_return = np.diff(np.log(close))
    return {
        "log_return_1": np.append(np.nan, log_return),
        "momentum_10": talib.ROCP(close, 10),
        "volatility_20": np.append(np.nan, talib.STDDEV(log_return, 20)),
        "volume_ratio_20": volume / talib.SMA(volume, 20),
        "rsi_14": talib.RSI(close, 14),
        "macd_hist_12_26_9": talib.MACD(close, 12, 26, 9)[2] / close,
        "bollinger_position_20_2": (close - lower) / (upper - lower),
        "sma_ratio_5": close / talib.SMA(close, 5) - 1,
        "sma_ratio_15": close / talib.SMA(close, 15) - 1,
        "sma_ratio_60": close / talib.SMA(close, 60) - 1,
    }
