"""What reading a file for training will give, without opening it: media of the right kinds and frames, with no content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_llama.common.modalities import Modalities
from video_llama.common.types import Media
from video_llama.processors.feature_source import FeatureSource
from video_llama.processors.frame_sampling import timestamp_message
from video_llama.processors.media import draws_frames, from_frames, reads_sound_alone
from video_llama.processors.span import Span

TYPICAL_SECONDS = 20.0
"""Assumed duration of a clip: the times of its frames are in the prompt, so that their digits count as tokens."""


def expected_training_media(
    path: Path,
    vis_processor: Any,
    modalities: Modalities,
    audio_processor: Any,
    rng: np.random.Generator,
    span: Span | None = None,
    features: FeatureSource | None = None,
) -> list[Media]:
    """Return what ``read_training_media`` will, as far as names and settings tell: a clip has all its frames, and sound.

    Raises:
        BadRecord: the file has nothing that the model is trained on.
    """
    if reads_sound_alone(path, modalities):
        return [_sound()]
    config = getattr(vis_processor, "config", None)
    n_frames = getattr(config, "n_frms", None)
    only_frames = draws_frames(modalities, rng)
    if n_frames is None or getattr(config, "reads", None) == "images":
        return from_frames(Media("image", torch.empty(3, 1, 0, 0)), modalities)
    start, end = (span.start, span.end) if span else (0.0, None)
    times = np.linspace(start, start + TYPICAL_SECONDS if end is None else end, n_frames, endpoint=False).tolist()
    frames = Media("video", torch.empty(3, n_frames, 0, 0), timestamp_message(times), tuple(times))
    if only_frames:
        return from_frames(frames, modalities)
    return [_sound(), frames] if modalities.video else [_sound()]


def _sound() -> Media:
    return Media("audio", torch.empty(0))
