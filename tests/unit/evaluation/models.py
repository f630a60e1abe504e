"""Tiny random models with fake processors, for tests of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
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


@dataclass(frozen=True)
class FakeClip:
    """An open clip, and its sound; mute.mp4 has none."""

    path: str | Path
    losses: str = ""

    def sound(self, max_lost: float) -> FakeClip:
        """Open the sound."""
        if Path(self.path).name == "mute.mp4":
            raise NoSoundTrack(str(self.path))
        return self

    def is_silent(self, channels: str) -> bool:
        """It is not."""
        return False


class FakeFrames:
    """One frame for a .png, two for short.mp4, four for any other file, different for each name."""

    config = SimpleNamespace(image_size=tiny.SIDE)

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        name = Path(path).name
        n_frames = 1 if name.endswith(".png") else 2 if name == "short.mp4" else 4
        frames = tiny.sample(name, n_frames).media[0].data
        return Media("image" if n_frames == 1 else "video", frames, "Look.")

    def open(self, path: str | Path) -> FakeClip:
        """Open a clip."""
        return FakeClip(path)

    def read(self, video: FakeClip, rng: np.random.Generator) -> Media:
        """Read its frames."""
        return self(video.path, rng)


class FakeAudio:
    """Two segments of noise for each file, different for each name."""

    config = AudioConfig(n_segments=2)

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        return self.read_track(FakeClip(path).sound(0))

    def read_track(self, sound: FakeClip) -> Media:
        """Read open sound."""
        return tiny.sound(2, seed=sum(Path(sound.path).name.encode()))

    def segment(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return a segment whose values are the loudness."""
        assert waveform.shape == (1, 2 * SAMPLE_RATE)
        return waveform.std().expand(1, MEL_BINS, MEL_FRAMES)


def engine(folder: Path, *, audio: bool = False) -> Engine:
    """A tiny model with fixed random weights, ready for inference."""
    torch.manual_seed(0)
    settings: dict[str, Any] = dict(tiny.AUDIO) if audio else {}
    model = tiny.model(tiny.write_decoder(folder), **settings).eval()
    spec = VideoLLaMA.sample_spec(model.config)
    if audio:
        tiny.livelier(model)
        spec = replace(spec, audio_processor=FakeAudio())
    return Engine(model, spec, FakeFrames(), FakeFrames())
