"""Questions on many files, answered in batches; each answer is the one the question would get alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from video_llama.common.errors import DecodeError, OutOfMemory, VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.conversation.engine import Engine
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.generation import check_room
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.scheduler import Answer
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.media import AudioStatus, FileMedia, MediaReader

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class File:
    """A file to ask about. A subclass may change what the model gets of it; all of its fields identify an answer."""

    kind: FileKind
    path: str | Path
    use_audio: bool | None = None
    """For clips, see ``MediaReader.read``."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the file. See ``MediaReader.read``."""
        return reader.read(self.kind, self.path, self.use_audio)


@dataclass(frozen=True)
class FileQuestion:
    """A question on a file."""

    file: File
    question: str


@dataclass(frozen=True)
class FileAnswer:
    """The answer to a question on a file."""

    text: str
    audio_status: AudioStatus
    damage: str = ""
    """See ``FileMedia``."""


Outcome: TypeAlias = FileAnswer | VideoLlamaError


class _Asked(NamedTuple):
    prompt: Prompt
    content: FileMedia


def answer_batches(
    engine: Engine,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    n_threads: int = 0,
) -> Iterator[tuple[int, Outcome]]:
    """Answer questions, as many at once as the largest batch has.

    The files of a batch are read and encoded together, each once for all its questions in this batch and the next. An answer
    that ends makes room for the next question, if the decoder and the settings allow it (``Engine.schedules``); otherwise the
    questions of a batch are answered together. What runs out of memory is done in smaller parts.

    Args:
        engine: the model in use.
        batches: the questions.
        settings: of all answers; None: greedy.
        n_threads: threads that read files ahead while a GPU answers. 0: files are read in between, which is best on a CPU.
    Yields:
        The answer to each question, or its error, as it is found; with the number of the question, counted over all batches.
    """
    settings = settings or GenerationSettings()
    asked = _asked_batches(engine, batches, settings, n_threads)
    if engine.schedules(settings):
        yield from _continuously(engine, asked, settings, max((len(batch) for batch in batches), default=1))
        return
    for numbers, batch in asked:
        yield from zip(numbers, _answers(engine, batch, settings), strict=True)


def _asked_batches(
    engine: Engine, batches: Sequence[Sequence[FileQuestion]], settings: GenerationSettings, n_threads: int
) -> Iterator[tuple[range, list[_Asked | VideoLlamaError]]]:
    """Yield the numbers and the prompts of each batch, whose files are encoded."""
    first = 0
    for batch, known in zip(batches, encoded_files(engine, batches, n_threads), strict=True):
        prompts = [_asked(engine, known[asked.file], asked.question, settings) for asked in batch]
        yield range(first, first + len(batch)), prompts
        first += len(batch)


def encoded_files(
    engine: Engine, batches: Sequence[Sequence[FileQuestion]], n_threads: int, at_once: int | None = None
) -> Iterator[dict[File, EncodedFile | VideoLlamaError]]:
    """Read and encode the files of each batch, except those that the batch before it had too.

    Args:
        engine: the model in use.
        batches: the questions.
        n_threads: see ``answer_batches``.
        at_once: files that are encoded together; None: all new files of a batch.
    """
    needed = [list(dict.fromkeys(asked.file for asked in batch)) for batch in batches]
    new = [[file for file in now if file not in before] for before, now in pairwise([[], *needed])]
    contents = _read_ahead(engine.reader, chain.from_iterable(new), n_threads)
    known: dict[File, EncodedFile | VideoLlamaError] = {}
    for files, fresh in zip(needed, new, strict=True):
        size = at_once or max(1, len(fresh))
        for start in range(0, len(fresh), size):
            part = fresh[start : start + size]
            known |= zip(part, _encoded(engine, list(islice(contents, len(part)))), strict=True)
        known = {file: known[file] for file in files}
        yield known


def _continuously(
    engine: Engine,
    batches: Iterable[tuple[range, Sequence[_Asked | VideoLlamaError]]],
    settings: GenerationSettings,
    n_rows: int,
) -> Iterator[tuple[int, Outcome]]:
    """Answer the questions of all batches, ``n_rows`` at once; a batch is requested when a row is free."""
    scheduler = engine.scheduler(n_rows)
    open_questions: dict[Answer, tuple[int, FileMedia]] = {}

    def ended() -> Iterator[tuple[int, Outcome]]:
        for event in engine.finished(scheduler):
            number, content = open_questions.pop(event.answer)
            yield number, event.error or FileAnswer(event.answer.text.text, content.audio_status, content.damage)

    for numbers, batch in batches:
        for number, one in zip(numbers, batch, strict=True):
            if isinstance(one, VideoLlamaError):
                yield number, one
            else:
                open_questions[scheduler.add(engine.request(one.prompt, settings))] = number, one.content
        while not scheduler.has_room:
            yield from ended()
    while scheduler.busy:
        yield from ended()


def _read_ahead(reader: MediaReader, files: Iterable[File], n_threads: int) -> Iterator[FileMedia | VideoLlamaError]:
    """Yield the media of each file, or its error; each thread reads up to two files ahead."""
    if n_threads == 0:
        yield from (_read(reader, file) for file in files)
        return
    pool, left, reading = ThreadPoolExecutor(n_threads), iter(files), deque[Future[FileMedia | VideoLlamaError]]()
    try:
        while True:
            reading.extend(pool.submit(_read, reader, file) for file in islice(left, 2 * n_threads - len(reading)))
            if not reading:
                return
            yield reading.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(reader: MediaReader, file: File) -> FileMedia | VideoLlamaError:
    try:
        return within_memory(file.read)(reader)
    except VideoLlamaError as error:
        return error.with_traceback(None)
    except Exception as error:  # one bad file in thousands must not end the job
        log.exception("%s: not read, because of an unexpected error", file.path)
        return DecodeError(str(file.path), f"cannot be read: {error!r}")


def _encoded(engine: Engine, contents: Sequence[FileMedia | VideoLlamaError]) -> list[EncodedFile | VideoLlamaError]:
    """Run the frozen encoders over files together; errors are passed through."""

    def encode(part: Sequence[FileMedia]) -> list[EncodedFile]:
        groups = iter(engine.encode([media for content in part for media in content.media]))
        return [EncodedFile(content, tuple(islice(groups, len(content.media)))) for content in part]

    return in_parts(encode, contents)


def _answers(engine: Engine, asked: Sequence[_Asked | VideoLlamaError], settings: GenerationSettings) -> list[Outcome]:
    """Answer questions together; errors are passed through."""

    def answer(part: Sequence[_Asked]) -> list[FileAnswer]:
        texts = engine.generate([one.prompt for one in part], settings)
        return [
            FileAnswer(text, one.content.audio_status, one.content.damage)
            for text, one in zip(texts, part, strict=True)
        ]

    return in_parts(answer, asked)


def _asked(
    engine: Engine, file: EncodedFile | VideoLlamaError, question: str, settings: GenerationSettings
) -> _Asked | VideoLlamaError:
    """Return the prompt of a question on an encoded file, or why there is none."""
    if isinstance(file, VideoLlamaError):
        return file
    try:
        prompt = engine.prompt(question, file)
        check_room(len(prompt.input_ids), settings, engine.spec.max_context)
    except VideoLlamaError as error:
        return error.with_traceback(None)
    return _Asked(prompt, file.content)


def in_parts(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T | VideoLlamaError]
) -> list[R | VideoLlamaError]:
    """Process all items at once; if that fails, each half, down to the items that fail. Errors in ``items`` stay."""
    done = iter(_halved(work, [item for item in items if not isinstance(item, VideoLlamaError)]))
    return [item if isinstance(item, VideoLlamaError) else next(done) for item in items]


def _halved(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | VideoLlamaError]:
    if not items:
        return []
    try:
        return list(work(items))
    except VideoLlamaError as error:
        if len(items) == 1:
            return [error.with_traceback(None)]  # which would keep the tensors of the work
        if isinstance(error, OutOfMemory):
            log.warning("out of memory with %d at once: done in halves. Smaller batches save the time.", len(items))
    half = len(items) // 2
    return _halved(work, items[:half]) + _halved(work, items[half:])
