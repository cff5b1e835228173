"""Stylised facts: what the returns of a market look like, in numbers. Pure.

The facts are those of Cont, *Empirical properties of asset returns* (2001): returns have no
memory, their sizes have a long one, tails are fat, the day is a U, symbols move together. They are
computed the same way for a synthetic market and for real bars, so that both stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.exchange.market import BarSource, Block
from pipelines.exchange.noise import Floats

LAGS = (1, 2, 3, 5, 10, 20, 30, 60, 120)
"""Minutes."""

DAY_LAGS = (1, 2, 3, 5, 10, 20, 40)
"""Sessions."""

FULL_MINUTES = 390
PARTS = 26
"""Quarters of an hour of a whole session."""


@dataclass(frozen=True, slots=True)
class MinuteFacts:
    """Facts of minute returns; a correlation is the mean over symbols.

    Args:
        symbols: Number of symbols.
        sessions: Number of whole sessions.
        kurtosis: Median over the symbols; 3 is normal.
        returns_acf: Autocorrelation of returns at :data:`LAGS`.
        sizes_acf: Autocorrelation of their absolute values, the shape of the day taken out.
        volatility_by_part: Mean absolute return of each quarter of an hour, mean 1.
        volume_by_part: Mean volume of each quarter of an hour, mean 1.
        volume_and_size: Correlation of the logarithm of volume with absolute returns.
        same_sector: Mean correlation of two symbols of a sector; ``None`` without two.
        other_sector: Of two symbols of different sectors.
        spread_and_range: Rank correlation of a minute's quoted spread with its range; ``None``
            where spreads are not known.
    """

    symbols: int
    sessions: int
    kurtosis: float
    returns_acf: tuple[float, ...]
    sizes_acf: tuple[float, ...]
    volatility_by_part: tuple[float, ...]
    volume_by_part: tuple[float, ...]
    volume_and_size: float
    same_sector: float | None
    other_sector: float | None
    spread_and_range: float | None


@dataclass(frozen=True, slots=True)
class DayFacts:
    """Facts of daily returns from close to close.

    Args:
        symbols: Number of symbols.
        sessions: Number of days.
        kurtosis: Median over the symbols.
        volatility: Median standard deviation.
        returns_acf: Autocorrelation at :data:`DAY_LAGS`.
        sizes_acf: Of absolute returns.
        correlation: Mean correlation of two symbols; ``None`` with one.
    """

    symbols: int
    sessions: int
    kurtosis: float
    volatility: float
    returns_acf: tuple[float, ...]
    sizes_acf: tuple[float, ...]
    correlation: float | None


def minute_facts(source: BarSource, *, quoted: bool) -> MinuteFacts:
    """Facts of the whole sessions that a market plays (half days are left out).

    Args:
        source: The market; a pause counts as a return of zero.
        quoted: Whether its spreads are its own.

    Raises:
        ValueError: It has no whole session.
    """
    blocks = [b for b in map(source.block, source.playable()) if len(b.starts_ns) == FULL_MINUTES]
    if not blocks:
        raise ValueError(f"{source.name}: no whole session of {FULL_MINUTES} minutes")
    moves = np.stack([_moves(block) for block in blocks])  # sessions, symbols, minutes
    volume = np.stack([block.volume for block in blocks]).astype(np.float64)
    sizes = np.abs(moves)
    shape = sizes.mean(axis=0, keepdims=True)
    level = shape.mean(axis=(0, 1), keepdims=True)
    flat = sizes / np.maximum(_smoothed(level), 1e-12)
    sectors = [p.sector for p in source.profiles]
    funds = np.array([p.sector_beta == 0 or p.own_volatility < 0.004 for p in source.profiles])
    same, other = _by_sector(moves, sectors, funds)
    return MinuteFacts(
        symbols=moves.shape[1],
        sessions=moves.shape[0],
        kurtosis=float(np.median([_kurtosis(moves[:, i].ravel()) for i in range(len(sectors))])),
        returns_acf=_acf(moves, LAGS),
        sizes_acf=_acf(flat, LAGS),
        volatility_by_part=_parts(sizes),
        volume_by_part=_parts(volume),
        volume_and_size=_volume_and_size(volume, sizes),
        same_sector=same,
        other_sector=other,
        spread_and_range=_spread_and_range(blocks) if quoted else None,
    )


def day_facts(closes: Floats) -> DayFacts:
    """Facts of daily closes, shape ``(S, D)``; NaN where a symbol has none."""
    moves = np.diff(np.log(closes), axis=1)
    moves = moves[np.isfinite(moves).all(axis=1)]
    matrix = np.corrcoef(moves) if len(moves) > 1 else None
    return DayFacts(
        symbols=len(moves),
        sessions=closes.shape[1],
        kurtosis=float(np.median([_kurtosis(row) for row in moves])),
        volatility=float(np.median(moves.std(axis=1))),
        returns_acf=_acf(moves[None], DAY_LAGS),
        sizes_acf=_acf(np.abs(moves)[None], DAY_LAGS),
        correlation=None if matrix is None else _mean(matrix[_pairs(len(matrix))]),
    )


def daily_closes(source: BarSource) -> Floats:
    """The last price of each session that a market plays, shape ``(S, D)``."""
    return np.stack([source.block(s).close[:, -1] for s in source.playable()], axis=1)


def _moves(block: Block) -> Floats:
    """Log return of each minute from its predecessor's close, ``(S, M)``; the first from its open.

    A minute without trades repeats the price before it.
    """
    price = np.concatenate((block.open[:, :1], block.close), axis=1)
    there = price > 0
    last = np.maximum.accumulate(np.where(there, np.arange(price.shape[1]), 0), axis=1)
    result: Floats = np.diff(np.log(np.take_along_axis(price, last, axis=1)), axis=1)
    return result


def _smoothed(level: Floats) -> Floats:
    """Means over a quarter of an hour, of the minutes in the last axis."""
    parts = level.reshape(*level.shape[:-1], PARTS, -1).mean(axis=-1)
    return np.repeat(parts, FULL_MINUTES // PARTS, axis=-1)


def _acf(values: Floats, lags: Sequence[int]) -> tuple[float, ...]:
    """Autocorrelations inside sessions, mean over symbols; values ``(sessions, symbols, n)``."""
    centred = values - values.mean(axis=(0, 2), keepdims=True)
    variance = np.mean(centred**2, axis=(0, 2))
    return tuple(
        float(np.mean(np.mean(centred[..., lag:] * centred[..., :-lag], axis=(0, 2)) / variance))
        for lag in lags
    )


def _kurtosis(values: Floats) -> float:
    centred = values - values.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


def _parts(values: Floats) -> tuple[float, ...]:
    """Mean of each quarter of an hour over all symbols, each symbol's mean being 1."""
    relative = values / values.mean(axis=(0, 2), keepdims=True)
    return tuple(relative.mean(axis=(0, 1)).reshape(PARTS, -1).mean(axis=1).tolist())


def _by_sector(
    moves: Floats, sectors: Sequence[str], funds: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    """Mean correlation of returns of five minutes in a sector, and between sectors, no funds."""
    chosen = np.flatnonzero(~funds)
    if len(chosen) < 2:
        return None, None
    sums = moves[:, chosen].reshape(len(moves), len(chosen), -1, 5).sum(axis=-1)
    matrix = np.corrcoef(sums.swapaxes(0, 1).reshape(len(chosen), -1))
    names = np.array(sectors)[chosen]
    alike = (names[:, None] == names[None, :])[_pairs(len(chosen))]
    values = matrix[_pairs(len(chosen))]
    return _mean(values[alike]), _mean(values[~alike])


def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.triu_indices(count, 1)


def _mean(values: Floats) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _volume_and_size(volume: Floats, sizes: Floats) -> float:
    log = np.log(np.maximum(volume, 1.0))
    found = [np.corrcoef(log[:, i].ravel(), sizes[:, i].ravel())[0, 1] for i in range(log.shape[1])]
    return float(np.mean(found))


def _spread_and_range(blocks: Sequence[Block]) -> float:
    found = []
    for block in blocks:
        span = (block.high - block.low) / np.where(block.open > 0, block.open, 1.0)
        for row in range(len(span)):
            there = block.present[row]
            ranks = [np.argsort(np.argsort(x[row][there])) for x in (block.spread_bps, span)]
            found.append(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return float(np.mean(found))
