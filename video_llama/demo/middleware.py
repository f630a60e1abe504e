"""ASGI middleware in front of gradio: only the page's own routes, from the page's own origin, up to a size.

Gradio also fetches URLs, proxies requests and converts recordings. The page needs none of that.
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
GET_ROUTES = re.compile(
    r"/|/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/.+"
    rf"|{API}/(info/?|app_id/?|startup-events|heartbeat/\w+|queue/(data|status)|upload_progress|file=/[^/].*"
    r"|call/\w+/\w+)"
)
"""Paths that may be read. Files only by absolute path: gradio would fetch a URL."""

POST_ROUTES = re.compile(rf"{API}/(queue/join|run/\w+|upload|cancel|reset/?|call/\w+)")
"""Paths that may be posted to."""

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_REQUEST = 64 * 1024
"""Largest request other than an upload, in bytes: a question and a few settings."""

MULTIPART_OVERHEAD = 16 * 1024
"""What an upload may hold besides the file, in bytes."""

HEADERS = {
    # Whatever is injected into the page, nothing is loaded from or sent to another host.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class RequestFilter:
    """Refuses requests that the page would not send, and adds security headers to every response.

    Args:
        app: the wrapped application.
        host: the address that the server listens on. If it is a loopback address, the Host header must be one too, which
            prevents DNS rebinding.
        max_upload: largest file, in bytes.
    """

    def __init__(self, app: App, host: str, max_upload: int) -> None:
        self.app, self._max_upload = app, max_upload
        self._hosts = LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
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
                # The tab was closed, and its file deleted, while it was being sent. The headers are out, so just hang up.
            return
        status, reason = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})

    def refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return the status and reason for refusing a request; None if it is accepted.

        Args:
            path: percent-decoded.
            headers: by lower-case name.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _hostname(f"//{host}") not in self._hosts:
            return 421, "Unknown host."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return 403, "Cross-origin requests are not allowed."
        if method in ("GET", "HEAD"):
            return None if GET_ROUTES.fullmatch(path) else (404, "Not found.")
        if method != "POST" or not POST_ROUTES.fullmatch(path):
            return 404, "Not found."
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "Content-Length is required."
        if int(length) > (self._max_upload + MULTIPART_OVERHEAD if path == f"{API}/upload" else MAX_REQUEST):
            return 413, f"Too large: the limit is {self._max_upload / 1e6:g} MB per file."
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
