"""Shards on remote stores, kept on this machine whole: fetched once, whichever process asks first, and no more than a limit.

A shard that is being read is locked, so it is never removed under its reader, also by another run.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from video_llama.common.errors import DataError
from video_llama.common.files import sha256_of, sync
from video_llama.datasets.readings import still_reading

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Failures in a row that end a download."""
PAUSE_S = 1.0
"""Pause after the first failure; it doubles with each that follows."""
POLL_S = 0.1
"""Pause between two looks at whether another process has fetched a shard."""
SILENCE_S = 60.0
"""Longest wait for the next byte over HTTP."""

T = TypeVar("T")


class RemoteShard(NamedTuple):
    """One version of a shard on a remote store."""

    url: str
    size: int | None
    """In bytes; None: the store does not say."""
    version: str
    """Changes when the shard does, as far as the store says."""

    @property
    def file_name(self) -> str:
        """Its name in the cache."""
        return f"{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}-{self.url.rpartition('/')[2]}"


class ShardCache:
    """A folder of shards, which any number of processes and runs may share.

    Args:
        folder: made if it is not there.
        limit: bytes that its shards may take.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit

    def path(self, shard: RemoteShard) -> Path:
        """Return where a shard is once it is fetched."""
        return self.folder / shard.file_name

    @contextmanager
    def held(self, shard: RemoteShard, sha256: str | None = None) -> Iterator[Path]:
        """Keep a shard in the cache for the time of the block; fetch it if it is not there.

        Args:
            sha256: of its content, which is checked when it is fetched; None: not known.
        Raises:
            DataError: it cannot be fetched, does not fit, or is not what it should be.
        """
        path = self.path(shard)
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(_lock_of(path), "w"))
                _take(lock.fileno(), fcntl.LOCK_SH, shard)
                while not path.exists():
                    _take(lock.fileno(), fcntl.LOCK_EX, shard)
                    if not path.exists():
                        self._fetch(shard, path, sha256)
                    _take(lock.fileno(), fcntl.LOCK_SH, shard)  # meanwhile, another process may remove the shard again
                os.utime(path, ns=(time.time_ns(), 0))  # read now; its name tells its version
            except OSError as error:
                raise DataError(f"{self.folder}: {shard.url} cannot be kept there: {error}") from error
            yield path

    def _fetch(self, shard: RemoteShard, path: Path, sha256: str | None) -> None:
        size = shard.size or 0
        if size > self.limit:
            raise DataError(
                f"{shard.url}: {size / 1e9:.2f} GB, and shards may take {self.limit / 1e9:g} GB of this machine. "
                "Raise cache_gb."
            )
        self._make_room(size)
        if size > (free := shutil.disk_usage(self.folder).free):
            raise DataError(f"{shard.url}: {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on {self.folder}")
        partial = path.with_name(f".{path.name}.part")
        log.info("fetching %s", shard.url)
        try:
            try:
                attempted(lambda: _download(shard, partial, sha256), shard.url)
            except FileNotFoundError as error:
                raise _no_such_file(shard.url) from error
            sync(partial)
            os.utime(partial, ns=(time.time_ns(), 0))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove shards that nobody reads, longest unread first, until there is room for one more."""
        kept = []
        for file in self.folder.iterdir():
            if file.suffix in (".tar", ".part"):
                with suppress(FileNotFoundError):  # another process has removed it
                    kept.append((file.stat().st_atime_ns, file.stat().st_size, file))
        total = sum(n_bytes for _, n_bytes, _ in kept)
        for _, n_bytes, file in sorted(kept):
            if total + size <= self.limit and file.suffix != ".part":
                continue
            with open(_lock_of(file), "w") as lock, suppress(BlockingIOError):  # somebody reads or fetches it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink(missing_ok=True)
                total -= n_bytes


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.removeprefix('.').removesuffix('.part')}.lock")


def _take(lock: int, kind: int, shard: RemoteShard) -> None:
    """Take a lock of a kind, in place of one that this process may have; wait while another process fetches the shard."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    waits = False
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waits:
                log.info("%s: waiting for another process that fetches it", shard.url)
            waits = True
            still_reading()
            time.sleep(POLL_S)


def _download(shard: RemoteShard, partial: Path, sha256: str | None) -> None:
    from fsspec.callbacks import Callback  # slow to import

    class Progress(Callback):
        def call(self, *args: Any, **kwargs: Any) -> None:
            still_reading()

    filesystem, at = file_system(shard.url)
    filesystem.get_file(at, str(partial), callback=Progress())
    found = partial.stat().st_size
    if shard.size not in (None, found):
        raise OSError(f"{found} of {shard.size} bytes came")
    if sha256 is not None and (digest := sha256_of(partial)) != sha256:
        raise OSError(f"its SHA-256 is {digest}, and its index has {sha256}")


def attempted(do: Callable[[], T], url: str) -> T:
    """Do something on a remote store, a few times if it fails.

    Raises:
        FileNotFoundError: the store has no such file.
        DataError: it keeps failing.
    """
    for attempt in range(ATTEMPTS):
        try:
            return do()
        except Exception as error:  # each store has errors of its own
            if _is_missing(error):
                raise
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {' '.join(str(cause).split()).rstrip('.')}"
            if attempt == ATTEMPTS - 1:
                raise DataError(f"{url}: cannot be fetched: {reason:.300}") from error
            log.info("%s: %s; trying again", url, reason)
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _is_missing(error: Exception) -> bool:
    """Return whether a store has no such file; of a server that does not answer, fsspec raises FileNotFoundError too."""
    cause = error.__cause__
    found = cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)
    return isinstance(error, FileNotFoundError) and found


def _no_such_file(url: str) -> DataError:
    return DataError(f"{url}: no such file")


def remote_shard(url: str) -> RemoteShard:
    """Ask a store for the size and the version of a shard.

    Raises:
        DataError: there is no such file, or the store cannot be reached.
    """
    filesystem, at = file_system(url)
    try:
        info = attempted(lambda: filesystem.info(at), url)
    except FileNotFoundError as error:
        raise _no_such_file(url) from error
    names = (
        "ETag",
        "etag",
        "mtime",
        "LastModified",
        "last_modified",
        "last_commit",
        "blob_id",
        "md5Hash",
        "generation",
    )
    return RemoteShard(url, info.get("size"), repr([(name, info[name]) for name in names if info.get(name)]))


def read_remote(url: str) -> bytes | None:
    """Return the content of a small file on a remote store; None if it has no such file.

    Raises:
        DataError: the store cannot be reached.
    """
    filesystem, at = file_system(url)
    try:
        content: bytes = attempted(lambda: filesystem.cat_file(at), url)
    except FileNotFoundError:
        return None
    return content


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises:
        DataError: there is none, or its library is not installed.
    """
    import fsspec  # slow to import

    options = {}
    if url.startswith(("http://", "https://")):
        try:
            from aiohttp import ClientTimeout
        except ImportError as error:
            raise DataError(f"{url}: needs aiohttp: pip install 'video_llama[http]'") from error
        # By default, a download may take five minutes in all.
        options = {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)}}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: cannot be read: {error}") from error
    return filesystem, path
