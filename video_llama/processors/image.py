"""Read, crop (for training) and scale images, to uint8 clips of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from video_llama.common.registry import PROCESSORS
from video_llama.common.types import Media
from video_llama.processors.config import ImageConfig, ImageTrainConfig
from video_llama.processors.crop import crop, random_box, resize_image
from video_llama.processors.decode import read_image


@PROCESSORS.register("blip2_image_train")
class Blip2ImageTrain:
    """A random crop of an image, not flipped, as in the original: captions distinguish left and right."""

    Config = ImageTrainConfig

    def __init__(self, config: ImageTrainConfig) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read and crop an image; ``rng`` draws the crop.

        Returns:
            Media: data uint8[3, 1, S, S], S = ``image_size``.
        Raises:
            DecodeError: the file cannot be read.
        """
        image = read_image(path)
        box = random_box(image.shape[-2], image.shape[-1], self.config.min_scale, self.config.max_scale, rng)
        return _media(resize_image(crop(image, box), self.config.image_size))


@PROCESSORS.register("blip2_image_eval")
class Blip2ImageEval:
    """The whole image, scaled to a square regardless of its aspect."""

    Config = ImageConfig

    def __init__(self, config: ImageConfig) -> None:
        self.config = config

    def __call__(self, path: str | Path, rng: np.random.Generator) -> Media:
        """Read and scale an image; ``rng`` is not used. See ``Blip2ImageTrain.__call__``."""
        return _media(resize_image(read_image(path), self.config.image_size))


def _media(image: Tensor) -> Media:
    """Return an image, uint8[3, S, S], as a clip of one frame, uint8[3, 1, S, S]."""
    return Media("image", image[:, None].contiguous())
