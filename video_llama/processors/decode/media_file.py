"""A media file while it is read: checks before it is opened, its packets, a deadline, and errors that name the file."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from video_llama.common.errors import DecodeError
from video_llama.common.file_part import FilePart, file_part, open_binary
from video_llama.processors.decode.damage import ffmpeg_reports

MAX_PIXELS = 89_478_485
"""Larger pictures and frames are refused: a small file can claim any size. Pillow's own limit, which only warns."""

MAX_TRIES = 1000
"""Reads in a row that may find no packet. MPEG-TS looks through about 64 KB in each."""

AHEAD, AHEAD_BYTES = 64, 1 << 20
"""Packets, and bytes of them, that are read ahead."""

NO_MEDIA_FORMATS = ("tty", "image2", "_pipe")
"""Suffixes of the names of FFmpeg's readers of text and of still pictures."""


def check_media_file(path: str) -> None:
    """Raise DecodeError unless ``path`` is a regular file that is not empty, or a part of one."""
    if (part := file_part(path)) is not None:
        _check_part(path, part)
        return
    if not os.path.exists(path):
        raise DecodeError(path, "no such file")
    if os.path.isdir(path):
        raise DecodeError(path, "is a directory")
    if not os.path.isfile(path):
        raise DecodeError(path, "not a regular file")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "empty file (zero bytes)")


def _check_part(path: str, part: FilePart) -> None:
    if not os.path.isfile(part.file):
        raise DecodeError(path, f"no such file: {part.file}")
    if part.size == 0:
        raise DecodeError(path, "empty file (zero bytes)")
    if (size := os.path.getsize(part.file)) < part.start + part.size:
        raise DecodeError(path, f"cut short: {part.file} ends at byte {size}")


def ffmpeg_url(path: str, part: tuple[int, int] | None = None) -> str:
    """Return the name under which FFmpeg opens a file, a part of a file, or a range of bytes within either."""
    if (within := file_part(path)) is not None:
        start, end = part or (0, within.size)
        path, part = within.file, (within.start + start, within.start + end)
    # "file:" keeps FFmpeg from reading a colon in the name as a protocol.
    return f"file:{path}" if part is None else f"subfile,,start,{part[0]},end,{part[1]},,:file:{path}"


def path_or_url(path: str) -> str:
    """Return the path of a file, or FFmpeg's name of a part of one, for libraries that read with FFmpeg."""
    return path if file_part(path) is None else ffmpeg_url(path)


def path_or_stream(path: str | Path) -> str | Path | BinaryIO:
    """Return the path of a file, or an open stream of a part of one, for libraries that take either."""
    return path if file_part(path) is None else open_binary(path)


def check_indices(indices: list[int], n_frames: int) -> None:
    """Raise IndexError if there is no index, or one is not in ``range(n_frames)``."""
    if not indices:
        raise IndexError("no frame asked for")
    for i in indices:
        if not 0 <= i < n_frames:
            raise IndexError(f"frame {i} of a video of {n_frames} frames")


class TornFile(DecodeError):
    """A file whose packets end before it says they do, or cannot be told apart from there on."""


class Deadline:
    """The time that one operation on a file may take, from now on."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise DecodeError once the time is up."""
        if time.monotonic() > self._end:
            raise self.passed()

    def passed(self) -> DecodeError:
        """Return the error for an operation that took too long."""
        return DecodeError(self.path, f"not read within its deadline of {self.seconds:g} s")


@contextmanager
def decode_errors(path: str, doing: str) -> Iterator[None]:
    """Turn anything that a decoding library raises into ``DecodeError(path, "cannot <doing>: ...")``.

    What FFmpeg merely logs as an error is reported as damage.
    """
    try:
        with ffmpeg_reports(path):
            yield
    except DecodeError:
        raise
    except Exception as error:  # libraries raise nearly anything on a broken file, and their own types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise DecodeError(path, f"cannot {doing}: {type(error).__name__}: {reason}") from error


@contextmanager
def opened(
    path: str,
    deadline: Deadline,
    kind: Literal["video", "sound", "video or sound"],
    formats: Collection[str] = (),
    part: tuple[int, int] | None = None,
) -> Iterator[InputContainer]:
    """Open a file with FFmpeg.

    Args:
        kind: the expected content, for messages.
        formats: FFmpeg's names of the accepted formats; empty: all.
        part: where to start and to end, in bytes; None: the whole file.
    Raises:
        DecodeError: it cannot be opened in time, or is neither video nor sound.
    """
    options = {"format_whitelist": ",".join(formats)} if formats else {}
    with _read_errors(deadline, f"open it as {kind}", f"no {kind}, damaged, or cut short"):
        try:
            url = ffmpeg_url(path, part)
            container = av.open(url, options=options, timeout=max(deadline.seconds, 0.001), metadata_errors="replace")
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
    """Return the video stream, or None; the cover picture of a song does not count.

    The stream's decoder refuses frames of more than ``MAX_PIXELS``, even if the size grows later in the stream.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
    if stream.codec_context is not None:
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def read_packets(container: InputContainer, streams: Iterable[Stream], deadline: Deadline) -> Iterator[av.Packet]:
    """Yield the packets of the streams without decoding them. The deadline is checked before each.

    They are read ahead, up to ``AHEAD`` of them: listening to FFmpeg's log for each one would take most of the time.

    Raises:
        TornFile: the rest of the file is damaged or missing.
        DecodeError: it cannot be read otherwise, or the deadline passed.
    """
    streams, ahead = list(streams), 1
    demuxed, n_tries = container.demux(*streams), 0
    while True:
        read: list[av.Packet] = []
        failed: DecodeError | None = None
        is_last = False
        try:
            with _read_errors(deadline, "read its packets", "damaged, or cut short"):
                try:
                    is_last = _read_ahead(demuxed, ahead, read, deadline)
                except BlockingIOError:  # FFmpeg found no packet in what it read, and asks to go on
                    n_tries += 1 if not read else 0
                    if n_tries > MAX_TRIES:
                        raise TornFile(deadline.path, "cannot read its packets: no more are found in it") from None
                    demuxed = container.demux(*streams)
        except DecodeError as error:
            failed = error
        if read:
            n_tries = 0
        yield from read
        if failed is not None:
            raise failed
        if is_last:
            return
        ahead = min(2 * ahead, AHEAD)


def _read_ahead(demuxed: Iterator[av.Packet], n: int, read: list[av.Packet], deadline: Deadline) -> bool:
    """Add up to ``n`` packets to those that are ``read``, and return whether there are no more."""
    n_bytes = 0
    for packet in demuxed:
        deadline.check()
        if size := packet.size:  # the last packet is empty and only marks the end
            read.append(packet)
            n_bytes += size
        if len(read) >= n or n_bytes > AHEAD_BYTES:
            return False
    return True


@contextmanager
def _read_errors(deadline: Deadline, doing: str, why: str) -> Iterator[None]:
    """Turn what FFmpeg raises while it reads a file into DecodeError; ``why`` explains data that it refuses."""
    with decode_errors(deadline.path, doing):
        try:
            yield
        except av.error.ExitError as error:
            raise deadline.passed() from error
        except av.error.InvalidDataError as error:
            raise TornFile(deadline.path, f"cannot {doing}: {why}") from error
