"""The kinds of media, and which of them a model takes. Imports no torch, so that Configs can use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MediaKind = Literal["image", "video", "audio", "audio_frames"]
"""Images and clips go to the video branch. The audio branch takes sound, or frames in place of it (audio_frames)."""

FileKind = Literal["video", "image", "audio"]
"""Kinds of files that a question can be about. An audio file may be a clip of which only the sound is used."""

SoundUse = Literal["used", "cut", "absent", "ignored"]
"""What was done with the sound of a clip or a sound file: read whole; read, with parts lost to damage; not there; not read."""

AudioInput = Literal["sound", "frames"]
"""Inputs of an audio encoder."""


@dataclass(frozen=True)
class Modalities:
    """Which branches a training sample feeds, and with what."""

    video: bool = True
    """Images and the frames of clips go to the video branch."""
    audio_source: Literal["frames", "sound", "both"] | None = None
    """Input of the audio branch: frames, as in the original; sound; or one of the two, drawn for each sample."""
