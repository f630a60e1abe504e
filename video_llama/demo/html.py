"""HTML of what the model was given: the frames with their times, the spectrogram, and whether the sound was used.

Images are inlined as data URLs, so they leave no files behind. All text that is not our own is escaped.

Shapes: T frames, S segments, M mel bins, F spectrogram frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from einops import rearrange

from video_llama.common.types import Media
from video_llama.demo.dialogue import ShownFile
from video_llama.processors.decode import picture_format, read_image
from video_llama.processors.media_pictures import Encoding, Picture, data_url, frame_pictures, segment_pictures

ANIMATED_SUFFIXES = (".gif", ".png", ".apng", ".webp", ".avif")
"""Suffixes of animations, which browsers show as images."""

BROWSER_FORMATS = frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "AVIF"})
"""Formats of pictures that all browsers show, by Pillow's names."""

PREVIEW = Encoding(max_side=1024)
"""Longest side of a picture that is converted for the browser, in pixels."""

NO_INPUT = """<div class="model-input empty"><p>The frames and sound given to the model will appear here.</p></div>"""


def model_input(file: ShownFile, *, has_audio: bool) -> str:
    """Return HTML that shows what the model was given of a file.

    Args:
        has_audio: whether the model has an audio branch.
    """
    frames, audio, parts = file.media.frames, file.media.audio, []
    if frames is not None:
        parts.append(_strip("Video input", _frame_count(frames), frame_pictures(frames), "frames"))
    if audio is not None:
        segments = list(segment_pictures(audio))
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


def _strip(title: str, caption: str, images: Iterable[Picture], css_class: str) -> str:
    figures = "".join(
        f'<figure><img src="{url}" alt="{escape(alt)}"><figcaption>{escape(time)}</figcaption></figure>'
        for url, alt, time in images
    )
    return f'<h3>{title} <small>{caption}</small></h3><div class="strip {css_class}">{figures}</div>'


def _frame_count(seen: Media) -> str:
    return "1 image" if seen.kind == "image" else _count(seen.data.shape[1], "frame")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
