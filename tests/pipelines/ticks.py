"""Records as a stream may hold them, for tests that hold two ways of reading them equal."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pipelines.codec import encode_record
from pipelines.events import (
    MAX_AHEAD_NS,
    MAX_BEHIND_NS,
    MINUTE_NS,
    Record,
    format_time_ns,
    parse_time_ns,
)

NOW_NS = parse_time_ns("2011-01-03T14:35:30Z")
SYMBOLS = ("SPY", "AAPL")

_times = st.one_of(
    st.integers(-5 * MINUTE_NS, 0).map(lambda ns: format_time_ns(NOW_NS + ns)),
    st.sampled_from(
        [format_time_ns(NOW_NS + ns) for ns in (MAX_AHEAD_NS, -MAX_BEHIND_NS)]
        + [format_time_ns(NOW_NS + ns) for ns in (MAX_AHEAD_NS + 1, -MAX_BEHIND_NS - 1)]
        + [
            "2011-01-03T14:35:00Z", "2011-01-03T09:35:00-05:00", "2011-01-03T14:35:00.5+00:00",
            "2011-01-03 14:35:00Z", "2011-01-03T14:35Z", "2011-01-03", "2011-02-30T14:35:00Z",
            "2011-01-03T14:35:60Z", "2011-01-03T14:35:00.1234567891Z", "2011-01-03T14:35:00.Z",
            "9999-01-03T14:35:00Z", "", "x", "２011-01-03T14:35:00Z",
        ]
    ),
)  # fmt: skip
_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -0.0, 1e-10, 1e-9, -1, 1e12, 1e13, 2**53 + 1, 2**63 - 1, 2**63, -(2**63)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=2),
    st.sampled_from([[], ["@"], ["@", 1], [None], {}, ["U"]]),
)
_trades: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "T": st.just("t"), "S": st.sampled_from(SYMBOLS), "p": st.floats(0.01, 1e4),
        "s": st.integers(0, 10_000), "t": _times,
    },
    optional={
        "i": st.integers(-5, 2**63 - 1), "x": st.just("V"), "c": st.just(["@", "I"]),
        "z": st.just("C"), "r": st.integers(0, 2**63 - 1), "bf": st.booleans(),
    },
)  # fmt: skip
_quotes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "T": st.just("q"), "S": st.sampled_from(SYMBOLS), "bp": st.floats(0, 1e4),
        "bs": st.integers(0, 9), "ap": st.floats(0, 1e4), "as": st.integers(0, 9), "t": _times,
    },
    optional={"bx": st.just("V"), "ax": st.just("Q"), "c": st.just(["R"]), "z": st.just("C"),
              "r": st.integers(0, 2**63 - 1)},
)  # fmt: skip
_bars = st.builds(
    lambda symbol, minute: {
        "T": "b", "S": symbol, "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5, "v": 10,
        "t": format_time_ns(NOW_NS // MINUTE_NS * MINUTE_NS - minute * MINUTE_NS),
    },
    st.sampled_from(SYMBOLS),
    st.integers(0, 5),
)  # fmt: skip
_heartbeats = st.builds(
    lambda symbols: {"T": "hb", "market_ns": NOW_NS, "symbols": symbols},
    st.lists(st.sampled_from(SYMBOLS), max_size=2),
)
_spoilt = st.builds(
    lambda message, key, value: {**message, key: value},
    st.one_of(_trades, _quotes),
    st.sampled_from(["T", "S", "t", "p", "s", "bp", "as", "i", "x", "c", "z", "r", "bf", "new"]),
    _odd,
)
ticks = st.one_of(_trades, _quotes)
"""Trades and quotes that nothing is wrong with but, at times, their time."""

messages = st.one_of(_trades, _quotes, _trades, _quotes, _heartbeats, _bars, _spoilt)
"""What the market says, for the most part."""


@st.composite
def records(draw: st.DrawFn) -> list[bytes]:
    """Data of records of one bucket, in order; the market goes on by less than a minute."""
    found = draw(st.lists(st.lists(messages, max_size=6), max_size=6))
    return [
        encode_record(
            Record("e", 1, bseq, NOW_NS + bseq * 3_000_000_000, NOW_NS + bseq * 7_000_000_000, held)
        )
        for bseq, held in enumerate(found, 1)
    ]
