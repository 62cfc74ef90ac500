"""A Google Cloud Storage of a few lines, for tests: serves a local folder as the bucket `bucket`.

    python google_storage.py FOLDER

prints its port and serves until its standard input is closed. It is a process of its own because
the Arrow client holds Python's lock while it waits for an answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit


@contextmanager
def serve_bucket(folder: Path) -> Iterator[str]:
    """Serve the folder's files as objects of `bucket`; yields `host:port`."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


class Handler(BaseHTTPRequestHandler):
    """Object metadata, listings and contents, as the JSON API answers."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        place = unquote(url.path.partition("/b/bucket/o")[2]).lstrip("/")
        if place and query.get("alt") == "media":
            self._media(self.folder / place)
        else:
            self._json(_metadata(self.folder, place) if place else _listing(self.folder, query))

    def _media(self, file: Path) -> None:
        data = file.read_bytes()
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), int(last) + 1 if last else len(data)
        self._answer(206 if first else 200, data[start:end], "application/octet-stream")

    def _json(self, value: object) -> None:
        status = 404 if value is None else 200
        error = {"error": {"code": 404, "message": "not found"}}
        self._answer(status, json.dumps(value or error).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _metadata(folder: Path, name: str) -> dict[str, str] | None:
    file = folder / name
    if not file.is_file():
        return None
    time = "2026-01-01T00:00:00.000Z"
    return {
        "kind": "storage#object", "bucket": "bucket", "name": name,
        "size": str(file.stat().st_size), "generation": "1", "metageneration": "1",
        "timeCreated": time, "updated": time, "contentType": "application/octet-stream",
    }  # fmt: skip


def _listing(folder: Path, query: dict[str, str]) -> dict[str, object]:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    items, prefixes = [], set()
    for name in names:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
        else:
            items.append(_metadata(folder, name))
    return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


def main() -> None:
    """Serve until standard input ends."""
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)  # connections that the client keeps open would hold the threads


if __name__ == "__main__":
    main()
