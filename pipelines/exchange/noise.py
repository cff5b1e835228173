"""Random numbers by address: the value at (key, counters) is a hash of them. Pure, vectorised.

A market must be the same whoever asks for which minute first, so there is no generator with a
state to advance: every number is the splitmix64 hash of its seed, symbol, minute, purpose and
index. (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, OOPSLA 2014.)
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GOLDEN = np.array(0x9E3779B97F4A7C15, dtype=np.uint64)
_M1 = np.array(0xBF58476D1CE4E5B9, dtype=np.uint64)
_M2 = np.array(0x94D049BB133111EB, dtype=np.uint64)
_S27, _S30, _S31, _S11 = (np.array(n, dtype=np.uint64) for n in (27, 30, 31, 11))


def keys(seed: int, *names: str) -> Keys:
    """One key per name, independent of the other names.

    >>> int(keys(7, "AAPL")[0]) == int(keys(7, "SPY", "AAPL")[1])
    True
    """
    digests = [blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names]
    return np.array([int.from_bytes(d, "big") for d in digests], dtype=np.uint64)


def _mix(z: Keys) -> Keys:
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


def at(key: Keys, counter: Ints | int) -> Keys:
    """Hashes of keys at counters (shapes broadcast); they are keys again.

    Args:
        key: Keys.
        counter: Addresses, not negative.
    """
    return _mix(key + _GOLDEN * (np.asarray(counter, dtype=np.uint64) + np.uint64(1)))


def uniform(key: Keys, counter: Ints | int) -> Floats:
    """Numbers in the open interval (0, 1), shapes as :func:`at`."""
    return ((at(key, counter) >> _S11).astype(np.float64) + 0.5) * 2.0**-53


def normal(key: Keys, counter: Ints | int) -> Floats:
    """Standard normal numbers (Box-Muller), shapes as :func:`at`."""
    first = at(key, counter)
    radius = np.sqrt(-2.0 * np.log(((first >> _S11).astype(np.float64) + 0.5) * 2.0**-53))
    result: Floats = radius * np.cos(2.0 * np.pi * uniform(first, 1))
    return result


STUDENT_DF = 10
"""Degrees of freedom of :func:`student`."""

_SHIFTS = tuple(np.array(n, dtype=np.uint64) for n in (0, 12, 24, 36, 48))
_M12 = np.array((1 << 12) - 1, dtype=np.uint64)


def student(key: Keys, counter: Ints | int) -> Floats:
    """Student-t numbers with :data:`STUDENT_DF` degrees of freedom and variance 1; fat tails.

    Their chi-squared part, of 10 degrees, is -2 times the logarithm of the product of five uniform
    numbers of 12 bits each.
    """
    bits = at(at(key, counter), 2)
    product = np.ones(bits.shape)
    for shift in _SHIFTS:
        product *= (((bits >> shift) & _M12).astype(np.float64) + 0.5) * 2.0**-12
    chi2 = -2.0 * np.log(product)
    result: Floats = normal(key, counter) * np.sqrt((STUDENT_DF - 2) / chi2)
    return result


def smooth(key: Keys, address: Ints, *, every: int) -> Floats:
    """Slowly changing, about standard normal: values ``every`` addresses apart, interpolated.

    Args:
        key: Keys.
        address: Ascending addresses, shape ``(M,)``.
        every: Distance of two independent values.
    """
    knot, part = np.divmod(address, every)
    knots = np.arange(knot[0], knot[-1] + 2)
    values = normal(key, knots)
    near, far = values[..., knot - knot[0]], values[..., knot - knot[0] + 1]
    x = part / every
    result: Floats = (near * (1 - x) + far * x) / np.sqrt((1 - x) ** 2 + x**2)
    return result


def mood(key: Keys, address: Ints, *, scales: tuple[int, ...], deviation: float) -> Floats:
    """Volatility over its mean square 1, that remembers over many scales: a slowly decaying memory.

    The logarithm is a sum of :func:`smooth` of each scale, a discrete form of a volatility with
    long memory (Calvet, Fisher: *Multifractal Volatility*, 2008).

    Args:
        key: Keys.
        address: Ascending addresses, shape ``(M,)``.
        scales: Distances of independent values, one component each.
        deviation: Standard deviation of the logarithm.
    """
    total = sum(smooth(at(key, scale), address, every=scale) for scale in scales)
    result: Floats = np.exp(deviation / len(scales) ** 0.5 * total - deviation**2)
    return result
