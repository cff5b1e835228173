"""Where a new symbol begins."""

from __future__ import annotations

import socket

import cloudpickle
import numpy as np
import pytest

from pipelines.errors import FeedFatal, FeedTransient
from pipelines.events import DAY_NS, MINUTE_NS, format_time_ns, parse_time_ns
from pipelines.history import RestHistory
from pipelines.streaming.warmup import Warmup

T0 = parse_time_ns("2011-01-03T14:30:00Z")


def bars(n: int, before_ns: int = T0):
    return [
        {"t": format_time_ns(before_ns - i * MINUTE_NS), "o": 1, "h": i, "l": 1, "c": i, "v": 2}
        for i in range(n, 0, -1)
    ]


class History:
    def __init__(self, errors=()):
        self.calls, self.errors = [], list(errors)

    def bars(self, symbol, *, before_ns, limit):
        self.calls.append((symbol, before_ns, limit))
        if self.errors:
            raise self.errors.pop(0)
        return bars(limit + 3, before_ns)


class ManyHistory(History):
    def bars_many(self, symbols, *, before_ns, limit):
        self.calls.append((tuple(symbols), before_ns, limit))
        return {symbol: bars(limit, before_ns) for symbol in symbols}


def loader(history, **changes):
    return Warmup("nowhere", history=history, **changes).loader(sleep=lambda _: None)


def test_start_is_the_last_bars_before_the_minute():
    history = History()
    start = loader(history).start("SPY", T0 + 17)
    assert history.calls == [("SPY", T0, 512)]
    assert start.starts == tuple(T0 - i * MINUTE_NS for i in (3, 2, 1))
    assert np.frombuffer(start.window)[:512].tolist() == list(range(512, 0, -1))


def test_start_leaves_out_bars_that_end_later_and_repeats():
    class Careless(History):
        def bars(self, symbol, *, before_ns, limit):
            return [*bars(2), *bars(2), *bars(1, T0 + 2 * MINUTE_NS)]

    assert loader(Careless()).start("SPY", T0).starts == (T0 - 2 * MINUTE_NS, T0 - MINUTE_NS)


def test_start_leaves_out_bars_of_another_market():
    class Mixed(History):
        def bars(self, symbol, *, before_ns, limit):
            return [*bars(5, T0 - 5000 * DAY_NS), *bars(2, T0 - 3 * DAY_NS), *bars(1)]

    at = (T0 - 3 * DAY_NS - 2 * MINUTE_NS, T0 - 3 * DAY_NS - MINUTE_NS, T0 - MINUTE_NS)
    start = loader(Mixed()).start("SPY", T0)
    assert start.starts == at
    assert len(np.frombuffer(start.window)) == 6
    assert loader(Mixed()).start("SPY", T0 + 5000 * DAY_NS).window == b""


ODD = [
    {"c": 0}, {"v": None}, {"h": "much"}, {"o": float("nan")}, {"t": "yesterday"}, {"t": None},
    {"t": 5}, {"n": "many"}, {"vw": -1.0}, {"c": 10.0**13}, {"l": 7.0},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_start_leaves_out_bars_that_are_odd(odd):
    class Odd(History):
        def bars(self, symbol, *, before_ns, limit):
            first, second, third = bars(3)
            return [first, second | odd, {"t": second["t"]}, third]

    assert loader(Odd()).start("SPY", T0).starts == (T0 - 3 * MINUTE_NS, T0 - MINUTE_NS)


def test_start_of_expected_symbols_asks_once_for_all():
    history = ManyHistory()
    load = loader(history, symbols=("SPY", "QQQ"))
    assert load.start("SPY", T0) == load.start("QQQ", T0)
    assert history.calls == [(("SPY", "QQQ"), T0, 512)]
    load.start("NEW", T0)
    assert history.calls[1] == ("NEW", T0, 512)


def test_start_after_a_passing_failure_asks_again():
    history = History([FeedTransient("down")])
    assert len(loader(history).start("SPY", T0).window) == 2 * 8 * 512
    assert len(history.calls) == 2


@pytest.mark.parametrize("errors", [[FeedFatal("keys")], [FeedTransient("down")] * 9])
def test_start_without_history_is_cold_and_says_so(errors, caplog):
    assert loader(History(errors)).start("SPY", T0).window == b""
    assert "SPY begins cold" in caplog.text


def test_start_from_an_empty_lake_is_cold(tmp_path):
    assert Warmup(str(tmp_path)).loader().start("SPY", T0).window == b""


def test_start_carries_what_is_decided():
    start = loader(History(), decided={"SPY": (5, 7)}).start("SPY", T0)
    assert (start.decided_ns, start.known_ns) == (5, 7)


def test_rest_history_that_hangs_after_travelling_costs_only_its_timeout():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        history = RestHistory(base_url=url, key="k", secret="s", timeout_s=0.1)
        travelled = cloudpickle.loads(cloudpickle.dumps(history))
        with pytest.raises(FeedTransient):
            travelled.bars("SPY", before_ns=T0, limit=5)
