"""A folder over HTTP, byte ranges included, each answer after a while: object storage as far as its latency goes."""

from __future__ import annotations

import re
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path


class RangeHandler(SimpleHTTPRequestHandler):
    """Answers a request for part of a file with that part."""

    protocol_version = "HTTP/1.1"  # connections are kept, as real servers do
    latency = 0.0  # seconds

    def do_GET(self) -> None:  # http.server calls it so
        """A file, or a range of it."""
        time.sleep(self.latency)
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.answer(404, b"")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, file.read_bytes())
            return
        first, last = map(int, wanted.groups())
        size = file.stat().st_size
        if first >= size:
            self.answer(416, b"")
            return
        with file.open("rb") as content:
            content.seek(first)
            part = content.read(last + 1 - first)
        self.answer(206, part, **{"Content-Range": f"bytes {first}-{first + len(part) - 1}/{size}"})

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        """Send it."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves a folder at `url`, on a port of its own."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[RangeHandler] = RangeHandler) -> None:
        super().__init__(("127.0.0.1", 0), partial(handler, directory=str(folder)))

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"http://127.0.0.1:{self.server_port}"


def serve(folder: Path, latency: float, url: Connection) -> None:
    """Serve a folder, for ever; the URL is sent first."""
    RangeHandler.latency = latency
    server = Server(folder)
    url.send(server.url)
    server.serve_forever()
