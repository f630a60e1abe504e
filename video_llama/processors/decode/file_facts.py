"""Facts about a media file from its header, for reports on data: kind, size, duration, whether it has sound."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from PIL import Image

from video_llama.common.errors import DecodeError
from video_llama.common.file_part import open_binary
from video_llama.common.modalities import FileKind
from video_llama.processors.decode.frame_folder import frame_files
from video_llama.processors.decode.media_file import Deadline, check_media_file, decode_errors, opened, video_stream
from video_llama.processors.decode.still import count_frames

_END = 1 << 16
"""Bytes that are read at each end of a file to tell contents apart."""


@dataclass(frozen=True)
class FileFacts:
    """What the header of a file says, right or wrong."""

    kind: FileKind
    bytes: int
    content: str
    """Digest of the size and of both ends of the file: equal ones are most likely copies."""
    width: int = 0
    """In pixels; 0 for sound alone."""
    height: int = 0
    seconds: float | None = None
    """None: the header does not say, or it is an image."""
    has_sound: bool | None = None
    """None: an image, or a folder of frames."""


def file_facts(path: str, deadline_s: float = 60.0) -> FileFacts:
    """Return what is known of a file, of a part of one, or of a folder of frames, without decoding it.

    Raises:
        DecodeError: it cannot be read.
    """
    if os.path.isdir(path):
        frames = frame_files(path)
        first = file_facts(frames[0], deadline_s)
        n_bytes = sum(os.path.getsize(frame) for frame in frames)
        return FileFacts("video", n_bytes, f"{first.content} {len(frames)} {n_bytes}", first.width, first.height)
    check_media_file(path)
    n_bytes, content = _size_and_content(path)
    try:
        with decode_errors(path, "read its header"), open_binary(path) as file, Image.open(file) as image:
            kind: FileKind = "image" if count_frames(path, image) == 1 else "video"
            return FileFacts(kind, n_bytes, content, image.width, image.height)
    except DecodeError as error:
        if not isinstance(error.__cause__, Image.UnidentifiedImageError):
            raise
    with opened(path, Deadline(path, deadline_s), "video or sound") as container:
        stream, has_sound = video_stream(container), bool(container.streams.audio)
        seconds = None if container.duration is None else max(0.0, container.duration / 1e6)
        if stream is None:
            return FileFacts("audio", n_bytes, content, seconds=seconds, has_sound=has_sound)
        decoder = stream.codec_context
        width, height = (decoder.width, decoder.height) if decoder else (0, 0)
        return FileFacts("video", n_bytes, content, width, height, seconds, has_sound)


def _size_and_content(path: str) -> tuple[int, str]:
    found = hashlib.blake2b(digest_size=12)
    with decode_errors(path, "read it"), open_binary(path) as file:
        size = file.seek(0, os.SEEK_END)
        found.update(size.to_bytes(8, "little"))
        for start in (0, max(0, size - _END)):
            file.seek(start)
            found.update(file.read(_END))
    return size, found.hexdigest()
