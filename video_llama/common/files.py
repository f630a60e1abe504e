"""Atomic files and folders, and how to recognise leftovers of failed downloads."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from video_llama.common.errors import WeightsError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that is synced to disk and renamed onto it on success, removed on failure.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # the default for new files here; safetensors makes its files private
        yield temporary
        os.chmod(temporary, mode)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        if temporary.exists():
            temporary.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


log = logging.getLogger(__name__)

LOCK = ".lock"
"""A file in a folder that is being filled."""


def check_free(target: Path) -> None:
    """Raise WeightsError if the path of a new folder is taken; an empty folder is fine."""
    if target.exists() and not target.is_dir():
        raise WeightsError(f"{target}: a file is there; name a folder that does not exist yet")
    if target.is_dir() and any(target.iterdir()):
        raise WeightsError(f"{target}: is not empty, and nothing is overwritten; name a folder that does not exist yet")


@contextmanager
def new_folder(target: Path, n_bytes: int) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` at the end: synced to disk, then renamed.

    It is the hidden ``.NAME.partial`` beside the target. An error removes it. A killed process leaves it behind; the
    next one for the same target starts by emptying it.

    Args:
        target: absent, or an empty folder.
        n_bytes: what will be written into it.

    Raises:
        WeightsError: the path is taken, another process is writing it, or the disk is full or fails.
    """
    target = target.resolve()
    check_free(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with open(partial / LOCK, "w") as lock:
            _take(lock.fileno(), partial)
            _empty(partial)
            try:
                _check_room(partial, n_bytes)
                yield partial
                (partial / LOCK).unlink()
                for file in [*partial.rglob("*"), partial]:
                    sync(file)
                partial.replace(target)
                sync(target.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written, and nothing of it is left ({error})") from error


def _take(lock: int, partial: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise WeightsError(f"{partial}: another process is writing there; wait for it, or end it") from error


def _empty(partial: Path) -> None:
    """Remove what a killed process left."""
    left = [file for file in partial.iterdir() if file.name != LOCK]
    if left:
        log.info("%s: removing %d files and folders of an unfinished run", partial, len(left))
    for file in left:
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise WeightsError(
            f"{folder.parent}: {n_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on this disk"
        )


def wait_for_lock(lock: int, waiting: str) -> None:
    """Take the lock of an open file, which ends when it is closed; log a line first if another process holds it.

    Args:
        lock: file descriptor.
        waiting: the line.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("%s", waiting)
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextmanager
def one_at_a_time(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock file, made if it is not there, for the time of the block; where the file system has no locks, do without.

    Args:
        waiting: logged if another process holds it.
    Raises:
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            wait_for_lock(lock.fileno(), waiting)
        except OSError as error:
            log.debug("%s: no lock: %s", path, error)
        yield


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file, a megabyte at a time."""
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            yield block


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    for block in read_blocks(path):
        found.update(block)
    return found.hexdigest()


def encoded_line(record: Any) -> bytes:
    """Return a record as a line of JSON. Bytes of a file name that are not UTF-8 are escaped."""
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def read_json(path: Path) -> Any:
    """Return the content of a JSON file in a folder of weights.

    Raises:
        WeightsError: it is the result of a failed download, or not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: {failed_download(path) or f'not valid JSON ({error})'}") from error


def failed_download(path: Path) -> str | None:
    """Return what a file is and what to do, if it is a usual leftover of a failed download; else None."""
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "an empty file. Download it again."
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself. Run `git lfs pull` in its folder."
    if start[:5].lower() in (b"<!doc", b"<html"):
        return "a web page, not the file itself. Download it again; the page may say why it was sent."
    return None
