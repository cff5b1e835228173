"""Rewards: pure functions of equity before and after a bar, for scalars and arrays alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_equity_return(before_usd: Any, after_usd: Any) -> Any:
    """Logarithm of equity after over equity before: the sum over an episode is its log growth.

    Costs are inside, for the equity has paid them.

    >>> round(float(log_equity_return(100.0, 101.0)), 6)
    0.00995
    """
    return np.log(after_usd / before_usd)


def excess_log_return(before_usd: Any, after_usd: Any, close_before: Any, close_after: Any) -> Any:
    """Log equity return less that of holding the symbol: what the decisions themselves earned.

    >>> float(excess_log_return(100.0, 101.0, 50.0, 50.5))
    0.0
    """
    return np.log(after_usd / before_usd) - np.log(close_after / close_before)
