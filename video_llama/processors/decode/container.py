"""What video and sound have in common: a file opened with FFmpeg, its packets, and what goes wrong there by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from video_llama.common.errors import DecodeError
from video_llama.processors.decode.source import Deadline, decode_errors

NO_MEDIA_FORMATS = ("tty", "image2", "_pipe")
"""FFmpeg's readers of text and of still pictures, by the end of their names."""


@contextmanager
def opened(path: str, deadline: Deadline, kind: Literal["video", "sound"]) -> Iterator[InputContainer]:
    """Open a file; ``kind`` is what it is opened for, as errors say it."""
    with _read_errors(deadline, f"open it as {kind}", f"no {kind}, damaged, or cut short"):
        # "file:" keeps FFmpeg from reading a colon in the name as a protocol.
        container = av.open(f"file:{path}", timeout=max(deadline.seconds, 0.001), metadata_errors="replace")
    with container:
        if container.format.name.endswith(NO_MEDIA_FORMATS):
            raise DecodeError(path, f"neither video nor sound (FFmpeg reads it as {container.format.name})")
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream; None where there is none, the cover picture of a song not counted."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
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
