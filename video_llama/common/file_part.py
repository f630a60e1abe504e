"""A part of a file under a path of its own, such as a clip in a shard: ``clips.tar:1536:204800:000000007.mp4``.

The path gives the file, the first byte of the part, its size in bytes, and a name. Readers of media take it like any other.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PART = re.compile(r"(?P<file>.+?\.tar):(?P<start>\d+):(?P<size>\d+):(?P<name>.+)", re.DOTALL)


class FilePart(NamedTuple):
    """A part of a file."""

    file: str
    start: int
    """First byte."""
    size: int
    """In bytes."""
    name: str
    """For messages, and for its suffix."""

    def __str__(self) -> str:
        return f"{self.file}:{self.start}:{self.size}:{self.name}"


def file_part(path: str | Path) -> FilePart | None:
    """Return the part of a file that a path means; None for the path of a whole file."""
    found = _PART.fullmatch(str(path))
    if found is None or os.path.exists(path):
        return None
    return FilePart(found["file"], int(found["start"]), int(found["size"]), found["name"])


def open_binary(path: str | Path) -> BinaryIO:
    """Open a file, or a part of one as if it were a file, for reading.

    Raises:
        OSError: it cannot be opened.
    """
    part = file_part(path)
    if part is None:
        return open(path, "rb")
    return io.BufferedReader(_PartReader(part))


class _PartReader(io.RawIOBase):
    def __init__(self, part: FilePart) -> None:
        self.name = str(part)
        self._start, self._size, self._at = part.start, part.size, 0
        self._file = os.open(part.file, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(f"{self.name}: position {at} is before its start")
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        n_read = os.preadv(self._file, [view[:wanted]], self._start + self._at) if wanted else 0
        self._at += n_read
        return n_read

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()
