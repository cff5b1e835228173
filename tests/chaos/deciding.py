"""A policy over HTTP that never says the same twice: a decision taken again would show."""

from __future__ import annotations

import itertools
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

PATH = "/v1/signals/batch"


@contextmanager
def deciding(*, by_features: bool = False) -> Iterator[str]:
    """Its address, for the time of a block.

    Args:
        by_features: Let its opinion be a function of what it is told, instead.
    """
    answers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = zip(asked["symbols"], asked["bars"], asked["features"], strict=True)
            signals = [
                _signal(
                    symbol,
                    bar["event_time"],
                    zlib.crc32(orjson.dumps(values)) if by_features else next(answers),
                )
                for symbol, bar, values in told
            ]
            body = orjson.dumps({"signals": signals})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _signal(symbol: str, event_time: str, number: int) -> dict[str, object]:
    return {
        "symbol": symbol, "event_time": event_time, "action": "BUY", "action_id": 1,
        "confidence": 0.5, "probabilities": [0.2, 0.5, 0.3], "value": float(number),
        "q_values": None, "position_fraction": 0.0, "cash_fraction": 1.0,
        "model": {"id": "test", "version": 1, "fingerprint": "f"},
        "decided_at": "2026-01-01T00:00:00Z", "data_age_ms": 1.0, "reason": None,
    }  # fmt: skip
