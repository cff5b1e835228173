from __future__ import annotations

import pytest

from pipelines.events import MINUTE_NS, item
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC
from serve.asked import OtherFeatures, UnknownSymbol, WrongFeatures
from serve.market import MarketTime
from tests.serve.conftest import OPEN_NS, Bench, features_item, make_bench, minute

UP = [1.0, *[0.0] * 10]
DOWN = [-1.0, *[0.0] * 10]


def ask(bench: Bench, i: int, row: list | None = None, reason: str | None = None) -> dict:
    row = UP if row is None else row
    bar = {"event_time": minute(i), "open": 100.0, "close": 101.0}
    return bench.service.batch(["SPY"], [row], [bar], [reason])[0]


def signal_item(answer: dict) -> dict:
    key = f"{answer['model']['id']}:{answer['model']['version']}"
    return item(
        "signal", symbol=answer["symbol"], event_time=answer["event_time"], data=answer, model=key
    )


def test_batch_asked_twice_for_a_bar_gives_the_same_answer_and_asks_the_model_once(bench) -> None:
    first = ask(bench, 0)
    bench.wall_ns += 10**9
    assert ask(bench, 0, DOWN) == first
    assert len(bench.policy.choice.model.runner.calls) == 1


def test_batch_of_following_bars_assumes_the_position_that_was_filled(bench) -> None:
    assert ask(bench, 0)["position_fraction"] == 0.0
    second = ask(bench, 1, DOWN)
    assert (second["position_fraction"], second["action"]) == (1.0, "SELL")
    assert ask(bench, 2)["position_fraction"] == 0.0


def test_batch_with_two_bars_of_a_symbol_fills_them_in_order_of_time(bench) -> None:
    bars = [{"event_time": minute(i), "open": 100.0, "close": 101.0} for i in (1, 0)]
    later, earlier = bench.service.batch(["SPY", "SPY"], [DOWN, UP], bars)
    assert (earlier["position_fraction"], later["position_fraction"]) == (0.0, 1.0)


def test_batch_keeps_the_order_of_its_symbols(bench) -> None:
    answers = bench.service.batch(["A", "B", "C"], [UP, None, DOWN])
    assert [(a["symbol"], a["action"]) for a in answers] == [
        ("A", "BUY"), ("B", "HOLD"), ("C", "SELL"),
    ]  # fmt: skip


def test_batch_with_features_that_are_not_warm_holds(bench) -> None:
    answer = ask(bench, 0, [None, *[0.0] * 10])
    assert (answer["action_id"], answer["reason"], answer["probabilities"]) == (
        0,
        "warming_up",
        None,
    )


def test_batch_told_of_a_gap_holds_and_still_moves_the_account(bench) -> None:
    ask(bench, 0)
    answer = ask(bench, 1, UP, "gap")
    assert (answer["action"], answer["reason"], answer["position_fraction"]) == ("HOLD", "gap", 1.0)


def test_batch_of_lists_that_differ_in_length_is_refused(bench) -> None:
    with pytest.raises(ValueError, match="length"):
        bench.service.batch(["A", "B"], [UP])


def test_model_that_breaks_gives_hold_unavailable(bench) -> None:
    bench.policy.choice.model.runner.broken = True
    assert ask(bench, 0)["reason"] == "unavailable"


def test_rules_decide_with_reason_no_model() -> None:
    answer = ask(make_bench(chosen=False), 0)
    assert (answer["model"]["id"], answer["reason"], answer["action"]) == (
        "rules-1", "no_model", "BUY",
    )  # fmt: skip


def test_latest_of_a_stranger_is_refused(bench) -> None:
    with pytest.raises(UnknownSymbol):
        bench.service.latest("ZZZ")


def test_latest_without_a_mirror_is_unavailable_and_with_one_warming_up(bench) -> None:
    assert bench.service.latest("SPY")["reason"] == "unavailable"
    bench.sync()
    assert bench.service.latest("SPY")["reason"] == "warming_up"


def known_time(bench: Bench, *, s: float) -> None:
    bench.memory.market = MarketTime(
        rate=10, anchor_wall_ns=bench.wall_ns, anchor_market_ns=OPEN_NS + int(s * 1e9)
    )


def test_latest_is_the_batch_answer_with_a_growing_age(bench) -> None:
    known_time(bench, s=60)
    bench.memory.apply_items([features_item()])
    bench.sync()
    decided = ask(bench, 0)
    bench.wall_ns += 10**9  # 10 s of market time
    latest = bench.service.latest("SPY")
    assert latest["data_age_ms"] == 10_000
    told = decided.keys() - {"account", "fills"}
    assert latest == {**{k: decided[k] for k in told}, "data_age_ms": 10_000}


def test_latest_older_than_allowed_is_hold_stale_never_the_old_opinion(bench) -> None:
    known_time(bench, s=60)
    bench.memory.apply_items([features_item(log_return_1=1.0)])
    bench.sync()
    assert bench.service.latest("SPY")["action"] == "BUY"
    bench.wall_ns += 19 * 10**9
    latest = bench.service.latest("SPY")
    assert (latest["action"], latest["reason"]) == ("HOLD", "stale")


def test_batch_decided_too_late_is_hold_stale(bench) -> None:
    known_time(bench, s=60 + 181)
    bench.sync()
    assert ask(bench, 0)["reason"] == "stale"


def test_latest_with_a_gap_in_its_features_holds(bench) -> None:
    bench.memory.apply_items([features_item(gap=True, log_return_1=1.0)])
    bench.sync()
    assert bench.service.latest("SPY")["reason"] == "gap"


def test_given_features_are_decided_without_an_account_or_a_bar(bench) -> None:
    answer = bench.service.given("SPY", UP, position_fraction=0.25)
    assert (answer["action"], answer["cash_fraction"], answer["event_time"]) == ("BUY", 0.75, None)
    assert bench.policy.choice.model.runner.calls[-1][0, 11:].tolist() == [0.25, 0.75]
    assert answer["model"]["fingerprint"] == FEATURE_SPEC.fingerprint


def test_restarted_service_answers_a_published_bar_as_published(bench) -> None:
    first = ask(bench, 0)
    fresh = make_bench()
    fresh.memory.apply_items([signal_item(first)])
    fresh.sync()
    assert ask(fresh, 0, DOWN) == first
    assert ask(fresh, 1)["position_fraction"] == 1.0


def test_published_hold_unavailable_overrules_what_was_decided(bench) -> None:
    decided = ask(bench, 0)
    published = {
        **decided, "action": "HOLD", "action_id": 0, "reason": "unavailable", "model": None,
        "position_fraction": 0.0,
    }  # fmt: skip
    bench.memory.apply_items([item("signal", symbol="SPY", event_time=minute(0), data=published)])
    bench.sync()
    assert ask(bench, 1)["position_fraction"] == 0.0
    assert ask(bench, 0)["reason"] == "unavailable"


def test_new_model_starts_with_an_account_of_its_own(bench) -> None:
    from tests.serve.conftest import model

    ask(bench, 0)
    bench.loader.models[("ppo", 2)] = model(version=2)
    bench.loader.chosen = ("ppo", 2)
    bench.policy.refresh()
    assert ask(bench, 1)["position_fraction"] == 0.0


def test_bar_of_the_last_session_is_not_stale_because_the_night_was_skipped(bench) -> None:
    from pipelines.clock import MarketClock

    night = 17 * 3600 * 10**9
    close = OPEN_NS + MINUTE_NS
    clock = MarketClock(
        rate=10, wall_origin_ns=bench.wall_ns,
        sessions=((OPEN_NS, close), (close + night, close + night + MINUTE_NS)),
    )  # fmt: skip
    bench.memory.market = MarketTime(rate=10, clock=clock)
    bench.wall_ns = clock.wall_at(close + night) + 10**9
    bench.sync()
    answer = ask(bench, 0)
    assert (answer["reason"], answer["data_age_ms"]) == (None, 10_000)


def test_published_signals_of_one_poll_each_correct_the_account_not_only_the_last(bench) -> None:
    """Bars 0 and 1 were published as HOLD ``unavailable``: the BUY on 0 must not fill at 2."""
    decided = ask(bench, 0)
    refused = {
        **decided, "action": "HOLD", "action_id": 0, "reason": "unavailable", "model": None,
    }  # fmt: skip
    bench.memory.apply_items(
        item(
            "signal", symbol="SPY", event_time=minute(i),
            data={**refused, "event_time": minute(i)},
        )
        for i in (0, 1)
    )  # fmt: skip
    bench.sync()
    assert ask(bench, 2)["position_fraction"] == 0.0
    assert [ask(bench, i)["reason"] for i in (0, 1)] == ["unavailable"] * 2


def test_published_signal_of_another_shape_is_skipped_and_the_next_one_taken(bench) -> None:
    first = ask(make_bench(), 0)
    odd = {"event_time": minute(0), "model": None, "action_id": "x"}
    bench.memory.apply_items(
        [item("signal", symbol="AAPL", event_time=minute(0), data=odd), signal_item(first)]
    )
    bench.sync()
    assert ask(bench, 0, DOWN) == first


def test_batch_of_other_features_than_those_served_is_refused(bench) -> None:
    with pytest.raises(OtherFeatures, match=r"\(intraday\) are served"):
        bench.service.batch(["SPY"], [UP], fingerprint=EXTENDED_SPEC.fingerprint)
    assert bench.service.batch(["SPY"], [UP], fingerprint=FEATURE_SPEC.fingerprint)
    with pytest.raises(WrongFeatures, match=r"features.1: 3 were given, and intraday has 11"):
        bench.service.batch(["SPY", "QQQ"], [UP, [0.0] * 3])
    with pytest.raises(WrongFeatures, match=r"features: 22 were given"):
        bench.service.given("SPY", [0.0] * 22)


def test_latest_on_published_features_that_are_not_served_holds_unavailable(bench) -> None:
    published = features_item(log_return_1=1.0)
    published["data"]["fingerprint"] = EXTENDED_SPEC.fingerprint
    bench.memory.apply_items([published])
    bench.sync()
    answer = bench.service.latest("SPY")
    assert (answer["action"], answer["reason"]) == ("HOLD", "unavailable")
