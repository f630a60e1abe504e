"""The kind of a file and its decoded size, found without decoding it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image

from video_llama.common.errors import DecodeError
from video_llama.common.modalities import FileKind
from video_llama.processors.decode.animation import frame_durations
from video_llama.processors.decode.media_file import (
    MAX_PIXELS,
    Deadline,
    check_media_file,
    decode_errors,
    opened,
    path_or_stream,
    read_packets,
    video_stream,
)
from video_llama.processors.decode.still import count_frames, open_picture

CLOCK_JITTER = Fraction(1, 10)
"""A clock that goes back by more than this many seconds starts again."""


@dataclass(frozen=True)
class Probed:
    """The kind of a file, and its decoded size."""

    kind: FileKind
    width: int = 0
    """Width of the image or of a frame, in pixels; 0 for sound alone."""
    height: int = 0
    """Height, likewise."""
    seconds: float = 0.0
    """From the start of the first packet to the end of the last, or of an animation; 0 for an image."""


def probe(
    path: str | Path, image_formats: Sequence[str], media_formats: Sequence[str], deadline_s: float = 60.0
) -> Probed:
    """Identify a file by its content, whatever its name.

    Args:
        image_formats: Pillow's names of the accepted image formats.
        media_formats: FFmpeg's names of the accepted formats of video and sound.
        deadline_s: seconds that this may take.
    Raises:
        DecodeError: the file is missing, damaged, of another format, or slower than the deadline.
    """
    path = str(path)
    check_media_file(path)
    deadline = Deadline(path, deadline_s)
    if probed := _probe_image(path, image_formats, deadline):
        return probed
    if picture := open_picture(path):  # FFmpeg would open it as video
        with picture:
            raise DecodeError(path, f"{picture.format}: none of the formats taken here ({', '.join(image_formats)})")
    return _probe_media(path, media_formats, deadline)


def _probe_image(path: str, formats: Sequence[str], deadline: Deadline) -> Probed | None:
    """Return the size in the header of a picture or an animation; None if the file is neither."""
    with decode_errors(path, "read it as an image"):
        try:
            with Image.open(path_or_stream(path), formats=tuple(formats)) as image:
                if count_frames(path, image) == 1:
                    return Probed("image", image.width, image.height)
                return Probed("video", image.width, image.height, float(sum(frame_durations(path, image, deadline))))
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            raise DecodeError(path, f"more than {MAX_PIXELS} pixels") from error


def _probe_media(path: str, formats: Sequence[str], deadline: Deadline) -> Probed:
    """Measure the packets: the header may lie, and browser recordings do not store a duration.

    A clock that starts again, as in joined files, goes on where it was.
    """
    with opened(path, deadline, "video or sound", formats) as container:
        first = last = None
        clocks: dict[
            int, tuple[Fraction, Fraction]
        ] = {}  # of each stream: its previous packet, and how far it is moved
        for packet in read_packets(container, container.streams, deadline):
            shown = packet.pts if packet.pts is not None else packet.dts
            decoded = packet.dts if packet.dts is not None else packet.pts
            if shown is None or decoded is None or not packet.time_base:
                continue
            at, now = shown * packet.time_base, decoded * packet.time_base
            before, moved = clocks.get(packet.stream_index, (now, Fraction(0)))
            if last is not None and now + moved < before - CLOCK_JITTER:
                moved = last - now
            clocks[packet.stream_index] = now + moved, moved
            start = at + moved
            end = start + (packet.duration or 0) * packet.time_base
            first, last = min(start, start if first is None else first), max(end, end if last is None else last)
        seconds = max(0.0, float(last - first)) if first is not None and last is not None else 0.0
        stream = video_stream(container)
        if stream is None:
            return Probed("audio", seconds=seconds)
        decoder = stream.codec_context
        return Probed("video", decoder.width if decoder else 0, decoder.height if decoder else 0, seconds)
