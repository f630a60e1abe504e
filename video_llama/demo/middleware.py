"""ASGI middleware in front of gradio: only the page's own routes, from the page's own origin, up to a size.

Gradio also fetches URLs, proxies requests and converts recordings. The page needs none of that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from video_llama.common.hosts import LOOPBACK_HOSTS, host_name, split
from video_llama.demo.proxy import is_root_path

log = logging.getLogger(__name__)

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

MAX_REQUEST = 64 * 1024
"""Largest request other than an upload, in bytes: a question and a few settings."""

MULTIPART_OVERHEAD = 16 * 1024
"""What an upload may hold besides the file, in bytes."""

CSP_SOURCE = re.compile(r"https?://[a-z0-9.-]+(:\d+)?")
"""Origins that a content security policy can name."""

MAX_LOGGED = 50
"""Most refused hosts and origins that are logged, each once."""


def security_headers(origins: Collection[str] = ()) -> dict[str, str]:
    """Return the security headers of every response.

    Args:
        origins: sites that may show the page in a frame. None may if this is empty.
    """
    names = [origin for origin in origins if CSP_SOURCE.fullmatch(origin)]
    frame_ancestors = " ".join(["'self'", *names]) if names else "'none'"
    return {
        # Whatever is injected into the page, nothing is loaded from or sent to another host.
        "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
        "script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'; "
        f"frame-ancestors {frame_ancestors}",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


class RequestFilter:
    """Refuses requests that the page would not send, and adds security headers to every response.

    Args:
        app: the wrapped application.
        host: the address that the server listens on. If it is a loopback address, the Host header must be one too, or the
            host of an allowed origin, which prevents DNS rebinding.
        max_upload: largest file, in bytes.
        origins: origins from which the page may be used besides its own, as ``parse_origin`` returns them.
        root_path: the path in front of the page's own, as ``parse_root_path`` returns it. Proxies may keep or remove it.
    """

    def __init__(
        self, app: App, host: str, max_upload: int, origins: Collection[str] = (), root_path: str = ""
    ) -> None:
        self.app, self._max_upload, self._origins, self._root_path = app, max_upload, frozenset(origins), root_path
        self._public_hosts = {host_name(origin) for origin in origins} - LOOPBACK_HOSTS
        self._hosts = LOOPBACK_HOSTS | self._public_hosts if host in LOOPBACK_HOSTS else None
        self._headers = [(name.encode(), value.encode()) for name, value in security_headers(origins).items()]
        self._logged: set[str] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "websocket":  # the page needs none
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *self._headers]
                if any(name == b"content-type" and b"event-stream" in value for name, value in headers):
                    headers.append((b"x-accel-buffering", b"no"))  # nginx would hold events back
                message = {**message, "headers": headers}
            await send(message)

        headers = dict(scope["headers"])
        root_path = self._root_path or _forwarded_prefix(headers)
        path = _below(root_path, scope["path"])
        refusal = self.refusal(scope["method"], path or "/", headers, scope.get("scheme", "http"))
        if refusal is None and not path:
            query = scope.get("query_string", b"")
            location = quote(root_path).encode() + b"/" + (b"?" + query if query else b"")
            await _respond(send_with_headers, 307, "The page is at the path with a slash.", (b"location", location))
        elif refusal is None:
            try:
                await self.app({**scope, "root_path": root_path}, receive, send_with_headers)
            except FileNotFoundError:
                if not path.startswith(FILE):
                    raise
                # The tab was closed, and its file deleted, while it was being sent. The headers are out, so just hang up.
            except RuntimeError as error:
                if not path.startswith(FILE) or "does not exist" not in str(error):
                    raise
                await _respond(send_with_headers, 404, "Not found.", (b"connection", b"close"))  # deleted before that
        else:
            status, reason = refusal
            if status in (403, 421):
                self._log(reason)
            await _respond(
                send_with_headers, status, reason, (b"connection", b"close"), lambda: self._discard(headers, receive)
            )

    def refusal(
        self, method: str, path: str, headers: dict[bytes, bytes], scheme: str = "http"
    ) -> tuple[int, str] | None:
        """Return the status and reason for refusing a request; None if it is accepted.

        Args:
            path: percent-decoded, without the root path.
            headers: by lower-case name.
            scheme: http or https.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = host_name(f"//{host}")
        if self._hosts is not None and name not in self._hosts:
            if not name:
                return 421, "The request names no valid host."
            return 421, f"Unknown host {host}. {_how_to_allow(f'{scheme}://{host}')}"
        origin = headers.get(b"origin", b"").decode("latin-1")
        # The Host of a proxy may lack the port: at a public host, only the stated origins count as the page's own.
        is_own = origin in self._origins or (name not in self._public_hosts and _is_at(origin, host))
        if origin and not is_own:
            if not host_name(origin):
                return 403, f"Requests from the origin {origin} are not allowed: open the page in a tab of its own."
            return 403, f"Requests from {origin} are not allowed. {_how_to_allow(origin)}"
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

    async def _discard(self, headers: dict[bytes, bytes], receive: Receive) -> None:
        """Read the body of a refused request, if it may be that long: a proxy that cannot send it may drop the response."""
        length = headers.get(b"content-length", b"")
        if length.isdigit() and 0 < int(length) <= self._max_upload + MULTIPART_OVERHEAD:
            while (await receive()).get("more_body"):
                pass

    def _log(self, reason: str) -> None:
        """Log the reason for a refusal, once: behind a proxy, the browser may not show it."""
        if reason not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(reason)
            log.warning("refused a request: %s", ascii(reason)[1:-1])


async def _respond(
    send: Send,
    status: int,
    text: str,
    header: tuple[bytes, bytes],
    before_the_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Send a response, and do something else before it is marked as complete."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), header]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if before_the_end:
        await before_the_end()
    await send({"type": "http.response.body"})


def _how_to_allow(origin: str) -> str:
    return f"If you open the page at {origin}, start the server with --allow-origin {origin}"


def _below(root_path: str, path: str) -> str:
    """Return a path without the root path, if it has that: "" if it has nothing else."""
    return path.removeprefix(root_path) if f"{path}/".startswith(f"{root_path}/") else path


def _forwarded_prefix(headers: dict[bytes, bytes]) -> str:
    """Return the root path that the proxy states, as jupyter-server-proxy and Traefik do; "" if it states none."""
    prefix = unquote(headers.get(b"x-forwarded-prefix", b"").decode("latin-1")).rstrip("/")
    return prefix if is_root_path(prefix) else ""


def _is_at(origin: str, host: str) -> bool:
    parts = split(origin)
    return parts is not None and parts.netloc == host
