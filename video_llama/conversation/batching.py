"""Questions on many files, answered in batches; each answer is the one the question would get alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, TypeAlias, TypeVar

from video_llama.common.errors import DecodeError, OutOfMemory, VideoLlamaError
from video_llama.conversation.engine import Engine
from video_llama.conversation.feature_cache import MAX_FILES, EncodedFile
from video_llama.conversation.file import File
from video_llama.conversation.generation import check_room
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import Prompt
from video_llama.conversation.recent_answers import RecentAnswers
from video_llama.conversation.scheduler import Answer
from video_llama.conversation.settings import GenerationSettings
from video_llama.processors.media import AudioStatus, FileMedia, MediaReader

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


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
    altered: bool = False
    """See ``EncodedFile``."""


Outcome: TypeAlias = FileAnswer | VideoLlamaError


class _Asked(NamedTuple):
    prompt: Prompt
    file: EncodedFile

    def answer(self, text: str) -> FileAnswer:
        return FileAnswer(text, self.file.content.audio_status, self.file.content.damage, self.file.altered)


def answer_batches(
    engine: Engine,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    n_threads: int = 0,
) -> Iterator[tuple[int, Outcome]]:
    """Answer questions, as many at once as the largest batch has.

    The files of a batch are read and encoded together, each once for all its questions in this batch and those soon after it.
    An answer that ends makes room for the next question, if the decoder and the settings allow it (``Engine.schedules``), and
    questions that are alike to the model and follow each other closely are answered once. Otherwise the questions of a batch
    are answered together. What runs out of memory is done in smaller parts.

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
    """Read and encode the files of each batch. The ``MAX_FILES`` files that were used last are kept.

    Args:
        engine: the model in use.
        batches: the questions.
        n_threads: see ``answer_batches``.
        at_once: files that are encoded together; None: all new files of a batch.
    """
    needed = [list(dict.fromkeys(asked.file for asked in batch)) for batch in batches]
    steps = list(_steps([list(dict.fromkeys(chain.from_iterable(f.sources for f in files))) for files in needed]))
    contents = _read_ahead(engine.reader, chain.from_iterable(step.fresh for step in steps), n_threads)
    known: dict[File, EncodedFile | VideoLlamaError] = {}
    files: dict[File, EncodedFile | VideoLlamaError] = {}
    for wanted, step in zip(needed, steps, strict=True):
        size = at_once or max(1, len(step.fresh))
        for start in range(0, len(step.fresh), size):
            part = step.fresh[start : start + size]
            known |= zip(part, _encoded(engine, list(islice(contents, len(part)))), strict=True)
        # the same objects for the next batch, which may share what the decoder makes of them
        files = {file: files[file] if file in files else _assembled(file, known) for file in wanted}
        yield files
        for source in step.dropped:
            del known[source]


class _Step(NamedTuple):
    """What is done for a batch."""

    fresh: list[File]
    """Read and encoded before it."""
    dropped: list[File]
    """Dropped after it."""


def _steps(sources: Iterable[Sequence[File]]) -> Iterator[_Step]:
    """Yield what is done for each batch, given the files that it needs."""
    kept: dict[File, None] = {}
    """The least recently used one first."""
    for needed in sources:
        fresh = [file for file in needed if file not in kept]
        for file in needed:
            kept.pop(file, None)
        kept |= dict.fromkeys(needed)
        dropped = list(kept)[: max(0, len(kept) - max(MAX_FILES, len(needed)))]
        for file in dropped:
            del kept[file]
        yield _Step(fresh, dropped)


def _assembled(file: File, known: Mapping[File, EncodedFile | VideoLlamaError]) -> EncodedFile | VideoLlamaError:
    try:
        return file.assembled([known[source] for source in file.sources])
    except VideoLlamaError as error:
        return error.with_traceback(None)


def _continuously(
    engine: Engine,
    batches: Iterable[tuple[range, Sequence[_Asked | VideoLlamaError]]],
    settings: GenerationSettings,
    n_rows: int,
) -> Iterator[tuple[int, Outcome]]:
    """Answer the questions of all batches, ``n_rows`` at once; a batch is requested when a row is free."""
    scheduler = engine.scheduler(n_rows)
    waiting: dict[Answer, list[tuple[int, _Asked]]] = {}
    recent = RecentAnswers()

    def ended() -> Iterator[tuple[int, Outcome]]:
        for event in engine.finished(scheduler):
            if event.error is not None:
                recent.forget(event.answer)
            for number, one in waiting.pop(event.answer):
                yield number, event.error or one.answer(event.answer.text.text)

    for numbers, batch in batches:
        for number, one in zip(numbers, batch, strict=True):
            if isinstance(one, VideoLlamaError):
                yield number, one
            elif (answer := recent.get(one.prompt)) is None:
                answer = scheduler.add(engine.request(one.prompt, settings))
                recent.put(answer)
                waiting[answer] = [(number, one)]
            elif answer in waiting:
                waiting[answer].append((number, one))
            else:
                yield number, one.answer(answer.text.text)
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
        return [one.answer(text) for text, one in zip(texts, part, strict=True)]

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
    return _Asked(prompt, file)


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
