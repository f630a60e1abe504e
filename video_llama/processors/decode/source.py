"""What every backend does around a file: see that there is one, keep its deadline, name its errors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from video_llama.common.errors import DecodeError

MAX_PIXELS = 89_478_485
"""Larger pictures and frames are refused: a small file can claim any size. Pillow's own limit, which only warns."""


def check_file(path: str) -> None:
    """Raise DecodeError unless ``path`` is a regular file with something in it."""
    if not os.path.exists(path):
        raise DecodeError(path, "no such file")
    if os.path.isdir(path):
        raise DecodeError(path, "is a directory")
    if not os.path.isfile(path):
        raise DecodeError(path, "not a regular file")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "empty file (zero bytes)")


class Deadline:
    """Time that one operation on a file may take, counted from here."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise DecodeError when the time is over."""
        if time.monotonic() > self._end:
            raise self.passed()

    def passed(self) -> DecodeError:
        """Return the error that says that the time is over."""
        return DecodeError(self.path, f"not read within its deadline of {self.seconds:g} s")


@contextmanager
def decode_errors(path: str, doing: str) -> Iterator[None]:
    """Turn whatever a decoding library raises inside the block into ``DecodeError(path, "cannot <doing>: ...")``."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:  # libraries raise nearly anything on a broken file, and their own types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise DecodeError(path, f"cannot {doing}: {type(error).__name__}: {reason}") from error


def check_indices(indices: list[int], n_frames: int) -> None:
    """Raise IndexError when an index is not that of a frame, or there is none."""
    if not indices:
        raise IndexError("no frame asked for")
    for i in indices:
        if not 0 <= i < n_frames:
            raise IndexError(f"frame {i} of a video of {n_frames} frames")
