"""A dialogue for each browser tab, with the files that it sent; both go when the tab does, or after an idle while."""

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

IDLE_S = 30 * 60
"""After so long without a request, a dialogue and its files are forgotten."""

MOST = 200
"""Most dialogues at a time. Each holds the frames of its file in memory."""


class _Entry:
    def __init__(self, dialogue: Dialogue, used: float) -> None:
        self.dialogue, self.used = dialogue, used
        self.files: set[Path] = set()


class Sessions:
    """Dialogues by the key of their tab. Safe to use from several threads.

    Args:
        chat: its ``another`` makes dialogues with the model.
        limits: what is taken.
        folder: where uploads are.
        idle_s: see ``IDLE_S``.
        most: see ``MOST``.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        chat: Chat,
        limits: PageLimits,
        folder: Path,
        idle_s: float = IDLE_S,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits, self.folder = limits, folder
        self.examples = folder / "examples"
        """Files in there stay."""
        self._chat, self._idle_s, self._most, self._clock = chat, idle_s, most, clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def dialogue(self, key: str | None) -> Dialogue:
        """Return the dialogue of a tab, a new one if it has none.

        Raises:
            VideoLlamaError: the request comes from no tab, or there are too many.
        """
        if not key:
            raise VideoLlamaError("The request belongs to no session: use the page, or gradio_client.")
        with self._lock:
            if key not in self._entries:
                if len(self._entries) >= self._most:
                    raise VideoLlamaError(f"{self._most} people are here already. Come back in a while.")
                self._entries[key] = _Entry(Dialogue(self._chat, self.limits), 0.0)
            self._entries[key].used = self._clock()
            return self._entries[key].dialogue

    def hold(self, key: str, path: Path) -> None:
        """Remember that a tab sent a file."""
        with self._lock:
            if key in self._entries and not path.is_relative_to(self.examples):
                self._entries[key].files.add(path)

    def end(self, key: str) -> None:
        """Forget a tab: its answer is stopped, and its files are removed unless another tab sent the same."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            held = self._held()
        entry.dialogue.reset()
        for path in entry.files - held:
            remove(path)

    def sweep(self) -> None:
        """Forget tabs that were idle for long, and remove uploads that none of the others holds."""
        now = self._clock()
        with self._lock:
            idle = [key for key, entry in self._entries.items() if now - entry.used > self._idle_s]
        for key in idle:
            self.end(key)
        with self._lock:
            held = self._held()
        remove_old(self.folder, held | set(self.examples.glob("*")), self._idle_s)

    def _held(self) -> set[Path]:
        return {path for entry in self._entries.values() for path in entry.files}
