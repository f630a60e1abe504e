"""What tells a file, as it is now, from others and from what it was."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Hashable
from pathlib import Path

from video_llama.common.cache import home
from video_llama.common.file_part import file_part


def file_key(path: str | Path, *how: Hashable) -> Hashable | None:
    """Return a key for the content of a file, or of a folder of files, and the way it is read; None: there is no such file.

    The key holds path, size and time. Copies of remote shards come and go, and their names change with their content, so
    that their times do not count.
    """
    within = () if (part := file_part(path)) is None else (part.start, part.size)
    path = path if part is None else part.file
    try:
        found = os.stat(path)
        files = _files(path) if stat.S_ISDIR(found.st_mode) else None
    except (OSError, ValueError):  # the latter on a null character
        return None
    real = os.path.realpath(path)
    if files is not None:
        return (real, files, *how)
    time = 0 if Path(real).parent == home() / "shards" else found.st_mtime_ns
    return (real, found.st_size, time, *within, *how)


def _files(folder: str | Path) -> str:
    """Return a digest of names, sizes and times of the files in a folder, whose own time says nothing of them."""
    with os.scandir(folder) as entries:
        files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    return hashlib.sha256(repr(files).encode(errors="surrogateescape")).hexdigest()
