"""Questions on many files, each in a dialogue of its own, answered a batch at a time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from video_llama.common.errors import OutOfMemory, VideoLlamaError
from video_llama.conversation.chat import Chat
from video_llama.conversation.files import EncodedFile, FileKind, FileReader, Upload
from video_llama.conversation.session import Session
from video_llama.conversation.settings import GenerationSettings
from video_llama.conversation.together import Dialogue, answer_together

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


def answer_batches(
    chat: Chat,
    batches: Sequence[Sequence[FileQuestion]],
    settings: GenerationSettings | None = None,
    *,
    num_workers: int = 0,
) -> Iterator[list[str | VideoLlamaError]]:
    """Answer questions, a batch at a time.

    A file is read and encoded once for all its questions in a batch and the next. What goes wrong with a question stands
    in the place of its answer; what a batch has no memory for is done in parts.

    Args:
        chat: the model in use; its own dialogue is not touched.
        batches: what is asked.
        settings: of all answers; None: the greedy ones.
        num_workers: processes that read files ahead, while the model answers; 0: files are read in between.
    Yields:
        For each batch an answer, or an error, for each of its questions.
    """
    needed = [list(dict.fromkeys(asked.file for asked in batch)) for batch in batches]
    new = [[file for file in now if file not in before] for before, now in zip([[], *needed], needed, strict=False)]
    uploads = _read(chat.reader, [file for files in new for file in files], num_workers)
    known: dict[File, EncodedFile | VideoLlamaError] = {}
    for batch, files, fresh in zip(batches, needed, new, strict=True):
        known |= zip(fresh, _encoded(chat, list(itertools.islice(uploads, len(fresh)))), strict=True)
        known = {file: known[file] for file in files}
        yield _answers(chat, [(known[asked.file], asked.question) for asked in batch], settings)


def _read(reader: FileReader, files: Sequence[File], num_workers: int) -> Iterator[Upload | VideoLlamaError]:
    """Yield what is seen and heard of each file, or why nothing is."""
    own = torch.Generator()  # the loader would draw from the one of all
    return iter(DataLoader(_Files(reader, files), batch_size=None, num_workers=num_workers, generator=own))


class _Files(Dataset[Upload | VideoLlamaError]):
    """Files, each read when it is asked for."""

    def __init__(self, reader: FileReader, files: Sequence[File]) -> None:
        self.reader, self.files = reader, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Upload | VideoLlamaError:
        file = self.files[index]
        try:
            return self.reader.read(file.kind, file.path, file.hear)
        except VideoLlamaError as error:
            return error.with_traceback(None)


def _encoded(chat: Chat, uploads: Sequence[Upload | VideoLlamaError]) -> list[EncodedFile | VideoLlamaError]:
    """Run the frozen encoders over files together; errors stay."""

    def encode(part: Sequence[Upload]) -> list[EncodedFile]:
        groups = iter(chat.encode([media for upload in part for media in upload.media]))
        return [EncodedFile(upload, tuple(itertools.islice(groups, len(upload.media)))) for upload in part]

    done = iter(in_parts(encode, [upload for upload in uploads if isinstance(upload, Upload)]))
    return [next(done) if isinstance(upload, Upload) else upload for upload in uploads]


def _answers(
    chat: Chat, asked: Sequence[tuple[EncodedFile | VideoLlamaError, str]], settings: GenerationSettings | None
) -> list[str | VideoLlamaError]:
    """Answer questions on encoded files together; errors stay."""

    def answer(part: Sequence[tuple[EncodedFile, str]]) -> list[str]:
        dialogues = []
        for file, question in part:
            session = Session(chat.context.template)
            session.show(*file.upload.media)
            session.ask(question)
            dialogues.append(Dialogue(session, file.groups))
        return answer_together(chat, dialogues, settings)

    done = iter(in_parts(answer, [(file, question) for file, question in asked if isinstance(file, EncodedFile)]))
    return [next(done) if isinstance(file, EncodedFile) else file for file, _ in asked]


def in_parts(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | VideoLlamaError]:
    """Do work on all items at once and, where that fails, on either half, down to the items that are to blame."""
    if not items:
        return []
    try:
        return list(work(items))
    except VideoLlamaError as error:
        if len(items) == 1:
            return [error.with_traceback(None)]  # which would keep the tensors of the work
        if isinstance(error, OutOfMemory):
            log.warning(
                "out of memory with %d at once: doing them in halves. Smaller batches save the time.", len(items)
            )
    half = len(items) // 2
    return in_parts(work, items[:half]) + in_parts(work, items[half:])
