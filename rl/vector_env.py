"""Many :class:`~rl.env.TradingEnv` at once, in NumPy: the form that training uses.

Its numbers are those of the scalar environment, step by step; a test holds them equal. An
episode that has ended begins anew with the *next* step, whose action is ignored and whose reward
is 0 (Gymnasium's ``NEXT_STEP`` mode, the one that RLlib expects).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rl.account import ACCOUNT_INPUTS, N_ACTIONS, START_CASH_USD, Accounts, Action, advance_many
from rl.env import EnvConfig, observation_space
from rl.episodes import Market
from rl.rewards import log_equity_return

Observations = NDArray[np.float32]
Bools = NDArray[np.bool_]
Stepped = tuple[Observations, NDArray[np.float64], Bools, Bools, dict[str, Any]]


class TradingVectorEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` trading environments; observations ``(num_envs, n_inputs)``, see ``TradingEnv``.

    ``reset(options={"starts": rows})`` chooses the first row of each.

    Args:
        market: The bars.
        num_envs: How many.
        config: How an episode goes.

    Raises:
        NotEnoughData: No episode fits the market.
        FloatingPointError: (``step``) a reward is not finite.
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own way)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, market: Market, *, num_envs: int, config: EnvConfig | None = None) -> None:
        self.config = config or EnvConfig()
        self.num_envs = num_envs
        self.render_mode = None
        self.single_observation_space = observation_space(market.features.shape[1])
        self.single_action_space = gym.spaces.Discrete(N_ACTIONS)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._market = market
        self._features = market.features.astype(np.float32)
        self._last_row = len(market) - 1
        self._starts = market.starts(self.config.episode_bars)
        self._start = np.zeros(num_envs, dtype=np.int64)
        self.rows = np.zeros(num_envs, dtype=np.int64)
        self._accounts = Accounts(np.zeros(num_envs), np.zeros(num_envs))
        self._equity = np.zeros(num_envs)
        self._done = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin all episodes; ``options["starts"]`` are their first rows, shape ``(num_envs,)``."""
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        chosen = (options or {}).get("starts")
        starts = self._draw(self.num_envs) if chosen is None else chosen
        self._start[:] = starts
        self.rows[:] = starts
        self._accounts = Accounts(np.full(self.num_envs, START_CASH_USD), np.zeros(self.num_envs))
        self._equity = np.full(self.num_envs, START_CASH_USD)
        self._done[:] = False
        return self._observations(), {}

    def step(self, actions: NDArray[np.int64]) -> Stepped:
        """Decide on the bars just closed, and see the next ones; each array ``(num_envs,)``."""
        again, market = self._done, self._market
        self.rows = np.minimum(self.rows + 1, self._last_row)
        self._accounts, filled = advance_many(
            self._accounts,
            np.where(again, int(Action.HOLD), actions),
            open_usd=market.open[self.rows],
            close_usd=market.close[self.rows],
            spread_bps=market.spread_bps[self.rows],
            costs=self.config.costs,
        )
        rewards = log_equity_return(self._equity, filled.equity_usd) * self.config.reward_scale
        self._equity = filled.equity_usd
        if again.any():
            self._restart(again)
            rewards[again] = 0.0
        if not np.isfinite(rewards).all():
            bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise FloatingPointError(f"reward {rewards[bad]} at row {self.rows[bad]}")
        terminated = self._equity < self.config.ruin_fraction * START_CASH_USD
        truncated = self.rows - self._start >= self.config.episode_bars
        self._done = terminated | truncated
        return self._observations(), rewards, terminated, truncated, {}

    def _restart(self, which: Bools) -> None:
        starts = self._draw(int(which.sum()))
        self._start[which] = starts
        self.rows[which] = starts
        self._accounts.cash_usd[which] = START_CASH_USD
        self._accounts.shares[which] = 0.0
        self._equity[which] = START_CASH_USD

    def _draw(self, n: int) -> NDArray[np.int64]:
        return self._starts[self.np_random.integers(len(self._starts), size=n)]

    def _observations(self) -> Observations:
        # A fresh array each time: whoever samples keeps it.
        n = self._features.shape[1]
        out = np.empty((self.num_envs, n + len(ACCOUNT_INPUTS)), dtype=np.float32)
        out[:, :n] = self._features[self.rows]
        position = self._accounts.shares * self._market.close[self.rows] / self._equity
        out[:, n] = position
        out[:, n + 1] = 1.0 - position
        return out
