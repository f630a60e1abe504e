"""A dialogue with a model: show it files, ask questions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.common.types import MediaGroup, slot_id
from video_llama.conversation.engine import Engine
from video_llama.conversation.generation import with_length
from video_llama.conversation.session import fit
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.streaming import AnswerText, in_thread
from video_llama.processors.media import FileMedia


@dataclass(frozen=True)
class AnswerStats:
    """Time and size of one answer."""

    prompt_tokens: int
    """Tokens of the prompt, including those of the files."""
    answer_tokens: int
    """Tokens generated, including those of the end symbol."""
    first_token_s: float
    """Seconds from the question to the first token (with beams, to the whole answer), including the wait for other users
    of the model."""
    total_s: float
    """Seconds from the question to the last token."""
    encode_s: float
    """Seconds spent reading and encoding the files shown with the question."""
    dropped_turns: int = 0
    """Oldest questions, with their answers, left out of the prompt to make it fit."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second after the first; None if all came at once: a single token, or beams."""
        seconds = self.total_s - self.first_token_s
        return (self.answer_tokens - 1) / seconds if seconds > 0 else None


class Chat:
    """One dialogue with one model.

    >>> from video_llama.conversation.chat import Chat
    >>> from video_llama.conversation.settings import GenerationSettings
    >>> chat = Chat.from_config("eval_configs/toy.yaml")
    >>> shown = chat.upload(video="clip.mp4")
    >>> chat.ask("What colour is the shape?")
    'It is red.'
    >>> for piece in chat.stream("How does it move?", GenerationSettings(temperature=0.7, seed=0)):
    ...     print(piece, end="", flush=True)
    It moves left.
    >>> chat.last.answer_tokens > 1
    True
    >>> chat.reset()  # a new dialogue; the same file is not encoded again
    >>> friend = Chat(chat.engine)  # another user's dialogue with the same model

    A question may come before any file; the decoder then answers as it would without a branch.

    A dialogue too long for the decoder's context continues without its oldest turns (``last`` says how many); its files
    stay. Every error that a user can cause is a ``VideoLlamaError`` and leaves the dialogue as it was.

    Dialogues over one engine may be used from several threads at once, one thread each. They take turns at the model, or are
    answered together if the engine has a ``DecodingThread``.

    Args:
        engine: the model in use.
    """

    last: AnswerStats | None
    """Time and size of the last answer; None before the first."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reset()

    @classmethod
    def from_config(cls, cfg_path: str | Path, options: Iterable[str] = (), device: str = "auto") -> Chat:
        """Start a dialogue with the model of a YAML. Args, Raises: see ``Engine.from_config``."""
        return cls(Engine.from_config(cfg_path, options, device))

    @classmethod
    def from_pretrained(cls, name: str | Path, options: Iterable[str] = (), device: str = "auto") -> Chat:
        """Start a dialogue with the model of an exported folder. Args, Raises: see ``Engine.from_pretrained``."""
        return cls(Engine.from_pretrained(name, options, device))

    def reset(self) -> None:
        """Start a new dialogue."""
        self.session = self.engine.session()
        self.last = None
        self._encoded: list[MediaGroup] = []
        self._encode_s = 0.0
        self._answering = threading.Lock()

    def upload(
        self,
        *,
        video: str | Path | None = None,
        image: str | Path | None = None,
        audio: str | Path | None = None,
        use_audio: bool | None = None,
    ) -> FileMedia:
        """Show a clip, an image or a sound, for the next question and all that follow.

        A dialogue may have several files. The file on disk is not needed after this call.

        Args:
            video: clip; its sound is used too if the model has an audio branch.
            image: image file.
            audio: sound file, or a clip of which only the sound is used.
            use_audio: for clips. True: the sound is required; False: it is ignored; None: it is used if possible.
        Returns:
            The model's input from the file.
        Raises:
            DecodeError: the file cannot be read, or is an address on a network.
            OutOfMemory: encoding it needs more memory than there is.
            VideoLlamaError: sound is required, but the file has no track or the model no audio branch.
        """
        paths: dict[FileKind, str | Path | None] = {"video": video, "image": image, "audio": audio}
        given = [(kind, path) for kind, path in paths.items() if path is not None]
        if len(given) != 1:
            raise VideoLlamaError("upload takes one of video, image and audio")
        (kind, path), session, encoded, start = given[0], self.session, self._encoded, time.perf_counter()
        file = self.engine.encode_file(kind, path, use_audio)
        for k, group in enumerate(file.groups, len(encoded)):
            encoded.append(replace(group, slots=torch.tensor([slot_id(k)])))
        session.show(*file.content.media)
        self._encode_s += time.perf_counter() - start
        return file.content

    def ask(
        self, question: str, settings: GenerationSettings | None = None, *, max_new_tokens: int | None = None
    ) -> str:
        """Answer a question in the context of the dialogue.

        Args:
            question: plain text; nothing in it is read as a file.
            settings: None: greedy.
            max_new_tokens: length limit of the answer; overrides ``settings``.
        Raises:
            PromptTooLong: the question and the files do not fit the decoder, even without earlier turns.
            OutOfMemory: the answer needs more memory than there is.
            VideoLlamaError: the question is empty, a setting makes no sense, or another answer is still streaming.
        """
        return "".join(self.stream(question, settings, max_new_tokens=max_new_tokens))

    def stream(
        self, question: str, settings: GenerationSettings | None = None, *, max_new_tokens: int | None = None
    ) -> Generator[str, None, None]:
        """Answer a question piece by piece as it is generated; with beams, in one piece at the end.

        The pieces add up to what ``ask`` returns. Pieces are empty while beams are searched or the model is in use
        elsewhere. Nothing happens before the first piece is requested. Closing the iterator, as leaving the loop does, stops
        the decoder; so does Ctrl-C. The pieces so far are then kept as the answer, and the dialogue continues; if there
        are none, the question is withdrawn.

        Args, Raises: see ``ask``.
        """
        settings = with_length(settings, max_new_tokens)
        answering = self._answering
        if not answering.acquire(blocking=False):
            raise VideoLlamaError(
                "this dialogue is still being answered: wait for the answer's end, or close its stream"
            )
        try:
            yield from self._answer(question, settings)
        finally:
            answering.release()

    def _answer(self, question: str, settings: GenerationSettings) -> Generator[str, None, None]:
        session, media = self.session, list(self._encoded)  # this dialogue's, even if it is reset meanwhile
        start, encode_s, spec = time.perf_counter(), self._encode_s, self.engine.spec
        text = AnswerText(spec.tokenizer, [spec.template.end_sym])
        times: list[float] = []

        def finish() -> None:
            session.answer(text.text)
            if session is self.session:
                sizes = (len(prompt.input_ids), len(times))
                self.last = AnswerStats(*sizes, times[0], times[-1], encode_s, prompt.dropped_turns)
                self._encode_s -= encode_s

        session.ask(question)
        try:
            room = spec.max_context - settings.max_new_tokens
            prompt = fit(session, spec.tokenizer, spec.tokens_per_slot, room)
            with closing(in_thread(partial(self._generate, prompt.input_ids, media, settings))) as steps:
                for at, tokens in steps:
                    times += [at - start] * len(tokens)
                    piece = "".join(text.feed(token) for token in tokens)
                    if tokens and settings.num_beams > 1:  # that was all
                        piece += text.end()
                    if piece or not tokens:  # an empty piece lets the consumer stop while there is nothing to read
                        yield piece
            if piece := text.end():
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if text.text:
                finish()
            else:
                session.withdraw()
            raise
        except BaseException:
            session.withdraw()
            raise
        finish()

    def _generate(
        self,
        input_ids: Sequence[int],
        media: Sequence[MediaGroup],
        settings: GenerationSettings,
        put: Callable[[tuple[float, Sequence[int]]], None],
    ) -> None:
        """Pass on the tokens of an answer as they come, each with the time."""

        def on_tokens(tokens: Sequence[int]) -> None:
            put((time.perf_counter(), tokens))

        self.engine.generate_tokens(input_ids, media, settings, on_tokens, client=str(id(self)))
