"""Pictures of what a model is given: frames, and the spectrograms of segments of sound, as data URLs for web pages.

Shapes: T frames, S segments, M mel bins, F spectrogram frames, H x W pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from video_llama.common.types import Media
from video_llama.processors.audio import MEL_FRAMES, MEL_MEAN, MEL_STD, SEGMENT_SECONDS, log_mel

THUMBNAIL = 160
"""Longest side of a frame on a page, in pixels."""

MIN_PEAK = -4.0
"""Lowest peak of the colour scale, in log-mel energy: a file quieter than this is drawn dark."""

DYNAMIC_RANGE = 10.0
"""Range of the colour scale, in log-mel energy: 43 dB. Anything fainter is black."""

MAGMA = np.array(
    [
        *([0, 0, 4], [29, 17, 71], [81, 18, 124], [131, 38, 129], [183, 55, 121]),
        *([231, 82, 99], [252, 137, 97], [254, 196, 136], [252, 253, 191]),
    ]
)
"""Every 32nd colour of matplotlib's map of that name, RGB."""


class Picture(NamedTuple):
    """One picture of a strip."""

    url: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Encoding:
    """How pictures are kept in a page."""

    image_format: Literal["PNG", "WEBP"] = "PNG"
    quality: int = 90
    """Of WebP, 0 to 100."""
    max_side: int = THUMBNAIL
    """Longest side, in pixels; larger pictures are scaled down. Spectrograms keep their size."""
    most: int | None = None
    """Frames, and segments of sound, that are shown of a file, at equal distances. None: all."""


LOSSLESS = Encoding()


def data_url(pixels: NDArray[np.uint8], encoding: Encoding = LOSSLESS) -> str:
    """Return an image, uint8[H, W, 3], as a data URL."""
    image = Image.fromarray(pixels)
    image.thumbnail((encoding.max_side, encoding.max_side))
    file = BytesIO()
    image.save(file, format=encoding.image_format, quality=encoding.quality)
    return f"data:image/{encoding.image_format.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def frame_pictures(media: Media, encoding: Encoding = LOSSLESS) -> Iterator[Picture]:
    """Yield the frames of an image or a clip, with their times."""
    frames = rearrange(media.data, "c t h w -> t h w c").numpy()
    for i in _spread(len(frames), encoding.most):
        time = f"{media.times[i]:.1f} s" if media.times else ""
        yield Picture(data_url(frames[i], encoding), f"frame {i + 1}" + (f", at {time}" if time else ""), time)


def segment_pictures(media: Media, encoding: Encoding = LOSSLESS) -> Iterator[Picture]:
    """Yield the distinct segments of a sound: a model gets a short track as the same segment several times."""
    segments = {start: _log_energy(segment) for segment, start in zip(media.data, media.times, strict=True)}
    peak = max(float(segment.max()) for segment in segments.values())
    whole, starts = replace(encoding, max_side=MEL_FRAMES), list(segments)
    for start in (starts[i] for i in _spread(len(starts), encoding.most)):
        time = f"{start:.1f}–{start + SEGMENT_SECONDS:.1f} s"
        yield Picture(data_url(spectrogram_image(segments[start], peak), whole), f"spectrogram, {time}", time)


def _spread(n: int, most: int | None) -> list[int]:
    """Return up to ``most`` of the numbers below n, at equal distances, with the first and the last."""
    if most is None or n <= most:
        return list(range(n))
    return [round(i) for i in np.linspace(0, n - 1, most)]


def spectrogram_image(log_energy: Tensor, peak: float) -> NDArray[np.uint8]:
    """Draw log-mel energies, float[M, F], as uint8[M, F, 3], with low frequencies at the bottom.

    Args:
        peak: the highest energy in the file.
    """
    level = 1 - (max(peak, MIN_PEAK) - log_energy.flip(0).numpy()) / DYNAMIC_RANGE
    places = np.linspace(0, 1, len(MAGMA))
    return np.stack([np.interp(level, places, channel) for channel in MAGMA.T], -1).astype(np.uint8)


def _log_energy(segment: Tensor) -> Tensor:
    """Return the log-mel energies of a segment, float[M, F], without the padding after the end of a short track.

    Args:
        segment: input of the audio encoder: a spectrogram, float[1, M, F], for ImageBind; a waveform, float[L], for others.
    """
    energy = segment[0] * MEL_STD + MEL_MEAN if segment.ndim == 3 else log_mel(segment[None])[0]
    filled = (energy.abs() > 1e-4).any(0).nonzero()  # padding is 0
    return energy[:, : int(filled[-1]) + 1] if len(filled) else energy
