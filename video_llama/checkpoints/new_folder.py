"""Make a folder that is there whole or not at all."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from video_llama.common.atomic import sync
from video_llama.common.errors import WeightsError

log = logging.getLogger(__name__)

_LOCK = ".lock"


def check_free(target: Path) -> None:
    """Raise WeightsError where something is at the place of a new folder; an empty folder may be."""
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
        WeightsError: something is there, another process is making it, the disk has not enough room, or fails.
    """
    target = target.resolve()
    check_free(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with open(partial / _LOCK, "w") as lock:
            _take(lock.fileno(), partial)
            _empty(partial)
            try:
                _check_room(partial, n_bytes)
                yield partial
                (partial / _LOCK).unlink()
                for file in [*partial.iterdir(), partial]:
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
    left = [file for file in partial.iterdir() if file.name != _LOCK]
    if left:
        log.info("%s: removing %d files of a run that did not end", partial, len(left))
    for file in left:
        file.unlink()


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise WeightsError(
            f"{folder.parent}: {n_bytes / 1e9:.1f} GB are to be written, {free / 1e9:.1f} GB are free on this disk"
        )
