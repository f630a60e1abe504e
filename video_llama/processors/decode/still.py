"""Images through Pillow, as upright RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.media_file import MAX_PIXELS, check_media_file, decode_errors


def read_image(path: str | Path) -> Tensor:
    """Read the first frame of an image file, rotated by its EXIF and without transparency.

    Returns:
        uint8[3, H, W], RGB.
    Raises:
        DecodeError: missing, not an image, truncated, or more than ``MAX_PIXELS`` pixels.
    """
    path = str(path)
    check_media_file(path)
    with decode_errors(path, "read it as an image"), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DecodeError(path, f"{image.width} x {image.height} pixels: more than {MAX_PIXELS}")
        pixels = np.array(_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
