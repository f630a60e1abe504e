"""A server of one file on this machine that can cut connections, lie about the file, and kill its client."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, TypeVar


class Answers(Protocol):
    """Answers requests."""

    port: int

    def answer(self, handler: BaseHTTPRequestHandler) -> None: ...


S = TypeVar("S", bound=Answers)


@dataclass
class FileServer:
    """What is served and how; a test changes the fields between requests. Serves any path, and acts as a proxy."""

    content: bytes
    etag: str | None = '"version-1"'
    last_modified: str | None = None
    ranges: bool = True
    """Whether parts are served on demand."""
    checks_if_range: bool = True
    """Whether a part of another version is refused."""
    cuts: list[int] = field(default_factory=list)
    """For each of the next requests: bytes of the body after which the connection is cut."""
    statuses: list[int] = field(default_factory=list)
    """Errors that the next requests get."""
    headers: dict[str, str | None] = field(default_factory=dict)
    """More headers of each answer; they replace others. None: the header is left out."""
    on_byte: tuple[int, Callable[[], None]] | None = None
    """Called once, when a request has been sent so many bytes of the body; the answer stops there."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """Method, target and headers of each request."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def starts(self) -> list[int]:
        """The first byte that each request asked for."""
        found = [re.match(r"bytes=(\d+)-", request.get("Range", "")) for request in self.requests]
        return [int(start[1]) if start else 0 for start in found]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append({"method": handler.command, "target": handler.path, **dict(handler.headers)})
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        validator = handler.headers.get("If-Range")
        same = not self.checks_if_range or validator in (self.etag, self.last_modified)
        start = self.starts[-1] if self.ranges and same else 0
        if start > len(self.content):
            handler.send_error(416)
            return
        size = len(self.content)
        headers = {"Content-Length": str(size - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if self.etag:
            headers["ETag"] = self.etag
        if self.last_modified:
            headers["Last-Modified"] = self.last_modified
        handler.send_response(206 if start else 200)
        for name, value in {**headers, **self.headers}.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        body = self.content[start:]
        if self.on_byte is not None:
            (limit, call), self.on_byte = self.on_byte, None
            handler.wfile.write(body[:limit])
            handler.wfile.flush()
            call()
        else:
            handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        handler.close_connection = True


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Answer GET and POST until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                server.answer(self)
            except OSError:  # the client has gone
                self.close_connection = True

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with running(Handler) as server.port:
        yield server


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Run a server in a thread; yields its port."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http.server_address[1]
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
