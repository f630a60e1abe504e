"""Encoded files: a second question, dialogue or user does not encode a file again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from video_llama.common.types import MediaGroup
from video_llama.processors.media import FileMedia

MAX_FILES = 16
"""Most files kept: a clip of 32 frames takes 5 MB as frames, and 3 MB encoded by BLIP-2's Q-Former."""


@dataclass(frozen=True)
class EncodedFile:
    """A file and its features."""

    content: FileMedia
    groups: tuple[MediaGroup, ...]
    """The output of the frozen encoders for each of ``content.media``, of row 0 and slots -1, -2."""
    altered: bool = False
    """Whether the model gets something other than what is in the file."""


class FeatureCache:
    """The most recently used files. Safe to use from several threads, and no two of them make the same file.

    Args:
        max_files: most files kept.
    """

    def __init__(self, max_files: int = MAX_FILES) -> None:
        self._max_files = max_files
        self._files: OrderedDict[Hashable, EncodedFile] = OrderedDict()
        self._lock = threading.Lock()
        self._in_the_making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable | None) -> EncodedFile | None:
        """Return a file; None: it is not in the cache."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
            return self._files.get(key)

    def get_or_make(self, key: Hashable | None, make: Callable[[], EncodedFile]) -> EncodedFile:
        """Return a file; if it is not in the cache, make it, unless another thread does: then wait for it.

        If making it fails, the next thread that waits tries. A file whose sound could not be decoded is not kept: it may
        succeed next time.
        """
        if key is None:
            return make()
        if (file := self.get(key)) is not None:
            return file
        with self._lock:
            making = self._in_the_making.setdefault(key, threading.Lock())
        with making:
            try:
                if (file := self.get(key)) is None:
                    file = make()
                    if file.content.audio_status.state != "failed":
                        self.put(key, file)
            finally:
                with self._lock:
                    self._in_the_making.pop(key, None)
        return file

    def put(self, key: Hashable | None, file: EncodedFile) -> None:
        """Keep a file, evicting the least recently used one; a key of None is not kept."""
        if key is None:
            return
        with self._lock:
            self._files[key] = file
            self._files.move_to_end(key)
            if len(self._files) > self._max_files:
                self._files.popitem(last=False)
