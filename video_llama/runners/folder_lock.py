"""One run for each output folder: a lock file that names the process which holds it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from video_llama.common.errors import TrainingError

log = logging.getLogger(__name__)

LOCK = "run.lock"


@contextmanager
def locked(folder: Path, setting: str = "run.output_dir") -> Iterator[None]:
    """Hold the lock of an output folder, which is made if it is missing.

    The lock ends with its process, however that ends: the operating system holds it, not the file. The file only says
    who it is.

    Args:
        folder: the folder.
        setting: what names it, for messages.
    Raises:
        TrainingError: another process holds it, or the folder cannot be made or written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquired(path, setting)
    except OSError as error:
        raise TrainingError(f"{setting}: {folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _acquired(path: Path, setting: str) -> int:
    """Return the locked, open file. Locks of fcntl, unlike those of flock, are not shared with loader processes."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise TrainingError(
                f"{setting}: {path.parent} is in use by {_named(_holder(file))}. Wait for that run, end it, or choose "
                "another folder."
            ) from error
        if os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path)):
            break
        os.close(file)  # its holder has just removed it
    if holder := _holder(file):
        log.info("%s: %s was left by %s, which is gone", setting, path.parent, _named(holder))
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().isoformat(timespec="seconds")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(mine).encode() + b"\n", 0)
    return file


def is_held(folder: Path) -> bool:
    """Return whether another process holds the lock of a folder. Nothing is written.

    Not for the process that holds it itself: closing the file ends its lock.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    finally:
        os.close(file)
    return False


def _holder(file: int) -> dict[str, Any]:
    """Return what the file says of its process; empty if that was killed before it wrote."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _named(holder: dict[str, Any]) -> str:
    if not holder:
        return "another run"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
