"""What reaches gradio at all: the routes that the page uses, asked for by a page of this server, within a size.

Gradio serves more than that: it fetches addresses, proxies, converts recordings. None of it is needed here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
FILE = f"{API}/file="
READ = re.compile(
    r"/|/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/.+"
    rf"|{API}/(info/?|app_id/?|startup-events|heartbeat/\w+|queue/(data|status)|upload_progress|file=/[^/].*"
    r"|call/\w+/\w+)"
)
"""Paths that are read. A file is named by its whole path: an address would be fetched."""

WRITE = re.compile(rf"{API}/(queue/join|run/\w+|upload|cancel|reset/?|call/\w+)")
"""Paths that are written to."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_REQUEST = 64 * 1024
"""Largest request that is not an upload, in bytes: a question, or a few settings."""

MULTIPART = 16 * 1024
"""What may come around a file in an upload, in bytes."""

HEADERS = {
    # Nothing is loaded from, or sent to, another host, whatever a page is made to hold.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """An ASGI middleware.

    Args:
        app: what it stands before.
        host: the address that is listened on. On this computer alone, a request must also name it as its host: a page of
            another name that was made to point here is refused.
        max_upload: largest file, in bytes.
    """

    def __init__(self, app: App, host: str, max_upload: int) -> None:
        self.app, self._max_upload = app, max_upload
        self._hosts = LOOPBACK if host in LOOPBACK else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        refusal = self.refusal(scope["method"], scope["path"], dict(scope["headers"]))
        if refusal is None:
            try:
                await self.app(scope, receive, send_with_headers)
            except FileNotFoundError:
                if not scope["path"].startswith(FILE):
                    raise
                # Its tab was closed while the file was on its way. The headers are out, so the server hangs up.
            return
        status, reason = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})

    def refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return the status and the reason with which a request is refused, or None.

        Args:
            path: with percent signs decoded.
            headers: by their names in small letters.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return 421, "This server is not of that name."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return 403, "Requests from other pages are not taken."
        if method in ("GET", "HEAD"):
            return None if READ.fullmatch(path) else (404, "There is nothing here.")
        if method != "POST" or not WRITE.fullmatch(path):
            return 404, "There is nothing here."
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "Say how long the request is."
        if int(length) > (self._max_upload + MULTIPART if path == f"{API}/upload" else MAX_REQUEST):
            return 413, f"Too large: files of at most {self._max_upload / 1e6:g} MB are taken."
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
