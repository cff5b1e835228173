"""The trading environment: one symbol, one account, one minute a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rl.account import ACCOUNT_INPUTS, N_ACTIONS, Account, Action, Costs, advance
from rl.episodes import Market
from rl.rewards import log_equity_return

Observation = NDArray[np.float32]

LIMIT = 1e6
"""Bound of the market inputs in the observation space; far outside what they reach."""


@dataclass(frozen=True, slots=True)
class EnvConfig:
    """How an episode goes.

    Args:
        episode_bars: Steps of an episode.
        costs: Commission and slippage of each fill, besides half the quoted spread.
        reward_scale: Factor of the reward; 100 gives percents of log growth.
        ruin_fraction: The episode terminates when equity falls below this part of its start.
    """

    episode_bars: int = 128
    costs: Costs = field(default_factory=Costs)
    reward_scale: float = 100.0
    ruin_fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.episode_bars < 1 or not 0 <= self.ruin_fraction < 1 or self.reward_scale <= 0:
            raise ValueError(f"impossible environment: {self}")


def observation_space(n_features: int) -> gym.spaces.Box:
    """The space of one observation, shape ``(n_features + 2,)``: the market's, the account's."""
    size = n_features + len(ACCOUNT_INPUTS)
    low = np.full(size, -LIMIT, dtype=np.float32)
    high = np.full(size, LIMIT, dtype=np.float32)
    low[n_features:], high[n_features:] = 0.0, 1.0
    return gym.spaces.Box(low, high, dtype=np.float32)


class TradingEnv(gym.Env[Observation, np.int64]):
    """Decide on each closed minute bar of one symbol; the decision fills at the next bar's open.

    ### Observation
    ``Box(n + 2,) float32``: the ``n`` features of the market's specification on the bars up to the
    one just closed (formulas beside :mod:`pipelines.features.spec`), and the account at its close.
    Raw, not normalised: what a policy does to its inputs belongs to the policy. ``intraday`` has
    ``n = 11``; ``intraday-extended`` has 22, the same first eleven, then those of its table.

    | index | name | meaning | unit | range |
    |---|---|---|---|---|
    | 0 | log_return_1 | log return of the last bar | 1 | real, about ±0.01 |
    | 1 | momentum_10 | return over 10 bars | 1 | > -1 |
    | 2 | volatility_20 | standard deviation of 20 log returns | per minute | ≥ 0 |
    | 3 | volume_ratio_20 | volume over its mean of 20 bars | 1 | ≥ 0 |
    | 4 | rsi_14 | Wilder's relative strength index | 1 | 0 to 100 |
    | 5 | macd_hist_12_26_9 | MACD histogram relative to price | 1 | real |
    | 6 | bollinger_position_20_2 | 0 lower, 1 upper Bollinger band | band width | real |
    | 7 | sma_ratio_5 | close over its mean of 5 bars, less 1 | 1 | > -1 |
    | 8 | sma_ratio_15 | close over its mean of 15 bars, less 1 | 1 | > -1 |
    | 9 | sma_ratio_60 | close over its mean of 60 bars, less 1 | 1 | > -1 |
    | 10 | spread_bps | time-weighted quoted spread of the bar | bps | ≥ 0 |
    | n | position_fraction | part of the equity in shares | 1 | 0 to 1 |
    | n + 1 | cash_fraction | part of the equity in cash | 1 | 0 to 1, the rest |

    ### Actions
    ``Discrete(3)``: 0 HOLD keeps all, 1 BUY puts all cash into the symbol, 2 SELL sells all
    shares. A BUY without cash and a SELL without shares do nothing. Long only, no margin.

    ### Reward
    ``reward_scale * log(equity after / equity before)``, equities at closes; costs are inside.
    The decision on bar *t* earns from the close of *t* to the close of *t + 1*: what is held over
    the night between them, and from the open on what the decision changed.

    ### Start and end
    An episode begins in cash at a random warm row (``reset(options={"start": row})`` chooses).
    It is *truncated* after ``episode_bars`` steps, and *terminates* when equity falls below
    ``ruin_fraction`` of its start.

    ### Info
    ``row``: of the market; ``equity_usd``; ``fill``: the :class:`~rl.account.Fill` or ``None``.

    Args:
        market: The bars.
        config: How an episode goes.

    Raises:
        NotEnoughData: No episode fits the market.
        FloatingPointError: (``step``) a reward is not finite.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(self, market: Market, *, config: EnvConfig | None = None) -> None:
        self.config = config or EnvConfig()
        self.observation_space = observation_space(market.features.shape[1])
        self.action_space = gym.spaces.Discrete(N_ACTIONS)
        self._market = market
        self._starts = market.starts(self.config.episode_bars)
        self._start = self._row = 0
        self._account = Account()

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; ``options["start"]`` is its first row."""
        super().reset(seed=seed)
        chosen = (options or {}).get("start")
        self._start = int(self.np_random.choice(self._starts) if chosen is None else chosen)
        self._row = self._start
        self._account = Account(mark_usd=float(self._market.close[self._row]))
        return self._observation(), self._info(None)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide on the bar just closed, and see the next one."""
        before = self._account.equity_usd
        self._row += 1
        self._account, fill = advance(
            self._account,
            Action(int(action)),
            open_usd=float(self._market.open[self._row]),
            close_usd=float(self._market.close[self._row]),
            spread_bps=float(self._market.spread_bps[self._row]),
            costs=self.config.costs,
        )
        after = self._account.equity_usd
        reward = float(log_equity_return(before, after)) * self.config.reward_scale
        if not np.isfinite(reward):
            raise FloatingPointError(f"reward {reward} at row {self._row}")
        ruined = after < self.config.ruin_fraction * Account().equity_usd
        ended = self._row - self._start >= self.config.episode_bars
        return self._observation(), reward, ruined, ended, self._info(fill)

    def _observation(self) -> Observation:
        account = (self._account.position_fraction, self._account.cash_fraction)
        return np.append(self._market.features[self._row], account).astype(np.float32)

    def _info(self, fill: Any) -> dict[str, Any]:
        return {"row": self._row, "equity_usd": self._account.equity_usd, "fill": fill}
