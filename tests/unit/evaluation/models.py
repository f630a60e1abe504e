"""Tiny random models with fake processors, for tests of evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import tiny
from video_llama.common.errors import NoSoundTrack
from video_llama.common.types import Media
from video_llama.conversation.engine import Engine
from video_llama.models.video_llama import VideoLLaMA
from video_llama.processors.audio import MEL_BINS, MEL_FRAMES
from video_llama.processors.config import AudioConfig
from video_llama.processors.decode import SAMPLE_RATE


def read_frames(path: str | Path, rng: np.random.Generator) -> Media:
    """Two frames for short.mp4, four for any other file, different for each name."""
    name = Path(path).name
    return Media("video", tiny.sample(name, 2 if name == "short.mp4" else 4).media[0].data, "Look.")


class FakeAudio:
    """Two segments of noise for each file, different for each name; mute.mp4 has no track."""

    config = AudioConfig(n_segments=2)

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        name = Path(path).name
        if name == "mute.mp4":
            raise NoSoundTrack(str(path))
        return tiny.sound(2, seed=sum(name.encode()))

    def segment(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return a segment of silence."""
        assert waveform.shape == (1, 2 * SAMPLE_RATE)
        assert not waveform.any()
        return torch.zeros(1, MEL_BINS, MEL_FRAMES)


def engine(folder: Path, *, audio: bool = False) -> Engine:
    """A tiny model with fixed random weights, ready for inference."""
    torch.manual_seed(0)
    settings: dict[str, Any] = dict(tiny.AUDIO) if audio else {}
    model = tiny.model(tiny.write_decoder(folder), **settings).eval()
    spec = VideoLLaMA.sample_spec(model.config)
    if audio:
        tiny.livelier(model)
        spec = replace(spec, audio_processor=FakeAudio())
    return Engine(model, spec, read_frames, read_frames)
