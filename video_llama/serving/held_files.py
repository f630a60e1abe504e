"""Files of the requests that are being answered, in a temporary folder, each once, and named after its content."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from video_llama.serving.api_error import RETRY_AFTER_S, ApiError


class HeldFiles:
    """Keeps files until they are released as often as they were kept. Thread-safe.

    The same content has the same path and time, so that it is known again in caches of what was read from it.

    Args:
        folder: an empty folder.
        max_bytes: most bytes of all files together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._holders: Counter[Path] = Counter()
        self._n_bytes = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all files, with those that are still being written."""
        return self._n_bytes

    def hold(self, chunks: Iterable[bytes]) -> Path:
        """Keep a file.

        Raises:
            ApiError: there is no room.
        """
        with self.incoming() as file:
            for chunk in chunks:
                file.write(chunk)
            return file.keep()

    @contextmanager
    def incoming(self) -> Iterator[IncomingFile]:
        """Write a file in pieces. Unless it is kept, it is deleted in the end."""
        file = IncomingFile(self, self._folder / f"incoming-{uuid.uuid4().hex}")
        try:
            yield file
        finally:
            file.discard()

    def hold_frames(self, frames: Sequence[Path]) -> Path:
        """Keep a folder of frames that are kept already; it holds their content under names in order."""
        digest = hashlib.sha256("\n".join(frame.name for frame in frames).encode()).hexdigest()
        folder = self._folder / f"frames-{digest}"
        with self._lock:
            if self._holders[folder] == 0:
                folder.mkdir()
                try:
                    for k, frame in enumerate(frames):
                        os.link(frame, folder / f"{k:06}.jpg")
                    os.utime(folder, (0, 0))
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
            self._holders[folder] += 1
        return folder

    def release(self, path: Path) -> None:
        """Give up a file; it is deleted when nobody keeps it."""
        with self._lock:
            self._holders[path] -= 1
            if self._holders[path] > 0:
                return
            del self._holders[path]
            if path.is_dir():
                shutil.rmtree(path)
            else:
                self._n_bytes -= path.stat().st_size
                path.unlink()

    def _reserve(self, n_bytes: int) -> None:
        with self._lock:
            if self._n_bytes + n_bytes > self._max_bytes:
                raise ApiError(
                    429, "too many large files are being asked about: try again later", retry_after_s=RETRY_AFTER_S
                )
            self._n_bytes += n_bytes

    def _free(self, n_bytes: int) -> None:
        with self._lock:
            self._n_bytes -= n_bytes

    def _publish(self, written: Path, n_bytes: int, digest: str) -> Path:
        path = self._folder / digest
        with self._lock:
            if self._holders[path] == 0:
                os.utime(written, (0, 0))
                os.replace(written, path)
            else:
                written.unlink()
                self._n_bytes -= n_bytes
            self._holders[path] += 1
        return path


class IncomingFile:
    """A file that is being written. Made by ``HeldFiles.incoming``."""

    def __init__(self, files: HeldFiles, path: Path) -> None:
        self._files, self._path = files, path
        self._digest = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
        self._is_kept = False
        self.n_bytes = 0
        """Written so far."""

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            ApiError: there is no room.
        """
        self._files._reserve(len(chunk))
        self.n_bytes += len(chunk)
        self._digest.update(chunk)
        self._file.write(chunk)

    def keep(self) -> Path:
        """Finish the file, and keep it: ``HeldFiles.release`` gives it up."""
        self._file.close()
        path = self._files._publish(self._path, self.n_bytes, self._digest.hexdigest())
        self._is_kept = True
        return path

    def discard(self) -> None:
        """Delete the file, unless it is kept."""
        if not self._is_kept:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._files._free(self.n_bytes)
