"""Files of requests, and how clips are read where a request says it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video_llama.common.errors import NoSoundTrack, VideoLlamaError
from video_llama.conversation.file import File
from video_llama.processors.decode.frame_folder import FrameClock, FrameFolder
from video_llama.processors.media import AUDIO_OFF, NO_AUDIO_TRACK, FileMedia, MediaReader

SENT_FPS = 1.0
"""Frames per second of a clip that is sent as frames, which say nothing of their times."""


class Sampling(NamedTuple):
    """How frames are chosen; None: as the model's config says."""

    n_frames: int | None = None
    rule: str | None = None
    """See ``VideoConfig.sampling``."""
    fps: float | None = None

    def applied(self, processor: Any) -> Any:
        """Return a processor of clips that chooses frames like this.

        Raises:
            VideoLlamaError: it has no such settings.
        """
        if self == AS_CONFIGURED:
            return processor
        changes: dict[str, Any] = {} if self.n_frames is None else {"n_frms": self.n_frames}
        if self.rule is not None:
            changes |= {"sampling": self.rule, "fps": self.fps if self.rule == "fps" else None}
        try:
            return type(processor)(replace(processor.config, **changes))
        except (TypeError, AttributeError) as error:
            raise VideoLlamaError(
                "the model's processor of clips does not let requests choose frames: leave out num_frames and sampling"
            ) from error


AS_CONFIGURED = Sampling()


@dataclass(frozen=True)
class ServedFile(File):
    """A file of a request."""

    path: str | Path = field(compare=False)
    """Where its content tells it from others, its place does not."""
    sampling: Sampling = AS_CONFIGURED
    """Of the frames of a clip."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the file. See ``MediaReader.read``."""
        if self.kind == "video":
            reader = replace(reader, video=self.sampling.applied(reader.video))
        return reader.read(self.kind, self.path, self.use_audio)


@dataclass(frozen=True)
class SentFrames(ServedFile):
    """A clip that was sent as frames, in a folder."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the frames. A clip has no sound then."""
        if self.use_audio:
            raise NoSoundTrack(str(self.path))
        processor = self.sampling.applied(reader.video)
        config = processor.config
        size = (config.image_size, config.image_size)
        clip = FrameFolder(self.path, FrameClock(fps=SENT_FPS), size, config.deadline_s)
        status = AUDIO_OFF if reader.audio is None or self.use_audio is False else NO_AUDIO_TRACK
        return FileMedia(processor.read(clip, np.random.default_rng(0)), audio_status=status)
