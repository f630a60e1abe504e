"""Questions on many files, answered in batches; each answer is the one the question would get alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from video_llama.common.errors import DecodeError, OutOfMemory, VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.conversation.engine import Engine, Prompt
from video_llama.conversation.feature_cache import EncodedFile
from video_llama.conversation.generation import check_room
from video_llama.conversation.oom import within_memory
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


def answer_batches(
    engine: Engine,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    n_threads: int = 0,
) -> Iterator[list[FileAnswer | VideoLlamaError]]:
    """Answer questions, a batch at a time.

    A file is read and encoded once for all its questions in a batch and the next. A batch that runs out of memory is
    split and retried.

    Args:
        engine: the model in use.
        batches: the questions.
        settings: of all answers; None: greedy.
        n_threads: threads that read files ahead while a GPU answers. 0: files are read in between, which is best on a CPU.
    Yields:
        For each batch an answer, or an error, for each of its questions.
    """
    needed = [list(dict.fromkeys(asked.file for asked in batch)) for batch in batches]
    new = [[file for file in now if file not in before] for before, now in pairwise([[], *needed])]
    contents = _read_ahead(engine.reader, chain.from_iterable(new), n_threads)
    known: dict[File, EncodedFile | VideoLlamaError] = {}
    for batch, files, fresh in zip(batches, needed, new, strict=True):
        known |= zip(fresh, _encoded(engine, list(islice(contents, len(fresh)))), strict=True)
        known = {file: known[file] for file in files}
        yield _answers(
            engine, [(known[asked.file], asked.question) for asked in batch], settings or GenerationSettings()
        )


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


class _Asked(NamedTuple):
    prompt: Prompt
    content: FileMedia


def _answers(
    engine: Engine, asked: Sequence[tuple[EncodedFile | VideoLlamaError, str]], settings: GenerationSettings
) -> list[FileAnswer | VideoLlamaError]:
    """Answer questions on encoded files together; errors are passed through."""

    def answer(part: Sequence[_Asked]) -> list[FileAnswer]:
        texts = engine.generate([one.prompt for one in part], settings)
        return [
            FileAnswer(text, one.content.audio_status, one.content.damage)
            for text, one in zip(texts, part, strict=True)
        ]

    return in_parts(answer, [_asked(engine, file, question, settings) for file, question in asked])


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
