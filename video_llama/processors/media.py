"""One file to the media of a sample: what is heard, then what is seen, as far as the model is trained on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.errors import BadRecord, NoSoundTrack
from video_llama.common.modalities import Modalities
from video_llama.common.types import Media
from video_llama.processors.decode import open_sound
from video_llama.processors.video import read_frames_and_open_audio

SOUND_ALONE = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus")


def read_media(
    path: Path, vis_processor: Any, modalities: Modalities, audio_processor: Any, rng: np.random.Generator
) -> list[Media]:
    """Read an image, a clip with or without its sound, or sound alone.

    Args:
        path: the file; one with the suffix of a sound file is sound alone.
        vis_processor: reads images or clips.
        modalities: what the model is trained on.
        audio_processor: makes the audio encoder's input of an open track; None where no sound is read.
        rng: all chance comes from it.
    Raises:
        BadRecord: the file has nothing that the model is trained on.
        DecodeError: it cannot be read.
    """
    if path.suffix.lower() in SOUND_ALONE or (modalities.audio_source == "sound" and not modalities.video):
        return [_sound_alone(path, modalities, audio_processor)]
    if modalities.audio_source is None:
        return [vis_processor(path, rng)]
    seen, open_track = read_frames_and_open_audio(path, vis_processor, rng)
    if (
        seen.kind == "image"
        or modalities.audio_source == "frames"
        or (modalities.audio_source == "both" and rng.random() < 0.5)
    ):
        return _from_frames(seen, modalities)
    try:
        heard = audio_processor.hear(open_track())
    except NoSoundTrack:
        return _from_frames(seen, modalities)
    return [heard, seen] if modalities.video else [heard]


def _sound_alone(path: Path, modalities: Modalities, audio_processor: Any) -> Media:
    if modalities.audio_source in (None, "frames"):
        raise BadRecord(f"{path}: sound alone, and the model is not trained on sound")
    try:
        heard: Media = audio_processor.hear(open_sound(path))
    except NoSoundTrack as error:
        raise BadRecord(f"{error}, and nothing else that the model is trained on") from error
    return heard


def _from_frames(seen: Media, modalities: Modalities) -> list[Media]:
    """Return the media of a file of which only the frames are used."""
    heard = [replace(seen, kind="audio_frames")] if modalities.audio_source in ("frames", "both") else []
    return heard + ([seen] if modalities.video else [])
