"""Questions on many files, answered a batch at a time, each as it would be alone.

Shapes: L tokens.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from video_llama.common.errors import DecodeError, OutOfMemory, VideoLlamaError
from video_llama.common.types import Media, MediaGroup, slot_id
from video_llama.conversation.chat import Chat
from video_llama.conversation.files import EncodedFile, FileKind, FileReader, Upload
from video_llama.conversation.generation import check_room, generate
from video_llama.conversation.oom import within_memory
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.prompts.labels import encode


class Prompt(NamedTuple):
    """A question on a file, as the decoder gets it."""

    input_ids: list[int]
    """L token ids, with slot ids in them."""
    encoded: Sequence[MediaGroup]
    """What the slots stand for, in the order of the prompt, encoded, each of row 0."""


def prompt_of(chat: Chat, question: str, media: Sequence[Media], encoded: Sequence[MediaGroup]) -> Prompt:
    """Put a question on a file, in a dialogue of its own.

    Args:
        chat: the model in use.
        question: what is asked.
        media: what is heard, what is seen, or both in that order.
        encoded: the same after the frozen encoders.
    Raises:
        VideoLlamaError: the question is empty.
    """
    session = Session(chat.context.template)
    session.show(*media)
    session.ask(question)
    return Prompt(encode(session.prompt(), chat.context.tokenizer, chat.context.tokens_per_slot).input_ids, encoded)


def generate_batch(chat: Chat, prompts: Sequence[Prompt], settings: GenerationSettings | None = None) -> list[str]:
    """Answer prompts, with the model of ``chat``.

    Raises:
        PromptTooLong: a prompt and its answer do not fit into the decoder's context.
        OutOfMemory: fewer prompts at once may fit.
    """
    return generate(
        chat.model,
        chat.context.tokenizer,
        [prompt.input_ids for prompt in prompts],
        in_rows([prompt.encoded for prompt in prompts]),
        stop=chat.context.template.end_sym,
        settings=settings,
    )


def in_rows(rows: Sequence[Sequence[MediaGroup]]) -> list[MediaGroup]:
    """Group the encoded media of all rows by slot, kind and length."""
    found: dict[tuple[int, str, int], list[tuple[int, MediaGroup]]] = defaultdict(list)
    for row, groups in enumerate(rows):
        for k, group in enumerate(groups):
            found[k, group.kind, group.frames.shape[1]].append((row, group))
    return [
        MediaGroup(
            members[0][1].kind,
            torch.cat([group.frames for _, group in members]),
            torch.tensor([row for row, _ in members]),
            torch.full((len(members),), slot_id(k)),
            encoded=True,
        )
        for (k, _, _), members in found.items()
    ]


log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class File:
    """A file to ask about; ``hear`` is for clips, see ``Chat.upload``."""

    kind: FileKind
    path: str | Path
    hear: bool | None = None


@dataclass(frozen=True)
class FileQuestion:
    """A question on a file."""

    file: File
    question: str


@dataclass(frozen=True)
class FileAnswer:
    """The answer to a question on a file."""

    text: str
    sound: str
    """What became of the file's sound, see ``Upload``."""


def answer_batches(
    chat: Chat,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    n_threads: int = 0,
) -> Iterator[list[FileAnswer | VideoLlamaError]]:
    """Answer questions, a batch at a time.

    A file is read and encoded once for all its questions in a batch and the next. What goes wrong with a question stands
    in the place of its answer; what a batch has no memory for is done in parts.

    Args:
        chat: the model in use; its own dialogue is not touched.
        batches: what is asked.
        settings: of all answers; None: the greedy ones.
        n_threads: threads that read files ahead, while a GPU answers; 0: files are read in between, as is best on a CPU.
    Yields:
        For each batch an answer, or an error, for each of its questions.
    """
    needed = [list(dict.fromkeys(asked.file for asked in batch)) for batch in batches]
    new = [[file for file in now if file not in before] for before, now in zip([[], *needed], needed, strict=False)]
    uploads = _read_ahead(chat.reader, chain.from_iterable(new), n_threads)
    known: dict[File, EncodedFile | VideoLlamaError] = {}
    for batch, files, fresh in zip(batches, needed, new, strict=True):
        known |= zip(fresh, _encoded(chat, list(islice(uploads, len(fresh)))), strict=True)
        known = {file: known[file] for file in files}
        yield _answers(chat, [(known[asked.file], asked.question) for asked in batch], settings or GenerationSettings())


def _read_ahead(reader: FileReader, files: Iterable[File], n_threads: int) -> Iterator[Upload | VideoLlamaError]:
    """Yield what is seen and heard of each file, or why nothing is; each thread has read up to two files ahead."""
    if n_threads == 0:
        yield from (_read(reader, file) for file in files)
        return
    pool, left, reading = ThreadPoolExecutor(n_threads), iter(files), deque[Future[Upload | VideoLlamaError]]()
    try:
        while True:
            reading.extend(pool.submit(_read, reader, file) for file in islice(left, 2 * n_threads - len(reading)))
            if not reading:
                return
            yield reading.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(reader: FileReader, file: File) -> Upload | VideoLlamaError:
    try:
        return within_memory(reader.read)(file.kind, file.path, file.hear)
    except VideoLlamaError as error:
        return error.with_traceback(None)
    except Exception as error:  # of thousands of files, one that nobody has foreseen must not end the work
        log.exception("%s: not read, for a reason that was not foreseen", file.path)
        return DecodeError(str(file.path), f"cannot be read: {error!r}")


def _encoded(chat: Chat, uploads: Sequence[Upload | VideoLlamaError]) -> list[EncodedFile | VideoLlamaError]:
    """Run the frozen encoders over files together; errors stay."""

    def encode(part: Sequence[Upload]) -> list[EncodedFile]:
        groups = iter(chat.encode([media for upload in part for media in upload.media]))
        return [EncodedFile(upload, tuple(islice(groups, len(upload.media)))) for upload in part]

    return in_parts(encode, uploads)


class _Asked(NamedTuple):
    prompt: Prompt
    sound: str


def _answers(
    chat: Chat, asked: Sequence[tuple[EncodedFile | VideoLlamaError, str]], settings: GenerationSettings
) -> list[FileAnswer | VideoLlamaError]:
    """Answer questions on encoded files together; errors stay."""

    def answer(part: Sequence[_Asked]) -> list[FileAnswer]:
        texts = generate_batch(chat, [one.prompt for one in part], settings)
        return [FileAnswer(text, one.sound) for text, one in zip(texts, part, strict=True)]

    return in_parts(answer, [_asked(chat, file, question, settings) for file, question in asked])


def _asked(
    chat: Chat, file: EncodedFile | VideoLlamaError, question: str, settings: GenerationSettings
) -> _Asked | VideoLlamaError:
    """Put a question on an encoded file, or return why it cannot be asked."""
    if isinstance(file, VideoLlamaError):
        return file
    try:
        prompt = prompt_of(chat, question, file.upload.media, file.groups)
        check_room(len(prompt.input_ids), settings, chat.context.max_context)
    except VideoLlamaError as error:
        return error.with_traceback(None)
    return _Asked(prompt, file.upload.sound)


def in_parts(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T | VideoLlamaError]
) -> list[R | VideoLlamaError]:
    """Do work on all items at once and, where that fails, on either half, down to those to blame; errors stay."""
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
