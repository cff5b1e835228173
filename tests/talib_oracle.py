"""The price and volume features by plain TA-Lib over a whole history: what ours must equal."""

from __future__ import annotations

import numpy as np
import pandas as pd
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


def extended(bars: pd.DataFrame) -> dict[str, Floats]:
    """What ``intraday-extended`` adds (columns ``at high low close``, UTC)."""
    high, low, close = (bars[name].to_numpy(dtype=float) for name in ("high", "low", "close"))
    returns = pd.Series(np.log(close)).diff()
    out = {f"log_return_lag_{n}": returns.shift(n).to_numpy() for n in (1, 2, 3, 5)}
    out |= {f"sma_ratio_{n}": close / talib.SMA(close, n) - 1 for n in (10, 20)}
    out["atr_ratio_14"] = talib.ATR(high, low, close, 14) / close
    # %K is given from the same bar as %D: what lies before it needs its own reckoning.
    fast, _ = talib.STOCHF(high, low, close, 14, 1)
    out["stochastic_k_14_3"] = talib.SMA(fast, 3)
    _, out["stochastic_d_14_3_3"] = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    local = bars["at"].dt.tz_convert("America/New_York")
    angle = (local.dt.hour * 60 + local.dt.minute).to_numpy() / 1440 * 2 * np.pi
    return out | {"time_sin": np.sin(angle), "time_cos": np.cos(angle)}


def indicators(bars: pd.DataFrame) -> dict[str, Floats]:
    """Every indicator over a whole history (columns ``at high low close volume``, UTC)."""
    high, low, close, volume = (
        bars[name].to_numpy(dtype=float) for name in ("high", "low", "close", "volume")
    )
    out = {f"sma_{n}": talib.SMA(close, n) for n in (5, 15, 20, 50, 60, 200)}
    out |= {f"ema_{n}": talib.EMA(close, n) for n in (12, 26)}
    out["rsi_14"] = talib.RSI(close, 14)
    out["macd"], out["macd_signal"], out["macd_hist"] = talib.MACD(close, 12, 26, 9)
    bands = talib.BBANDS(close, 20, 2.0, 2.0)
    out |= {f"bollinger_{n}": b for n, b in zip(("upper", "middle", "lower"), bands, strict=True)}
    out["atr_14"] = talib.ATR(high, low, close, 14)
    out["stochastic_k"], out["stochastic_d"] = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    out["volatility_20"] = np.append(np.nan, talib.STDDEV(np.diff(np.log(close)), 20))
    # TA-Lib has none of these, or none that knows a session: plain pandas.
    day = bars["at"].dt.tz_convert("America/New_York").dt.date
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    paid = (typical * bars["volume"]).groupby(day).cumsum()
    out["vwap"] = (paid / bars["volume"].groupby(day).cumsum()).to_numpy()
    sessions = [at.to_numpy() for _, at in bars.index.to_series().groupby(day)]
    out["obv"] = np.concatenate([talib.OBV(close[at], volume[at]) for at in sessions])
    out["volume_ratio_20"] = (bars["volume"] / bars["volume"].rolling(20).mean()).to_numpy()
    return out
