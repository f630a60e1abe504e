"""The pixels of a Pillow image of any mode as 8-bit RGB on white.

Shapes: H x W pixels.
"""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from video_llama.processors.decode.media_file import ffmpeg_url

FULL_SCALES = (255.0, 1023.0, 4095.0, 65535.0)
"""White of the depths that cameras, scanners and screens use: 8, 10, 12 and 16 bits."""

DIM = 15
"""The highest byte of 16-bit values below 4096."""

OVERSHOOT = 0.1
"""How far floating-point pixels may exceed their range, as a fraction of it: resampling overshoots."""

TAG_BITS, TAG_PHOTOMETRIC, TAG_SAMPLE_FORMAT = 258, 262, 339
"""TIFF: bits per sample; 0 if the lowest value is white; 1 if values are unsigned."""


def rgb_on_white(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, its transparent parts white.

    Grey of more than 8 bits, and floating-point grey, is scaled by the range of its values: see ``white_of``. For colour,
    see ``dim_deep_colour``.

    Raises:
        ValueError: floating-point pixels that are not numbers.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _deep_grey(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # it is only None when it converts in place
        return converted
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def white_of(values: NDArray[np.float64], is_float: bool) -> tuple[float, float]:
    """Return which values are black and white: files of more than 8 bits rarely use their whole range.

    Black is 0, and white that of the lowest depth in ``FULL_SCALES`` that holds all values, or 1 for floating point. For
    values that fit none, black and white are the lowest and the highest value.
    """
    low, high = float(values.min()), float(values.max())
    overshoot = OVERSHOOT if is_float else 0.0
    for white in (1.0, *FULL_SCALES) if is_float else FULL_SCALES:
        if low >= -overshoot * white and high <= (1 + overshoot) * white:
            is_nearly_black = is_float and white > 1 and high < 16  # radiance, say, not 8-bit values
            return (low, high) if is_nearly_black else (0.0, white)
    return low, high


def is_deep_colour(image: Image.Image) -> bool:
    """Return whether a still image, before it is decoded, has 16 bits per colour: Pillow keeps the high 8 of them."""
    return (
        isinstance(image, ImageFile.ImageFile)
        and not getattr(image, "is_animated", False)
        and image.mode in ("RGB", "RGBA")
        and any(";16" in str(tile.args) for tile in image.tile)
    )


def dim_deep_colour(path: str, image: Image.Image) -> Image.Image:
    """Return a decoded image of 16 bits per colour, which holds 8, 10 or 12, scaled by the range of its values.

    FFmpeg reads the bits that Pillow drops. An image that uses all 16 is returned as it is.
    """
    if np.asarray(image)[..., :3].max() > DIM:
        return image
    with av.open(ffmpeg_url(path)) as container:
        values = next(container.decode(video=0)).reformat(format="rgba64le").to_ndarray().astype(np.float64)
    if values.shape[:2] != (image.height, image.width):  # Pillow has turned it already
        return image
    _, white = white_of(values[..., :3], is_float=False)
    values[..., :3] *= 255 / white
    values[..., 3] /= 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _deep_grey(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or floating-point grey as RGB."""
    tags = getattr(image, "tag_v2", {})
    raw = np.asarray(image)
    if raw.dtype == np.int32 and tags.get(TAG_BITS) == (32,) and tags.get(TAG_SAMPLE_FORMAT, (1,)) == (1,):
        raw = raw.view(np.uint32)  # Pillow reads unsigned values as signed
    values = raw.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    black, white = white_of(values, image.mode == "F")
    grey = ((values - black) / (white - black or 1) * 255).round().clip(0, 255).astype(np.uint8)
    if tags.get(TAG_PHOTOMETRIC) == 0:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[raw == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
