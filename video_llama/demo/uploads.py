"""Files that visitors sent: only they can be named in a request."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from video_llama.common.errors import VideoLlamaError


def uploaded_file(payload: Any, folder: Path) -> Path:
    """Return the file that a request names.

    Args:
        payload: what the browser sent: ``{"path": ...}``, with more that is not looked at.
        folder: where uploads are.
    Raises:
        VideoLlamaError: it is no path, or not one in the folder.
    """
    path = _inside(payload.get("path") if isinstance(payload, dict) else None, folder)
    if path is None:
        raise VideoLlamaError("Not a file that was uploaded here: choose one with the page, or upload it first.")
    return path


def check_paths(data: Any, folder: Path) -> None:
    """Look through a request for paths outside the folder; addresses count as such.

    Raises:
        VideoLlamaError: there is one.
    """
    for path in _paths(data):
        if _inside(path, folder) is None:
            raise VideoLlamaError("A path in the request is not that of an uploaded file. Nothing is fetched or read.")


def remove(path: Path) -> None:
    """Remove an uploaded file, and its folder if nothing else is in it."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # something else is in it, or it is gone
        return


def remove_old(folder: Path, keep: Collection[Path], older_than_s: float) -> None:
    """Remove files that nobody holds: what was uploaded and never shown, and what was cut off while it came."""
    now = time.time()
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in keep]:
        try:
            old = now - path.stat().st_mtime > older_than_s
        except FileNotFoundError:  # a session ended meanwhile
            continue
        if old:
            remove(path)


def _inside(path: Any, folder: Path) -> Path | None:
    """Return the real path; None where it is not below the folder."""
    if not isinstance(path, str) or "\0" in path or not os.path.isabs(path):
        return None
    real = Path(os.path.realpath(path))
    return real if real.is_relative_to(os.path.realpath(folder)) else None


def _paths(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        if "path" in data:
            yield data["path"]
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from _paths(item)
