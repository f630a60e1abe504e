"""Decode, sample and crop (for training) clips, to uint8 frames; the model normalises them on its device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from video_llama.common.registry import PROCESSORS
from video_llama.common.types import ClipFrames, Media
from video_llama.processors.bicubic import resize_clip
from video_llama.processors.config import VideoConfig, VideoTrainConfig
from video_llama.processors.crop import crop, random_box
from video_llama.processors.decode import VideoReader, open_video
from video_llama.processors.frame_sampling import Timed, sample, timestamp_message


def read_clip(video: VideoReader, config: VideoConfig, rng: np.random.Generator) -> Media:
    """Read the sampled frames of an open clip, each scaled to a square regardless of its aspect.

    Returns:
        Media: data uint8[3, T, S, S], T = ``min(n_frms, frames in the file)`` or fewer with ``sampling: fps``,
            S = ``image_size``; a view of frames in the order of the decoder, T, S, S, 3.
    Raises:
        DecodeError: the file cannot be read.
    """
    indices = sample(video, config, rng)
    times = tuple(video.times[i] for i in indices)
    frames = rearrange(video.read(indices), "t h w c -> c t h w")
    read = ClipFrames(tuple(indices), tuple(video.times), video.duration)
    return Media("video", frames, timestamp_message(times), times, frames=read)


class VideoProcessor(ABC):
    """Reads clips in one step, or in two, so that the audio can be read from the open file."""

    Config: type[VideoConfig] = VideoConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Open a clip and read it.

        Raises:
            DecodeError: the file cannot be read.
        """
        return self.read(self.open(path), rng)

    def open(self, path: str | Path) -> VideoReader:
        """Open a clip.

        Raises:
            DecodeError: the file cannot be read.
        """
        size = (self.config.image_size, self.config.image_size)
        return open_video(path, self.config.video_backend, size, self.config.deadline_s)

    @abstractmethod
    def read(self, video: VideoReader, rng: np.random.Generator) -> Media:
        """Read an open clip; ``rng`` draws frames and crop. See ``read_clip``."""


@PROCESSORS.register("alpro_video_train")
class AlproVideoTrain(VideoProcessor):
    """Sampled frames with one random crop for the whole clip, not flipped: captions distinguish left and right."""

    Config = VideoTrainConfig

    def read(self, video: VideoReader, rng: np.random.Generator) -> Media:
        """Sample and crop an open clip."""
        media = read_clip(video, self.config, rng)
        side = self.config.image_size
        box = random_box(side, side, self.config.min_scale, self.config.max_scale, rng)
        return replace(media, data=resize_clip(crop(media.data, box), side))


@PROCESSORS.register("alpro_video_eval")
class AlproVideoEval(VideoProcessor):
    """Sampled frames, uncropped."""

    def selected(self, clip: Timed) -> list[int]:
        """Return the frames that are read of a clip. Not with ``sampling: headtail``, which draws them."""
        return sample(clip, self.config, np.random.default_rng(0))

    def read(self, video: VideoReader, rng: np.random.Generator) -> Media:
        """Sample an open clip."""
        media = read_clip(video, self.config, rng)
        return replace(media, data=media.data.contiguous())
