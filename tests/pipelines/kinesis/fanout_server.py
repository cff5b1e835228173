"""A small Kinesis over HTTP that speaks the event stream of SubscribeToShard; emulators do not.

What it holds is a :class:`~tests.pipelines.kinesis.conftest.FakeKinesis`; reads of other kinds are
answered from it as JSON, so that boto3 talks to it as to the service.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
import zlib
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import ClientError

from pipelines.ports import KinesisConfig

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/s"


def message(event: str, payload: bytes, *, kind: str = "event") -> bytes:
    """One message of ``application/vnd.amazon.eventstream``."""
    headers = b""
    names = {":message-type": kind, ":content-type": "application/json"}
    names[":event-type" if kind == "event" else ":exception-type"] = event
    for name, value in names.items():
        headers += struct.pack("!B", len(name)) + name.encode()
        headers += struct.pack("!BH", 7, len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack("!I", zlib.crc32(body))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(value)


class FanOutServer:
    """The service; ``calls`` are the operations that were asked for, ``subscribed`` the positions.

    Args:
        fake: What it holds.
        subscription_s: How long a subscription lasts (five minutes on AWS).
        per_event: Records of one event at most.
    """

    def __init__(self, fake: Any, *, subscription_s: float = 0.4, per_event: int = 7) -> None:
        self.fake = fake
        self.subscription_s = subscription_s
        self.per_event = per_event
        self.calls: list[str] = []
        self.subscribed: list[dict[str, Any]] = []
        self.breaks: list[str] = []  # exceptions that the next subscriptions end with
        self.refuses: list[str] = []  # errors that the next subscriptions are refused with
        self.registered = False
        self.open = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.answer(self, self.headers["X-Amz-Target"].split(".")[1], asked)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.config = KinesisConfig(
            endpoint_url=f"http://127.0.0.1:{self._http.server_port}",
            access_key="k",
            secret_key="s",
        )

    def stop(self) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def answer(self, http: Any, operation: str, asked: dict[str, Any]) -> None:
        self.calls.append(operation)
        if operation == "SubscribeToShard":
            if self.refuses:
                return self.say(http, {"__type": self.refuses.pop(0), "message": "no"}, 400)
            return self.push(http, asked)
        try:
            with self.lock:
                self.say(http, self.look_up(operation, asked))
        except ClientError as error:
            self.say(http, {"__type": error.response["Error"]["Code"], "message": "no"}, 400)
        return None

    def look_up(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        asked.pop("StreamARN", None)
        if operation == "DescribeStreamSummary":
            found: dict[str, Any] = self.fake.describe_stream_summary(StreamName="s")
            found["StreamDescriptionSummary"] |= {
                "StreamName": "s", "StreamARN": ARN, "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": 24, "EnhancedMonitoring": [], "OpenShardCount": 1,
            }  # fmt: skip
            return found
        if operation == "RegisterStreamConsumer":
            if self.registered:
                answer = {"Error": {"Code": "ResourceInUseException"}}
                raise ClientError(answer, operation)  # type: ignore[arg-type]
            self.registered = True
            return {"Consumer": self.consumer("CREATING")}
        if operation == "DescribeStreamConsumer":
            return {"ConsumerDescription": self.consumer("ACTIVE") | {"StreamARN": ARN}}
        method = {
            "ListShards": self.fake.list_shards,
            "GetShardIterator": self.fake.get_shard_iterator,
            "GetRecords": self.fake.get_records,
        }[operation]
        if "Timestamp" in asked:
            asked["Timestamp"] = datetime.fromtimestamp(asked["Timestamp"], UTC)
        given: dict[str, Any] = method(**asked)
        return given

    def consumer(self, status: str) -> dict[str, Any]:
        return {
            "ConsumerName": "c", "ConsumerARN": f"{ARN}/consumer/c:1", "ConsumerStatus": status,
            "ConsumerCreationTimestamp": 1,
        }  # fmt: skip

    def say(self, http: Any, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer, default=_plain).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/x-amz-json-1.1")
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body)

    def push(self, http: Any, asked: dict[str, Any]) -> None:
        shard, start = asked["ShardId"], asked["StartingPosition"]
        with self.lock:
            self.subscribed.append(start)
            self.open += 1
            kind = {"Type": "ShardIteratorType", "SequenceNumber": "StartingSequenceNumber"}
            place = {kind.get(name, name): value for name, value in start.items()}
            if "Timestamp" in place:
                place["Timestamp"] = datetime.fromtimestamp(place["Timestamp"], UTC)
            iterator = self.fake.get_shard_iterator(StreamName="s", ShardId=shard, **place)
        try:
            http.send_response(200)
            http.send_header("Content-Type", "application/vnd.amazon.eventstream")
            http.send_header("Transfer-Encoding", "chunked")
            http.end_headers()
            self.chunk(http, message("initial-response", b"{}"))
            self.follow(http, shard, iterator["ShardIterator"])
            self.chunk(http, b"")
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True
        finally:
            with self.lock:
                self.open -= 1

    def follow(self, http: Any, shard: str, iterator: str | None) -> None:
        until = time.monotonic() + self.subscription_s
        quiet = False
        while time.monotonic() < until and not self.stopping.is_set():
            if self.breaks:
                self.chunk(http, message(self.breaks.pop(0), b'{"message":"b"}', kind="exception"))
                return
            with self.lock:
                page = self.fake.get_records(ShardIterator=iterator, Limit=self.per_event)
            self.fake.reads.clear()
            iterator = page["NextShardIterator"]
            low = iterator.split("/")[1] if iterator else None
            event = {
                "Records": page["Records"],
                "MillisBehindLatest": page["MillisBehindLatest"],
                # A number before the next record, as the service gives one for a quiet shard too.
                "ContinuationSequenceNumber": None if low is None else str(int(low) - 1),
            }
            if iterator is None:
                event["ChildShards"] = []
            if page["Records"] or not quiet or iterator is None:
                self.chunk(http, message("SubscribeToShardEvent", json.dumps(
                    {name: value for name, value in event.items() if value is not None},
                    default=_plain,
                ).encode()))  # fmt: skip
            quiet = not page["Records"]
            if iterator is None:
                return
            if quiet:
                time.sleep(0.01)

    def chunk(self, http: Any, data: bytes) -> None:
        http.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        http.wfile.flush()
