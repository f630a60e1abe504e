"""The SHA-256 of a checkpoint, kept as the comment of the zip archive that a ``.pth`` file is.

The digest travels with the file, and everything that reads zip archives, ``torch.load`` included, skips it. It covers the
file as it was before the comment: all other bytes, and zero as the length of the comment.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PREFIX = b"sha256:"
_LENGTH = len(_PREFIX) + 64
_NO_COMMENT = bytes(2)
_BLOCK = 1 << 20


def append_digest(path: Path) -> None:
    """Add the digest to a zip archive that has no comment yet."""
    comment = _PREFIX + _digest(path, os.path.getsize(path)).encode()
    with open(path, "r+b") as file:
        file.seek(-len(_NO_COMMENT), os.SEEK_END)
        if file.read() != _NO_COMMENT:
            raise ValueError(f"{path}: not a zip archive without a comment")
        file.seek(-len(_NO_COMMENT), os.SEEK_END)
        file.write(len(comment).to_bytes(2, "little") + comment)


def matches_digest(path: Path) -> bool | None:
    """Return whether a file is as it was when its digest was added; None: it has none."""
    size = os.path.getsize(path)
    if size < _LENGTH + len(_NO_COMMENT):
        return None
    with open(path, "rb") as file:
        file.seek(-_LENGTH - len(_NO_COMMENT), os.SEEK_END)
        length, comment = file.read(len(_NO_COMMENT)), file.read()
    if not comment.startswith(_PREFIX):
        return None
    return length == _LENGTH.to_bytes(2, "little") and comment == _PREFIX + _digest(path, size - _LENGTH).encode()


def _digest(path: Path, size: int) -> str:
    """Return the SHA-256 of the first ``size`` bytes of a file, the last two taken as zero."""
    found, left = hashlib.sha256(), size - len(_NO_COMMENT)
    with open(path, "rb") as file:
        while left and (block := file.read(min(_BLOCK, left))):
            found.update(block)
            left -= len(block)
    found.update(_NO_COMMENT)
    return found.hexdigest()
