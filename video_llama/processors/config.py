"""Settings of the processors. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

Sampling = Literal["uniform", "headtail"]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """What reading a clip needs."""

    n_frms: Annotated[int, Ge(1)] = 8
    """Frames taken from a clip; all of them where it has fewer."""

    image_size: Annotated[int, Ge(1)] = 224
    """Side of the square frames, in pixels."""

    sampling: Sampling = "uniform"
    """Which frames: at equal distances, or drawn at random, half from each half of the clip."""

    video_backend: Literal["pyav", "decord"] = "pyav"
    """Library that decodes: decord is for comparison with the original."""

    deadline_s: Annotated[float, Ge(0)] = 60.0
    """Time that opening a file may take, and again decoding its frames, in seconds."""


@dataclass(frozen=True, kw_only=True)
class VideoTrainConfig(VideoConfig):
    """What reading and cropping a clip needs."""

    sampling: Sampling = "headtail"
    """Which frames: at equal distances, or drawn at random, half from each half of the clip."""

    min_scale: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Least area of the random crop, as a part of the frame's."""

    max_scale: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Greatest area of the random crop, as a part of the frame's."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, with what is wrong."""
        if self.min_scale > self.max_scale:
            yield "min_scale", f"{self.min_scale} is above max_scale, {self.max_scale}"


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What reading an image needs."""

    image_size: Annotated[int, Ge(1)] = 224
    """Side of the square image, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageTrainConfig(ImageConfig):
    """What reading and cropping an image needs."""

    min_scale: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Least area of the random crop, as a part of the image's."""

    max_scale: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Greatest area of the random crop, as a part of the image's."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, with what is wrong."""
        if self.min_scale > self.max_scale:
            yield "min_scale", f"{self.min_scale} is above max_scale, {self.max_scale}"


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """What reading a sound track needs."""

    n_segments: Annotated[int, Ge(1)] = 8
    """S: segments of 2 s taken at equal distances; they overlap in a track shorter than 2 S seconds."""

    deadline_s: Annotated[float, Ge(0)] = 60.0
    """Time that opening a file may take, and again decoding its segments where the track is long, in seconds."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """What cleaning a caption needs."""

    prompt: str = ""
    """Text put before every caption, as it is."""

    max_words: Annotated[int, Ge(1)] = 50
    """Words kept of a caption, the prompt not counted."""
