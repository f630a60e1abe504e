"""Packet indexes of long files on disk, so that the next process need not read a whole file to find its frames.

Each file has one of 65,536 slots, by a hash of its path, and takes it from the file that was there: the folder is bounded, needs
no lock and no cleaning up, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from video_llama import __version__
from video_llama.common.cache import home
from video_llama.common.file_key import file_key
from video_llama.common.files import replacing
from video_llama.processors.decode.damage import log_once

LONG = 3000
"""Packets from which on an index is kept: listing fewer takes no more than 30 ms."""

Arrays = dict[str, NDArray[np.int64]]


class CachedIndex:
    """The place of a file's index. Its key holds the file's path, size and mtime, so that it is made before reading.

    Args:
        kind: of the index; a file may have several.
    """

    def __init__(self, path: str, kind: str) -> None:
        key = file_key(path, kind, __version__, tuple(sorted(av.library_versions.items())))
        self._key = repr(key) if key else ""
        slot = hashlib.blake2b(f"{kind} {path}".encode(errors="surrogateescape"), digest_size=2).hexdigest()
        self._file = Path(home(), "packets", f"{slot}.npz")

    def load(self) -> Arrays | None:
        """Return the arrays that were kept for the file as it is now; None if there are none."""
        try:
            with np.load(self._file, allow_pickle=False) as kept:
                if not self._key or kept["key"].item() != self._key:
                    return None
                return {name: np.cumsum(kept[name]) for name in kept.files if name != "key"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):  # none, or not readable
            return None

    def keep(self, arrays: Mapping[str, NDArray[np.integer]]) -> None:
        """Keep the arrays, as differences, which compress well. A folder that cannot be written is reported once."""
        if not self._key:
            return
        steps: dict[str, Any] = {
            name: np.diff(values.astype(np.int64), prepend=np.int64(0)) for name, values in arrays.items()
        }
        data = io.BytesIO()
        np.savez_compressed(data, key=np.array(self._key), **steps)
        try:
            with replacing(self._file) as temporary:
                temporary.write_bytes(data.getvalue())
        except OSError as error:
            log_once(f"{self._file.parent}: packet indexes cannot be kept there, long files open slowly: {error}")
