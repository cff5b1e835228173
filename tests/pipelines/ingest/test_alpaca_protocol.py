"""The protocol driven by frames, without a socket."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import codec
from pipelines.errors import FeedFatal, FeedTransient
from pipelines.ingest.alpaca_protocol import (
    AlpacaProtocol,
    Authenticated,
    Connected,
    Credentials,
    Data,
    Failed,
    Malformed,
    Refused,
    Subscribed,
)


def _json(*messages):
    return orjson.dumps(messages)


def _ready(symbols=("SPY", "AAPL"), channels=("trades", "bars")):
    session = AlpacaProtocol(
        Credentials("key-id", "very-secret"), dict.fromkeys(channels, symbols), binary=False
    )
    _say(session, {"T": "success", "msg": "connected"})
    _say(session, {"T": "success", "msg": "authenticated"})
    return session


def _say(session, *messages):
    return session.receive(_json(*messages), text=True)


def _ack(session, *symbols):
    return _say(session, {"T": "subscription", "trades": list(symbols), "bars": list(symbols)})


def _asked(session):
    return [orjson.loads(frame) for frame in session.outgoing()]


def test_session_authenticates_and_subscribes_in_order():
    session = AlpacaProtocol(Credentials("k", "s"), {"trades": ["SPY"]}, binary=True)
    frame = codec.encode_msgpack_frame([{"T": "success", "msg": "connected"}])
    assert session.receive(frame, text=False) == [Connected()]
    (auth,) = session.outgoing()
    assert auth == codec.encode_action({"action": "auth", "key": "k", "secret": "s"}, binary=True)
    frame = codec.encode_msgpack_frame([{"T": "success", "msg": "authenticated"}])
    assert session.receive(frame, text=False) == [Authenticated()]
    (subscribe,) = session.outgoing()
    assert subscribe == codec.encode_action({"action": "subscribe", "trades": ["SPY"]}, binary=True)
    assert session.outgoing() == []


def test_acknowledgement_without_empty_channels_is_understood():
    session = _ready()
    event = _say(session, {"T": "subscription", "trades": ["AAPL", "SPY"]})
    assert event == [Subscribed(frozenset({"AAPL", "SPY"}), settled=True)]


def test_data_is_handed_over_as_it_came():
    session = _ready()
    messages = [{"T": "t", "S": "SPY"}, 7, {"T": "zz"}]
    assert _say(session, *messages) == [Data(messages)]


def test_control_message_among_data_is_not_lost():
    session = _ready()
    events = _say(session, {"T": "subscription", "trades": ["SPY"]}, {"T": "t", "S": "SPY"})
    assert events == [Subscribed(frozenset({"SPY"}), settled=True), Data([{"T": "t", "S": "SPY"}])]


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_never_raise(frame, text):
    for event in _ready().receive(frame, text=text):
        assert isinstance(event, (Data, Malformed))


@pytest.mark.parametrize("code", [401, 402, 409])
def test_fatal_codes_fail_for_good(code):
    (event,) = _say(_ready(), {"T": "error", "code": code, "msg": "no"})
    assert isinstance(event.error, FeedFatal)
    assert event.error.code == code


@pytest.mark.parametrize("code", [404, 406, 407, 408, 411, 500, None, "x"])
def test_other_codes_fail_for_now(code):
    (event,) = _say(_ready(), {"T": "error", "code": code, "msg": "no"})
    assert isinstance(event, Failed)
    assert isinstance(event.error, FeedTransient)


def test_second_authentication_is_no_failure():
    assert _say(_ready(), {"T": "error", "code": 403, "msg": "already authenticated"}) == []


def test_bad_symbol_is_found_and_the_rest_kept():
    session = _ready(symbols=("A", "B", "?", "D"))
    got: set[str] = set()
    events = []
    while asked := _asked(session):
        for request in asked:
            if request["action"] != "subscribe":
                continue
            if "?" in request["trades"]:
                events += _say(session, {"T": "error", "code": 400, "msg": "invalid syntax"})
            else:
                got |= set(request["trades"])
                events += _ack(session, *sorted(got))
    assert got == {"A", "B", "D"}
    assert [e.symbols for e in events if isinstance(e, Refused)] == [("?",)]
    assert events[-1] == Subscribed(frozenset(got), settled=True)


def _against(session, accepts, *, code):
    """Answer all that is asked as a server would; what it has in the end, and the events."""
    has: dict[str, set[str]] = {}
    events, requests = [], 0
    while asked := _asked(session):
        for request in asked:
            action = request.pop("action")
            requests += action != "auth"
            new = {channel: has.get(channel, set()) | set(add) for channel, add in request.items()}
            if action == "auth" or (action == "subscribe" and not accepts({**has, **new})):
                refusal = {"T": "error", "code": code, "msg": "no"}
                events += [] if action == "auth" else _say(session, refusal)
                continue
            if action == "unsubscribe":
                new = {channel: has[channel] - set(gone) for channel, gone in request.items()}
            has |= new
            events += _say(session, {"T": "subscription", **{c: sorted(s) for c, s in has.items()}})
    return {channel: symbols for channel, symbols in has.items() if symbols}, events, requests


def test_channel_not_offered_is_left_out_and_the_others_kept():
    session = _ready(channels=("trades", "news", "bars"))
    has, events, _ = _against(session, lambda has: "news" not in has, code=410)
    assert has == {"trades": {"SPY", "AAPL"}, "bars": {"SPY", "AAPL"}}
    (refused,) = [e for e in events if isinstance(e, Refused)]
    assert refused.left_out == {"news": ("SPY", "AAPL")}
    assert "RAYTAPE_CHANNELS" in refused.message


def test_channels_all_refused_are_a_failure_for_now():
    _, events, _ = _against(_ready(), lambda has: False, code=410)
    assert isinstance(events[-2], Refused)
    assert isinstance(events[-1].error, FeedTransient)


@given(st.integers(1, 40), st.integers(1, 40))
def test_symbol_limit_keeps_the_longest_beginning_and_the_channels_without_limit(n, limit):
    symbols = tuple(f"S{i}" for i in range(n))
    session = _ready(symbols, ("trades", "quotes", "bars"))
    has, events, requests = _against(
        session,
        lambda has: len(has.get("trades", set()) | has.get("quotes", set())) <= limit,
        code=405,
    )
    assert has == {
        "trades": set(symbols[:limit]), "quotes": set(symbols[:limit]), "bars": set(symbols)
    }  # fmt: skip
    refused = [e for e in events if isinstance(e, Refused)]
    assert [set(e.symbols) for e in refused] == ([set(symbols[limit:])] if limit < n else [])
    assert requests <= 2 * n.bit_length() + 5


def test_symbols_refused_for_the_limit_are_asked_again_when_others_leave():
    session = _ready(("A", "B", "C"), ("trades",))
    has, _, _ = _against(session, lambda has: len(has.get("trades", ())) <= 2, code=405)
    assert has == {"trades": {"A", "B"}}
    session.set_subscriptions({"trades": ["B", "C"]})
    asked = []
    while frames := _asked(session):
        asked += frames
        _say(session, {"T": "subscription", "trades": ["B", "C"]})
    assert [(r["action"], r["trades"]) for r in asked] == [
        ("unsubscribe", ["A"]), ("subscribe", ["C"])
    ]  # fmt: skip


def test_change_of_symbols_before_the_acknowledgement_is_asked_after_it():
    session = _ready()
    session.outgoing()
    session.set_subscriptions({key: ["AAPL", "TSLA"] for key in ("trades", "bars")})
    assert session.outgoing() == []
    assert _ack(session, "AAPL", "SPY")[-1].settled is False
    assert [(r["action"], r["trades"]) for r in _asked(session)] == [("unsubscribe", ["SPY"])]
    _ack(session, "AAPL")
    assert [(r["action"], r["trades"]) for r in _asked(session)] == [("subscribe", ["TSLA"])]
    assert _ack(session, "AAPL", "TSLA")[-1].settled is True


def test_secret_is_not_shown():
    assert "very-secret" not in repr(Credentials("key-id", "very-secret"))


def test_error_whose_code_is_no_number_is_transient():
    (event,) = _say(_ready(), {"T": "error", "code": [401], "msg": "?"})
    assert isinstance(event, Failed) and isinstance(event.error, FeedTransient)
