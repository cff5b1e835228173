"""A small market for the tests of learning."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, FeatureSpec
from rl.episodes import Market

MINUTE_NS = 60_000_000_000


def make_market(
    *,
    symbols: int = 3,
    bars: int = 400,
    warm_up: int = 60,
    seed: int = 1,
    spec: FeatureSpec = FEATURE_SPEC,
) -> Market:
    """Random walks with features that carry some of the next return, so that one can learn."""
    rng = np.random.default_rng(seed)
    n = symbols * bars
    returns = rng.normal(0, 1e-3, (symbols, bars))
    close = 100 * np.exp(np.cumsum(returns, axis=1))
    opens = np.concatenate([np.full((symbols, 1), 100.0), close[:, :-1]], axis=1)
    opens *= np.exp(rng.normal(0, 1e-4, opens.shape))
    n_features = len(spec.names)
    features = rng.normal(0, 1, (n, n_features))
    features[:, 10] = 1.0
    following = np.concatenate([returns[:, 1:], np.zeros((symbols, 1))], axis=1)
    features[:, 0] = (following * 1e3).ravel() + rng.normal(0, 0.5, n)
    features = features.reshape(symbols, bars, n_features)
    features[:, :warm_up] = np.nan
    start = 1_700_000_000_000_000_000
    return Market(
        symbols=tuple(f"S{i}" for i in range(symbols)),
        bounds=np.arange(symbols + 1) * bars,
        time_ns=np.tile(start + np.arange(bars) * MINUTE_NS, symbols),
        features=features.reshape(n, n_features),
        open=opens.ravel(),
        close=close.ravel(),
        spread_bps=np.full(n, 1.0),
        spec=spec,
    )


@pytest.fixture(scope="session")
def market() -> Market:
    return make_market()


@pytest.fixture(scope="session")
def extended_market() -> Market:
    return make_market(spec=EXTENDED_SPEC)
