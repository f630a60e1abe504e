"""The frames or the sound of a file as a strip of pictures within a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from video_llama.common.modalities import MediaKind, SoundUse
from video_llama.common.types import Media
from video_llama.processors.media_pictures import Encoding, Picture, frame_pictures, segment_pictures

NAMES: dict[MediaKind, str] = {
    "image": "Image",
    "video": "Clip",
    "audio": "Sound",
    "audio_frames": "Frames for the audio branch",
}

SOUNDS: dict[SoundUse | None, str] = {
    "cut": "parts of the sound are lost",
    "absent": "no sound track",
    "ignored": "sound not read",
}
"""What is said of a clip whose sound is not used whole."""


def media_strip(title: str, media: Media, encoding: Encoding) -> str:
    """Return the pictures of an image, a clip or a sound, as the model gets it.

    Args:
        title: what is written above them, as text.
        media: what a processor made.
        encoding: how many are shown, and how they are kept.
    """
    if media.kind == "audio":
        n, n_different = len(media.data), len(set(media.times))
        what = f"{n} segments" if n > 1 else "1 segment"
        if 1 < n != n_different:
            what += f", {n_different} of them different"
        return _strip(title, media.kind, f"{what} of 2 s", segment_pictures(media, encoding), "segments")
    n = media.data.shape[1]
    height, width = media.data.shape[2:]
    what = f"{n} frame{'s' * (n != 1)}, {width} × {height}" if media.kind != "image" else f"{width} × {height}"
    if media.sound in SOUNDS:
        what += f" · {SOUNDS[media.sound]}"
    return _strip(title, media.kind, what, frame_pictures(media, encoding), "frames")


def _strip(title: str, kind: MediaKind, what: str, pictures: Iterable[Picture], css_class: str) -> str:
    shown = [
        f'<figure><img src="{p.url}" alt="{escape(p.alt)}"><figcaption>{escape(p.caption)}</figcaption></figure>'
        for p in pictures
    ]
    size = " many" if len(shown) > 2 else ""
    return (
        f'<section class="item {kind}{size}"><h3>{escape(title)} <small>{what}</small></h3>'
        f'<div class="strip {css_class}">{"".join(shown)}</div></section>'
    )
