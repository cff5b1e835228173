"""A proxy in front of the embedded Kinesis: it counts calls and injects faults.

``proxy.faults`` are asked in turn about each call, before it is passed on; the first answer that
is not ``None`` is given instead::

    proxy.faults = [throttled("GetRecords", times=3)]
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pipelines.kinesis.service import name_of
from pipelines.ports import KinesisConfig


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the operation, its arguments, the moment (monotonic seconds)."""

    operation: str
    asked: dict[str, Any]
    at_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What to give instead of the service's answer.

    Args:
        status: HTTP status.
        body: JSON document, if any.
        passed_on: The service gets the call all the same, and its answer is thrown away.
        dropped: The connection is closed without an answer.
        after_s: Wait so long first.
        throttled: Of PutRecords, the entries that are refused; the others are passed on.
    """

    status: int = 400
    body: dict[str, Any] = field(default_factory=dict)
    passed_on: bool = False
    dropped: bool = False
    after_s: float = 0.0
    throttled: frozenset[int] | None = None


Fault = Callable[[Call], Answer | None]


def refusal(code: str, *, status: int = 400) -> Answer:
    """The service's error of a code."""
    return Answer(status, {"__type": code, "message": f"injected: {code}"})


def refusing(
    operation: str, code: str, *, status: int = 400, times: int | None = None, until_s: float = 0
) -> Fault:
    """Refuses calls of an operation: so many times, or until a moment (monotonic seconds)."""
    left = [times]
    lock = threading.Lock()

    def fault(call: Call) -> Answer | None:
        if call.operation != operation or (until_s and call.at_s > until_s):
            return None
        with lock:
            if left[0] is not None:
                if left[0] <= 0:
                    return None
                left[0] -= 1
        return refusal(code, status=status)

    return fault


def throttling(share: float, *, rng: random.Random) -> Fault:
    """Refuses this share of the entries of PutRecords, as a shard over its limit does."""

    def fault(call: Call) -> Answer | None:
        if call.operation != "PutRecords":
            return None
        entries = range(len(call.asked["Records"]))
        return Answer(throttled=frozenset(i for i in entries if rng.random() < share))

    return fault


class FaultProxy:
    """The proxy; ``config`` is where clients find it.

    Args:
        target: The embedded Kinesis.
    """

    def __init__(self, target: KinesisConfig) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._address = urlsplit(str(target.endpoint_url)).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                proxy._serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        self.config = replace(target, endpoint_url=url)

    def close(self) -> None:
        """Take no more calls."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def count(self, operation: str) -> int:
        """Calls of an operation so far."""
        return sum(call.operation == operation for call in list(self.calls))

    def _serve(self, asker: BaseHTTPRequestHandler) -> None:
        body = asker.rfile.read(int(asker.headers["Content-Length"]))
        operation = asker.headers["X-Amz-Target"].rpartition(".")[2]
        call = Call(operation, json.loads(body), time.monotonic())
        self.calls.append(call)
        answer = next((a for fault in self.faults if (a := fault(call)) is not None), None)
        if answer is not None and answer.after_s:
            time.sleep(answer.after_s)
        if answer is not None and answer.throttled is not None:
            status, given = self._pass_part(asker, call, answer.throttled)
            answer = Answer(status, given)
        elif answer is None or answer.passed_on:
            status, kind, given = self._pass_on(asker, body)
        if answer is not None and answer.dropped:
            asker.close_connection = True
            return
        if answer is not None:
            status, kind = answer.status, "application/x-amz-json-1.1"
            given = json.dumps(answer.body).encode()
        try:
            asker.send_response(status)
            asker.send_header("Content-Type", kind)
            asker.send_header("Content-Length", str(len(given)))
            asker.end_headers()
            asker.wfile.write(given)
        except (BrokenPipeError, ConnectionResetError):
            asker.close_connection = True

    def _pass_on(self, asker: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        # One connection each: the service closes those that are idle for long.
        upstream = http.client.HTTPConnection(self._address, timeout=30)
        headers = {
            k: v
            for k, v in asker.headers.items()
            if k.lower() not in {"host", "expect", "content-length"}
        }
        try:
            upstream.request("POST", "/", _by_name(body), headers)
            answer = upstream.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        finally:
            upstream.close()

    def _pass_part(
        self, asker: BaseHTTPRequestHandler, call: Call, throttled: frozenset[int]
    ) -> tuple[int, dict[str, Any]]:
        entries = call.asked["Records"]
        refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"}
        results: list[dict[str, Any]] = [refused] * len(entries)
        kept = [i for i in range(len(entries)) if i not in throttled]
        if kept:
            asked = {**call.asked, "Records": [entries[i] for i in kept]}
            status, _, given = self._pass_on(asker, json.dumps(asked).encode())
            answer = json.loads(given)
            if status != 200:
                return status, answer
            for i, result in zip(kept, answer["Records"], strict=True):
                results[i] = result
        return 200, {"FailedRecordCount": len(throttled), "Records": results}


def _by_name(body: bytes) -> bytes:
    """The same request with the stream's name: the embedded Kinesis knows no ARN."""
    asked = json.loads(body)
    if "StreamARN" not in asked:
        return body
    return json.dumps({**asked, "StreamName": name_of(asked["StreamARN"])}).encode()


@contextmanager
def proxied(target: KinesisConfig) -> Iterator[FaultProxy]:
    """A proxy for the time of a block."""
    proxy = FaultProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
