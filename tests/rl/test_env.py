"""The environments: the scalar one keeps its promises, the vectorised one equals it."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl.account import Account, Action, Costs
from rl.env import EnvConfig, TradingEnv
from rl.episodes import Market, NotEnoughData
from rl.vector_env import TradingVectorEnv

SHORT = EnvConfig(episode_bars=20)


def test_env_passes_gymnasiums_checker(market: Market) -> None:
    env = TradingEnv(market, config=SHORT)
    env.spec = gym.envs.registration.EnvSpec(
        id="raytape/Trading-v0",
        entry_point=lambda **_: TradingEnv(market, config=SHORT),
    )
    check_env(env, skip_render_check=True)


def test_env_episode_is_truncated_after_its_bars(market: Market) -> None:
    env = TradingEnv(market, config=SHORT)
    env.reset(seed=3)
    ends = [env.step(Action.HOLD)[2:4] for _ in range(SHORT.episode_bars)]
    assert ends == [(False, False)] * 19 + [(False, True)]


def test_env_return_is_the_log_growth_of_the_account(market: Market) -> None:
    env = TradingEnv(market, config=EnvConfig(episode_bars=20, reward_scale=1.0))
    env.reset(options={"start": 100})
    total = sum(env.step(a)[1] for a in [1, 0, 0, 2, 1, 1, 0, 2])
    equity = env.step(0)[4]["equity_usd"]
    assert total == pytest.approx(math.log(equity / Account().equity_usd))


def test_env_buy_fills_at_the_next_open(market: Market) -> None:
    env = TradingEnv(market, config=replace(SHORT, costs=Costs(0, 0)))
    env.reset(options={"start": 100})
    *_, info = env.step(Action.BUY)
    expected = market.open[101] * (1 + market.spread_bps[101] / 2 * 1e-4)
    assert info["fill"].price_usd == pytest.approx(expected)


def test_env_falls_below_its_ruin_fraction_and_terminates(market: Market) -> None:
    fallen = market.close.copy()
    fallen[102] *= 0.3
    env = TradingEnv(replace(market, close=fallen), config=SHORT)
    env.reset(options={"start": 100})
    assert not env.step(Action.BUY)[2]
    assert env.step(Action.HOLD)[2]


def test_env_changed_future_changes_nothing_before_it(market: Market) -> None:
    rng = np.random.default_rng(5)
    row = 150
    changed = {
        name: np.where(np.arange(len(market)) > row, array * rng.uniform(0.5, 2), array)
        for name in ("open", "close", "spread_bps")
        for array in [getattr(market, name)]
    }
    features = market.features.copy()
    features[row + 1 :] += 1.0
    other = replace(market, features=features, **changed)
    envs = [TradingEnv(m, config=replace(SHORT, episode_bars=60)) for m in (market, other)]
    seen = [env.reset(options={"start": 100})[0] for env in envs]
    np.testing.assert_array_equal(*seen)
    for _ in range(row - 100):
        action = rng.integers(3)
        (obs, reward, *_), (obs2, reward2, *_) = (env.step(action) for env in envs)
        np.testing.assert_array_equal(obs, obs2)
        assert reward == reward2
    assert envs[0].step(1)[1] != envs[1].step(1)[1]


def test_env_with_nan_in_a_price_fails_loudly(market: Market) -> None:
    close = market.close.copy()
    close[105] = np.nan
    env = TradingEnv(replace(market, close=close), config=SHORT)
    env.reset(options={"start": 104})
    with pytest.raises(FloatingPointError, match="row 105"):
        env.step(Action.BUY)


def test_vector_env_equals_the_scalar_env_step_by_step(market: Market) -> None:
    n = 7
    config = EnvConfig(episode_bars=11, ruin_fraction=0.998)  # some terminate early
    many = TradingVectorEnv(market, num_envs=n, config=config)
    single = [TradingEnv(market, config=config) for _ in range(n)]
    rng = np.random.default_rng(2)
    obs, _ = many.reset(seed=9)
    for i, env in enumerate(single):
        np.testing.assert_array_equal(env.reset(options={"start": many.rows[i]})[0], obs[i])
    done = np.zeros(n, dtype=bool)
    terminations = 0
    for _ in range(300):
        actions = rng.integers(3, size=n)
        obs, rewards, terminated, truncated, _ = many.step(actions)
        for i, env in enumerate(single):
            if done[i]:
                first, _ = env.reset(options={"start": many.rows[i]})
                expected = (first, 0.0, False, False)
            else:
                expected = env.step(actions[i])[:4]
            np.testing.assert_allclose(obs[i], expected[0], rtol=1e-6, atol=1e-7)
            assert rewards[i] == pytest.approx(expected[1], abs=1e-10)
            assert (terminated[i], truncated[i]) == expected[2:]
        terminations += terminated.sum()
        done = terminated | truncated
    assert terminations > 0


def test_vector_env_with_the_same_seed_gives_the_same_episodes(market: Market) -> None:
    envs = [TradingVectorEnv(market, num_envs=4, config=SHORT) for _ in range(2)]
    first = [env.reset(seed=4)[0] for env in envs]
    np.testing.assert_array_equal(*first)
    for _ in range(50):
        stepped = [env.step(np.ones(4, dtype=np.int64))[0] for env in envs]
        np.testing.assert_array_equal(*stepped)


def test_vector_env_at_1024_steps_a_million_a_second(market: Market) -> None:
    env = TradingVectorEnv(market, num_envs=1024)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(3, size=(100, 1024))
    best = 0.0
    for _ in range(10):  # the best of ten: the machine is shared
        begin = time.perf_counter()
        for row in actions:
            env.step(row)
        best = max(best, actions.size / (time.perf_counter() - begin))
    assert best >= 1e6, f"{best:,.0f} steps/s"


def test_market_without_room_for_an_episode_is_refused(market: Market) -> None:
    with pytest.raises(NotEnoughData, match="1001 warm bars"):
        TradingEnv(market, config=EnvConfig(episode_bars=1_000))
