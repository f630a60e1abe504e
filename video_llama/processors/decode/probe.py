"""What a file is and how large it would become, told without decoding it: for those who take files from strangers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.container import opened, read_packets, video_stream
from video_llama.processors.decode.source import MAX_PIXELS, Deadline, check_file, decode_errors

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Pillow's names of the formats of pictures that are looked into. EPS, for one, is not: it is a program."""

MEDIA_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "flv", "asf"),
    *("ogg", "wav", "mp3", "flac", "aac", "aiff"),
)
"""FFmpeg's names of the formats of video and sound that are looked into. None names other files, as a playlist does."""


@dataclass(frozen=True)
class Probed:
    """What a file is, and its measures."""

    kind: Literal["video", "image", "audio"]
    width: int = 0
    """Of its frames or of the picture, in pixels; 0 for sound alone."""
    height: int = 0
    seconds: float = 0.0
    """From the start of its first packet to the end of its last; 0 for a picture."""


def probe(path: str | Path, deadline_s: float = 60.0) -> Probed:
    """Tell what a file is. By its content, not its name.

    Args:
        deadline_s: seconds that this may take.
    Raises:
        DecodeError: the file is missing, of no format that is looked into, damaged, or slower than the deadline.
    """
    path = str(path)
    check_file(path)
    return _picture(path) or _media(path, Deadline(path, deadline_s))


def _picture(path: str) -> Probed | None:
    """Return a picture's measures by its header; None where it is no picture."""
    with decode_errors(path, "read it as an image"):
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                return Probed("image", image.width, image.height)
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            raise DecodeError(path, f"more than {MAX_PIXELS} pixels") from error


def _media(path: str, deadline: Deadline) -> Probed:
    """Measure by packets, none of which is decoded. The header may lie, and what browsers record has no length there."""
    with opened(path, deadline, "video or sound", MEDIA_FORMATS) as container:
        first, last = float("inf"), float("-inf")
        for packet in read_packets(container, container.streams, deadline):
            at = packet.pts if packet.pts is not None else packet.dts
            if at is not None and packet.time_base:
                first = min(first, float(at * packet.time_base))
                last = max(last, float((at + (packet.duration or 0)) * packet.time_base))
        seconds = max(0.0, last - first)
        stream = video_stream(container)
        if stream is None:
            return Probed("audio", seconds=seconds)
        decoder = stream.codec_context
        return Probed("video", decoder.width if decoder else 0, decoder.height if decoder else 0, seconds)
