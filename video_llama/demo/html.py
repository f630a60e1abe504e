"""HTML of what the model was given: the frames with their times, the spectrogram, and whether the sound was used.

Images are inlined as data URLs, so they leave no files behind. All text that is not our own is escaped.

Shapes: T frames, S segments, M mel bins, F spectrogram frames, H x W pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from io import BytesIO
from urllib.parse import quote

import matplotlib
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from video_llama.common.types import Media
from video_llama.demo.dialogue import ShownFile
from video_llama.processors.audio import MEL_FRAMES, MEL_MEAN, MEL_STD, SEGMENT_SECONDS, log_mel
from video_llama.processors.decode import picture_format, read_image

THUMBNAIL = 160
"""Longest side of a frame on the page, in pixels."""

MIN_PEAK = -4.0
"""Lowest peak of the colour scale, in log-mel energy: a file quieter than this is drawn dark."""

DYNAMIC_RANGE = 10.0
"""Range of the colour scale, in log-mel energy: 43 dB. Anything fainter is black."""

ANIMATED_SUFFIXES = (".gif", ".png", ".apng", ".webp", ".avif")
"""Suffixes of animations, which browsers show as images."""

BROWSER_FORMATS = frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "AVIF"})
"""Formats of pictures that all browsers show, by Pillow's names."""

PREVIEW = 1024
"""Longest side of a picture that is converted for the browser, in pixels."""

NO_INPUT = """<div class="model-input empty"><p>The frames and sound given to the model will appear here.</p></div>"""


def model_input(file: ShownFile, *, has_audio: bool) -> str:
    """Return HTML that shows what the model was given of a file.

    Args:
        has_audio: whether the model has an audio branch.
    """
    frames, audio, parts = file.media.frames, file.media.audio, []
    if frames is not None:
        parts.append(_strip("Video input", _frame_count(frames), _frames(frames), "frames"))
    if audio is not None:
        segments = list(_segments(audio))
        parts.append(_strip("Audio input", _count(len(segments), "segment"), segments, "segments"))
    parts.append(f'<p class="sound">{sound_status(file, has_audio=has_audio)}</p>')
    if file.media.damage:
        parts.append(f'<p class="damage"><b>Damaged file.</b> {escape(file.media.damage)}. Answers may be wrong.</p>')
    return f'<div class="model-input">{"".join(parts)}</div>'


def player(file: ShownFile) -> str:
    """Return HTML that plays or shows the uploaded file, through gradio's route for uploads."""
    url = f"gradio_api/file={quote(str(file.path))}"
    if file.kind == "image" and picture_format(file.path) not in {*BROWSER_FORMATS, None}:
        url = data_url(rearrange(read_image(file.path), "c h w -> h w c").numpy(), PREVIEW)
    element = {
        "video": f'<video src="{url}" controls playsinline preload="metadata"></video>',
        "image": f'<img src="{url}" alt="the uploaded image">',
        "audio": f'<audio src="{url}" controls preload="metadata"></audio>',
    }["image" if file.path.suffix.lower() in ANIMATED_SUFFIXES else file.kind]
    return f'<div class="player">{element}<p>{escape(file.path.name)}</p></div>'


def sound_status(file: ShownFile, *, has_audio: bool) -> str:
    """Return HTML that says whether the sound of a file was used, and if not, why."""
    status = file.media.audio_status
    lost = f" {escape(status.reason)}." if status.reason else ""
    if status.state == "used":
        return f"<b>Sound: used.</b>{lost}"
    if status.state == "silent":
        return f"<b>Sound: silent.</b> The track holds nothing but digital silence.{lost}"
    if status.state == "no track":
        return "<b>Sound: no track.</b> Answers rest on the frames."
    if status.state == "failed":
        return f"<b>Sound: not used.</b> {escape(status.reason)}. Answers rest on the frames."
    if file.kind == "image":
        return "<b>Sound: off.</b> An image has none."
    if not has_audio:
        return "<b>Sound: off.</b> This model has no audio branch."
    return "<b>Sound: off.</b> You switched it off. Answers rest on the frames."


def data_url(pixels: NDArray[np.uint8], max_side: int = THUMBNAIL) -> str:
    """Return an image, uint8[H, W, 3], as a data URL, scaled down if a side exceeds ``max_side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side))
    file = BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def spectrogram_image(log_energy: Tensor, peak: float) -> NDArray[np.uint8]:
    """Draw log-mel energies, float[M, F], as uint8[M, F, 3], with low frequencies at the bottom.

    Args:
        peak: the highest energy in the file.
    """
    level = 1 - (max(peak, MIN_PEAK) - log_energy.flip(0).numpy()) / DYNAMIC_RANGE
    return (matplotlib.colormaps["magma"](level.clip(0, 1))[..., :3] * 255).astype(np.uint8)


def _frames(seen: Media) -> Iterable[tuple[str, str, str]]:
    for i, frame in enumerate(rearrange(seen.data, "c t h w -> t h w c").numpy()):
        time = f"{seen.times[i]:.1f} s" if seen.times else ""
        yield data_url(frame), f"frame {i + 1}" + (f", at {time}" if time else ""), time


def _segments(heard: Media) -> Iterable[tuple[str, str, str]]:
    """Yield the distinct segments: the model gets a short track as the same segment several times."""
    segments = {start: _log_energy(segment) for segment, start in zip(heard.data, heard.times, strict=True)}
    peak = max(float(segment.max()) for segment in segments.values())
    for start, segment in segments.items():
        time = f"{start:.1f}–{start + SEGMENT_SECONDS:.1f} s"
        yield data_url(spectrogram_image(segment, peak), max_side=MEL_FRAMES), f"spectrogram, {time}", time


def _log_energy(segment: Tensor) -> Tensor:
    """Return the log-mel energies of a segment, float[M, F], without the padding after the end of a short track.

    Args:
        segment: input of the audio encoder: a spectrogram, float[1, M, F], for ImageBind; a waveform, float[L], for others.
    """
    energy = segment[0] * MEL_STD + MEL_MEAN if segment.ndim == 3 else log_mel(segment[None])[0]
    filled = (energy.abs() > 1e-4).any(0).nonzero()  # padding is 0
    return energy[:, : int(filled[-1]) + 1] if len(filled) else energy


def _strip(title: str, caption: str, images: Iterable[tuple[str, str, str]], css_class: str) -> str:
    figures = "".join(
        f'<figure><img src="{url}" alt="{escape(alt)}"><figcaption>{escape(time)}</figcaption></figure>'
        for url, alt, time in images
    )
    return f'<h3>{title} <small>{caption}</small></h3><div class="strip {css_class}">{figures}</div>'


def _frame_count(seen: Media) -> str:
    return "1 image" if seen.kind == "image" else _count(seen.data.shape[1], "frame")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
