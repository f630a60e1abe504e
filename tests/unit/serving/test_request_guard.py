"""What is refused before anything is done for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from video_llama.processors.config import UploadLimits
from video_llama.serving.api_keys import ApiKeys
from video_llama.serving.request_guard import CLIENT, RequestGuard
from video_llama.serving.served_model import RequestLimits
from video_llama.serving.server_metrics import ServerMetrics

LIMITS = RequestLimits(upload=UploadLimits(megabytes=1), body_idle_s=0.2, body_rate=1_000_000)


class Exchange:
    """One request and what comes back."""

    def __init__(
        self, limits: RequestLimits = LIMITS, keys: ApiKeys | None = None, *, local_only: bool = False
    ) -> None:
        metrics = ServerMetrics("toy", lambda: 0, lambda: 0, lambda: 0)
        self.guard = RequestGuard(self._app, limits, metrics, keys, local_only=local_only)
        self.bodies: list[bytes] = []
        self.clients: list[str] = []
        self.sent: list[Any] = []
        self.unread_s = 0.0
        """Time that the client takes to read a part of the reply."""

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.clients.append(scope[CLIENT])
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def run(self, *chunks: bytes | float | None, path: str = "/v1/x", **headers: str) -> int | None:
        """Send chunks, with pauses between them (float), or hang up (None); return the status."""
        left = list(chunks or [b""])
        self.sent = []

        async def receive() -> Any:
            while left and isinstance(left[0], float):
                await asyncio.sleep(left.pop(0))
            if not left:
                await asyncio.sleep(60)
            chunk = left.pop(0)
            if chunk is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": bool(left)}

        async def send(message: Any) -> None:
            await asyncio.sleep(self.unread_s)
            self.sent.append(message)

        found = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": found, "client": ("1.2.3.4", 5)}
        asyncio.run(self.guard(scope, receive, send))
        return self.sent[0]["status"] if self.sent else None


def test_a_body_comes_whole():
    exchange = Exchange()
    assert exchange.run(b"ab", 0.05, b"c", b"") == 200
    assert exchange.bodies == [b"abc"]
    names = {name for name, _ in exchange.sent[0]["headers"]}
    assert names >= {b"x-request-id", b"x-content-type-options"}


def test_long_bodies_are_refused_by_what_they_say_and_by_what_they_are():
    exchange = Exchange()
    assert exchange.run(b"x", content_length="3000000") == 413
    assert exchange.run(*[b"x" * 100_000] * 30) == 413
    assert exchange.bodies == []
    assert dict(exchange.sent[0]["headers"])[b"connection"] == b"close"


def test_slow_bodies_are_refused():
    assert Exchange().run(b"x", 0.5, b"y") == 408
    assert Exchange().run(*[part for _ in range(10) for part in (b"x", 0.1)], b"y") == 408
    assert Exchange(replace(LIMITS, body_rate=1)).run(b"x", 0.1, b"y", 0.1, b"z", 0.1, b"") == 200


def test_a_client_that_hangs_up_is_forgotten():
    exchange = Exchange()
    assert exchange.run(b"x", None) is None
    assert exchange.bodies == []


def test_a_client_that_does_not_read_its_reply_is_given_up(caplog):
    exchange = Exchange(replace(LIMITS, send_s=0.05))
    exchange.unread_s = 60.0
    assert exchange.run(b"{}") is None
    assert exchange.guard._n_bytes == 0
    assert "does not read its reply" in caplog.text


def test_bodies_share_memory():
    exchange = Exchange()
    exchange.guard.reserve(LIMITS.all_bytes - 10)
    assert exchange.run(b"x" * 11, content_length="11") == 429
    assert b"retry-after" in dict(exchange.sent[0]["headers"])
    assert exchange.run(b"x" * 10) == 200
    assert exchange.run(b"x" * 10) == 200  # which was given back


def test_a_server_on_a_loopback_address_knows_its_names():
    exchange = Exchange(local_only=True)
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
        assert exchange.run(host=host) == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil", "", "[::1", "localhost@evil"):
        assert exchange.run(host=host) == 421
    assert exchange.run() == 421
    assert Exchange(local_only=False).run(host="media.example") == 200
    keyed = Exchange(keys=ApiKeys(["k"]), local_only=True)  # whoever has no key gets nothing anyway
    assert keyed.run(host="proxy.example", authorization="Bearer k") == 200


@pytest.mark.parametrize("path", ["/v1/x", "/v1", "/v1/", "/v1/chat/completions"])
def test_a_key_is_needed_under_v1(path):
    exchange = Exchange(keys=ApiKeys(["one", "two"]))
    assert exchange.run(path=path) == 401
    assert exchange.run(path=path, authorization="Bearer three") == 401
    assert dict(exchange.sent[0]["headers"])[b"www-authenticate"] == b"Bearer"
    assert exchange.run(path=path, authorization="Bearer two") == 200
    assert exchange.run(path="/health") == 200
    assert exchange.clients == ["key 1", "key 0"]


def test_clients_of_one_key_or_none_are_told_apart_by_address():
    for keys in (None, ApiKeys(["one"])):
        exchange = Exchange(keys=keys)
        exchange.run(authorization="Bearer one")
        assert exchange.clients == ["1.2.3.4"]


def test_there_are_no_websockets():
    exchange = Exchange()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(exchange.guard({"type": "websocket"}, send, send))
    assert sent == [{"type": "websocket.close"}]
