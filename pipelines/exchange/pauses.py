"""Limit up, limit down: price bands, and the pauses when a price leaves them. Pure.

The rules are those of the National Market System plan, shortened: the reference price is the mean
of the closes of the last five minutes since the open or the last reopening; the bands lie a
percentage around it, twice as wide in the last 25 minutes; a minute that closes beyond a band
trades at the band, and then nothing trades for five minutes, after which an auction reopens the
symbol. The last minute always trades, so that there is a closing auction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.exchange.noise import Floats, Ints

PAUSE_MINUTES = 5
WIDE_MINUTES = 25
_WINDOW = 5


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause.

    Args:
        row: Row of the symbol.
        first: Its first minute without trades.
        reopens: The minute that begins with the reopening auction.
    """

    row: int
    first: int
    reopens: int


@dataclass(frozen=True, slots=True)
class Bands:
    """The bands of a session, shape ``(S, M)`` each, USD, on the tick."""

    low: Floats
    high: Floats


def tick_of(price: Floats) -> Floats:
    """Smallest price step, USD: a cent, below a dollar a hundredth of it (Regulation NMS 612).

    >>> tick_of(np.array([0.5, 20.0])).tolist()
    [0.0001, 0.01]
    """
    return np.where(price < 1.0, 0.0001, 0.01)


def on_tick(price: Floats) -> Floats:
    """Prices rounded to their tick, at least one."""
    tick = tick_of(price)
    rounded: Floats = np.maximum(np.round(np.round(price / tick) * tick, 6), tick)
    return rounded


def band_of(reference: Floats, minute: int | Ints, *, minutes: int) -> Floats:
    """Half width of the band around reference prices, USD (percentages of tier 1).

    >>> band_of(np.array([100.0, 2.0]), 10, minutes=390).tolist()
    [5.0, 0.4]
    >>> band_of(np.array([100.0, 2.0]), 389, minutes=390).tolist()
    [10.0, 0.8]
    """
    part = np.where(reference > 3.0, 0.05, 0.20)
    below = np.minimum(0.15, 0.75 * reference)
    narrow = np.where(reference < 0.75, below, part * reference)
    result: Floats = np.where(np.asarray(minute) >= minutes - WIDE_MINUTES, 2.0, 1.0) * narrow
    return result


def find(path: Floats) -> tuple[Floats, Bands, list[Pause]]:
    """Where prices leave their bands.

    Args:
        path: Price of each symbol at the open and at the end of each minute, shape ``(S, M + 1)``.

    Returns:
        The path, held at the band in the minute before a pause; the bands; the pauses, by symbol
        and time.
    """
    path = path.copy()
    minutes = path.shape[1] - 1
    reference = _references(path)
    width = band_of(reference, np.arange(minutes), minutes=minutes)
    left = np.abs(path[:, 1:] - reference) > width
    left[:, minutes - 2 :] = False
    pauses: list[Pause] = []
    for row in np.flatnonzero(left.any(axis=1)).tolist():
        pauses += _pauses_of(row, path[row], reference[row], minutes)
    width = band_of(reference, np.arange(minutes), minutes=minutes)
    bands = Bands(on_tick(np.maximum(reference - width, 0.0)), on_tick(reference + width))
    return path, bands, pauses


def _references(path: Floats) -> Floats:
    """Mean of the last prices before each minute, at most five, shape ``(S, M)``."""
    total = np.cumsum(path, axis=1)[:, :-1]
    reference = total.copy()
    reference[:, _WINDOW:] -= total[:, :-_WINDOW]
    result: Floats = reference / np.minimum(np.arange(1, path.shape[1]), _WINDOW)
    return result


def _pauses_of(row: int, path: Floats, reference: Floats, minutes: int) -> list[Pause]:
    """The pauses of one symbol; changes its path and its references."""
    found: list[Pause] = []
    since, minute = 0, 0
    while minute < minutes - 2:
        recent = path[max(since, minute + 1 - _WINDOW) : minute + 1]
        reference[minute] = recent.mean()
        width = float(band_of(reference[minute : minute + 1], minute, minutes=minutes)[0])
        low, high = reference[minute] - width, reference[minute] + width
        if low <= path[minute + 1] <= high:
            minute += 1
            continue
        # What was to happen meanwhile happens in the auction.
        path[minute + 1] = high if path[minute + 1] > high else low
        reopens = min(minute + 1 + PAUSE_MINUTES, minutes - 1)
        found.append(Pause(row, minute + 1, reopens))
        reference[minute + 1 : reopens + 1] = path[reopens]
        since = minute = reopens
    return found
