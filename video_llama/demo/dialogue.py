"""One visitor's dialogue about one file, shared by the threads that serve the visitor's requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.conversation.chat import Chat
from video_llama.conversation.settings import GenerationSettings
from video_llama.demo.limits import PageLimits
from video_llama.processors.media import FileMedia
from video_llama.processors.vetting import vet_file


@dataclass(frozen=True)
class ChatMessage:
    """One message of the dialogue."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class ShownFile:
    """The file that the dialogue is about."""

    kind: FileKind
    path: Path
    media: FileMedia
    use_audio: bool
    """Whether the visitor wanted the audio track of a video to be used."""


class Dialogue:
    """A dialogue about one file. Showing another file starts a new dialogue.

    Args:
        new_chat: starts a chat with the model.
        limits: limits on files, questions and settings.
    """

    messages: list[ChatMessage]
    """The messages so far, in order."""
    withdrawn_question: str
    """The last question, if it was withdrawn; otherwise empty."""

    def __init__(self, new_chat: Callable[[], Chat], limits: PageLimits) -> None:
        self._new_chat, self._limits = new_chat, limits
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Stop the current answer and forget the file and all messages."""
        self.stop()
        self.chat = self._new_chat()
        self.file: ShownFile | None = None
        with self._lock:
            self.messages = []
            self.withdrawn_question = ""
            self._pending: tuple[str, GenerationSettings] | None = None
            self._is_answering = False

    def show(self, path: Path, *, kind: FileKind | None = None, use_audio: bool = True) -> ShownFile:
        """Start a dialogue about a file. If the file is refused, the dialogue has none.

        Args:
            kind: the kind to open it as; None: the file's own. A video opened as ``audio`` is used for its sound alone.
            use_audio: whether to use the audio track of a video, if there is one and the model can.
        Raises:
            VideoLlamaError: the file cannot be read, or exceeds a limit. The message names it without its folder.
        """
        self.reset()
        chat = self.chat
        if not path.is_file():
            raise VideoLlamaError(f"{path.name}: the file no longer exists. Upload it again.")
        try:
            kind = vet_file(path, self._limits.upload, kind)
            media = chat.upload(**{kind: path}, use_audio=False if kind == "video" and not use_audio else None)
        except DecodeError as error:
            raise VideoLlamaError(f"{path.name}: {error.reason}") from error
        except VideoLlamaError as error:
            raise VideoLlamaError(str(error).replace(str(path), path.name)) from error
        file = ShownFile(kind, path, media, use_audio)
        if chat is self.chat:  # otherwise the dialogue was reset in the meantime
            self.file = file
        return file

    @property
    def has_pending_question(self) -> bool:
        """Whether a question is waiting for ``answer``."""
        return self._pending is not None

    def ask(self, question: object, beams: object = 1, temperature: object = 0, new_tokens: object = 300) -> None:
        """Accept a question; ``answer`` answers it.

        Args:
            question, beams, temperature, new_tokens: as sent by the browser, unchecked.
        Raises:
            VideoLlamaError: a value is refused, no file was shown, or the previous question is still being answered.
        """
        text = self._limits.check_question(question)
        settings = self._limits.check_settings(beams, temperature, new_tokens)
        if self.file is None:
            raise VideoLlamaError("Upload a video, image or audio file first.")
        with self._lock:
            if self.has_pending_question or self._is_answering:
                raise VideoLlamaError("The previous question is still being answered. Wait for the answer, or stop it.")
            self._stop = threading.Event()
            self._pending = text, settings
            self.messages.append(ChatMessage("user", text))

    def answer(self) -> Iterator[str]:
        """Answer the pending question, if there is one, yielding the answer so far each time it grows.

        If the answer is stopped before its first word, or fails, the question is withdrawn.

        Raises:
            VideoLlamaError: the model cannot answer. The dialogue can go on.
        """
        with self._lock:
            self.withdrawn_question = ""
            if self._pending is None:
                return
            (question, settings), self._pending, self._is_answering = self._pending, None, True
            messages, stop = self.messages, self._stop
        n_before, text, is_complete = len(messages), "", False
        try:
            if stop.is_set():
                return
            with closing(self.chat.stream(question, settings)) as pieces:
                for piece in pieces:
                    if piece:
                        text += piece
                        messages[n_before:] = [ChatMessage("assistant", text)]
                        yield text
                    if stop.is_set():
                        return
            messages[n_before:] = [ChatMessage("assistant", text)]
            is_complete = True
        except Exception:  # whatever went wrong, the chat has withdrawn the question, so the page must too
            text = ""
            raise
        finally:
            if not text and not is_complete:
                del messages[n_before - 1 :]
            with self._lock:
                if messages is self.messages:  # otherwise the dialogue was reset in the meantime
                    self._is_answering = False
                    self.withdrawn_question = question if len(messages) < n_before else ""

    def stop(self) -> None:
        """Stop the current answer, or the one about to start; what was generated so far is kept."""
        self._stop.set()

    def withdraw(self) -> bool:
        """Withdraw the question if it is still pending, and return whether it was."""
        with self._lock:
            if self._pending is None:
                return False
            (self.withdrawn_question, _), self._pending = self._pending, None
            self.messages.pop()
            return True
