"""A file, as a dialogue shows it: what the model sees and hears of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from video_llama.common.errors import DecodeError, NoSoundTrack, VideoLlamaError
from video_llama.common.types import Media, MediaGroup
from video_llama.processors.decode import open_sound
from video_llama.processors.video import read_frames_and_open_audio

FileKind = Literal["video", "image", "audio"]

USED, NO_TRACK, OFF = "used", "no track", "off"
"""What became of a file's sound, beside the reason why it could not be decoded."""


@dataclass(frozen=True)
class Upload:
    """What the model sees and hears of a file."""

    seen: Media | None = None
    heard: Media | None = None
    sound: str = OFF
    """``used``, ``no track``, ``off``, or the reason why the track could not be decoded."""

    @property
    def media(self) -> tuple[Media, ...]:
        """In the order of the prompt: what is heard, then what is seen."""
        return tuple(media for media in (self.heard, self.seen) if media is not None)


@dataclass(frozen=True)
class EncodedFile:
    """A file with what the frozen encoders made of it."""

    upload: Upload
    groups: tuple[MediaGroup, ...]
    """Encoded, one for each of ``upload.media``, of row 0 and slots -1, -2."""


@dataclass(frozen=True)
class FileReader:
    """Reads files for a model.

    Args:
        video: reads clips.
        image: reads images.
        audio: makes what the audio encoder takes; None: the model has no audio branch.
    """

    video: Any
    image: Any
    audio: Any

    def identity(self, kind: FileKind) -> str:
        """Return what tells apart two ways of reading files of a kind."""
        processors = (self.video, self.audio) if kind == "video" else (getattr(self, kind),)
        return " ".join(f"{processor!r} {getattr(processor, 'config', None)!r}" for processor in processors)

    def read(self, kind: FileKind, path: str | Path, hear: bool | None = None) -> Upload:
        """Read a file. What is asked of ``hear`` and what is raised: see ``Chat.upload``."""
        if is_address(path):
            raise DecodeError(str(path), "an address, not a file: download it first; nothing is fetched here")
        if kind == "video":
            return self._watch(path, hear)
        if hear is not None:
            raise VideoLlamaError(
                "hear (--audio and --no-audio) says what to do with the sound of a clip, and none is shown"
            )
        if kind == "image":
            return Upload(seen=self.image(path, np.random.default_rng(0)))
        self.check_hears()
        return Upload(heard=self.audio.hear(open_sound(str(path))), sound=USED)

    def _watch(self, path: str | Path, hear: bool | None) -> Upload:
        """Read a clip and, as asked for, its sound."""
        if hear:
            self.check_hears()
        rng = np.random.default_rng(0)
        if hear is False or self.audio is None:
            return Upload(seen=self.video(path, rng))
        seen, open_track = read_frames_and_open_audio(path, self.video, rng)
        try:
            return Upload(seen=seen, heard=self.audio.hear(open_track()), sound=USED)
        except NoSoundTrack as error:
            if hear:
                raise VideoLlamaError(
                    f"{error}, and it is demanded (hear=True, or --audio). Leave that out."
                ) from error
            return Upload(seen=seen, sound=NO_TRACK)
        except DecodeError as error:
            if hear:
                raise
            return Upload(seen=seen, sound=error.reason)

    def check_hears(self) -> None:
        """Raise VideoLlamaError if the model has no audio branch."""
        if self.audio is None:
            raise VideoLlamaError(
                "the model has no audio branch. Choose a YAML with model.equip_audio_branch: true, such as "
                "eval_configs/video_llama_eval_withaudio.yaml."
            )


def is_address(path: str | Path) -> bool:
    """Return whether a path is that of something on a network, and not of a file by a strange name."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*:/", str(path), re.IGNORECASE)) and not os.path.exists(path)
