"""A server without a model: a worker whose answers are scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from video_llama.conversation.worker import Ask, Failed, Piece, Started
from video_llama.processors.media import AUDIO_OFF, AUDIO_USED, FileMedia

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install -e '.[serve]'")

from starlette.testclient import TestClient

from video_llama.serving.api_keys import ApiKeys
from video_llama.serving.application import build_application
from video_llama.serving.completions import Completions
from video_llama.serving.held_files import HeldFiles
from video_llama.serving.media_source import MediaSource
from video_llama.serving.request_guard import RequestGuard
from video_llama.serving.served_model import RequestLimits, ServedModel
from video_llama.serving.server_metrics import ServerMetrics


class ScriptedTicket:
    """A ticket that remembers whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class ScriptedWorker:
    """Sends the events of a script from a thread of its own."""

    n_running = n_waiting = 0

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.tickets: list[ScriptedTicket] = []
        self.refusal: Exception | None = None
        self.events: Callable[[Ask], list[Any]] = answer("It is red.")

    def submit(self, ask: Ask, on_event: Callable[[Any], None]) -> Any:
        self.asks.append(ask)
        if self.refusal is not None:
            raise self.refusal
        ticket = ScriptedTicket()
        self.tickets.append(ticket)

        def run() -> None:
            for event in self.events(ask):
                on_event(event)

        threading.Thread(target=run).start()
        return ticket


def answer(text: str, reason: str = "stop") -> Callable[[Ask], list[Any]]:
    """Return a script that answers with a text, a word at a time, and then ends."""

    def script(ask: Ask) -> list[Any]:
        files = [
            FileMedia(audio_status=AUDIO_USED if file.kind == "video" else AUDIO_OFF)
            for turn in ask.turns
            for file in turn.files
        ]
        words = text.split(" ")
        pieces = [
            Piece(k, word if j == 0 else f" {word}", n_tokens=1) for k in range(ask.n) for j, word in enumerate(words)
        ]
        ends = [Piece(k, "", n_tokens=1, finish_reason=reason) for k in range(ask.n)]
        return [Started(10 + 8 * len(files), 8 * len(files), files), *pieces, *ends]

    return script


def failure(error: Exception, *before: Any) -> Callable[[Ask], list[Any]]:
    """Return a script that fails."""
    return lambda ask: [*before, Failed(error)]


class Server:
    """A server in this process."""

    def __init__(self, folder: Path) -> None:
        self.worker = ScriptedWorker()
        self.limits = RequestLimits()
        self.model = ServedModel(name="toy", max_context=512, max_frames=32)
        self.files = HeldFiles(folder, 10_000_000)
        self.root: Path | None = None
        self.hosts: list[str] = []
        self.keys: ApiKeys | None = None
        self.is_draining = False

    def client(self) -> TestClient:
        """Return a client of a server that is set up as the fields say."""
        metrics = ServerMetrics("toy", lambda: 0, lambda: 0, lambda: self.files.n_bytes)
        source = MediaSource(self.files, self.limits, self.root, self.hosts)
        completions = Completions(self.worker, self.model, source, metrics)
        app = build_application(completions, lambda: self.is_draining)
        guard = RequestGuard(app, self.limits, metrics, self.keys, local_only=True)
        return TestClient(guard, base_url="http://localhost", raise_server_exceptions=False)

    def ask(self, *parts: Any, **fields: Any) -> Any:
        """Ask about files, and return the response."""
        message = {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}
        return self.client().post("/v1/chat/completions", json={"model": "toy", "messages": [message], **fields})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "held"
    folder.mkdir()
    server = Server(folder)
    yield server
    assert list(folder.iterdir()) == []
    assert server.files.n_bytes == 0
