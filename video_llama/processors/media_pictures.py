"""Pictures of what a model is given: frames, and the spectrograms of segments of sound, as data URLs for web pages.

Shapes: T frames, S segments, M mel bins, F spectrogram frames, H x W pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
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


def data_url(pixels: NDArray[np.uint8], max_side: int = THUMBNAIL, image_format: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Return an image, uint8[H, W, 3], as a data URL, scaled down if a side exceeds ``max_side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side))
    file = BytesIO()
    image.save(file, format=image_format, quality=90)
    return f"data:image/{image_format.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def frame_pictures(media: Media, image_format: Literal["PNG", "JPEG"] = "PNG") -> Iterator[Picture]:
    """Yield each frame of an image or a clip, with its time."""
    for i, frame in enumerate(rearrange(media.data, "c t h w -> t h w c").numpy()):
        time = f"{media.times[i]:.1f} s" if media.times else ""
        url = data_url(frame, image_format=image_format)
        yield Picture(url, f"frame {i + 1}" + (f", at {time}" if time else ""), time)


def segment_pictures(media: Media) -> Iterator[Picture]:
    """Yield the distinct segments of a sound: a model gets a short track as the same segment several times."""
    segments = {start: _log_energy(segment) for segment, start in zip(media.data, media.times, strict=True)}
    peak = max(float(segment.max()) for segment in segments.values())
    for start, segment in segments.items():
        time = f"{start:.1f}–{start + SEGMENT_SECONDS:.1f} s"
        yield Picture(data_url(spectrogram_image(segment, peak), MEL_FRAMES), f"spectrogram, {time}", time)


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
