"""What the model was given of a file, as HTML: the frames with their times, the spectrogram, what became of the sound.

Pictures stand in the HTML itself, so that they leave no files. Every text that is not ours is escaped.

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
from video_llama.conversation.files import NO_TRACK, OFF, USED
from video_llama.demo.dialogue import Shown
from video_llama.processors.audio import MEL_FRAMES, MEL_MEAN, MEL_STD, SEGMENT_SECONDS, log_mel

THUMBNAIL = 160
"""Longest side of a frame on the page, in pixels."""

QUIET = -4.0
"""Log-mel energy up to which even the loudest sound of a file is not drawn brightest."""

DEPTH = 10.0
"""Range of log-mel energies that are drawn: 43 dB. What is fainter is black."""

NOTHING_SHOWN = """<div class="given empty"><p>The frames that the model sees and the sound that it hears will appear
here.</p></div>"""


def given(shown: Shown, *, hears: bool) -> str:
    """Return HTML that tells what the model was given of a file.

    Args:
        hears: whether the model has an audio branch.
    """
    upload = shown.upload
    parts = []
    if upload.seen is not None:
        parts.append(_strip("Seen", _seen_caption(upload.seen), _frames(upload.seen), "frames"))
    if upload.heard is not None:
        segments = list(_segments(upload.heard))
        parts.append(_strip("Heard", _count(len(segments), "segment"), segments, "segments"))
    parts.append(f'<p class="sound">{sound_in_words(shown, hears=hears)}</p>')
    return f'<div class="given">{"".join(parts)}</div>'


def player(shown: Shown) -> str:
    """Return HTML that shows a file to the visitor: as it is, by gradio's route for uploads."""
    url = f"gradio_api/file={quote(str(shown.path))}"
    play = {
        "video": f'<video src="{url}" controls playsinline preload="metadata"></video>',
        "image": f'<img src="{url}" alt="the picture">',
        "audio": f'<audio src="{url}" controls preload="metadata"></audio>',
    }[shown.kind]
    return f'<div class="player">{play}<p>{escape(shown.path.name)}</p></div>'


def sound_in_words(shown: Shown, *, hears: bool) -> str:
    """Say what became of the sound of a file, as HTML."""
    sound = shown.upload.sound
    if sound == USED:
        return "<b>Sound: used.</b> The model heard it."
    if sound == NO_TRACK:
        return "<b>Sound: no track.</b> The file has none; the model only saw it."
    if sound != OFF:
        return f"<b>Sound: not used.</b> {escape(sound)}. The model only saw the clip."
    if shown.kind == "image":
        return "<b>Sound: off.</b> A picture has none."
    if not hears:
        return "<b>Sound: off.</b> This model has no audio branch: it only sees."
    return "<b>Sound: off.</b> It was switched off; the model only saw the clip."


def data_url(pixels: NDArray[np.uint8], longest: int = THUMBNAIL) -> str:
    """Return a picture, uint8[H, W, 3], as a data URL, made smaller if a side is longer than ``longest`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    file = BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def spectrogram(log_energy: Tensor, loudest: float) -> NDArray[np.uint8]:
    """Draw log-mel energies, float[M, F]: uint8[M, F, 3], low tones at the bottom.

    Args:
        loudest: of the file.
    """
    top = max(loudest, QUIET)
    level = 1 - (top - log_energy.flip(0).numpy()) / DEPTH
    return (matplotlib.colormaps["magma"](level.clip(0, 1))[..., :3] * 255).astype(np.uint8)


def _frames(seen: Media) -> Iterable[tuple[str, str, str]]:
    for i, frame in enumerate(rearrange(seen.frames, "c t h w -> t h w c").numpy()):
        when = f"{seen.times[i]:.1f} s" if seen.times else ""
        yield data_url(frame), f"frame {i + 1}" + (f", at {when}" if when else ""), when


def _segments(heard: Media) -> Iterable[tuple[str, str, str]]:
    """Yield the segments at different times: a short track is given as the same segment several times."""
    parts = {start: _log_energy(part) for part, start in zip(heard.frames, heard.times, strict=True)}
    loudest = max(float(part.max()) for part in parts.values())
    for start, part in parts.items():
        when = f"{start:.1f}–{start + SEGMENT_SECONDS:.1f} s"
        yield data_url(spectrogram(part, loudest), longest=MEL_FRAMES), f"spectrogram, {when}", when


def _log_energy(part: Tensor) -> Tensor:
    """Return the log-mel energies of a segment, float[M, F]; F is less where the track ends before the segment does.

    Args:
        part: what the audio encoder is given: ImageBind a spectrogram, float[1, M, F], others a waveform, float[L].
    """
    energy = part[0] * MEL_STD + MEL_MEAN if part.ndim == 3 else log_mel(part[None])[0]
    filled = (energy.abs() > 1e-4).any(0).nonzero()  # frames that are missing are 0
    return energy[:, : int(filled[-1]) + 1] if len(filled) else energy


def _strip(title: str, caption: str, pictures: Iterable[tuple[str, str, str]], kind: str) -> str:
    figures = "".join(
        f'<figure><img src="{url}" alt="{escape(alt)}"><figcaption>{escape(when)}</figcaption></figure>'
        for url, alt, when in pictures
    )
    return f'<h3>{title} <small>{caption}</small></h3><div class="strip {kind}">{figures}</div>'


def _seen_caption(seen: Media) -> str:
    return "1 picture" if seen.kind == "image" else _count(seen.frames.shape[1], "frame")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")
