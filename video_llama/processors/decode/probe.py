"""The kind and the decoded size of a file, without decoding it: for services that take files from strangers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.media_file import (
    MAX_PIXELS,
    Deadline,
    check_media_file,
    decode_errors,
    opened,
    read_packets,
    video_stream,
)

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Accepted image formats, by Pillow's names. EPS, for one, is not: it is a program."""

MEDIA_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "flv", "asf"),
    *("ogg", "wav", "mp3", "flac", "aac", "aiff"),
)
"""Accepted formats of video and sound, by FFmpeg's names. None refers to other files, as a playlist does."""


@dataclass(frozen=True)
class Probed:
    """The kind of a file, and its size."""

    kind: Literal["video", "image", "audio"]
    width: int = 0
    """Of a frame or of the picture, in pixels; 0 for sound alone."""
    height: int = 0
    seconds: float = 0.0
    """From the start of its first packet to the end of its last; 0 for a picture."""


def probe(path: str | Path, deadline_s: float = 60.0) -> Probed:
    """Identify a file by its content; its name does not count.

    Args:
        deadline_s: seconds that this may take.
    Raises:
        DecodeError: the file is missing, of another format, damaged, or slower than the deadline.
    """
    path = str(path)
    check_media_file(path)
    return _picture(path) or _media(path, Deadline(path, deadline_s))


def _picture(path: str) -> Probed | None:
    """Return the size in a picture's header; None if it is not a picture."""
    with decode_errors(path, "read it as an image"):
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                return Probed("image", image.width, image.height)
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            raise DecodeError(path, f"more than {MAX_PIXELS} pixels") from error


def _media(path: str, deadline: Deadline) -> Probed:
    """Measure the packets without decoding any: the header may lie, and browser recordings have no length in it."""
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
