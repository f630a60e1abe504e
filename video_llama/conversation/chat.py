"""A dialogue with a model: show it files, ask questions."""

from __future__ import annotations

import copy
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from video_llama.common.errors import ConfigError, VideoLlamaError
from video_llama.common.registry import MODELS
from video_llama.common.types import Media, MediaGroup, slot_id
from video_llama.config.loader import load_config
from video_llama.config.serialize import registered_class
from video_llama.conversation.feature_cache import FeatureCache, file_key
from video_llama.conversation.files import NO_TRACK, OFF, USED, EncodedFile, FileKind, FileReader, Upload
from video_llama.conversation.generation import generate_tokens, with_length
from video_llama.conversation.loading import device_for_use, processors_for_use
from video_llama.conversation.oom import within_memory
from video_llama.conversation.session import Session, fit
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.stats import AnswerStats
from video_llama.conversation.streaming import AnswerText, in_thread
from video_llama.prompts.sample_spec import SampleSpec


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
    >>> chat.reset()  # a new dialogue; with the same file, it is not encoded again
    >>> friend = chat.another()  # a dialogue of another user, beside this one

    A question may come before any file: the decoder then answers as it would without a branch.

    A dialogue that grows too long for the decoder's context goes on without its oldest turns, of which ``last`` tells; the
    files shown stay. Every error that a user can cause is a ``VideoLlamaError``, and leaves the dialogue as it was.

    Dialogues made with ``another`` may be used from several threads at once, one thread for each: their answers wait for
    each other where they use the model.

    Args:
        model: built, filled, in eval mode.
        context: its tokenizer, template and slot sizes.
        video_processor: reads clips.
        image_processor: reads images.
    """

    last: AnswerStats | None
    """What the last answer took; None before the first."""

    def __init__(self, model: Any, context: SampleSpec, video_processor: Any, image_processor: Any) -> None:
        self.model, self.context = model, context
        self.video_processor, self.image_processor = video_processor, image_processor
        self._model_lock = threading.RLock()
        self._encodings = FeatureCache()
        self.reset()

    @classmethod
    def from_config(cls, cfg_path: str | Path, options: Iterable[str] = (), device: str = "auto") -> Chat:
        """Build the model of a YAML for use.

        Args:
            cfg_path: such as ``eval_configs/toy.yaml``.
            options: ``key=value`` overrides.
            device: cpu, cuda, or auto: a GPU where there is one.
        Raises:
            ConfigError: the YAML is wrong, or lacks what its model needs in use.
        """
        chosen = device_for_use(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)  # where quantised decoders are loaded
        job = load_config(cfg_path, options, also=("datasets",))
        video, image = processors_for_use(job)
        model_class: Any = registered_class(MODELS, job.model)
        try:
            config = job.model.for_inference()
        except ConfigError as error:
            raise ConfigError([f"{cfg_path}: {problem}" for problem in error.problems]) from error
        context = model_class.sample_spec(config)
        model = model_class.from_config(config).to(chosen).eval()
        return cls(model, context, video, image)

    def another(self) -> Chat:
        """Return a new dialogue with the same model, which also knows the files that were encoded already."""
        chat = copy.copy(self)
        chat.reset()
        return chat

    def reset(self) -> None:
        """Start a new dialogue."""
        self.session = Session(self.context.template)
        self.last = None
        self._encoded: list[MediaGroup] = []
        self._encode_s = 0.0
        self._answering = threading.Lock()

    @property
    def hears(self) -> bool:
        """Whether the model has an audio branch."""
        return self.context.audio_processor is not None

    def upload(
        self,
        *,
        video: str | Path | None = None,
        image: str | Path | None = None,
        audio: str | Path | None = None,
        hear: bool | None = None,
    ) -> Upload:
        """Show a clip, an image or a sound; the next question is about it, and those after may be.

        A dialogue may have several files. Once shown, a file is not needed any more.

        Args:
            video: clip, of which the sound is heard where the model has an audio branch.
            image: picture.
            audio: file of sound alone, or a clip of which nothing is seen.
            hear: of a clip, True: its sound must be heard; False: it is not. None: it is where that is possible.
        Returns:
            What the model sees and hears.
        Raises:
            DecodeError: the file cannot be read, or is an address on a network.
            OutOfMemory: encoding it needs more memory than there is.
            VideoLlamaError: sound is asked for, and there is no track or no audio branch.
        """
        session, encoded, start = self.session, self._encoded, time.perf_counter()
        file = self.encode_file(video=video, image=image, audio=audio, hear=hear)
        for k, group in enumerate(file.groups, len(encoded)):
            encoded.append(replace(group, slots=torch.tensor([slot_id(k)])))
        session.show(*file.upload.media)
        self._encode_s += time.perf_counter() - start
        return file.upload

    def encode_file(
        self,
        *,
        video: str | Path | None = None,
        image: str | Path | None = None,
        audio: str | Path | None = None,
        hear: bool | None = None,
    ) -> EncodedFile:
        """Read a file and run the frozen encoders over it, without showing it. See ``upload``."""
        given: dict[FileKind, Any] = {"video": video, "image": image, "audio": audio}
        paths = [(kind, path) for kind, path in given.items() if path is not None]
        if len(paths) != 1:
            raise VideoLlamaError("upload takes one of video, image and audio")
        (kind, path), reader = paths[0], self.reader
        key = file_key(path, kind, hear, reader.identity(kind))
        if (file := self._encodings.get(key)) is None:
            upload = reader.read(kind, path, hear)
            with self._model_lock:  # while it was waited for, another dialogue may have encoded the same file
                if (file := self._encodings.get(key)) is None:
                    file = EncodedFile(upload, self.encode(upload.media))
                    if upload.sound in (USED, NO_TRACK, OFF):  # what failed may go well another time
                        self._encodings.put(key, file)
        return file

    @property
    def reader(self) -> FileReader:
        """How files become what the model sees and hears."""
        return FileReader(self.video_processor, self.image_processor, self.context.audio_processor)

    @within_memory
    @torch.no_grad()
    def encode(self, media: Sequence[Media]) -> tuple[MediaGroup, ...]:
        """Run the frozen encoders, over media of one kind and length together.

        Returns:
            A group for each item, of row 0 and slots -1, -2, ...
        """
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for k, item in enumerate(media):
            alike[item.kind, item.frames.shape].append(k)
        groups = [
            MediaGroup(
                media[members[0]].kind,
                torch.stack([media[k].frames for k in members]),
                torch.zeros(len(members), dtype=torch.int64),
                torch.tensor([slot_id(k) for k in members]),
            )
            for members in alike.values()
        ]
        with self._model_lock:
            device = next(self.model.parameters()).device
            encoded = self.model.encode_frozen([group.mapped(lambda t: t.to(device)) for group in groups])
        found = {}
        for group in encoded:
            for i, slot in enumerate(group.slots.tolist()):
                found[slot] = group.mapped(lambda t, i=i: t[i : i + 1])
        return tuple(found[slot_id(k)] for k in range(len(media)))

    def ask(
        self, question: str, settings: GenerationSettings | None = None, *, max_new_tokens: int | None = None
    ) -> str:
        """Answer a question, taking the dialogue so far into account.

        Args:
            question: what the person says; nothing in it is taken for a file.
            settings: None: the greedy answer.
            max_new_tokens: longest answer, in place of that of ``settings``.
        Raises:
            PromptTooLong: the question and the files shown do not fit the decoder, even without the turns before.
            OutOfMemory: the answer needs more memory than there is.
            VideoLlamaError: the question is empty, a setting makes no sense, or an answer is still being given.
        """
        return "".join(self.stream(question, settings, max_new_tokens=max_new_tokens))

    def stream(
        self, question: str, settings: GenerationSettings | None = None, *, max_new_tokens: int | None = None
    ) -> Generator[str, None, None]:
        """Answer a question piece by piece, as the decoder goes on; with beams, in one piece at the end.

        While beams are searched, or the model is in use elsewhere, the pieces are empty. Nothing happens before the first piece is asked for. Together the pieces are what ``ask`` returns. Closing the
        iterator, as leaving the loop does, stops the decoder; so does an interrupt (Ctrl-C). The pieces that came are
        then kept as the answer, and the dialogue goes on; where none came, it is as if nothing had been asked.

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
        start, encode_s = time.perf_counter(), self._encode_s
        text = AnswerText(self.context.tokenizer, [self.context.template.end_sym])
        times: list[float] = []

        def finish() -> None:
            session.answer(text.said)
            if session is self.session:
                sizes = (len(prompt.input_ids), len(times))
                self.last = AnswerStats(*sizes, times[0], times[-1], encode_s, prompt.dropped_turns)
                self._encode_s -= encode_s

        session.ask(question)
        try:
            room = self.context.max_context - settings.max_new_tokens
            prompt = fit(session, self.context.tokenizer, self.context.tokens_per_slot, room)
            with closing(in_thread(partial(self._generate, prompt.input_ids, media, settings))) as steps:
                for at, tokens in steps:
                    times += [at - start] * len(tokens)
                    piece = "".join(text.feed(token) for token in tokens)
                    if tokens and settings.num_beams > 1:  # that was all
                        piece += text.end()
                    if piece or not tokens:  # an empty piece lets the reader stop while there is nothing to read
                        yield piece
            if piece := text.end():
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if text.said:
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
        prompt: Sequence[int],
        media: Sequence[MediaGroup],
        settings: GenerationSettings,
        put: Callable[[tuple[float, Sequence[int]]], None],
    ) -> None:
        """Hand over the tokens of an answer as they come, with the time; of beams all at the end, and nothing before."""

        def tell(tokens: Sequence[int]) -> None:
            put((time.perf_counter(), tokens))

        while not self._model_lock.acquire(timeout=0.1):
            tell([])  # ends the wait where nobody wants the answer any more
        try:
            model, tokenizer, stops = self.model, self.context.tokenizer, [[self.context.template.end_sym]]
            (answer,) = generate_tokens(model, tokenizer, [prompt], media, stops, settings, tell)
        finally:
            self._model_lock.release()
        if settings.num_beams > 1:
            tell(answer)
