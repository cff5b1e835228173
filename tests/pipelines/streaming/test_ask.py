"""Asking the policy: in time, or HOLD."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pyarrow as pa
import pytest

from cluster.processes import free_port
from pipelines.streaming import ask, signals
from pipelines.streaming.ask import FAILURES, PAUSE_S, PolicyClient, request_of
from pipelines.streaming.signals import Ask

AT = "2011-01-03T14:30:00Z"


def row(symbol: str = "SPY", **changes):
    return {
        "symbol": symbol, "event_time": AT, "bar": {"open": 1.0, "close": 2.0},
        "values": [0.5] * 11, "fingerprint": "f", "reason": None, "market_ns": 1294065061_000000000,
    } | changes  # fmt: skip


def signal(symbol: str = "SPY", **changes):
    return {
        "symbol": symbol, "action": "BUY", "action_id": 1, "confidence": 0.5,
        "probabilities": [0.2, 0.5, 0.3], "value": 0.1, "q_values": None,
        "position_fraction": 0.0, "cash_fraction": 1.0, "model": None, "event_time": AT,
        "decided_at": AT, "data_age_ms": 1.0, "reason": None,
    } | changes  # fmt: skip


class Policy:
    """A policy over HTTP that does what a test tells it."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[dict] = []
        self.connections = 0
        self.answered = 0  # to the last byte
        self.wait_s = 0.0
        self.drip_s = 0.0
        self.status = 200
        self.hang_up = False
        self.half = False  # ends in the middle of its answer
        self.released = threading.Event()
        self.answer: Callable[[dict], object] = lambda q: {
            "signals": [signal(s) for s in q["symbols"]]
        }
        policy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                policy.connections += 1
                super().setup()

            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                policy.requests.append(orjson.loads(body))
                policy.released.wait(policy.wait_s)
                answer = orjson.dumps(policy.answer(policy.requests[-1]))
                try:
                    self.send_response(policy.status)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    for byte in answer[: len(answer) // 2] if policy.half else answer:
                        self.wfile.write(bytes([byte]))
                        if policy.drip_s:
                            policy.released.wait(policy.drip_s)
                    policy.answered += 1
                except OSError:
                    self.close_connection = True
                self.close_connection |= policy.hang_up or policy.half

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/signals/batch"


@contextmanager
def running(made: Policy) -> Iterator[Policy]:
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.released.set()
        made.server.shutdown()
        made.server.server_close()
        thread.join()


@pytest.fixture
def policy() -> Iterator[Policy]:
    with running(Policy()) as made:
        yield made


@pytest.fixture
def client(policy: Policy) -> Iterator[PolicyClient]:
    made = PolicyClient(policy.url, deadline_s=0.3)
    yield made
    made.close()


def test_decide_asks_once_in_the_form_of_the_contract(policy, client):
    rows = [row("SPY"), row("QQQ", values=[None] * 11, reason="warming_up")]
    assert [s["action"] for s in client.decide(rows)] == ["BUY", "BUY"]
    assert policy.requests == [request_of(rows)]
    assert policy.requests[0] == {
        "fingerprint": "f",
        "symbols": ["SPY", "QQQ"],
        "features": [[0.5] * 11, [None] * 11],
        "bars": [{"event_time": AT, "open": 1.0, "close": 2.0}] * 2,
        "reasons": [None, "warming_up"],
    }


def test_decide_again_uses_the_same_connection(policy, client):
    client.decide([row()])
    client.decide([row()])
    assert policy.connections == 1


def test_decide_after_the_server_hung_up_asks_on_a_new_connection(policy, client):
    policy.hang_up = True
    assert [client.decide([row()])[0]["action"] for _ in range(3)] == ["BUY"] * 3


@pytest.mark.parametrize("how", ["wait_s", "drip_s"])
def test_decide_with_a_slow_policy_holds_at_the_deadline(policy, client, how):
    setattr(policy, how, 0.2 if how == "drip_s" else 60.0)
    (held,) = client.decide([row()])
    assert policy.answered == 0
    assert held == {
        "symbol": "SPY", "action": "HOLD", "action_id": 0, "confidence": None,
        "probabilities": None, "value": None, "q_values": None, "position_fraction": 0.0,
        "cash_fraction": 1.0, "model": None, "event_time": AT,
        "decided_at": held["decided_at"], "data_age_ms": 1000.0, "reason": "unavailable",
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"signals": []},
        {"signals": [{}]},
        {"signals": [signal("QQQ")]},
        {"signals": [signal(event_time="2011-01-03T14:31:00Z")]},
        {"signals": [{k: v for k, v in signal().items() if k != "value"}]},
        *(
            {"signals": [signal(**odd)]}
            for odd in (
                {"decided_at": None},
                {"decided_at": "soon"},
                {"decided_at": 5},
                {"model": "x"},
                {"model": {"id": "x"}},
                {"model": {"id": 1, "version": 1, "fingerprint": "f"}},
                {"action": "SELL"},
                {"action": ["BUY"]},
                {"action_id": True},
                {"action_id": 7},
                {"confidence": "high"},
                {"value": [1.0]},
                {"probabilities": [0.5, 0.5]},
                {"probabilities": [0.5, 0.5, None]},
                {"q_values": {}},
                {"data_age_ms": "old"},
                {"fills": 5},
                {"fills": [{}]},
                {"fills": [None]},
                {"position_fraction": "all"},
                {"cash_fraction": True},
                {"reason": 5},
            )
        ),
    ],
)
def test_decide_with_a_wrong_answer_holds(policy, client, answer):
    policy.answer = lambda _: answer
    assert client.decide([row()])[0]["reason"] == "unavailable"


def test_decide_with_an_error_of_the_policy_holds(policy, client):
    policy.status = 503
    assert client.decide([row()])[0]["reason"] == "unavailable"


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def timed(policy: Policy, now: list[float]) -> Iterator[PolicyClient]:
    """A client whose clock stands still: only the wait of its socket bounds it."""
    made = PolicyClient(policy.url, deadline_s=0.3, monotonic=lambda: now[0])
    yield made
    made.close()


@pytest.mark.parametrize("how", ["errors", "hangs"])
def test_decide_after_failures_in_a_row_asks_nobody_for_a_while(policy, timed, now, how):
    policy.status, policy.wait_s = (500, 0.0) if how == "errors" else (200, 5.0)
    for _ in range(FAILURES + 2):
        assert timed.decide([row()])[0]["reason"] == "unavailable"
    assert len(policy.requests) == FAILURES
    assert timed.report() == {
        "state": "open", "asked": FAILURES, "failed": FAILURES, "refused": 2, "opened": 1,
    }  # fmt: skip
    policy.status, policy.wait_s = 200, 0.0
    now[0] += PAUSE_S
    assert timed.report()["state"] == "half_open"
    assert timed.decide([row()])[0]["action"] == "BUY"
    assert timed.report()["state"] == "closed"


def test_decide_while_half_open_asks_once_and_is_left_alone_again_if_that_fails(policy, timed, now):
    policy.status = 500
    for _ in range(FAILURES):
        timed.decide([row()])
    for _ in range(3):
        now[0] += PAUSE_S
        timed.decide([row()])
        timed.decide([row()])
    assert len(policy.requests) == FAILURES + 3
    assert timed.report()["opened"] == 1 + 3


def test_decide_of_one_failure_between_answers_keeps_asking(policy, timed):
    for n in range(3 * FAILURES):
        policy.status = 500 if n % FAILURES else 200
        timed.decide([row()])
    assert len(policy.requests) == 3 * FAILURES
    assert timed.report()["state"] == "closed"


def test_decide_of_a_server_that_comes_back_is_answered_again(now):
    port = free_port()
    client = PolicyClient(
        f"http://127.0.0.1:{port}/v1/signals/batch", deadline_s=0.5, monotonic=lambda: now[0]
    )
    for _ in range(FAILURES):
        assert client.decide([row()])[0]["reason"] == "unavailable"
    with running(Policy(port)) as policy:
        assert client.decide([row()])[0]["reason"] == "unavailable"
        now[0] += PAUSE_S
        assert client.decide([row()])[0]["action"] == "BUY"
        assert len(policy.requests) == 1
        client.close()


def test_decide_without_a_policy_holds():
    assert PolicyClient(None).decide([row()])[0]["reason"] == "unavailable"


def test_decide_with_nobody_there_holds():
    client = PolicyClient("http://127.0.0.1:1/v1/signals/batch", deadline_s=0.2)
    assert client.decide([row()])[0]["reason"] == "unavailable"


def test_ask_of_a_partition_asks_once_and_reports_how_that_went(policy):
    bars = [row("SPY", decided=False), row("QQQ", decided=False), row("DIA", decided=True)]
    said = [*bars, {"symbol": "SPY", "counters": {"late_bars": 1}}]
    data = {
        "symbol": [one["symbol"] for one in said],
        "payload": [orjson.dumps(one).decode() for one in said],
    }
    (batch,) = Ask(policy.url, 0.5)([pa.RecordBatch.from_pydict(data)])
    signals._client(policy.url, 0.5).close()  # a worker keeps it for ever
    *rows, report = batch.to_pylist()
    assert [one["signal"] is not None for one in rows] == [True, True, False, False]
    assert [question["symbols"] for question in policy.requests] == [["SPY", "QQQ"]]
    assert report["signal"] is None
    assert orjson.loads(report["payload"]) == {
        "policy": "closed",
        "counters": {
            "policy_asked": 1, "policy_failed": 0, "policy_refused": 0, "policy_opened": 0,
        },
    }  # fmt: skip


def test_decide_of_an_answer_that_ends_half_way_holds_and_asks_anew(policy, client):
    policy.half = True
    assert client.decide([row()])[0]["reason"] == "unavailable"
    policy.half = False
    assert client.decide([row()])[0]["action"] == "BUY"
    assert policy.connections == 2


def test_stream_over_a_service_that_goes_and_comes_gives_every_bar_one_signal_in_order(
    policy, timed, now
):
    """Away, slow, failing half-way, wrong, back: each batch is answered, with its own bars."""
    symbols = ["SPY", "QQQ", "DIA"]
    states: list[dict[str, object]] = [
        {}, {"status": 503}, {"wait_s": 5.0}, {"half": True}, {}, {"status": 500}, {},
    ]  # fmt: skip
    well = {"status": 200, "wait_s": 0.0, "half": False}
    said = []
    for state in states:
        for name, value in (well | state).items():
            setattr(policy, name, value)
        for _ in range(2):
            batch = timed.decide([row(symbol) for symbol in symbols])
            assert [signal["symbol"] for signal in batch] == symbols
            assert len({signal["reason"] for signal in batch}) == 1
            said.append(batch[0]["reason"])
        now[0] += PAUSE_S
    assert said == [None] * 2 + ["unavailable"] * 6 + [None] * 2 + ["unavailable"] * 2 + [None] * 2
    report = timed.report()
    assert report["state"] == "closed"
    assert report["asked"] + report["refused"] == 2 * len(states)
    assert len(policy.requests) == report["asked"]


def test_decide_of_many_rows_splits_them_and_stops_asking_once_that_failed(
    policy, client, monkeypatch
):
    monkeypatch.setattr(ask, "MAX_ROWS", 2)
    rows = [row(f"S{i}") for i in range(2 * (FAILURES + 2))]
    assert [signal["symbol"] for signal in client.decide(rows)] == [r["symbol"] for r in rows]
    assert [len(question["symbols"]) for question in policy.requests] == [2] * (FAILURES + 2)
    policy.wait_s = 5.0
    assert {signal["reason"] for signal in client.decide(rows)} == {"unavailable"}
    assert len(policy.requests) == (FAILURES + 2) + FAILURES  # then the circuit was open
