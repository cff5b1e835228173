"""From bars to what is learnt on: feature matrices, and the places where episodes may begin.

In: minute bars of several symbols, as Alpaca bars (REST history), as arrays, or from the lake.
Out: a :class:`Market`, the rows of all symbols one after the other. Features come from the same
builder that Spark uses; row *t* is made of bars up to *t* alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import RaytapeError
from pipelines.events import format_time_ns, parse_time_ns
from pipelines.features import builder
from pipelines.features.builder import ASSUMED_SPREAD_BPS
from pipelines.features.spec import FEATURE_SPEC, SPECS, FeatureSpec
from pipelines.lake.query import LakeQuery

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PURGE_BARS = max(spec.warm_bars for spec in SPECS.values())
"""Rows dropped between training and validation: the longest plain window of the features."""


class NotEnoughData(RaytapeError):
    """There are too few bars to learn from; the message says how many, and how many are needed."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Minute bars of one symbol, oldest first; every array has shape ``(n,)``.

    Args:
        symbol: Its symbol.
        time_ns: Start of each bar, strictly ascending.
        open: USD.
        high: USD.
        low: USD.
        close: USD.
        volume: Shares.
        spread_bps: Time-weighted quoted spread of each bar.
    """

    symbol: str
    time_ns: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    spread_bps: Floats

    def __post_init__(self) -> None:
        prices = np.stack([self.open, self.high, self.low, self.close])
        if not (np.isfinite(prices).all() and (prices > 0).all()):
            raise ValueError(f"{self.symbol}: every price must be positive and finite")
        if not (np.isfinite(self.spread_bps).all() and (self.spread_bps >= 0).all()):
            raise ValueError(f"{self.symbol}: every spread must be finite and not negative")
        if (np.diff(self.time_ns) <= 0).any():
            raise ValueError(f"{self.symbol}: bars must ascend in time, one a minute")


@dataclass(frozen=True, slots=True)
class Market:
    """Rows of several symbols, one after the other; ``n`` rows in all.

    Args:
        symbols: Names, in the order of their rows.
        bounds: Row at which each symbol begins, and ``n``; shape ``(n_symbols + 1,)``.
        time_ns: Start of each bar, shape ``(n,)``.
        features: The features of its specification, shape ``(n, n_features)``; NaN where not
            warm.
        open: USD, shape ``(n,)``.
        close: USD, shape ``(n,)``.
        spread_bps: Shape ``(n,)``.
        spec: Which features.
    """

    symbols: tuple[str, ...]
    bounds: Ints
    time_ns: Ints
    features: Floats
    open: Floats
    close: Floats
    spread_bps: Floats
    spec: FeatureSpec = FEATURE_SPEC

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def warm(self) -> NDArray[np.bool_]:
        """Rows in which every feature is defined, shape ``(n,)``."""
        return np.asarray(np.isfinite(self.features).all(axis=1), dtype=np.bool_)

    def segments(self) -> list[tuple[str, int, int]]:
        """``(symbol, first, end)`` of each symbol's rows from its first warm row on.

        Symbols without two warm rows are left out, and so is what follows a row that is not warm
        again (the builder does not give such rows).
        """
        warm = self.warm
        found = []
        for i, symbol in enumerate(self.symbols):
            first, end = int(self.bounds[i]), int(self.bounds[i + 1])
            rows = warm[first:end]
            if rows.any():
                first += int(rows.argmax())
                cold = np.flatnonzero(~warm[first:end])
                end = first + int(cold[0]) if len(cold) else end
                if end - first >= 2:
                    found.append((symbol, first, end))
        return found

    def summary(self) -> dict[str, Any]:
        """What it holds, for a manifest: symbols, bars, first and last time. JSON types."""
        return {
            "symbols": list(self.symbols),
            "bars": len(self),
            "first": format_time_ns(int(self.time_ns.min())) if len(self) else None,
            "last": format_time_ns(int(self.time_ns.max())) if len(self) else None,
        }

    def starts(self, length: int) -> Ints:
        """Rows at which an episode of ``length`` steps may begin.

        Such an episode sees rows ``start`` to ``start + length``, all of one symbol and warm.

        Raises:
            NotEnoughData: There is none.
        """
        rows = [np.arange(first, end - length) for _, first, end in self.segments()]
        found = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64)
        if not len(found):
            raise NotEnoughData(
                f"no symbol has {length + 1} warm bars in a row; there are {len(self)} bars of "
                f"{len(self.symbols)} symbols, {int(self.warm.sum())} of them warm"
            )
        return found

    def where(self, keep: NDArray[np.bool_]) -> Market:
        """The rows of a mask of shape ``(n,)``; within a symbol they should be consecutive."""
        counts = [
            int(keep[self.bounds[i] : self.bounds[i + 1]].sum()) for i in range(len(self.symbols))
        ]
        return replace(
            self,
            bounds=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            time_ns=self.time_ns[keep],
            features=self.features[keep],
            open=self.open[keep],
            close=self.close[keep],
            spread_bps=self.spread_bps[keep],
        )

    def split(
        self, *, validation_fraction: float = 0.2, purge_bars: int = PURGE_BARS
    ) -> tuple[Market, Market]:
        """Training rows and, later in time, validation rows.

        One moment cuts all symbols, so nothing of the validation period is learnt from through
        another symbol. ``purge_bars`` bars after the cut are dropped: their features still look
        back into the training period.

        Args:
            validation_fraction: Part of the distinct bar times that is for validation.
            purge_bars: Distinct bar times dropped after the cut.

        Raises:
            NotEnoughData: One side would be empty.
        """
        times = np.unique(self.time_ns)
        cut = int(len(times) * (1 - validation_fraction))
        resume = cut + purge_bars
        if cut < 1 or resume >= len(times):
            raise NotEnoughData(
                f"{len(times)} bar times cannot be split with {purge_bars} purged between"
            )
        train = self.where(self.time_ns < times[cut])
        return train, self.where(self.time_ns >= times[resume])


def market_of(bars: Sequence[Bars], *, spec: FeatureSpec = FEATURE_SPEC) -> Market:
    """The market of several symbols' bars, with the features of a specification.

    Raises:
        NotEnoughData: No bars at all.
    """
    bars = [b for b in bars if len(b.time_ns)]
    if not bars:
        raise NotEnoughData("there are no bars")
    return Market(
        symbols=tuple(b.symbol for b in bars),
        bounds=np.concatenate([[0], np.cumsum([len(b.time_ns) for b in bars])]).astype(np.int64),
        time_ns=np.concatenate([b.time_ns for b in bars]),
        features=np.concatenate([features_of(b, spec=spec) for b in bars]),
        open=np.concatenate([b.open for b in bars]),
        close=np.concatenate([b.close for b in bars]),
        spread_bps=np.concatenate([b.spread_bps for b in bars]),
        spec=spec,
    )


def features_of(bars: Bars, *, spec: FeatureSpec = FEATURE_SPEC) -> Floats:
    """The features of each bar, shape ``(n, n_features)``; NaN where not warm."""
    values: Floats = builder.batch(
        open=bars.open,
        high=bars.high,
        low=bars.low,
        close=bars.close,
        volume=bars.volume,
        spread_bps=bars.spread_bps,
        start_ns=bars.time_ns,
        spec=spec,
    )
    return values


def from_bars(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    assumed_spread_bps: float = ASSUMED_SPREAD_BPS,
    spec: FeatureSpec = FEATURE_SPEC,
) -> Market:
    """The market of Alpaca's REST bars: symbol → bars with ``t o h l c v``.

    Bars may come in any order; of two of the same minute the later one counts.

    Args:
        history: The bars.
        assumed_spread_bps: These bars have no quotes; what is assumed instead.
        spec: Which features.

    Raises:
        NotEnoughData: No bars at all.
        ValueError: A bar has an impossible price or time.
    """
    return market_of(
        [_bars_of(s, rows, lambda _: assumed_spread_bps) for s, rows in history.items()],
        spec=spec,
    )


def from_lake(
    query: LakeQuery,
    symbols: Sequence[str],
    *,
    limit: int,
    assumed_spread_bps: float = ASSUMED_SPREAD_BPS,
    spec: FeatureSpec = FEATURE_SPEC,
) -> Market:
    """The market of the lake: the closed bars that the signals query stored, with their spreads.

    Args:
        query: The lake. Of a bar that was revised, what was known when it closed counts; one that
            nobody knew then (backfilled later) is left out.
        symbols: Which symbols.
        limit: At most so many bars of each, the newest.
        assumed_spread_bps: Where a bar has no measured spread.
        spec: Which features; they are made anew of the bars, whatever was computed then.

    Raises:
        NotEnoughData: No bars at all.
        LakeError: The lake cannot be read.
    """
    market = []
    for symbol in symbols:
        rows = query.sql(_LAKE_BARS, {"symbol": symbol, "limit": limit}).to_pylist()

        def spread(row: Mapping[str, Any]) -> float:
            return assumed_spread_bps if row["s"] is None else float(row["s"])

        market.append(_bars_of(symbol, rows, spread))
    return market_of(market, spec=spec)


_LAKE_BARS = """
    SELECT event_time_ns AS t, open AS o, high AS h, low AS l, close AS c, volume AS v,
           spread_bps AS s
    FROM features WHERE symbol = $symbol AND revision = 0
    ORDER BY event_time_ns DESC LIMIT $limit
"""


def _bars_of(
    symbol: str,
    rows: Sequence[Mapping[str, Any]],
    spread_of: Callable[[Mapping[str, Any]], float],
) -> Bars:
    by_time = {t if isinstance(t := row["t"], int) else parse_time_ns(t): row for row in rows}
    times = sorted(by_time)

    def column(key: str) -> Floats:
        return np.array([by_time[t][key] for t in times], dtype=np.float64)

    return Bars(
        symbol=symbol,
        time_ns=np.array(times, dtype=np.int64),
        open=column("o"),
        high=column("h"),
        low=column("l"),
        close=column("c"),
        volume=column("v"),
        spread_bps=np.array([spread_of(by_time[t]) for t in times], dtype=np.float64),
    )
