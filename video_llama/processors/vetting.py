"""Checks on an uploaded file, made before any of it is decoded: its real format, and limits on its size and length.

For services that accept files from strangers: a small file can claim any size, and its name proves nothing.
"""

from __future__ import annotations

from pathlib import Path

from video_llama.common.errors import VideoLlamaError
from video_llama.common.modalities import FileKind
from video_llama.processors.config import UploadLimits
from video_llama.processors.decode import probe

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""Accepted formats of pictures and animations, by Pillow's names. EPS is left out, for one: an EPS file is a program."""

MEDIA_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "flv", "asf"),
    *("ogg", "wav", "mp3", "flac", "aac", "aiff"),
)
"""Accepted video and audio formats, by FFmpeg's names. None can refer to other files, as a playlist does."""


def vet_file(path: Path, limits: UploadLimits, kind: FileKind | None = None) -> FileKind:
    """Check a file against the limits without decoding it, and return the kind to open it as.

    Args:
        kind: the requested kind; None: the file's own. A video may be opened as ``audio``, for its sound alone.
    Raises:
        DecodeError: the file cannot be read, or its format is not accepted.
        VideoLlamaError: it exceeds a limit, or is not of the requested kind.
    """
    size = path.stat().st_size / 1e6
    if size > limits.megabytes:
        raise VideoLlamaError(f"{path.name}: {size:.0f} MB; the limit is {limits.megabytes} MB")
    probed = probe(path, IMAGE_FORMATS, MEDIA_FORMATS, limits.deadline_s)
    if probed.width * probed.height > limits.megapixels * 1e6:
        raise VideoLlamaError(
            f"{path.name}: {probed.width} x {probed.height} pixels; the limit is {limits.megapixels:g} million"
        )
    if probed.seconds > limits.minutes * 60:
        raise VideoLlamaError(
            f"{path.name}: {probed.seconds / 60:.1f} minutes; the limit is {limits.minutes:g}. Trim it first."
        )
    if kind not in (None, probed.kind) and (probed.kind, kind) != ("video", "audio"):
        raise VideoLlamaError(f"{path.name}: the file is of kind {probed.kind}, not {kind}")
    return kind or probed.kind
