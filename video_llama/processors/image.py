"""Images: read, for training cropped, and scaled. They leave as uint8 clips of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from torch import Tensor

from video_llama.common.registry import PROCESSORS
from video_llama.common.types import Media
from video_llama.config.fields import AtLeast, Between
from video_llama.processors.crop import crop, random_box, resize_image
from video_llama.processors.decode import read_image


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What reading an image needs."""

    image_size: Annotated[int, AtLeast(1)] = 224
    """Side of the square image, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageTrainConfig(ImageConfig):
    """What reading and cropping an image needs."""

    min_scale: Annotated[float, Between(0, 1)] = 0.5
    """Least area of the random crop, as a part of the image's."""

    max_scale: Annotated[float, Between(0, 1)] = 1.0
    """Greatest area of the random crop, as a part of the image's."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield each field that contradicts another, with what is wrong."""
        if self.min_scale > self.max_scale:
            yield "min_scale", f"{self.min_scale} is above max_scale, {self.max_scale}"


@PROCESSORS.register("blip2_image_train")
class Blip2ImageTrain:
    """A random crop of an image. No flip, as in the original: captions tell left from right."""

    Config = ImageTrainConfig

    def __init__(self, config: ImageTrainConfig) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read and crop an image. All chance comes from ``rng``.

        Returns:
            Media: frames uint8[3, 1, S, S], S = ``image_size``.
        Raises:
            DecodeError: the file cannot be read.
        """
        image = read_image(path)
        box = random_box(image.shape[-2], image.shape[-1], self.config.min_scale, self.config.max_scale, rng)
        return _media(resize_image(crop(image, box), self.config.image_size))


@PROCESSORS.register("blip2_image_eval")
class Blip2ImageEval:
    """The whole image, scaled to a square without keeping its aspect."""

    Config = ImageConfig

    def __init__(self, config: ImageConfig) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read and scale an image; nothing is drawn from ``rng``. See ``Blip2ImageTrain.__call__``."""
        return _media(resize_image(read_image(path), self.config.image_size))


def _media(image: Tensor) -> Media:
    """Make a clip of one frame, uint8[3, 1, S, S], of an image, uint8[3, S, S]."""
    return Media("image", image[:, None].contiguous())
