"""A dialogue and the uploaded files of each browser session, deleted when the tab closes or has been idle for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.demo.dialogue import Dialogue
from video_llama.demo.limits import PageLimits
from video_llama.demo.uploads import remove, remove_old

IDLE_TIMEOUT_S = 30 * 60
"""A session without a request for this long is ended."""

MAX_SESSIONS = 200
"""Most sessions at a time. Each keeps the frames of its file in memory."""


class _Session:
    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue, self.last_used = dialogue, 0.0
        self.files: set[Path] = set()


class SessionStore:
    """Sessions by key, one for each browser tab or client. Thread-safe.

    Args:
        new_chat: starts a chat with the model.
        limits: limits on files, questions and settings.
        folder: the folder of uploads.
        idle_timeout_s: see ``IDLE_TIMEOUT_S``.
        max_sessions: see ``MAX_SESSIONS``.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        new_chat: Callable[[], Chat],
        limits: PageLimits,
        folder: Path,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        max_sessions: int = MAX_SESSIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits, self.folder = limits, folder
        self.examples = folder / "examples"
        """The folder of example clips, which are never deleted."""
        self._new_chat, self._idle_timeout_s, self._max_sessions, self._clock = (
            new_chat,
            idle_timeout_s,
            max_sessions,
            clock,
        )
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def dialogue(self, key: str | None) -> Dialogue:
        """Return the dialogue of a session, which is created if it does not exist.

        Raises:
            VideoLlamaError: the request has no session, or there are too many.
        """
        if not key:
            raise VideoLlamaError("The request has no session: use the page, or gradio_client.")
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= self._max_sessions:
                    raise VideoLlamaError(f"The server is full ({self._max_sessions} sessions). Try again later.")
                self._sessions[key] = _Session(Dialogue(self._new_chat, self.limits))
            self._sessions[key].last_used = self._clock()
            return self._sessions[key].dialogue

    def add_file(self, key: str, path: Path) -> None:
        """Record that a session uploaded a file."""
        with self._lock:
            if key in self._sessions and not path.is_relative_to(self.examples):
                self._sessions[key].files.add(path)

    def end(self, key: str) -> None:
        """End a session: stop its answer, and delete its files unless another session uploaded the same."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            in_use = self._files()
        session.dialogue.reset()
        for path in session.files - in_use:
            remove(path)

    def sweep(self) -> None:
        """End idle sessions, and delete old uploads that belong to no session."""
        now = self._clock()
        with self._lock:
            idle = [key for key, session in self._sessions.items() if now - session.last_used > self._idle_timeout_s]
        for key in idle:
            self.end(key)
        with self._lock:
            in_use = self._files()
        remove_old(self.folder, in_use | set(self.examples.glob("*")), self._idle_timeout_s)

    def _files(self) -> set[Path]:
        return {path for session in self._sessions.values() for path in session.files}
