"""Settings of the processors. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from video_llama.common.registry import VIDEO_BACKENDS
from video_llama.config.fields import Operational, RegisteredName

Sampling = Literal["uniform", "headtail", "fps"]

Channels = Literal["mix", "first"]
"""What is used of a sound of several channels: their mean, or the first alone."""

MAX_LOST = 0.1
"""Default of ``AudioConfig.max_lost``."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Settings for reading a clip."""

    reads: ClassVar[str] = "clips"

    n_frms: Annotated[int, Ge(1)] = 8
    """Frames taken from a clip, all of them if it has fewer; with ``sampling: fps``, at most so many."""

    image_size: Annotated[int, Ge(1)] = 224
    """Side of the square frames, in pixels."""

    sampling: Sampling = "uniform"
    """``uniform``: frames at equal distances; ``headtail``: drawn at random, half from each half of the clip; ``fps``: so many
    per second of the clip, and at equal distances where those are more than ``n_frms``."""

    fps: Annotated[float, Gt(0)] | None = None
    """Frames per second of a clip with ``sampling: fps``, which needs it."""

    video_backend: Annotated[str, RegisteredName(VIDEO_BACKENDS)] = "pyav"
    """Library that decodes: ``pyav``; ``torchcodec``, which is optional; ``decord``, for comparison with the original."""

    deadline_s: Annotated[float, Ge(0), Operational()] = 60.0
    """Time that opening a file may take, and again decoding its frames, in seconds."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, and why."""
        if self.sampling == "fps" and self.fps is None:
            yield "sampling", "fps, but fps is not set: give the frames per second, such as fps: 1"
        if self.sampling != "fps" and self.fps is not None:
            yield "fps", f"has no effect with sampling: {self.sampling}; set sampling: fps, or leave it out"


@dataclass(frozen=True, kw_only=True)
class RandomCropConfig:
    """Settings of a random crop."""

    min_scale: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Smallest area of the crop, as a fraction of the picture's."""

    max_scale: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Largest area of the crop, as a fraction of the picture's."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, and why."""
        if self.min_scale > self.max_scale:
            yield "min_scale", f"{self.min_scale} is above max_scale, {self.max_scale}"


@dataclass(frozen=True, kw_only=True)
class VideoTrainConfig(RandomCropConfig, VideoConfig):
    """Settings for reading and cropping a clip."""

    sampling: Sampling = "headtail"
    """See ``VideoConfig``."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, and why."""
        yield from RandomCropConfig.check(self)
        yield from VideoConfig.check(self)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Settings for reading an image."""

    reads: ClassVar[str] = "images"

    image_size: Annotated[int, Ge(1)] = 224
    """Side of the square image, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageTrainConfig(RandomCropConfig, ImageConfig):
    """Settings for reading and cropping an image."""


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Settings for reading a sound track."""

    reads: ClassVar[str] = "sound"

    n_segments: Annotated[int, Ge(1)] = 8
    """S: segments of 2 s at equal distances; they overlap in a track shorter than 2 S seconds."""

    channels: Channels = "mix"
    """The mean of the channels, or the first alone, as in the original."""

    max_lost: Annotated[float, Interval(ge=0, le=1)] = MAX_LOST
    """Largest fraction of a track that may be damaged or missing; the rest of such a track is used. 0: none."""

    deadline_s: Annotated[float, Ge(0), Operational()] = 60.0
    """Time that opening a file may take, and decoding a long track again, in seconds."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Settings for cleaning a caption."""

    reads: ClassVar[str] = "captions"

    prompt: str = ""
    """Text put before every caption, unchanged."""

    max_words: Annotated[int, Ge(1)] | None = None
    """Words kept of a caption, not counting the prompt; longer ones count as truncated. null: all. The original keeps 50."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits on one uploaded file."""

    megabytes: Annotated[int, Ge(1)] = 200
    """Largest file, in MB."""

    minutes: Annotated[float, Gt(0)] = 10
    """Longest video or sound, in minutes."""

    megapixels: Annotated[float, Gt(0)] = 34
    """Largest image or video frame, in millions of pixels; the default admits 8K."""

    deadline_s: Annotated[float, Ge(0), Operational()] = 60.0
    """Time that measuring a file may take, in seconds."""
