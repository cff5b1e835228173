"""Backtest: a policy decides bar by bar on several symbols, each with an account of its own.

The account is the one that trains and serves, so a decision fills at the next bar's open with
costs. The portfolio is the sum of the accounts, which begin with equal cash.

==================  ==============================================================
metric              meaning
==================  ==============================================================
``net_return``      portfolio's end over its start, less 1, costs paid
``sharpe``          mean over standard deviation (``ddof=1``) of the portfolio's log
                    returns per bar, times ``sqrt(252 * 390)``: annualised as if bars
                    were minutes of regular sessions; no risk-free rate; ``None`` when
                    nothing moved
``max_drawdown``    largest fall from a peak, as a positive part of the peak
``turnover``        value traded over the starting cash
``trades``          fills
``cost``            commission, half spreads and slippage over the starting cash
``exposure``        mean part of the equity in shares
``actions``         how often HOLD, BUY, SELL were said
``bars``            decisions
==================  ==============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl.account import N_ACTIONS, START_CASH_USD, Accounts, Action, Costs, advance_many
from rl.baselines import buy_and_hold, flat, random_policy, rules
from rl.episodes import Market, NotEnoughData
from rl.policy import OnnxPolicy, Policy
from rl.registry import Manifest

BARS_PER_YEAR = 252 * 390


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a policy did.

    Args:
        time_ns: Distinct bar times, shape ``(n_times,)``.
        equity_usd: Portfolio at the close of each, shape ``(n_times,)``.
        by_symbol: Net return of each symbol.
        notional_usd: Value traded.
        cost_usd: Costs of all fills.
        trades: Fills.
        exposure: Mean part of the equity in shares.
        actions: How often each action was said.
    """

    time_ns: NDArray[np.int64]
    equity_usd: NDArray[np.float64]
    by_symbol: Mapping[str, float]
    notional_usd: float
    cost_usd: float
    trades: int
    exposure: float
    actions: tuple[int, ...]

    def metrics(self) -> dict[str, Any]:
        """The table above, as JSON types; no NaN."""
        start = float(self.equity_usd[0])
        returns = np.diff(np.log(self.equity_usd))
        deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        peaks = np.maximum.accumulate(self.equity_usd)
        sharpe = float(returns.mean()) / deviation if deviation > 1e-12 else None
        return {
            "net_return": float(self.equity_usd[-1]) / start - 1,
            "sharpe": None if sharpe is None else sharpe * math.sqrt(BARS_PER_YEAR),
            "max_drawdown": float((1 - self.equity_usd / peaks).max()),
            "turnover": self.notional_usd / start,
            "trades": self.trades,
            "cost": self.cost_usd / start,
            "exposure": self.exposure,
            "actions": dict(zip((a.name for a in Action), self.actions, strict=True)),
            "bars": sum(self.actions),
        }


def backtest(policy: Policy, market: Market, *, costs: Costs) -> Backtest:
    """Let a policy decide on every warm bar of a market.

    Args:
        policy: Observations ``(n, n_inputs)`` to actions ``(n,)``.
        market: The bars.
        costs: Of fills.

    Raises:
        NotEnoughData: No symbol has two warm bars.
    """
    segments = market.segments()
    if not segments:
        raise NotEnoughData(f"no symbol of {len(market.symbols)} has two warm bars")
    times = np.unique(np.concatenate([market.time_ns[a:b] for _, a, b in segments]))
    rows = np.full((len(times), len(segments)), -1, dtype=np.int64)
    for i, (_, first, end) in enumerate(segments):
        rows[np.searchsorted(times, market.time_ns[first:end]), i] = np.arange(first, end)

    n = len(segments)
    accounts = Accounts(np.full(n, START_CASH_USD), np.zeros(n))
    equity, pending = np.full(n, START_CASH_USD), np.zeros(n, dtype=np.int64)
    counts = np.zeros(N_ACTIONS, dtype=np.int64)
    curve = np.empty(len(times))
    notional = cost = exposure = 0.0
    trades = 0
    for step, wanted in enumerate(rows):
        live = np.flatnonzero(wanted >= 0)
        row = wanted[live]
        after, filled = advance_many(
            Accounts(accounts.cash_usd[live], accounts.shares[live]),
            pending[live],
            open_usd=market.open[row],
            close_usd=market.close[row],
            spread_bps=market.spread_bps[row],
            costs=costs,
        )
        accounts.cash_usd[live], accounts.shares[live] = after
        equity[live] = filled.equity_usd
        notional += float(filled.notional_usd.sum())
        cost += float(filled.cost_usd.sum())
        trades += int((filled.notional_usd > 0).sum())
        position = after.shares * market.close[row] / filled.equity_usd
        exposure += float(position.sum())
        seen = np.column_stack((market.features[row], position, 1 - position))
        pending[live] = policy(seen.astype(np.float32))
        counts += np.bincount(pending[live], minlength=N_ACTIONS)
        curve[step] = equity.sum()
    return Backtest(
        time_ns=times,
        equity_usd=curve,
        by_symbol={
            s: float(e / START_CASH_USD - 1) for (s, _, _), e in zip(segments, equity, strict=True)
        },
        notional_usd=notional,
        cost_usd=cost,
        trades=trades,
        exposure=exposure / max(int(counts.sum()), 1),
        actions=tuple(int(c) for c in counts),
    )


def report(
    onnx: bytes, manifest: Manifest, market: Market, *, costs: Costs, seed: int = 0
) -> dict[str, Any]:
    """Metrics of a model and, on the same bars, of every baseline.

    Args:
        onnx: The model.
        manifest: Its manifest.
        market: Bars that it never saw.
        costs: Of fills.
        seed: Of the random baseline.

    Returns:
        The model's metrics, ``by_symbol``, ``varies`` (whether its scores depend on what it
        sees), ``finite``, and ``baselines``: name → metrics. JSON types.
    """
    model = OnnxPolicy(onnx)
    result = backtest(model, market, costs=costs)
    scores = model.scores(_sample(market, seed=seed))
    baselines: dict[str, Policy] = {
        "flat": flat,
        "buy_and_hold": buy_and_hold,
        "random": random_policy(seed),
        "rules-1": rules,
    }
    return {
        **result.metrics(),
        "model": manifest.id,
        "by_symbol": dict(result.by_symbol),
        "finite": bool(np.isfinite(scores).all()),
        "varies": bool(np.ptp(scores - scores.mean(axis=1, keepdims=True), axis=0).max() > 1e-6),
        "baselines": {
            name: backtest(policy, market, costs=costs).metrics()
            for name, policy in baselines.items()
        },
    }


def _sample(market: Market, *, seed: int) -> NDArray[np.float32]:
    """Observations of random warm rows, in cash and invested."""
    rows = np.flatnonzero(market.warm)
    chosen = np.random.default_rng(seed).choice(rows, size=min(512, len(rows)), replace=False)
    position = (np.arange(len(chosen)) % 2)[:, None]
    seen = np.concatenate([market.features[chosen], position, 1 - position], axis=1)
    return np.asarray(seen, dtype=np.float32)
