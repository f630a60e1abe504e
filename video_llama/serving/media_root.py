"""Files below one folder of the server, without a way out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from video_llama.common.errors import VideoLlamaError
from video_llama.common.hosts import split


class OutsideRoot(Exception):
    """There is no such file below the root, or it is elsewhere."""


def checked_root(path: Path) -> Path:
    """Return the real path of a folder.

    Raises:
        VideoLlamaError: there is no such folder.
    """
    if not path.is_dir():
        raise VideoLlamaError(f"--media-root {path}: no such folder")
    return path.resolve()


def path_of(url: str) -> str:
    """Return the path that a file:// URL names, or an absolute path itself.

    Raises:
        OutsideRoot: it names none.
    """
    if url.startswith("/"):
        return url
    parts = split(url)
    if (
        parts is None
        or parts.scheme != "file"
        or parts.netloc not in ("", "localhost")
        or parts.query
        or parts.fragment
    ):
        raise OutsideRoot
    return unquote(parts.path)


@contextmanager
def opened_below(root: Path, path: str) -> Iterator[BinaryIO]:
    """Open a regular file below a folder, for the time of the block.

    Links are followed as long as they stay below the folder. From there on each folder on the way is opened in the one before,
    without following links, so that nothing that is exchanged in between leads outside.

    Args:
        root: a real path.
        path: an absolute path.
    Raises:
        OutsideRoot: it is no regular file below the folder.
    """
    if not path.startswith("/") or "\0" in path:
        raise OutsideRoot
    try:
        real = Path(os.path.realpath(path, strict=True))
        names = real.relative_to(root).parts
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise OutsideRoot from error
    try:
        for name in names[:-1]:
            descriptor = _opened_in(descriptor, name, os.O_DIRECTORY)
        if not names:
            raise OutsideRoot
        descriptor = _opened_in(descriptor, names[-1], os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OutsideRoot
    except BaseException as error:
        os.close(descriptor)
        raise OutsideRoot from error
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _opened_in(folder: int, name: str, flags: int) -> int:
    """Open what has a name in a folder, and close the folder."""
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    os.close(folder)
    return inner
