from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exchange.session import CHANNELS, MOST_SYMBOLS, NEWS_CHANNELS, Session, error

AUTH = {"action": "auth", "key": "k", "secret": "s"}


def _ready(**more: Any) -> Session:
    session = Session(**more)
    session.opened({})
    assert session.received(AUTH) == [{"T": "success", "msg": "authenticated"}]
    return session


def _codes(messages: list[dict[str, Any]]) -> list[int]:
    return [m["code"] for m in messages]


def test_session_connecting_is_welcomed() -> None:
    assert Session().opened({}) == [{"T": "success", "msg": "connected"}]


def test_session_keys_in_the_headers_authenticate() -> None:
    session = Session()
    out = session.opened({"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"})
    assert [m["msg"] for m in out] == ["connected", "authenticated"]


@pytest.mark.parametrize(
    "pair", [{"key": "", "secret": "s"}, {"key": "k"}, {"key": 1, "secret": "s"}]
)
def test_session_empty_key_is_refused_and_closed(pair: dict[str, Any]) -> None:
    session = Session()
    assert _codes(session.received({"action": "auth", **pair})) == [402]
    assert session.closing
    assert not session.authenticated


def test_session_second_auth_is_refused() -> None:
    assert _codes(_ready().received(AUTH)) == [403]


@pytest.mark.parametrize(("code", "closes"), [(402, True), (406, True), (409, False)])
def test_session_not_admitted_gets_the_code(code: int, closes: bool) -> None:
    session = Session(admit=lambda *_: code)
    assert _codes(session.received(AUTH)) == [code]
    assert not session.authenticated
    assert session.closing == closes


@pytest.mark.parametrize(
    ("headers", "pair"),
    [({"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}, ("k", "s")),
     ({"Authorization": "Basic azpz"}, ("k", "s")),
     ({"Authorization": "Bearer t"}, ("oauth", "t"))],
)  # fmt: skip
def test_session_admits_by_the_keys_of_the_headers(
    headers: dict[str, str], pair: tuple[str, str]
) -> None:
    asked: list[tuple[str, str]] = []
    session = Session(admit=lambda *given: asked.append(given))
    assert [m["msg"] for m in session.opened(headers)] == ["connected", "authenticated"]
    assert asked == [pair]


@pytest.mark.parametrize("value", ["Basic ???", "Basic a2V5"])
def test_session_unreadable_authorization_is_refused(value: str) -> None:
    session = Session()
    assert session.opened({"Authorization": value})[1]["code"] == 402
    assert session.closing


def test_session_subscribe_before_auth_is_refused() -> None:
    assert _codes(Session().received({"action": "subscribe", "trades": ["A"]})) == [401]


def test_session_without_auth_in_time_is_closed() -> None:
    session = Session()
    assert session.auth_expired() == [error(404)]
    assert session.closing


def test_session_with_auth_in_time_is_left_alone() -> None:
    session = _ready()
    assert session.auth_expired() == []
    assert not session.closing


@pytest.mark.parametrize(
    "message",
    [None, [], "x", {}, {"action": "dance"}, {"action": "subscribe", "trades": "AAPL"},
     {"action": "subscribe", "trades": ["aapl"]}, {"action": "subscribe", "trades": [1]},
     {"action": "subscribe", "trades": [["A"]]}],
)  # fmt: skip
def test_session_malformed_message_is_invalid_syntax(message: object) -> None:
    session = _ready()
    assert _codes(session.received(message)) == [400]
    assert not session.subscribed


def test_session_subscribe_adds_and_acknowledges_the_whole_set() -> None:
    session = _ready()
    session.received({"action": "subscribe", "trades": ["AAPL"], "quotes": ["MSFT"]})
    (ack,) = session.received({"action": "subscribe", "trades": ["BRK.B"], "bars": ["*"]})
    assert ack == {
        "T": "subscription", "trades": ["AAPL", "BRK.B"], "quotes": ["MSFT"], "bars": ["*"],
        "updatedBars": [], "dailyBars": [], "statuses": [], "lulds": [],
        "corrections": ["AAPL", "BRK.B"], "cancelErrors": ["AAPL", "BRK.B"],
    }  # fmt: skip


def test_session_unsubscribe_takes_away() -> None:
    session = _ready()
    session.received({"action": "subscribe", "trades": ["A", "B"], "bars": ["*"]})
    (ack,) = session.received({"action": "unsubscribe", "trades": ["A"], "bars": ["*"]})
    assert ack["trades"] == ["B"]
    assert ack["bars"] == []


def test_session_unknown_channel_is_refused_unless_empty() -> None:
    session = _ready()
    assert _codes(session.received({"action": "subscribe", "orderbooks": ["A"]})) == [410]
    (ack,) = session.received(
        {"action": "subscribe", "orderbooks": [], "news": None, "bars": ["A"]}
    )
    assert ack["bars"] == ["A"]


def test_session_over_the_symbol_limit_changes_nothing() -> None:
    session = _ready(symbol_limit=2)
    session.received({"action": "subscribe", "trades": ["A"], "quotes": ["B"], "bars": ["*"]})
    assert _codes(session.received({"action": "subscribe", "trades": ["C"]})) == [405]
    assert _codes(session.received({"action": "subscribe", "quotes": ["*"]})) == [405]
    assert session.acknowledgement()["trades"] == ["A"]


def test_session_wants_what_it_asked_for() -> None:
    session = _ready()
    assert not session.wants("", "")
    session.received({"action": "subscribe", "trades": ["A"], "bars": ["*"]})
    assert session.wants("trades", "A")
    assert session.wants("corrections", "A")
    assert session.wants("bars", "Z")
    assert session.wants("", "whatever")
    assert not session.wants("trades", "B")
    assert not session.wants("quotes", "A")


def test_session_of_news_offers_news_alone() -> None:
    session = _ready(channels=NEWS_CHANNELS)
    assert _codes(session.received({"action": "subscribe", "trades": ["A"]})) == [410]
    assert session.received({"action": "subscribe", "news": ["A", "B"]}) == [
        {"T": "subscription", "news": ["A", "B"]}
    ]
    assert session.wants("news", "B,C")
    assert not session.wants("news", "C")
    assert not session.wants("trades", "A")


def test_session_of_stocks_wants_no_news() -> None:
    session = _ready()
    session.received({"action": "subscribe", "trades": ["*"]})
    assert not session.wants("news", "A")


_CHANNEL_SETS = st.dictionaries(
    st.sampled_from(CHANNELS), st.lists(st.sampled_from(["A", "B", "C", "*"]), max_size=3)
)


@given(st.lists(st.tuples(st.booleans(), _CHANNEL_SETS), max_size=8))
def test_session_acknowledges_what_a_set_model_says(
    changes: list[tuple[bool, dict[str, list[str]]]],
) -> None:
    session = _ready(symbol_limit=2)
    model: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
    for add, asked in changes:
        wanted = {
            c: model[c] | set(asked.get(c, ())) if add else model[c] - set(asked.get(c, ()))
            for c in CHANNELS
        }
        counted = wanted["trades"] | wanted["quotes"]
        (answer,) = session.received({"action": "subscribe" if add else "unsubscribe", **asked})
        if add and ("*" in counted or len(counted) > 2):
            assert answer["code"] == 405
        else:
            model = wanted
            assert {c: set(answer.get(c, ())) for c in CHANNELS} == model
            assert answer["corrections"] == answer["trades"]


def test_session_more_symbols_than_there_are_is_refused_whatever_the_plan() -> None:
    session = _ready()
    many = [f"S{i}" for i in range(MOST_SYMBOLS)]
    session.received({"action": "subscribe", "bars": many})
    assert _codes(session.received({"action": "subscribe", "bars": ["ONE.MORE"]})) == [405]
    assert len(session.subscriptions["bars"]) == MOST_SYMBOLS
    assert session.received({"action": "unsubscribe", "bars": many})[0]["bars"] == []
