"""What video and sound have in common: a file opened with FFmpeg, its packets, and what goes wrong there by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.source import MAX_PIXELS, Deadline, decode_errors

NO_MEDIA_FORMATS = ("tty", "image2", "_pipe")
"""FFmpeg's readers of text and of still pictures, by the end of their names."""


@contextmanager
def opened(
    path: str, deadline: Deadline, kind: Literal["video", "sound", "video or sound"], formats: Collection[str] = ()
) -> Iterator[InputContainer]:
    """Open a file.

    Args:
        kind: what it is opened for, as errors say it.
        formats: FFmpeg's names of the formats that are taken; none: all are.
    """
    options = {"format_whitelist": ",".join(formats)} if formats else {}
    with _read_errors(deadline, f"open it as {kind}", f"no {kind}, damaged, or cut short"):
        try:
            # "file:" keeps FFmpeg from reading a colon in the name as a protocol.
            container = av.open(
                f"file:{path}", options=options, timeout=max(deadline.seconds, 0.001), metadata_errors="replace"
            )
        except av.error.ArgumentError as error:
            if not formats:
                raise
            names = ", ".join(formats)
            raise DecodeError(path, f"cannot open it as {kind}: none of the formats taken here ({names})") from error
    with container:
        if container.format.name.endswith(NO_MEDIA_FORMATS):
            raise DecodeError(path, f"neither video nor sound (FFmpeg reads it as {container.format.name})")
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream; None where there is none, the cover picture of a song not counted.

    Its decoder will refuse frames of more than ``MAX_PIXELS``, also where only a later one is so large.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
    if stream.codec_context is not None:
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def read_packets(container: InputContainer, streams: Iterable[Stream], deadline: Deadline) -> Iterator[av.Packet]:
    """Yield packets of the streams, undecoded; the deadline is checked between them."""
    demuxed = container.demux(*streams)
    while True:
        deadline.check()
        with _read_errors(deadline, "read its packets", "damaged, or cut short"):
            packet = next(demuxed, None)
        if packet is None:
            return
        if packet.size:  # the last one is empty: it means the end
            yield packet


@contextmanager
def _read_errors(deadline: Deadline, doing: str, why: str) -> Iterator[None]:
    """Name what FFmpeg raises where it reads the file: stopped at the deadline, data that it refuses, or anything else."""
    with decode_errors(deadline.path, doing):
        try:
            yield
        except av.error.ExitError as error:
            raise deadline.passed() from error
        except av.error.InvalidDataError as error:
            raise DecodeError(deadline.path, f"cannot {doing}: {why}") from error
