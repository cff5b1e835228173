"""What the exchange publishes beside trades, quotes and minute bars."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.events import MINUTE_NS, SECOND_NS, Message, effective_ns, parse_time_ns
from pipelines.exchange.amendments import Rates
from pipelines.exchange.config import DEFAULT_SYMBOLS
from pipelines.exchange.market import Session, remaining
from pipelines.exchange.pauses import Pause
from pipelines.exchange.playback import Extras, Playback
from pipelines.exchange.synthetic import SyntheticMarket

JUMPY = {s: {"shocks_per_day": 0.5, "news_per_day": 4.0} for s in ("AAPL", "KO", "SPY")}
MARKET = SyntheticMarket(
    ("AAPL", "KO", "SPY"),
    seed=7, start_date=date(2024, 7, 2), trades_per_minute=10, profiles=JUMPY, max_sessions=8,
)  # fmt: skip
ALL = Extras(notices=True, news=True, daily_bars=True,
             rates=Rates(correction=0.01, cancel=0.01, late=0.02))  # fmt: skip
FIRST = MARKET.playable()[0]


def _playback(sessions: tuple[Session, ...], extras: Extras = ALL) -> Playback:
    return Playback(MARKET, sessions, seed=7, messages_per_minute=30, extras=extras)


def _play(playback: Playback, now_ns: int = 2**62, limit: int = 2000) -> list[Message]:
    out: list[Message] = []
    while (batch := playback.due(now_ns, limit=limit)) is not None:
        assert len(batch)
        out += [orjson.loads(text) for text in batch.json()]
    return out


def _paused() -> tuple[Session, Pause]:
    for session in MARKET.playable():
        for pause in MARKET.block(session).pauses:
            return session, pause
    raise AssertionError("no pause in these sessions")


def _of(messages: list[Message], kinds: str) -> list[Message]:
    return [m for m in messages if m["T"] in kinds]


def test_extras_change_nothing_of_ticks_and_bars() -> None:
    minutes = remaining([FIRST], after_ns=None, max_minutes=20)
    plain = _play(_playback(minutes, Extras()))
    told = _play(_playback(minutes, Extras(notices=True, news=True, daily_bars=True)))
    assert {m["T"] for m in plain} == {"t", "q", "b"}
    assert _of(told, "tqb") == plain


def test_extras_times_are_unique_and_ascend_but_for_what_speaks_of_the_past() -> None:
    messages = _play(_playback((FIRST,), Extras(notices=True, news=True)))
    times = [effective_ns(m) for m in messages]
    assert times == sorted(times)
    told = [effective_ns(m) for m in messages if m["T"] != "b"]
    assert len(set(told)) == len(told)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 4 * MINUTE_NS), max_size=20), st.integers(1, 40))
def test_extras_however_it_is_asked_hands_out_the_same(turns: list[int], limit: int) -> None:
    minutes = remaining([FIRST], after_ns=None, max_minutes=4)
    playback, out = _playback(minutes), []
    for turn in sorted(turns):
        out += _play(playback, FIRST[0] + turn, limit)
    assert out + _play(playback, limit=limit) == _play(_playback(minutes))


def test_extras_restart_goes_on_with_what_was_still_to_come() -> None:
    whole = _play(_playback(remaining([FIRST], after_ns=None, max_minutes=10)))
    cut = FIRST[0] + 4 * MINUTE_NS
    after = _play(_playback(((cut, FIRST[0] + 10 * MINUTE_NS),)))
    before = _play(_playback(((FIRST[0], cut),)))
    assert before + after == whole


def test_pause_nothing_trades_until_the_auction_reopens() -> None:
    session, pause = _paused()
    block = MARKET.block(session)
    symbol = MARKET.symbols[pause.row]
    begins, ends = (int(block.starts_ns[c]) for c in (pause.first, pause.reopens))
    messages = _play(_playback(((begins - MINUTE_NS, ends + MINUTE_NS),), Extras(notices=True)))
    own = [m for m in messages if m["S"] == symbol]
    traded = [effective_ns(m) for m in _of(own, "tq")]
    assert traded
    assert not [ns for ns in traded if begins <= ns < ends]
    assert [effective_ns(m) for m in _of(own, "b")] == [begins, ends + MINUTE_NS]
    halt, resume = _of(own, "s")
    assert begins <= effective_ns(halt) < begins + SECOND_NS
    assert ends - SECOND_NS < effective_ns(resume) < ends
    assert halt["rm"] == "Volatility Trading Pause"
    reopened = next(m for m in _of(own, "t") if effective_ns(m) >= ends)
    assert reopened["c"] == ["@", "O", "X"]
    assert reopened["s"] > 1000
    assert _of(own, "i")


def test_pause_prices_stay_inside_the_bands_before_it() -> None:
    session, pause = _paused()
    block = MARKET.block(session)
    assert block.bands is not None
    last = (pause.row, pause.first - 1)
    assert block.bands.low[last] <= block.low[last]
    assert block.high[last] <= block.bands.high[last]
    assert block.close[last] in (block.bands.low[last], block.bands.high[last])
    assert block.present[pause.row, pause.reopens]
    assert not block.present[pause.row, pause.first : pause.reopens].any()


def test_bands_are_told_at_the_open_and_hold_every_trade() -> None:
    session, _ = _paused()
    bands: dict[str, Message] = {}
    for m in _play(_playback((session,), Extras(notices=True))):
        if m["T"] == "l":
            assert m["d"] < m["u"]
            bands[m["S"]] = m
        elif m["T"] == "t" and m["S"] in bands:
            # They are told again when they moved by a hundredth.
            assert bands[m["S"]]["d"] * 0.98 <= m["p"] <= bands[m["S"]]["u"] * 1.02


def test_auctions_open_and_close_the_day_with_large_prints() -> None:
    messages = _play(_playback((FIRST,), Extras(notices=True)))
    for symbol in MARKET.symbols:
        trades = [m for m in _of(messages, "t") if m["S"] == symbol]
        usual = sorted(t["s"] for t in trades)[len(trades) // 2]
        assert trades[0]["c"] == ["@", "O", "X"]
        assert trades[-1]["c"] == ["@", "6", "X"]
        assert min(trades[0]["s"], trades[-1]["s"]) > 50 * usual
    imbalances = _of(messages, "i")
    assert {m["S"] for m in imbalances} == set(MARKET.symbols)
    assert effective_ns(imbalances[-1]) > FIRST[1] - MINUTE_NS


def test_daily_bars_follow_the_minutes_of_the_day() -> None:
    minutes = remaining([FIRST], after_ns=None, max_minutes=30)
    messages = _play(_playback(minutes, Extras(daily_bars=True)))
    bars = [m for m in _of(messages, "b") if m["S"] == "KO"]
    days = [m for m in _of(messages, "d") if m["S"] == "KO"]
    assert len(days) == len(bars) == 30
    assert {d["t"] for d in days} == {"2024-07-02T04:00:00Z"}
    for n, day in enumerate(days, start=1):
        assert day["o"] == bars[0]["o"]
        assert day["h"] == max(b["h"] for b in bars[:n])
        assert day["l"] == min(b["l"] for b in bars[:n])
        assert day["c"] == bars[n - 1]["c"]
        assert day["v"] == sum(b["v"] for b in bars[:n])
        assert day["l"] <= day["vw"] <= day["h"]


def test_late_trades_come_after_their_minute_and_update_its_bar() -> None:
    minutes = remaining([FIRST], after_ns=None, max_minutes=60)
    rates = Extras(rates=Rates(late=0.05))
    messages = _play(_playback(minutes, rates))
    plain = {(m["S"], m["t"]): m for m in _of(_play(_playback(minutes, Extras())), "b")}
    late = 0
    told = None
    for m in messages:
        if m["T"] == "u":
            whole = plain[m["S"], m["t"]]
            assert {k: v for k, v in m.items() if k != "T"} == {
                k: v for k, v in whole.items() if k != "T"
            }
        elif m["T"] == "t" and told is not None and effective_ns(m) < told:
            late += 1
        elif m["T"] == "b":
            whole = plain[m["S"], m["t"]]
            assert [m[k] for k in "ohlc"] == [whole[k] for k in "ohlc"]
            assert m["n"] <= whole["n"]
            told = effective_ns(m)
    changed = [m for m in _of(messages, "b") if m["n"] < plain[m["S"], m["t"]]["n"]]
    last = max(plain, key=lambda key: key[1])[1]
    assert late > 20
    updates = {(m["S"], m["t"]) for m in _of(messages, "u")}
    assert updates == {(m["S"], m["t"]) for m in changed if m["t"] != last}
    ids = [(m["S"], m["i"]) for m in _of(messages, "t")]
    assert len(set(ids)) == len(ids)


def test_corrections_and_cancels_name_a_trade_that_was_published() -> None:
    messages = _play(_playback(remaining([FIRST], after_ns=None, max_minutes=60), ALL))
    trades: dict[tuple[str, int], Message] = {}
    named: list[tuple[str, int]] = []
    for m in messages:
        if m["T"] == "t":
            trades[m["S"], m["i"]] = m
        elif m["T"] == "c":
            named.append((m["S"], m["oi"]))
            old = trades[m["S"], m["oi"]]
            assert (old["p"], old["s"], old["c"]) == (m["op"], m["os"], m["oc"])
            assert (m["cp"], m["cs"]) != (m["op"], m["os"])
            assert 1 * SECOND_NS < effective_ns(m) - effective_ns(old) < 60 * SECOND_NS
        elif m["T"] == "x":
            named.append((m["S"], m["i"]))
            assert trades[m["S"], m["i"]]["p"] == m["p"]
            assert m["a"] in ("C", "E")
    assert len({m["T"] for m in _of(messages, "cx")}) == 2
    assert len(set(named)) == len(named)


def test_news_is_told_in_order_with_what_the_vendor_has() -> None:
    messages = _of(_play(_playback((FIRST,), Extras(news=True))), "n")
    assert len(messages) > 5
    times = [parse_time_ns(m["updated_at"]) for m in messages]
    assert all(a < b for a, b in pairwise(times))
    needed = {"id", "headline", "summary", "author", "content", "url", "symbols", "source"}
    assert needed <= set(messages[0])
    assert len({m["id"] for m in messages}) == len(messages)


def test_news_leads_a_drift_only_when_asked_for() -> None:
    def drift(bps: float) -> float:
        market = SyntheticMarket(
            DEFAULT_SYMBOLS, seed=7, start_date=date(2024, 7, 2), max_sessions=20,
            news_drift_bps=bps,
        )  # fmt: skip
        total = []
        for session in market.playable():
            block = market.block(session)
            for item in market.news(session):
                row = market.symbols.index(item.symbol)
                first = (item.at_ns - session[0]) // MINUTE_NS
                if block.present[row, [first, first + 15]].all():
                    move = block.close[row, first + 15] / block.close[row, first] - 1.0
                    total.append(move * (1 if item.sentiment > 0 else -1))
        return 1e4 * sum(total) / len(total)

    assert abs(drift(0.0)) < 6
    assert drift(100.0) - drift(0.0) == pytest.approx(33, abs=8)  # mean size of a sentiment: 1/3


def test_headline_speaks_as_the_sentiment_means() -> None:
    items = [item for session in MARKET.playable() for item in MARKET.news(session)]
    good = [i.headline for i in items if i.sentiment > 0.3]
    bad = [i.headline for i in items if i.sentiment < -0.3]
    assert good
    assert bad
    assert not {h.split(" ", 1)[1] for h in good} & {h.split(" ", 1)[1] for h in bad}
