from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.hub import Client, Hub, TooSlow
from tests.serve.conftest import Bench, bar, features_item, make_bench, record, trade


def sent(client: Client) -> list[dict[str, Any]]:
    async def take() -> list[bytes]:
        try:
            return await asyncio.wait_for(client.take(), 0.05)
        except TimeoutError:
            return []

    return [orjson.loads(m) for m in asyncio.run(take())]


def say(client: Client, **message: Any) -> list[dict[str, Any]]:
    client.handle(orjson.dumps(message))
    return sent(client)


@pytest.fixture
def ready(bench: Bench) -> Bench:
    bench.memory.apply_record(record(trade(price=100), bar(i=0)))
    bench.memory.apply_record(record(trade("AAPL", price=7), epoch="f"))
    bench.memory.apply_items([features_item()])
    bench.sync()
    return bench


def test_subscriber_gets_acknowledgement_snapshot_and_then_updates(ready) -> None:
    hub = Hub(ready.mirror)
    client = hub.join()
    ack, *snapshot = say(client, action="subscribe", channels=["trades", "bars"], symbols=["SPY"])
    assert (ack["channel"], ack["resumed"]) == ("subscribed", False)
    assert {(u["channel"], u["symbol"]) for u in snapshot} == {("trades", "SPY"), ("bars", "SPY")}
    assert all(u["snapshot"] for u in snapshot)
    ready.memory.apply_record(record(trade(s=62, price=101), trade("AAPL", s=62), bseq=2))
    ready.wall_ns += 10**9
    ready.sync()
    updates = sent(client)
    assert {(u["channel"], u["symbol"]) for u in updates} == {("trades", "SPY"), ("bars", "SPY")}
    assert all("snapshot" not in u and u["sent_at"].endswith("Z") for u in updates)
    assert [u["seq"] for u in updates] == sorted(u["seq"] for u in updates)


def test_star_means_every_symbol(ready) -> None:
    client = Hub(ready.mirror).join()
    _, *snapshot = say(client, action="subscribe", channels=["trades"], symbols=["*"])
    assert {u["symbol"] for u in snapshot} == {"SPY", "AAPL"}


def test_subscribing_again_sends_no_second_snapshot(ready) -> None:
    client = Hub(ready.mirror).join()
    say(client, action="subscribe", channels=["trades"], symbols=["SPY"])
    assert len(say(client, action="subscribe", channels=["trades"], symbols=["SPY"])) == 1


def test_unsubscribed_client_gets_nothing_more(ready) -> None:
    hub = Hub(ready.mirror)
    client = hub.join()
    say(client, action="subscribe", channels=["trades"], symbols=["SPY"])
    say(client, action="unsubscribe", channels=["trades"], symbols=["SPY"])
    ready.memory.apply_record(record(trade(s=3), bseq=2))
    ready.wall_ns += 10**9
    ready.sync()
    assert sent(client) == []


def test_client_that_comes_back_gets_what_it_missed_not_a_snapshot(ready) -> None:
    seq = ready.mirror.log.seq
    ready.memory.apply_record(record(bar(i=1), bar(i=2), bseq=2, s=180))
    ready.sync()
    client = Hub(ready.mirror).join()
    ack, *missed = say(
        client, action="subscribe", channels=["bars"], symbols=["SPY"], after_seq=seq
    )
    assert ack["resumed"]
    assert [u["event_time"][14:16] for u in missed] == ["31", "32"]


def test_client_that_was_away_too_long_gets_a_snapshot(ready) -> None:
    client = Hub(ready.mirror).join()
    ack, *rows = say(client, action="subscribe", channels=["trades"], symbols=["*"], after_seq=-9)
    assert not ack["resumed"]
    assert all(u["snapshot"] for u in rows)


def test_updates_not_sent_yet_are_replaced_by_their_successors(ready) -> None:
    hub = Hub(ready.mirror)
    client = hub.join()
    say(client, action="subscribe", channels=["trades"], symbols=["SPY"])
    for n in range(3):
        ready.memory.apply_record(record(trade(s=3 + n, price=200 + n), bseq=2 + n))
        ready.wall_ns += 10**9
        ready.sync()
    assert [u["data"]["price"] for u in sent(client)] == [202.0]
    assert client.conflated == 2


def test_client_that_takes_nothing_is_too_slow(ready) -> None:
    client = Client(ready.mirror, max_pending=2)
    say(client, action="subscribe", channels=["bars"], symbols=["SPY"])
    before = ready.mirror.log.seq
    close_bars(ready, 1, 2, 3)
    client.offer(ready.mirror.log.after(before))
    with pytest.raises(TooSlow):
        asyncio.run(client.take())


def test_client_that_missed_more_than_its_queue_holds_gets_a_snapshot(ready) -> None:
    seq = ready.mirror.log.seq
    close_bars(ready, 1, 2, 3)
    client = Client(ready.mirror, max_pending=2)
    ack, *rows = say(client, action="subscribe", channels=["bars"], symbols=["SPY"], after_seq=seq)
    assert not ack["resumed"]
    assert [(u["event_time"][14:16], u["snapshot"]) for u in rows] == [("33", True)]
    close_bars(ready, 4, bseq=3)
    client.offer(ready.mirror.log.after(rows[0]["seq"]))
    assert [u["event_time"][14:16] for u in sent(client)] == ["34"]


def test_client_that_missed_much_of_what_it_does_not_want_resumes(ready) -> None:
    seq = ready.mirror.log.seq
    close_bars(ready, 1, 2, 3)
    client = Client(ready.mirror, max_pending=2)
    ack, *rows = say(client, action="subscribe", channels=["trades"], after_seq=seq)
    assert (ack["resumed"], rows) == (True, [])


def test_snapshot_larger_than_the_queue_is_sent_whole(ready) -> None:
    client = Client(ready.mirror, max_pending=1)
    _, *rows = say(client, action="subscribe", channels=["trades", "bars"])
    assert len(rows) == 4


def close_bars(bench: Bench, *minutes: int, bseq: int = 2) -> None:
    bars = [bar(i=i) for i in minutes]
    bench.memory.apply_record(record(*bars, bseq=bseq, s=60 * minutes[-1] + 60))
    bench.sync()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_message"),
        ('{"action":"fly"}', "unknown_action"),
        ('{"action":"subscribe","channels":["x"]}', "unknown_channel"),
        ('{"action":"subscribe","channels":[1]}', "bad_channels"),
        ('{"action":"subscribe"}', "bad_channels"),
        ('{"action":"subscribe","channels":["bars"],"symbols":"SPY"}', "bad_symbols"),
        ('{"action":"subscribe","channels":["bars"],"symbols":["NOPE"]}', "unknown_symbol"),
    ],
)
def test_message_that_is_wrong_is_answered_with_its_code(ready, message: str, code: str) -> None:
    client = Hub(ready.mirror).join()
    client.handle(message)
    first = sent(client)[0]
    assert (first["channel"], first["code"]) == ("error", code)
    assert first["message"]


def test_ping_is_answered(ready) -> None:
    (answer,) = say(Hub(ready.mirror).join(), action="ping", id=7)
    assert (answer["channel"], answer["id"]) == ("pong", 7)


def test_channels_of_later_may_be_subscribed_and_stay_silent(ready) -> None:
    answers = say(Hub(ready.mirror).join(), action="subscribe", channels=["alerts"], symbols=["*"])
    assert [a["channel"] for a in answers] == ["subscribed"]


def test_hub_that_is_full_takes_nobody(ready) -> None:
    hub = Hub(ready.mirror, max_clients=1)
    first = hub.join()
    assert hub.join() is None
    hub.leave(first)
    assert hub.join() is not None


@given(st.text() | st.binary())
def test_client_message_of_any_kind_never_raises(text: str | bytes) -> None:
    client = Client(make_bench().mirror)
    client.handle(text)
    assert sent(client)
