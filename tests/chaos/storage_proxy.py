"""A proxy in front of an object store that answers some requests with errors; a process of its own.

``python -m tests.chaos.storage_proxy PORT TARGET``. ``PUT /-/faults`` with
``{"status": 503, "every": 3}`` lets every third request fail (``1``: all of them; ``0``: none);
with ``"after": true`` the store gets the request all the same and only the answer is lost.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

CONTROL = "/-/faults"
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


class Handler(BaseHTTPRequestHandler):
    """Passes requests on, or refuses them."""

    protocol_version = "HTTP/1.1"
    target: ClassVar[str] = ""
    faults: ClassVar[dict[str, Any]] = {"status": 503, "every": 0, "after": False}
    seen: ClassVar[int] = 0
    lock: ClassVar[Any] = threading.Lock()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == CONTROL:
            Handler.faults = {**Handler.faults, **json.loads(body)}
            self._answer(200, [], b"")
            return
        with Handler.lock:
            Handler.seen += 1
            every = Handler.faults["every"]
            fails = bool(every) and Handler.seen % every == 0
        if fails and not Handler.faults["after"]:
            self._answer(Handler.faults["status"], [], b"")
            return
        address = urlsplit(Handler.target)
        upstream = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
        upstream.close()
        if fails:
            self._answer(Handler.faults["status"], [], b"")
        else:
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, headers, data, length)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server's names

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


if __name__ == "__main__":
    Handler.target = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
