"""The file of a question: a whole clip, a part of one, or a folder of frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.errors import DecodeError
from video_llama.common.protocols import ClipProcessor, OpenClip
from video_llama.common.types import Media
from video_llama.conversation.file import File
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.processors.decode.frame_folder import FrameClock, FrameFolder
from video_llama.processors.media import FileMedia, MediaReader
from video_llama.processors.span import Span, SpanOfVideo


@dataclass(frozen=True)
class ClipPart(File):
    """A part of a clip, or of a folder of frames, which is read as if it were a file of its own."""

    start: float = 0.0
    end: float | None = None
    """In seconds; None: to the end."""
    fps: float | None = None
    """Frames per second of a folder; None: a file."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the part.

        Raises:
            DecodeError: it cannot be read, or ends before the part starts.
        """
        if not isinstance(reader.video, ClipProcessor):
            raise DecodeError(
                str(self.path), f"a part of it is asked for, and {type(reader.video).__name__} reads whole files"
            )
        return replace(reader, video=_PartReader(reader.video, self), features=None).read(
            "video", self.path, self.use_audio
        )


@dataclass(frozen=True)
class _PartReader:
    """A ``ClipProcessor`` that reads a part of each clip."""

    processor: Any
    part: ClipPart

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        return self.read(self.open(path), rng)

    def open(self, path: str | Path) -> OpenClip:
        part, config = self.part, self.processor.config
        if part.fps is None:
            clip: Any = self.processor.open(path)
        else:
            clip = FrameFolder(path, FrameClock(part.fps), (config.image_size, config.image_size), config.deadline_s)
        if part.start == 0 and part.end is None:
            return clip
        return SpanOfVideo(str(path), clip, Span(part.start, part.end))

    def read(self, video: Any, rng: np.random.Generator) -> Media:
        return self.processor.read(video, rng)


def file_of(record: QuestionRecord, path: Path, use_audio: bool | None) -> File:
    """Return the file of a question.

    Args:
        record: the question.
        path: of its clip.
        use_audio: what is done with the sound of clips; see ``MediaReader.read``.
    """
    use_audio = use_audio if record.kind == "video" else None
    if record.span is None and record.fps is None:
        return File(record.kind, str(path), use_audio)
    start, end = record.span or (0.0, None)
    return ClipPart(record.kind, str(path), use_audio, start, end, record.fps)
