"""The random crop of training images and clips, and the scaling of images.

Shapes: C channels, T frames (absent for an image), H x W pixels, S side of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

ASPECTS = (3 / 4, 4 / 3)
"""Aspect of the narrowest and the widest crop, width over height."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def random_box(height: int, width: int, min_scale: float, max_scale: float, rng: np.random.Generator) -> Box:
    """Draw a rectangle as torchvision's ``RandomResizedCrop`` does: area uniform, aspect uniform in its logarithm.

    Args:
        min_scale, max_scale: bounds of its area, as a fraction of the picture's.
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_scale, max_scale)
        aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    return central_box(height, width)


def central_box(height: int, width: int) -> Box:
    """Return the largest central rectangle of an allowed aspect, for pictures that are too narrow for a random one."""
    w = min(width, max(1, round(height * ASPECTS[1])))
    h = min(height, max(1, round(width / ASPECTS[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def crop(pixels: Tensor, box: Box) -> Tensor:
    """Return [..., box.height, box.width] of [..., H, W]."""
    return pixels[..., box.top : box.top + box.height, box.left : box.left + box.width]


def resize_image(image: Tensor, side: int) -> Tensor:
    """Scale an image to a square, bicubic with antialiasing, with Pillow as in the original: torch differs by up to 2.

    Args:
        image: uint8[3, H, W].
    Returns:
        uint8[3, S, S].
    """
    picture = Image.fromarray(rearrange(image, "c h w -> h w c").numpy())
    scaled = np.array(picture.resize((side, side), Image.Resampling.BICUBIC))
    return rearrange(torch.from_numpy(scaled), "h w c -> c h w").contiguous()
