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
        Credentials("key-id", "very-secret"), symbols=symbols, channels=channels, binary=False
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
    session = AlpacaProtocol(
        Credentials("k", "s"), symbols=["SPY"], channels=["trades"], binary=True
    )
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


def test_channel_not_offered_for_any_symbol_is_a_failure_for_now():
    session = _ready()
    events = _say(session, {"T": "error", "code": 410, "msg": "invalid subscribe action"})
    assert isinstance(events[0], Refused)
    assert isinstance(events[1].error, FeedTransient)


def test_change_of_symbols_before_the_acknowledgement_is_asked_after_it():
    session = _ready()
    session.outgoing()
    session.set_symbols(["AAPL", "TSLA"])
    assert session.outgoing() == []
    assert _ack(session, "AAPL", "SPY")[-1].settled is False
    assert [(r["action"], r["trades"]) for r in _asked(session)] == [("unsubscribe", ["SPY"])]
    _ack(session, "AAPL")
    assert [(r["action"], r["trades"]) for r in _asked(session)] == [("subscribe", ["TSLA"])]
    assert _ack(session, "AAPL", "TSLA")[-1].settled is True


def test_secret_is_not_shown():
    assert "very-secret" not in repr(Credentials("key-id", "very-secret"))
