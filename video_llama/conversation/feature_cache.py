"""Files that were encoded already, so that a second question, a new dialogue or another user costs no second encoding."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path

from video_llama.conversation.files import EncodedFile

MAX_FILES = 16
"""Most files kept: a clip of 32 frames takes 5 MB as frames, and 3 MB encoded where the Q-Former is BLIP-2's."""


class FeatureCache:
    """The files that were used last. Safe to use from several threads.

    Args:
        max_files: most files kept.
    """

    def __init__(self, max_files: int = MAX_FILES) -> None:
        self._max_files = max_files
        self._files: OrderedDict[Hashable, EncodedFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable | None) -> EncodedFile | None:
        """Return a file, if it is kept."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
            return self._files.get(key)

    def put(self, key: Hashable | None, file: EncodedFile) -> None:
        """Keep a file, in the place of the one not used for longest."""
        if key is None:
            return
        with self._lock:
            self._files[key] = file
            self._files.move_to_end(key)
            if len(self._files) > self._max_files:
                self._files.popitem(last=False)


def file_key(path: str | Path, *how: Hashable) -> Hashable | None:
    """Return what identifies the content of a file, and how it is read; None: there is no such file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # the latter on a null character
        return None
    return (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, *how)
