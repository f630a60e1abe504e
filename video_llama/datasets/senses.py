"""One file to the media of a sample: what is heard, then what is seen, as far as the model is trained on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from video_llama.common.contracts import Media, Senses
from video_llama.common.errors import BadRecord, NoSoundTrack
from video_llama.processors.decode import open_sound
from video_llama.processors.video import look

SOUND_ALONE = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus")


def read_media(path: Path, vis_processor: Any, senses: Senses, rng: np.random.Generator) -> list[Media]:
    """Read an image, a clip with or without its sound, or sound alone.

    Args:
        path: the file; one with the suffix of a sound file is sound alone.
        vis_processor: reads images or clips.
        senses: what the model is trained on.
        rng: all chance comes from it.
    Raises:
        BadRecord: the file has nothing that the model is trained on.
        DecodeError: it cannot be read.
    """
    if path.suffix.lower() in SOUND_ALONE or (senses.hearing == "sound" and not senses.sight):
        return [_sound_alone(path, senses)]
    if senses.hearing is None:
        return [vis_processor(path, rng)]
    seen, open_track = look(path, vis_processor, rng)
    if seen.kind == "image" or senses.hearing == "frames" or (senses.hearing == "both" and rng.random() < 0.5):
        return _from_frames(seen, senses)
    try:
        heard = senses.audio_processor.hear(open_track())
    except NoSoundTrack:
        return _from_frames(seen, senses)
    return [heard, seen] if senses.sight else [heard]


def _sound_alone(path: Path, senses: Senses) -> Media:
    if senses.hearing in (None, "frames"):
        raise BadRecord(f"{path}: sound alone, and the model is not trained on sound")
    try:
        heard: Media = senses.audio_processor.hear(open_sound(path))
    except NoSoundTrack as error:
        raise BadRecord(f"{error}, and nothing else that the model is trained on") from error
    return heard


def _from_frames(seen: Media, senses: Senses) -> list[Media]:
    """Return the media of a file of which only the frames are used."""
    heard = [replace(seen, kind="audio_frames")] if senses.hearing in ("frames", "both") else []
    return heard + ([seen] if senses.sight else [])
