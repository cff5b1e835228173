"""The test stream's one symbol: FAKEPACA, always traded, dated and paced by the wall clock. Pure.

Each interval has a quote, every second one a trade, each minute its bar right after it. What is
published at a moment depends on the seed and the moment alone.
"""

from __future__ import annotations

from pipelines.events import MINUTE_NS, SECOND_NS, Message
from pipelines.exchange import noise
from pipelines.exchange.frames import Batch, key_of

SYMBOL = "FAKEPACA"

_BASE_USD = 133.85
_MOST = 600
"""Intervals that are made up for at most after a pause."""


class TestStream:
    """Makes what is due on the test stream.

    Args:
        seed: Seed of its prices.
        interval_s: Wall seconds between two quotes; must divide a minute.
        now_ns: Wall time; what comes after it is due.
    """

    __test__ = False  # no test case, whatever its name says

    def __init__(self, *, seed: int, interval_s: float, now_ns: int) -> None:
        self._key = noise.keys(seed, SYMBOL)
        self._step_ns = int(interval_s * SECOND_NS)
        self._next = now_ns // self._step_ns + 1

    def due(self, now_ns: int) -> Batch | None:
        """What is due since the last call, or ``None``."""
        last = now_ns // self._step_ns
        if last < self._next:
            return None
        first = max(self._next, last - _MOST + 1)
        self._next = last + 1
        messages: list[Message] = []
        times: list[int] = []
        for step in range(first, last + 1):
            at = step * self._step_ns
            made = [(at, m) for m in self._ticks(step)]
            if at % MINUTE_NS == 0:
                made.insert(0, (at - MINUTE_NS, self._bar(step)))
            times += [ns for ns, _ in made]
            messages += [m for _, m in made]
        return Batch(messages, times_ns=times, keys=[key_of(m) for m in messages])

    def _price(self, step: int) -> float:
        """A price near its base: the sum of a slow and a fast part, whole cents."""
        slow = float(noise.normal(self._key, step // 60)[0])
        fast = 0.05 * float(noise.normal(self._key, step)[0])
        return round(_BASE_USD + max(-20.0, min(20.0, slow + fast)), 2)

    def _ticks(self, step: int) -> list[Message]:
        price = self._price(step)
        quote: Message = {
            "T": "q", "S": SYMBOL, "bx": "O", "bp": round(price - 0.01, 2), "bs": 4, "ax": "R",
            "ap": round(price + 0.01, 2), "as": 5, "c": ["R"], "z": "A",
        }  # fmt: skip
        if step % 2:
            return [quote]
        trade: Message = {
            "T": "t", "S": SYMBOL, "i": step, "x": "D", "p": price, "s": 100 + step % 7,
            "c": ["@"], "z": "A",
        }  # fmt: skip
        return [quote, trade]

    def _bar(self, step: int) -> Message:
        """The bar of the minute that ends with a step; of the trades in it."""
        per_minute = MINUTE_NS // self._step_ns
        steps = [s for s in range(step - per_minute, step) if s % 2 == 0]
        prices = [self._price(s) for s in steps] or [self._price(step)]
        sizes = [100 + s % 7 for s in steps] or [100]
        vwap = sum(p * n for p, n in zip(prices, sizes, strict=True)) / sum(sizes)
        return {
            "T": "b", "S": SYMBOL, "o": prices[0], "h": max(prices), "l": min(prices),
            "c": prices[-1], "v": sum(sizes), "n": len(sizes), "vw": round(vwap, 6),
        }  # fmt: skip
