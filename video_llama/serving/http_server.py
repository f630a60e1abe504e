"""The HTTP server: it listens, answers, and on SIGTERM finishes what it has begun."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Time that the head of a request may take, in seconds."""
GRACE_S = 30
"""Time that clients have to read the rest of their answers once all are finished, in seconds."""
MAX_CONNECTIONS = 512
MAX_HEAD_BYTES = 32 * 1024


class PromptHeads(H11Protocol):
    """Closes connections whose client takes long to send the head of a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self._close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Stops in two steps: the first signal lets all answers end while new questions are refused, the second ends at once.

    Args:
        app: the application.
        drain: called in a thread at the first signal; the server stops when it returns.
        on_start: called once the server listens.
    """

    is_draining = False

    def __init__(self, app: Any, drain: Callable[[], object], on_start: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PromptHeads,
                ws="none",
                loop="asyncio",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # anyone could pretend to be another client
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self._drain, self._on_start = drain, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. Called by uvicorn for SIGTERM and SIGINT."""
        if self.is_draining:
            self.should_exit = self.force_exit = True
            return
        self.is_draining = True
        threading.Thread(target=self._stop, name="video_llama drain", daemon=True).start()

    def serve_on(self, listener: socket.socket) -> bool:
        """Serve until a signal; return whether all answers were finished."""
        self.run(sockets=[listener])
        return not self.force_exit

    def _stop(self) -> None:
        self._drain()
        self.should_exit = True
