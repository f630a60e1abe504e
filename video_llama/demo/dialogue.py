"""One visitor's dialogue: what was shown and said, whoever asks for it from whatever thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from video_llama.common.errors import DecodeError, VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.conversation.files import FileKind, Upload
from video_llama.conversation.settings import GenerationSettings
from video_llama.demo.limits import PageLimits
from video_llama.processors.vetting import vet_file


@dataclass(frozen=True)
class Message:
    """One thing said."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Shown:
    """The file that the dialogue is about."""

    kind: FileKind
    path: Path
    upload: Upload
    hear: bool
    """Whether the sound of a clip was to be heard."""


class Dialogue:
    """A dialogue about one file. A new file starts a new one.

    Args:
        chat: its ``another`` makes dialogues with the model.
        limits: what is taken.
    """

    messages: list[Message]
    """What was said, in order."""
    taken_back: str
    """The last question, if it was taken back."""

    def __init__(self, chat: Chat, limits: PageLimits) -> None:
        self._chat, self._limits = chat, limits
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Stop the answer that is being given, and forget everything."""
        self.stop()
        self.chat = self._chat.another()
        self.shown: Shown | None = None
        with self._lock:
            self.messages = []
            self.taken_back = ""
            self._waiting: tuple[str, GenerationSettings] | None = None
            self._is_answering = False

    def show(self, path: Path, *, kind: FileKind | None = None, hear: bool = True) -> Shown:
        """Start a dialogue about a file. Where the file is refused, there is none.

        Args:
            kind: what it is taken as; None: what it is. Of a video as ``audio`` only the sound is taken.
            hear: whether the sound of a clip is heard, where that is possible.
        Raises:
            VideoLlamaError: it cannot be read, or is beyond a limit. The message names the file without its folder.
        """
        self.reset()
        chat = self.chat
        if not path.is_file():
            raise VideoLlamaError(f"{path.name}: the file is no longer here. Choose it again.")
        try:
            kind = vet_file(path, self._limits.upload, kind)
            upload = chat.upload(**{kind: path}, hear=False if kind == "video" and not hear else None)
        except DecodeError as error:
            raise VideoLlamaError(f"{path.name}: {error.reason}") from error
        except VideoLlamaError as error:
            raise VideoLlamaError(str(error).replace(str(path), path.name)) from error
        shown = Shown(kind, path, upload, hear)
        if chat is self.chat:  # else it was reset meanwhile
            self.shown = shown
        return shown

    @property
    def is_waiting(self) -> bool:
        """Whether a question waits for ``answer``."""
        return self._waiting is not None

    def say(self, question: object, beams: object = 1, temperature: object = 0, new_tokens: object = 300) -> None:
        """Take a question, which ``answer`` answers.

        Args:
            question, beams, temperature, new_tokens: as they came from the browser; ``Limits`` checks them.
        Raises:
            VideoLlamaError: one is refused, there is nothing to ask about, or the last question is not answered yet.
        """
        text = self._limits.check_question(question)
        settings = self._limits.check_settings(beams, temperature, new_tokens)
        if self.shown is None:
            raise VideoLlamaError("Show a video, a picture or a sound first: the question is about it.")
        with self._lock:
            if self.is_waiting or self._is_answering:
                raise VideoLlamaError("The last question is still being answered. Wait for the answer, or stop it.")
            self._stop = threading.Event()
            self._waiting = text, settings
            self.messages.append(Message("user", text))

    def answer(self) -> Iterator[str]:
        """Answer what was said last, if it waits for it, and yield the answer so far each time it grows.

        Where no piece of the answer came, because it was stopped or failed, the question is taken back.

        Raises:
            VideoLlamaError: the model cannot answer; the dialogue stays usable.
        """
        with self._lock:
            self.taken_back = ""
            if self._waiting is None:
                return
            (question, settings), self._waiting, self._is_answering = self._waiting, None, True
            messages, stop = self.messages, self._stop
        asked, text, ended = len(messages), "", False
        try:
            if stop.is_set():
                return
            with closing(self.chat.stream(question, settings)) as pieces:
                for piece in pieces:
                    if piece:
                        text += piece
                        messages[asked:] = [Message("assistant", text)]
                        yield text
                    if stop.is_set():
                        return
            messages[asked:] = [Message("assistant", text)]
            ended = True
        except Exception:  # whatever it is, chat took the question back, and so is it here
            text = ""
            raise
        finally:
            if not text and not ended:
                del messages[asked - 1 :]
            with self._lock:
                if messages is self.messages:  # else it was reset meanwhile
                    self._is_answering = False
                    self.taken_back = question if len(messages) < asked else ""

    def stop(self) -> None:
        """End the answer that is being given, or is about to be; what came of it stays."""
        self._stop.set()

    def withdraw(self) -> bool:
        """Take back a question that is not being answered yet, and say whether there was one."""
        with self._lock:
            if self._waiting is None:
                return False
            (self.taken_back, _), self._waiting = self._waiting, None
            self.messages.pop()
            return True
