"""A proxy before a local object store: late answers, errors, silence."""

from __future__ import annotations

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# S3's own words for "try again".
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class BadStore:
    """Passes requests on, some late, some not at all.

    Args:
        host, port: of the store behind.
        latency_s: that every answer is late.
        error_share: of requests that get an error instead (503, which S3 sends when it is busy).

    Attributes:
        address: host:port of the proxy.
        requests, errors: counted so far.
        away: set while no request gets anything but errors.
    """

    def __init__(
        self, host: str, port: int, latency_s: float = 0.0, error_share: float = 0.0
    ) -> None:
        self.requests = self.errors = 0
        self.away = threading.Event()
        chance, lock, store = random.Random(0), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.body()
                with lock:
                    store.requests += 1
                    bad = store.away.is_set() or chance.random() < error_share
                    store.errors += bad
                time.sleep(latency_s)
                if bad:
                    self.reply(503, [("Content-Type", "application/xml")], SLOW_DOWN)
                    return
                behind = http.client.HTTPConnection(host, port)
                dropped = ("connection", "transfer-encoding", "content-length", "expect")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
                headers["Content-Length"] = str(len(body))
                behind.request(self.command, self.path, body, headers)
                found = behind.getresponse()
                kept = ("etag", "last-modified", "content-type", "content-range", "location")
                self.reply(
                    found.status,
                    [(k, v) for k, v in found.getheaders() if k.lower() in kept],
                    found.read(),
                    found.getheader("Content-Length"),
                )
                behind.close()

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def reply(
                self, status: int, headers: Any, body: bytes, length: str | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                is_head = self.command == "HEAD"
                self.send_header("Content-Length", length if is_head and length else str(len(body)))
                self.end_headers()
                if not is_head:
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
