"""Questions with an input removed or replaced, to measure what the model's answers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from video_llama.common.types import Media
from video_llama.conversation.batching import File
from video_llama.processors.audio import SEGMENT_SECONDS
from video_llama.processors.decode import SAMPLE_RATE
from video_llama.processors.media import AUDIO_OFF, AUDIO_USED, AudioStatus, FileMedia, MediaReader

Frames = Literal["own", "black", "none"]
Sound = Literal["own", "silence", "none"]


@dataclass(frozen=True, kw_only=True)
class InputAblation:
    """The inputs that a model gets from each clip."""

    frames: Frames = "own"
    """The clip's frames, black frames, or none."""

    sound: Sound = "none"
    """The clip's sound, silence, or none."""

    sound_from: Mapping[str, str] = field(default_factory=dict)
    """For some clips, another clip of the same folder whose sound is used instead."""

    def file(self, folder: str | Path, clip: str) -> AblatedClip:
        """Return a clip of a folder with this ablation."""
        sound_path = str(Path(folder) / self.sound_from.get(clip, clip)) if self.sound == "own" else None
        return AblatedClip(
            "video", str(Path(folder) / clip), frames=self.frames, sound=self.sound, sound_path=sound_path
        )


FRAMES_ONLY = InputAblation()


@dataclass(frozen=True)
class AblatedClip(File):
    """A clip with an input removed or replaced."""

    frames: Frames = "own"
    sound: Sound = "none"
    sound_path: str | None = None
    """File that the sound is read from."""

    def read(self, reader: MediaReader) -> FileMedia:
        """Read the inputs that are left.

        Raises:
            DecodeError: a file cannot be read.
            NoSoundTrack: the file that sound is wanted from has none.
        """
        audio, status = self._read_audio(reader)
        if self.frames == "black":
            reader = replace(reader, features=None)  # what is stored are features, not frames
        frames = None if self.frames == "none" else reader.read("video", self.path, use_audio=False).frames
        if frames is not None and self.frames == "black":
            frames = replace(frames, data=torch.zeros_like(frames.data))
        return FileMedia(frames, audio, status)

    def _read_audio(self, reader: MediaReader) -> tuple[Media | None, AudioStatus]:
        if self.sound == "none":
            return None, AUDIO_OFF
        if self.sound_path is not None:
            read = reader.read("audio", self.sound_path)
            return read.audio, read.audio_status
        reader.require_audio()
        silence = reader.audio.segment(torch.zeros(1, SEGMENT_SECONDS * SAMPLE_RATE))
        return Media("audio", silence.expand(reader.audio.config.n_segments, *silence.shape)), AUDIO_USED
