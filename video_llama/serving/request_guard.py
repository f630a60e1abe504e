"""ASGI middleware in front of the server: known hosts, keys, and requests of bounded size, time and memory."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from video_llama.common.hosts import LOOPBACK_HOSTS, host_name
from video_llama.serving.api_error import RETRY_AFTER_S, ApiError
from video_llama.serving.api_keys import ApiKeys
from video_llama.serving.served_model import RequestLimits
from video_llama.serving.server_metrics import ServerMetrics

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

CLIENT = "video_llama.client"
"""Key of the scope: who sends a request, for clients to take turns."""
PROTECTED = "/v1/"
"""Where a key is needed."""
DISCARD_S = 5.0
"""Time for which the body of a refused request is read: a client that cannot send it may not read the response."""
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class ClientStalled(Exception):
    """A client has stopped reading. What is kept for its request must not wait for it."""


class RequestGuard:
    """Refuses requests before anything is done for them, and reads the bodies of the others.

    Args:
        app: the wrapped application.
        limits: of requests.
        metrics: count responses.
        keys: those of clients; None: none is needed.
        local_only: the server listens on a loopback address, so the Host header has to name one. Where a key is needed, a page
            of another site that was bound to the address (DNS rebinding) does not have it, so any host will do.
    """

    def __init__(
        self, app: App, limits: RequestLimits, metrics: ServerMetrics, keys: ApiKeys | None, *, local_only: bool
    ) -> None:
        self._app, self._limits, self._metrics, self._keys = app, limits, metrics, keys
        self._hosts = LOOPBACK_HOSTS if local_only and keys is None else None
        self._n_bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.response(message["status"])
                headers = [*message.get("headers", ()), *HEADERS, (b"x-request-id", request_id)]
                message = {**message, "headers": headers}
            try:
                await asyncio.wait_for(send(message), self._limits.send_s)
            except asyncio.TimeoutError as error:
                raise ClientStalled from error

        request_id = uuid.uuid4().hex.encode()
        try:
            try:
                headers = dict(scope["headers"])
                client = self._admitted(scope["path"], headers, scope.get("client"))
                await body.read(headers.get(b"content-length", b""))
            except ApiError as error:
                await body.discard()
                await _respond(send_counted, error)
                return
            if not body.is_gone:
                await self._app({**scope, CLIENT: client}, body.receive, send_counted)
        except ClientStalled:
            log.warning("a client does not read its reply: its connection is closed")
        finally:
            body.free()

    def _admitted(self, path: str, headers: dict[bytes, bytes], address: tuple[str, int] | None) -> str:
        """Return who sends a request: the number of the key if there are several, else the address."""
        if self._hosts is not None:
            name = host_name("//" + headers.get(b"host", b"").decode("latin-1"))
            if name not in self._hosts:
                raise ApiError(
                    421,
                    "the Host header does not name this machine. Behind a proxy, let it send Host: localhost, or start the "
                    "server with --api-key-file",
                )
        number = 0
        if self._keys is not None and f"{path}/".startswith(PROTECTED):
            found = self._keys.number(headers.get(b"authorization", b""))
            if found is None:
                raise ApiError(401, "no valid API key: send it as Authorization: Bearer KEY", code="invalid_api_key")
            number = found
        return f"key {number}" if self._keys is not None and len(self._keys) > 1 else (address or ("",))[0]

    def reserve(self, n_bytes: int) -> None:
        """Take memory for a body.

        Raises:
            ApiError: there is none left.
        """
        if self._n_bytes + n_bytes > self._limits.all_bytes:
            raise ApiError(429, "too many large requests at once: try again later", retry_after_s=RETRY_AFTER_S)
        self._n_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Give memory back."""
        self._n_bytes -= n_bytes

    @property
    def limits(self) -> RequestLimits:
        """Limits on requests."""
        return self._limits


class _Body:
    """The body of a request, which is read whole before the application gets it."""

    def __init__(self, guard: RequestGuard, receive: Receive) -> None:
        self._guard, self._receive = guard, receive
        self._chunks: list[bytes] = []
        self._n_bytes = self._n_reserved = 0
        self._is_complete = self._is_handed_over = False
        self.is_gone = False
        """The client has hung up."""

    async def read(self, declared: bytes) -> None:
        """Read the body.

        Raises:
            ApiError: it is too long, or comes too slowly, or there is no memory for it.
        """
        limit = self._guard.limits.body_bytes
        start = time.monotonic()
        self._check_length(int(declared) if declared.isdigit() else 0, limit)
        while not self._is_complete and not self.is_gone:
            allowed_s = self._guard.limits.body_idle_s + self._n_bytes / self._guard.limits.body_rate
            if time.monotonic() - start > allowed_s:
                raise ApiError(408, "the request comes too slowly", code="request_timeout")
            chunk = await self._next(self._guard.limits.body_idle_s)
            self._n_bytes += len(chunk)
            self._check_length(self._n_bytes, limit)
            self._chunks.append(chunk)

    async def receive(self) -> Message:
        """Hand over the body, and then what comes after it."""
        if self._is_handed_over:
            return await self._receive()
        self._is_handed_over = True
        body = b"".join(self._chunks)
        self._chunks.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    async def discard(self) -> None:
        """Read what is left of a refused request, up to a limit."""
        end = time.monotonic() + DISCARD_S
        n_left = self._guard.limits.body_bytes
        self._chunks.clear()
        while not self._is_complete and not self.is_gone and n_left > 0 and (left_s := end - time.monotonic()) > 0:
            try:
                n_left -= len(await self._next(left_s))
            except ApiError:
                return

    def free(self) -> None:
        """Give back the memory of the body."""
        self._guard.give_back(self._n_reserved)
        self._n_reserved = 0

    async def _next(self, timeout_s: float) -> bytes:
        try:
            message = await asyncio.wait_for(self._receive(), timeout_s)
        except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
            raise ApiError(408, "the request does not come to its end", code="request_timeout") from error
        self.is_gone = message["type"] == "http.disconnect"
        self._is_complete = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    def _check_length(self, n_bytes: int, limit: int) -> None:
        if n_bytes > limit:
            raise ApiError(413, f"the request is longer than {limit / 1e6:.0f} MB", code="request_too_large")
        if n_bytes > self._n_reserved:
            self._guard.reserve(n_bytes - self._n_reserved)
            self._n_reserved = n_bytes


async def _respond(send: Send, error: ApiError) -> None:
    body = json.dumps(error.body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.encode(), value.encode()) for name, value in error.headers.items()),
    ]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
